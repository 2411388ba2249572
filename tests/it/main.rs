//! The real binary over real sockets: one test binary, one file a topic, in the words of the harness.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what went wrong by panicking")]

mod harness;

mod access_log;
mod actions;
mod admin;
mod bad;
mod balancing;
mod cache_admin;
mod caching;
mod cli;
mod conf;
mod discovery;
mod docs;
mod document;
mod errors;
mod failover;
mod filters;
mod forwarded;
mod headers;
mod health;
mod house;
mod http2;
mod limits;
mod limits_upstream;
mod listening;
mod mirror;
mod pipelining;
mod process;
mod reload;
mod retries;
mod routing;
mod sticky;
mod timeouts;
mod upstreams;
mod websocket;
