//! Diagnostics: what the gateway and its libraries have to say beside the access log, on standard error.
//!
//! Pingora reports many things a client can cause at will, at `error`, one line each. They would drown what matters, and
//! a stranger could fill a disk with them. So at `info` and below its noisy parts are turned down (`TAMED`); at
//! `debug` and `trace`, and for a part that the filter names itself, nothing is held back.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::diag::{Scope, suggest};

/// What is told when the document says nothing.
pub const DEFAULT_LEVEL: &str = "warn";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The noisy parts, each with the most that it may say at `info` and below, and why.
const TAMED: &[(&str, LevelFilter)] = &[
    // "Fail to proxy …", at error for each failed request or client that went away: the access log's `failure` and the
    // counters say it.
    ("pingora_proxy", LevelFilter::OFF),
    // Except that a fault of the cache's storage is told nowhere else.
    ("pingora_proxy::proxy_cache", LevelFilter::WARN),
    // "HTTP server fails to read from downstream", "H2 handshake error": at error for each client that sends rubbish.
    ("pingora_core::apps", LevelFilter::OFF),
    // "failed to acquire reusable stream", at error: a harmless race between two requests for one idle connection, after
    // which the one makes a new connection. Failures to connect are not logged here but returned, and counted.
    ("pingora_core::connectors", LevelFilter::OFF),
    // Bad `Content-Length`, more data than announced …: at warn for each such message of client or backend. What is
    // at error here would be a fault of the program.
    ("pingora_core::protocols", LevelFilter::ERROR),
    // Data on an idle connection, at warn for each connection that a backend closes badly.
    ("pingora_pool", LevelFilter::ERROR),
    // A dozen lines at info for each start, stop and service; the gateway tells its own.
    ("pingora_core::server", LevelFilter::WARN),
    ("pingora_core::services", LevelFilter::WARN),
    // Alerts sent and received, at warn for each failed handshake.
    ("rustls", LevelFilter::ERROR),
];

/// How much is told: a level, or directives by target.
#[derive(Clone, Debug)]
pub struct Level(String);

impl Default for Level {
    fn default() -> Self {
        Self(tamed(DEFAULT_LEVEL))
    }
}

impl Level {
    /// Compiles the text of `level:`. Reports what is wrong at `at` and answers `None` then.
    pub fn build(text: &str, at: &Scope<'_>) -> Option<Self> {
        for directive in directives(text) {
            // The filter would take a bare word for a target of which all is told, and so a slip for a flood.
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
            let known = LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known));
            if !known && !directive.ends_with(']') {
                let hint = suggest::did_you_mean(level, LEVELS).unwrap_or_else(|| {
                    format!("write one of {}, or directives as in `warn,edgeway::upstream=debug`", LEVELS.join(", "))
                });
                at.error_hint(format!("`{level}` is no log level"), hint);
                return None;
            }
        }
        let level = Self(tamed(if text.trim().is_empty() { DEFAULT_LEVEL } else { text }));
        match level.filter() {
            Ok(_) => Some(level),
            Err(fault) => {
                at.error_hint(
                    format!("`{text}` is no log filter: {fault}"),
                    "write directives as in `warn,edgeway::upstream=debug`",
                );
                None
            }
        }
    }

    fn filter(&self) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
        EnvFilter::builder().with_regex(false).parse(&self.0)
    }
}

fn directives(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|directive| !directive.is_empty())
}

fn level(text: &str) -> Option<LevelFilter> {
    LEVELS.iter().any(|known| text.eq_ignore_ascii_case(known)).then(|| text.parse().ok()).flatten()
}

/// The filter's text with the noisy parts turned down, as far as it does not name them itself or asks for `debug`.
fn tamed(text: &str) -> String {
    let base = directives(text).filter_map(level).last().unwrap_or(LevelFilter::OFF);
    let mut all = String::new();
    if base <= LevelFilter::INFO {
        for (part, most) in TAMED {
            let named = directives(text)
                .filter(|directive| level(directive).is_none())
                .any(|directive| part.starts_with(directive.split(['=', '[']).next().unwrap_or_default()));
            if !named {
                all += &format!("{part}={},", (*most).min(base));
            }
        }
    }
    all + text
}

/// The running diagnostics, whose level may change.
pub struct Diagnostics {
    handle: reload::Handle<EnvFilter, Registry>,
    /// `RUST_LOG` is set, and wins over every document.
    from_environment: bool,
}

impl Diagnostics {
    /// Begins to write to standard error what `tracing` and `log` are told, at `level`, or as `RUST_LOG` says when it is
    /// set. Once a process: where somebody has done so before, that stays.
    pub fn start(level: &Level) -> Self {
        let wanted = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
        let (wanted, fault) = match wanted.map(|text| Level(tamed(&text)).filter()) {
            Some(Ok(filter)) => (Some(filter), None),
            Some(Err(fault)) => (None, Some(fault)),
            None => (None, None),
        };
        let from_environment = wanted.is_some();
        // Parsing the level's text cannot fail: `build` has done it.
        let filter = wanted.or_else(|| level.filter().ok()).unwrap_or_default();
        let (filter, handle) = reload::Layer::new(filter);
        let coloured =
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(coloured);
        let begun = tracing_subscriber::registry().with(filter).with(lines).try_init();
        if let Some(fault) = fault {
            tracing::warn!("RUST_LOG is ignored: {fault}");
        }
        if let Err(fault) = begun {
            tracing::debug!("diagnostics run already: {fault}");
        }
        Self { handle, from_environment }
    }

    /// Changes the level, as at a reload. `RUST_LOG` still wins.
    pub fn set_level(&self, level: &Level) {
        if self.from_environment {
            return;
        }
        let Ok(filter) = level.filter() else { return };
        let most = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
        if let Err(fault) = self.handle.reload(filter) {
            tracing::warn!("the log level stays as it was: {fault}");
            return;
        }
        // The bridge from `log` asks this first, and set it only once.
        log::set_max_level(match most {
            LevelFilter::OFF => log::LevelFilter::Off,
            LevelFilter::ERROR => log::LevelFilter::Error,
            LevelFilter::WARN => log::LevelFilter::Warn,
            LevelFilter::INFO => log::LevelFilter::Info,
            LevelFilter::DEBUG => log::LevelFilter::Debug,
            LevelFilter::TRACE => log::LevelFilter::Trace,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use std::io;
    use std::sync::{Arc, Mutex};

    fn built(text: &str) -> Result<Level, (String, String)> {
        let issues = Issues::default();
        Level::build(text, &issues.root()).ok_or_else(|| {
            let issue = issues.into_vec().remove(0);
            (issue.message, issue.hint.unwrap_or_default())
        })
    }

    #[test]
    fn a_slip_in_a_level_is_told() {
        for sound in ["warn", "INFO", "off", "", "warn,edgeway::upstream=debug", "edgeway[request]=trace", "a[b]"] {
            assert!(built(sound).is_ok(), "{sound}");
        }
        for (text, message, hint) in [
            ("wran", "`wran` is no log level", "did you mean `warn`?"),
            ("warn,edgeway=verbose", "`verbose` is no log level", "write one of off, error"),
            ("edgeway", "`edgeway` is no log level", "write one of"),
            ("x[=warn", "is no log filter", "directives"),
        ] {
            let told = built(text).expect_err(text);
            assert!(told.0.contains(message) && told.1.contains(hint), "{text}: {told:?}");
        }
    }

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Heard {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_noisy_parts_of_pingora_are_turned_down_unless_asked_for() {
        for (text, heard) in [
            ("warn", "own cache"),
            ("info", "own own-info cache"),
            ("error", "own"),
            ("off", ""),
            ("debug", "own own-info proxy cache connectors server"),
            ("warn,pingora_proxy=error", "own proxy"),
            ("warn,pingora_core=info", "own cache connectors server"),
            ("edgeway=warn", "own"),
        ] {
            let log = Heard::default();
            let writer = log.clone();
            let filter = built(text).unwrap().filter().unwrap();
            let lines = fmt::layer().with_writer(move || writer.clone()).with_ansi(false).without_time();
            let subscriber = tracing_subscriber::registry().with(filter).with(lines);
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(target: "edgeway::x", "own");
                tracing::info!(target: "edgeway::x", "own-info");
                tracing::error!(target: "pingora_proxy", "proxy");
                tracing::warn!(target: "pingora_proxy::proxy_cache", "cache");
                tracing::error!(target: "pingora_core::connectors", "connectors");
                tracing::info!(target: "pingora_core::server", "server");
            });
            let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            let words: Vec<_> = said.lines().filter_map(|line| line.rsplit_once(' ')).map(|(_, word)| word).collect();
            assert_eq!(words.join(" "), heard, "{text}");
        }
    }

    #[test]
    fn the_level_changes_while_running() {
        // RUST_LOG of whoever runs the tests would win here too.
        let diagnostics = Diagnostics { from_environment: false, ..Diagnostics::start(&Level::default()) };
        for (text, most) in [("debug", log::LevelFilter::Debug), ("warn", log::LevelFilter::Warn)] {
            diagnostics.set_level(&built(text).unwrap());
            assert_eq!(log::max_level(), most, "{text}");
        }
    }
}
