//! The commands: `run`, `check`, `explain`, `schema`, `demo`, `health`, `completions`.

mod demo;
mod explain;

use std::io::{IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::Config;
use crate::config::load::Document;
use crate::config::process::Admin;
use crate::gateway::{self, Environment, Gateway};
use crate::keep::Keep;
use crate::server::{self, Start};

/// A programmable edge gateway: reverse proxy, load balancer and request filter, driven by one YAML file.
#[derive(Parser)]
#[command(name = "edgeway", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve, as the document says, until SIGTERM (drains) or SIGINT (stops at once)
    ///
    /// SIGHUP reads the document again: all of it is taken, or the old one stays in force. SIGUSR1 reopens log files.
    Run {
        /// The document
        #[arg(default_value = "edgeway.yaml")]
        file: PathBuf,
    },
    /// Check a document, and tell every fault with its line and how to mend it
    Check {
        /// The document
        file: PathBuf,
    },
    /// Tell which route, filters, rewrite, upstream and backend a request would take, and why not the others
    Explain(explain::Request),
    /// Print the JSON schema of the document, for editors and checkers
    Schema {
        /// Print the reference page in Markdown instead
        #[arg(long)]
        markdown: bool,
    },
    /// Start a gateway and three tiny origins of its own, and tell what to try; needs no file
    Demo(demo::Options),
    /// Ask a running gateway whether it is well; for container health checks
    Health {
        /// Its admin address
        #[arg(default_value = Admin::DEFAULT)]
        address: String,
    },
    /// Print the completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line. 0: done; 1: a fault in the document or while starting; 2: a fault in the command line.
pub fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run { file } => run(&file),
        Command::Check { file } => check(&file),
        Command::Explain(request) => explain::explain(&request),
        Command::Schema { markdown } => print(&schema(markdown)),
        Command::Demo(options) => demo::demo(&options),
        Command::Health { address } => health(&address),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "edgeway", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            tell(&report);
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output. A reader that has left (`| head`) is no fault.
fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("error: cannot write: {error}")),
        _ => Ok(()),
    }
}

/// Writes to standard error, for people.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

/// Colours are for people at a terminal who did not refuse them (no-color.org).
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn run(file: &Path) -> Result<(), String> {
    let document = Document::read(file).map_err(|broken| broken.report(colour()))?;
    serve(&document, Some(file.to_owned()), |_| {})
}

/// Serves a document that was read.
fn serve(document: &Document, path: Option<PathBuf>, ready: impl FnOnce(&Gateway)) -> Result<(), String> {
    let keep = Arc::new(Keep::default());
    let stats = Arc::default();
    let folder = path.as_deref().map_or(Path::new(""), gateway::folder);
    let environment = Environment { generation: 1, folder, keep: &keep, stats: &stats };
    let checked = gateway::check_document(document, &environment, colour())?;
    if !checked.warnings.is_empty() {
        tell(&checked.warnings);
    }
    server::run(Start { checked, path, keep, stats }, ready)
}

fn check(file: &Path) -> Result<(), String> {
    let checked = gateway::check(file, colour())?;
    if !checked.warnings.is_empty() {
        tell(&checked.warnings);
    }
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    print(&format!(
        "{}: ok ({}, {}, {}, {})\n",
        file.display(),
        count(checked.config.listeners.len(), "listener"),
        count(checked.config.sites.len(), "site"),
        count(checked.compiled.snapshot.routes.routes.len(), "route"),
        count(checked.compiled.snapshot.upstreams.len(), "upstream"),
    ))
}

/// The JSON schema of the document, or the reference page made from it.
fn schema(markdown: bool) -> String {
    let schema = schemars::schema_for!(Config).to_value();
    if markdown { crate::config::schema::markdown(&schema) } else { format!("{schema:#}\n") }
}

fn health(address: &str) -> Result<(), String> {
    let told = |error: std::io::Error| format!("error: {address} does not answer: {error}");
    let limit = std::time::Duration::from_secs(5);
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = if let Some(path) = address.strip_prefix("unix:") {
        let stream = std::os::unix::net::UnixStream::connect(path).map_err(told)?;
        stream.set_read_timeout(Some(limit)).map_err(told)?;
        ask(stream, request).map_err(told)?
    } else {
        let address = address.parse().map_err(|error| format!("error: `{address}` is no address: {error}"))?;
        let stream = std::net::TcpStream::connect_timeout(&address, limit).map_err(told)?;
        stream.set_read_timeout(Some(limit)).map_err(told)?;
        ask(stream, request).map_err(told)?
    };
    let status = answer.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => print("ready\n"),
        _ => Err(format!("error: {address} answers with status {status}")),
    }
}

fn ask(mut stream: impl Read + Write, request: &[u8]) -> std::io::Result<String> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    Read::take(stream, 64 * 1024).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
