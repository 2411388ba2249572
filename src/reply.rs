//! `Reply`: a whole response that the gateway gives itself: a refusal, a redirect, a fixed answer, an error page.
//!
//! A reply is a value. Filters and actions return one; only `proxy/respond.rs` writes it. Cloning costs reference counts.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode};

/// A whole response of the gateway's own.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status of the response.
    pub status: StatusCode,
    /// Its header fields, without `Content-Length` (added when it is written).
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What it carries. `None`: an error page made for this status, as the client accepts it.
    pub body: Option<Bytes>,
    /// Whether the connection must close after it, as when the request cannot be read further.
    pub close: bool,
}

impl Reply {
    /// The gateway's error page for `status`.
    pub fn error(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: None, close: false }
    }

    /// A response with this body.
    pub fn with_body(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Self {
        Self { status, headers: vec![(CONTENT_TYPE, content_type)], body: Some(body), close: false }
    }

    /// This reply with one more header field.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// This reply, closing the connection after it.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}
