//! `Request`: what has come of a request when its head is whole.

use bytes::BytesMut;

/// A request as far as it has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) bytes: BytesMut,
    /// How many of the bytes are its head.
    pub(super) head: usize,
    /// Whether nothing of it can follow the head: neither a body nor, after an upgrade, another protocol. What follows
    /// is then a further request.
    pub(super) bodiless: bool,
}
