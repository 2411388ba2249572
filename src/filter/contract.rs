//! What a filter is: when it is called, what it sees, and what it may decide.
//!
//! A filter sees a head and the [`Exchange`]; never a session, another filter or the document. It answers with a
//! [`Decision`] and never writes, so its test needs no sockets.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pingora::http::{RequestHeader, ResponseHeader};

use crate::diag::Scope;
use crate::exchange::{Exchange, Facts};
use crate::keep::Keep;
use crate::reply::Reply;

/// What a filter may need of its surroundings to compile itself.
#[derive(Clone, Copy)]
pub struct BuildContext<'a> {
    /// The names that the route's path gives to templates; none for the filters of a site.
    pub captures: &'a [Box<str>],
    /// What outlives a reload: counters, buckets.
    pub keep: &'a Keep,
    /// Whose filters these are, as [`RouteStats::key`](crate::observe::RouteStats::key) says it; a site's own have an
    /// empty route.
    pub owner: &'a str,
}

/// A filter as it is written, of whatever kind: the registry's `Config`.
pub trait Build {
    /// The filter's name, as it is written.
    fn name(&self) -> &'static str;

    /// Compiles the filter; reports what is wrong with it below `at` (the place of the list's item).
    fn build(&self, context: &BuildContext<'_>, at: &Scope<'_>) -> Option<Arc<dyn Filter>>;
}

/// When a filter wants to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Once the route is known, before anything is sent upstream.
    Request,
    /// On the head of the response, before the client gets it.
    Response,
}

/// What a filter decides on a request.
#[derive(Debug)]
pub enum Decision {
    /// The next filter may look.
    Continue,
    /// The client gets this, and no backend sees the request.
    Reply(Box<Reply>),
}

/// A decision at once, or after real I/O.
pub enum Flow<'a> {
    /// Decided: costs no boxed future.
    Now(Decision),
    /// Decided after I/O.
    Later(Pin<Box<dyn Future<Output = Decision> + Send + 'a>>),
}

impl Flow<'_> {
    /// The next filter may look.
    pub const CONTINUE: Self = Self::Now(Decision::Continue);

    /// The client gets this reply.
    pub fn reply(reply: Reply) -> Self {
        Self::Now(Decision::Reply(Box::new(reply)))
    }
}

/// One filter of a route, compiled.
pub trait Filter: Send + Sync {
    /// The phases in which it wants to be called.
    fn phases(&self) -> &'static [Phase];

    /// Looks at a request, may change its head, and decides. `route` is the name of the route taken.
    fn request<'a>(&'a self, head: &'a mut RequestHeader, exchange: &'a mut Exchange, route: &'a str) -> Flow<'a> {
        let _ = (head, exchange, route);
        Flow::CONTINUE
    }

    /// May change the head of a response. `facts.response` is `None`: the head itself is in `head`.
    fn response(&self, head: &mut ResponseHeader, facts: &Facts<'_>) {
        let _ = (head, facts);
    }
}
