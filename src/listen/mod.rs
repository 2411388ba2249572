//! Sockets and protocols: our own accept loop, as a Pingora service.
//!
//! [`Listeners`] owns the listening sockets and changes them while the process runs. [`Acceptor`] is the service that
//! takes connections off them and hands each request to the one shared proxy. The life of a connection:
//!
//! ```text
//! accept -> limits -> head (we read the whole request head) -> HTTP/1: one Pingora session per request
//!                                                           -> HTTP/2: Pingora's loop, watched by ours
//! ```
//!
//! Between two requests a connection holds no session and no buffer, so idle ones cost next to nothing.

mod accept;
mod address;
mod alarm;
mod bind;
mod closing;
mod config;
mod connection;
mod head;
mod http1;
mod http2;
mod left;
mod limits;
mod listeners;
mod request;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

pub use accept::Acceptor;
pub use address::Address;
pub use config::{Config, SendRate, Timeouts, check};
pub use connection::{Connection, Peer, Settings};
pub use left::client_left;
pub use limits::{Limits, LimitsConfig, Refusals};
pub use listeners::{BindFault, Listeners, Prepared};
