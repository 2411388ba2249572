//! `Answer`: what an endpoint tells.

use std::pin::Pin;

use http::StatusCode;
use serde_json::Value;

/// What an endpoint will tell.
pub(super) type Later<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// What an endpoint tells.
pub(super) struct Answer {
    /// The status of the response.
    pub(super) status: StatusCode,
    /// What its body is.
    pub(super) content_type: &'static str,
    /// Its body.
    pub(super) body: Vec<u8>,
    /// The methods that there are, when it was asked by another.
    pub(super) allow: Option<&'static str>,
}

impl Answer {
    /// Plain text.
    pub(super) fn text(status: StatusCode, body: String) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into_bytes(), allow: None }
    }

    /// JSON, for people too.
    pub(super) fn json(value: &Value) -> Self {
        let body = format!("{value:#}\n").into_bytes();
        Self { status: StatusCode::OK, content_type: "application/json", body, allow: None }
    }

    /// It was asked by a method that it does not have.
    pub(super) fn other_method(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allow}\n")) }
    }
}
