//! The access log: one line a request, formatted on the request's thread, written by another.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::counters::ProcessStats;
use super::log_format::Format;
use super::log_writer::{Target, Writer};
use crate::diag::Scope;
use crate::exchange::Facts;
use crate::keep::Keep;

/// The room that a line starts with; most are shorter, so that it need not grow.
const LINE_BYTES: usize = 768;

/// The access logs to write: `none`, a format (`json`, `combined` or a text), which then goes to standard output, one
/// output, or a list of outputs. Default: `json`.
#[derive(Clone, Debug)]
pub enum Config {
    /// Only a format, or `none`.
    Short(String),
    /// Every output by itself.
    Outputs(Vec<Output>),
}

/// One access log: where to, and how.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AccessLogOutput")]
pub struct Output {
    /// `stdout` (the default), or the path of a file. The file is appended to, created with mode 0640 if need be, and
    /// opened again on SIGUSR1, as after rotation. Its folder must exist.
    #[serde(default = "stdout")]
    pub to: String,
    /// `json` (the default): one JSON object a line. `combined`: the combined format of Apache and nginx. Or a text with
    /// fields in it, as in `${client.ip} ${request.method} ${response.status} ${duration_ms}`; in what the fields say,
    /// `"`, `\`, control characters and whatever is not ASCII are written as `\xHH`.
    #[serde(default = "json")]
    pub format: String,
}

fn stdout() -> String {
    "stdout".into()
}

fn json() -> String {
    "json".into()
}

impl Default for Config {
    fn default() -> Self {
        Self::Short(json())
    }
}

impl Config {
    /// Compiles the outputs. Writers that `keep` holds for the same target go on; reports what is wrong at `at`.
    pub fn build(&self, keep: &Keep, stats: &Arc<ProcessStats>, at: &Scope<'_>) -> AccessLog {
        let writer = |target: Target| {
            let key = match &target {
                Target::Stdout => String::new(),
                Target::File(path) => path.display().to_string(),
            };
            keep.get_or(&key, || Writer::new(target, Arc::clone(stats)))
        };
        let outputs = match self {
            Self::Short(text) if text == "none" => Vec::new(),
            Self::Short(text) => {
                Format::build(text, at).map(|format| (format, writer(Target::Stdout))).into_iter().collect()
            }
            Self::Outputs(outputs) => {
                let build = |(index, output): (usize, &Output)| {
                    let at = at.index(index);
                    let format = Format::build(&output.format, &at.key("format"));
                    let target = target(&output.to, &at.key("to"));
                    Some((format?, writer(target?)))
                };
                outputs.iter().enumerate().filter_map(build).collect()
            }
        };
        AccessLog { outputs }
    }
}

/// Where `to` leads, written so that one file has one name.
fn target(to: &str, at: &Scope<'_>) -> Option<Target> {
    if to == "stdout" {
        return Some(Target::Stdout);
    }
    let path = Path::new(to);
    let Some(name) = path.file_name() else {
        at.error_hint(format!("`{to}` names no file"), "write `stdout` or the path of a file");
        return None;
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Ok(folder) = folder.canonicalize().map_err(|fault| {
        at.error_hint(
            format!("the folder of `{to}` cannot be used: {fault}"),
            format!("create `{}`, or write `stdout`", folder.display()),
        );
    }) else {
        return None;
    };
    let path: PathBuf = folder.join(name);
    if path.is_dir() || to.ends_with('/') {
        at.error_hint(format!("`{to}` is a folder"), "add the name of the file, as in `access.log`");
        return None;
    }
    Some(Target::File(path))
}

/// The access logs in force. Without outputs it costs nothing.
#[derive(Default)]
pub struct AccessLog {
    outputs: Vec<(Format, Arc<Writer>)>,
}

impl AccessLog {
    /// Starts the writers and creates their files. Without this the first line does.
    pub fn start(&self) {
        self.outputs.iter().for_each(|(_, writer)| writer.start());
    }

    /// Writes one line for a finished request.
    pub fn record(&self, facts: &Facts<'_>) {
        for (format, writer) in &self.outputs {
            let mut line = Vec::with_capacity(LINE_BYTES);
            format.write(facts, &mut line);
            line.push(b'\n');
            writer.push(line);
        }
    }

    /// Writes one short line for a request that was refused before it could be read.
    pub fn record_refused(&self, client: IpAddr, status: u16, reason: &'static str) {
        for (format, writer) in &self.outputs {
            let mut line = Vec::with_capacity(LINE_BYTES / 4);
            format.write_refused(client, status, reason, &mut line);
            line.push(b'\n');
            writer.push(line);
        }
    }

    /// Has every file closed and opened again by its name, as after rotation. Does not wait.
    pub fn reopen(&self) {
        self.outputs.iter().for_each(|(_, writer)| writer.reopen());
    }

    /// Waits until all lines recorded so far are written, or `within` is over; tells whether they are. For the end of
    /// the process: dropping the log also writes what is queued, but without anybody waiting for it.
    pub fn flush(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        // Not `all`: after one that fails the others are still to be flushed.
        self.outputs.iter().fold(true, |all, (_, writer)| writer.flush(deadline) && all)
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.outputs.iter().map(|(format, _)| format)).finish()
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Outputs;
        impl<'de> Visitor<'de> for Outputs {
            type Value = Config;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`none`, a log format, or a list of outputs")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Config, E> {
                Ok(Config::Short(text.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Config, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Config::Outputs)
            }
            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Config, A::Error> {
                Output::deserialize(MapAccessDeserializer::new(entries)).map(|output| Config::Outputs(vec![output]))
            }
        }
        deserializer.deserialize_any(Outputs)
    }
}

impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "AccessLog".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let output = generator.subschema_for::<Output>();
        json_schema!({ "anyOf": [{ "type": "string" }, output, { "type": "array", "items": output }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use crate::exchange::Exchange;
    use pingora::http::RequestHeader;
    use std::fs;

    fn config(yaml: &str) -> Config {
        serde_yaml::from_str(yaml).unwrap_or_else(|fault| panic!("{yaml}: {fault}"))
    }

    fn built(yaml: &str, keep: &Keep) -> Result<AccessLog, Vec<(String, String)>> {
        let issues = Issues::default();
        let log = config(yaml).build(keep, &Arc::default(), &issues.root().key("access"));
        if !issues.has_errors() {
            return Ok(log);
        }
        Err(issues.into_vec().into_iter().map(|issue| (issue.path.to_string(), issue.message)).collect())
    }

    fn record(log: &AccessLog, path: &str) {
        let request = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
        let exchange = Exchange::new();
        log.record(&Facts {
            request: &request,
            exchange: &exchange,
            response: None,
            route: "",
            upstream: "",
            backend: "",
        });
    }

    #[test]
    fn outputs_are_written_short_or_long() {
        for (yaml, outputs) in [
            ("none", 0),
            ("[]", 0),
            ("json", 1),
            ("combined", 1),
            ("'${client.ip}'", 1),
            ("{}", 1),
            ("[{ to: stdout, format: json }, { to: /dev/null }]", 2),
        ] {
            assert_eq!(built(yaml, &Keep::default()).expect(yaml).outputs.len(), outputs, "{yaml}");
        }
        assert!(serde_yaml::from_str::<Config>("[{ too: stdout }]").is_err());
    }

    #[test]
    fn a_wrong_output_is_told_with_its_place() {
        for (yaml, path, message) in [
            ("jsno", "access", "`jsno` is no log format"),
            ("[{ format: x }]", "access[0].format", "`x` is no log format"),
            ("[{ to: stdout }, { to: /no/such/folder/a.log }]", "access[1].to", "the folder of"),
            ("{ to: /tmp }", "access[0].to", "is a folder"),
            ("{ to: '' }", "access[0].to", "names no file"),
            ("{ to: .. }", "access[0].to", "names no file"),
        ] {
            let told = built(yaml, &Keep::default()).expect_err(yaml);
            assert_eq!(told[0].0, path, "{yaml}");
            assert!(told[0].1.contains(message), "{yaml}: {told:?}");
        }
    }

    #[test]
    fn two_documents_that_name_one_file_share_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let (keep, path) = (Keep::default(), folder.path().join("a.log"));
        let first = built(&format!("{{ to: {} }}", path.display()), &keep).unwrap();
        let second =
            built(&format!("{{ to: {}/./a.log, format: '${{request.path}}' }}", folder.path().display()), &keep);
        let second = second.unwrap();
        assert!(Arc::ptr_eq(&first.outputs[0].1, &second.outputs[0].1));
        assert!(!path.exists(), "a document that is only checked creates nothing");
        record(&first, "/one");
        drop(first);
        record(&second, "/two");
        second.record_refused("10.0.0.1".parse().unwrap(), 431, "head_too_large");
        assert!(second.flush(Duration::from_secs(10)));
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains("\"path\":\"/one\""), "{text}");
        assert_eq!(lines[1..], ["/two", "*"]);
    }
}
