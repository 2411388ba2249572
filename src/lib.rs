//! edgeway: a programmable edge gateway on Pingora.
//!
//! One YAML document becomes one immutable snapshot; each request keeps the snapshot it began under.
//! The code lies in floors, and a module imports only from floors below its own:
//!
//! ```text
//! 11  cli                                         the commands
//! 10  server                                      the process
//!  9  proxy    admin                              the two faces: clients, operators
//!  8  gateway                                     Config -> Snapshot, one atomic pointer
//!  7  config                                      the whole document
//!  6  route    listen                             compose features
//!  5  filter  action  upstream  cache  forwarded  features: siblings that never import one another
//!  4  field    observe                            tools with some size: header fields; counters and logs
//!  3  template                                    text with `${…}` in it
//!  2  exchange    http_client                    the facts of one request; the gateway's own requests
//!  1  units    diag     keep       reply          the ground
//! ```
//!
//! To follow a request, open `proxy/mod.rs`; to follow a document, open `gateway/compile.rs`.
//! `ARCHITECTURE.md` has the whole map, and `CONTRIBUTING.md` says where each kind of change goes.

pub mod action;
pub mod admin;
pub mod cache;
pub mod cli;
pub mod config;
pub mod diag;
pub mod exchange;
pub mod field;
pub mod filter;
pub mod forwarded;
pub mod gateway;
pub mod http_client;
pub mod keep;
pub mod listen;
pub mod observe;
pub mod proxy;
pub mod reply;
pub mod route;
pub mod server;
pub mod template;
pub mod units;
pub mod upstream;
