//! `edgeway health`: asks a running gateway whether it is ready.

use super::admin::ask;
use super::terminal::print;

pub(super) fn health(address: &str) -> Result<(), String> {
    match ask(address, "GET", "/readyz")?.0 {
        200 => print("ready\n"),
        status => Err(format!("error: {address} answers with status {status}")),
    }
}
