//! The commands: `run`, `check`, `explain`, `schema`, `demo`, `health`, `cache`, `purge`, `completions`.

mod admin;
mod cache;
mod demo;
mod explain;
mod health;
mod serve;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::Config;
use crate::config::load::Document;
use crate::config::process::Admin;
use crate::gateway;
use serve::serve;
use terminal::{colour, print, tell};

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
    /// Look at what a running gateway has stored, and purge it
    Cache(cache::Request),
    /// Declare stored responses of a running gateway void: short for `cache purge`
    Purge(cache::PurgeRequest),
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
        Command::Schema { markdown: true } => print(&Config::reference()),
        Command::Schema { markdown: false } => print(&format!("{:#}\n", Config::schema())),
        Command::Demo(options) => demo::demo(&options),
        Command::Health { address } => health::health(&address),
        Command::Cache(request) => cache::cache(&request),
        Command::Purge(request) => cache::purge(&request),
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

fn run(file: &Path) -> Result<(), String> {
    let document = Document::read(file).map_err(|broken| broken.report(colour()))?;
    serve(document, Some(file.to_owned()), |_| {})
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
