//! `Answer`: what an endpoint tells.

use http::StatusCode;

/// What an endpoint tells.
pub(super) struct Answer {
    /// The status of the response.
    pub(super) status: StatusCode,
    /// What its body is.
    pub(super) content_type: &'static str,
    /// Its body.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Plain text.
    pub(super) fn text(status: StatusCode, body: String) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into_bytes() }
    }
}
