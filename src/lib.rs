//! edgeway: a programmable edge gateway on Pingora.
//!
//! One YAML document becomes one immutable snapshot; each request keeps the snapshot it began under.
//! The code lies in floors, and a module imports only from floors below its own:
//!
//! ```text
//! 10  cli                              the commands
//!  9  server                           the process
//!  8  proxy    admin                   the two faces: clients, operators
//!  7  gateway                          Config -> Snapshot, one atomic pointer
//!  6  config                           the whole document
//!  5  route    listen                  compose features
//!  4  filter   action   upstream       features: siblings that never import one another
//!  3  field    template observe        tools with some size (`field` builds on `template`)
//!  2  exchange                         the facts of one request
//!  1  units    diag    keep    reply   the ground
//! ```
//!
//! To follow a request, open `proxy/mod.rs`; to follow a document, open `gateway/compile.rs`.
//! `ARCHITECTURE.md` has the whole map, and `CONTRIBUTING.md` says where each kind of change goes.

pub mod action;
pub mod admin;
pub mod cli;
pub mod config;
pub mod diag;
pub mod exchange;
pub mod field;
pub mod filter;
pub mod gateway;
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
