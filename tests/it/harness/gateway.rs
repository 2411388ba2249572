//! The gateway: the real binary as a child process, and its other commands.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::client::{Connection, Request, Response, get};
use super::names;
use super::origin::{Origin, reserved_port};
use super::wait::{DEADLINE, await_some, eventually, within};

const BINARY: &str = env!("CARGO_BIN_EXE_edgeway");

/// A running gateway. It is killed when dropped.
///
/// In its document `@listen`, `@second` and `@third` stand for addresses to listen at, `@port` for the port of `@listen`,
/// `@admin` for the operators' address, `@dir` for a directory of its own, and `@NAME` for the address of an origin.
/// Without `listeners` it listens at `@listen`, without `admin` at `@admin`.
pub(crate) struct Gateway {
    child: Child,
    place: Place,
    out: Lines,
    err: Lines,
}

/// Where a gateway lives: its directory, and what the words of its document stand for.
struct Place {
    dir: TempDir,
    words: Vec<(String, String)>,
}

impl Place {
    fn new(origins: &[&Origin]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = reserved_port();
        let local = |port: u16| format!("127.0.0.1:{port}");
        let mut words = vec![
            ("@listen".to_owned(), local(port)),
            ("@port".to_owned(), port.to_string()),
            ("@second".to_owned(), local(reserved_port())),
            ("@third".to_owned(), local(reserved_port())),
            ("@admin".to_owned(), local(reserved_port())),
            ("@dir".to_owned(), dir.path().display().to_string()),
        ];
        words.extend(origins.iter().map(|origin| (format!("@{}", origin.name()), origin.address().to_owned())));
        // The longest first: `@ab` is not `@a` and a `b`.
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        Self { dir, words }
    }

    fn fill(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }

    fn document(&self, yaml: &str) -> String {
        let has = |key: &str| yaml.lines().any(|line| line.starts_with(key));
        let mut document = String::new();
        if !has("admin:") {
            document += "admin: \"@admin\"\n";
        }
        if !has("listeners:") {
            document += "listeners: [\"@listen\"]\n";
        }
        self.fill(&(document + yaml))
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("edgeway.yaml")
    }

    /// Writes beside and renames: a watcher never sees half a document.
    fn write(&self, document: &str) {
        let beside = self.dir.path().join("edgeway.yaml.new");
        fs::write(&beside, document).and_then(|()| fs::rename(&beside, self.file())).expect("the document is written");
    }
}

/// The lines that a child has printed so far.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn of(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let shared = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                shared.0.lock().unwrap().push(line);
            }
        });
        lines
    }

    fn get(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// How a gateway is started. `Gateway::start` and `Gateway::before` are its short forms.
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    pub(crate) origins: &'a [&'a Origin],
    pub(crate) env: &'a [(&'a str, &'a str)],
    pub(crate) files: &'a [(&'a str, &'a str)],
    pub(crate) ready_within: Duration,
}

impl Default for Launch<'_> {
    fn default() -> Self {
        Self { program: Path::new(BINARY), origins: &[], env: &[], files: &[], ready_within: DEADLINE }
    }
}

impl Launch<'_> {
    pub(crate) fn start(&self, yaml: &str) -> Result<Gateway, String> {
        let mut attempt = self.attempt(yaml);
        // Someone else may have taken a port between our look and its binding: then others are tried.
        for _ in 0..2 {
            match &attempt {
                Err(error) if error.to_lowercase().contains("address already in use") => attempt = self.attempt(yaml),
                _ => break,
            }
        }
        attempt
    }

    fn attempt(&self, yaml: &str) -> Result<Gateway, String> {
        let place = Place::new(self.origins);
        for (name, content) in self.files {
            let path = place.dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("a directory");
            fs::write(path, place.fill(content)).expect("the file is written");
        }
        let document = place.document(yaml);
        place.write(&document);
        let mut child = Command::new(self.program)
            .arg("run")
            .arg(place.file())
            .env_remove("RUST_LOG")
            .envs(self.env.iter().copied())
            .current_dir(place.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", self.program.display()))?;
        let out = Lines::of(child.stdout.take().expect("its output is piped"));
        let err = Lines::of(child.stderr.take().expect("its diagnostics are piped"));
        let mut gateway = Gateway { child, place, out, err };
        let admin = admin_address(&document);
        let listen = gateway.address();
        let settled = within(self.ready_within, || {
            if let Ok(Some(status)) = gateway.child.try_wait() {
                return Some(Err(format!("{} ended ({status}) before it was ready", self.program.display())));
            }
            let ready = match &admin {
                Some(admin) => ask(admin, &get("/readyz")).is_ok_and(|response| response.status == 200),
                None => Connection::try_open(&listen).is_ok(),
            };
            ready.then_some(Ok(()))
        });
        let fault = match settled {
            Some(Ok(())) => return Ok(gateway),
            Some(Err(fault)) => fault,
            None => format!("{} was not ready within {:?}", self.program.display(), self.ready_within),
        };
        // The readers may still be at the last lines of a child that has ended.
        let said = within(Duration::from_millis(500), || Some(gateway.stderr()).filter(|said| !said.is_empty()));
        Err(format!("{fault}; it said:\n{}\nits document was:\n{document}", said.unwrap_or_default()))
    }
}

impl Gateway {
    /// Starts a gateway with this document and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(yaml: &str) -> Self {
        Self::before(&[], yaml)
    }

    /// Starts a gateway whose document may name these origins.
    #[track_caller]
    pub(crate) fn before(origins: &[&Origin], yaml: &str) -> Self {
        Self::launch(&Launch { origins, ..Launch::default() }, yaml)
    }

    /// Starts a gateway that finds these files beside its document.
    #[track_caller]
    pub(crate) fn with_files(origins: &[&Origin], files: &[(&str, &str)], yaml: &str) -> Self {
        Self::launch(&Launch { origins, files, ..Launch::default() }, yaml)
    }

    /// Starts a gateway that no file may grow in beyond so many KiB: to it, the disk is full.
    #[track_caller]
    pub(crate) fn with_small_files(origins: &[&Origin], kib: usize, yaml: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("edgeway");
        // `ulimit -f` counts 512 bytes; without the trap the signal would end it.
        let script = format!("#!/bin/sh\ntrap '' XFSZ\nulimit -f {}\nexec '{BINARY}' \"$@\"\n", kib * 2);
        fs::write(&program, script).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it can be run");
        Self::launch(&Launch { program: &program, origins, ..Launch::default() }, yaml)
    }

    /// Starts a gateway in this environment.
    #[track_caller]
    pub(crate) fn with_env(env: &[(&str, &str)], yaml: &str) -> Self {
        Self::launch(&Launch { env, ..Launch::default() }, yaml)
    }

    #[track_caller]
    fn launch(launch: &Launch<'_>, yaml: &str) -> Self {
        launch.start(yaml).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Where clients find it: `@listen`.
    pub(crate) fn address(&self) -> String {
        self.place.fill("@listen")
    }

    /// What a word of the document stands for.
    pub(crate) fn word(&self, word: &str) -> String {
        self.place.fill(word)
    }

    /// Its own directory.
    pub(crate) fn dir(&self) -> &Path {
        self.place.dir.path()
    }

    /// GETs a path on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.request(&get(path))
    }

    /// Sends a request on a connection of its own.
    #[track_caller]
    pub(crate) fn request(&self, request: &Request) -> Response {
        self.connect().request(request)
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.address())
    }

    /// GETs a path of the admin listener.
    #[track_caller]
    pub(crate) fn admin(&self, path: &str) -> Response {
        let admin = admin_address(&fs::read_to_string(self.place.file()).unwrap()).expect("an admin listener");
        ask(&admin, &get(path)).unwrap_or_else(|error| panic!("admin {path}: {error}"))
    }

    /// Sends a request to the admin listener.
    #[track_caller]
    pub(crate) fn admin_request(&self, request: &Request) -> Response {
        let admin = admin_address(&fs::read_to_string(self.place.file()).unwrap()).expect("an admin listener");
        ask(&admin, request).unwrap_or_else(|error| panic!("admin {}: {error}", request.target()))
    }

    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin("/metrics").text())
    }

    /// Waits until the samples of this name and these labels add up to `value`.
    #[track_caller]
    pub(crate) fn expect_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut last = None;
        let reached = within(DEADLINE, || {
            last = self.metrics().sum(name, labels);
            (last == Some(value)).then_some(())
        });
        assert!(reached.is_some(), "{name}{labels:?} is {last:?}, not {value}\n{}", self.metrics().list(name));
    }

    /// Puts another document in force; fails when it is refused.
    #[track_caller]
    pub(crate) fn reload(&self, yaml: &str) {
        assert!(self.try_reload(yaml), "the document was refused:\n{}", self.stderr());
    }

    /// Writes another document and tells the gateway to read it: whether it is in force now.
    #[track_caller]
    pub(crate) fn try_reload(&self, yaml: &str) -> bool {
        let count = |result: &[(&str, &str)]| self.metrics().sum(names::RELOADS, result).unwrap_or_default();
        let (done, refused) = (count(names::RELOADED), count(names::REFUSED));
        self.place.write(&self.place.document(yaml));
        self.signal("HUP");
        await_some("a reload or its refusal is counted", || {
            let refused = || (count(names::REFUSED) > refused).then_some(false);
            (count(names::RELOADED) > done).then_some(true).or_else(refused)
        })
    }

    /// Writes another document and says nothing.
    pub(crate) fn rewrite(&self, yaml: &str) {
        self.place.write(&self.place.document(yaml));
    }

    /// Sends a signal: `HUP`, `TERM`, `INT`, `USR1`.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// How it ended, if it does within this time.
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        within(limit, || self.child.try_wait().expect("the child can be asked"))
    }

    /// The lines of its standard output.
    pub(crate) fn stdout_lines(&self) -> Vec<String> {
        self.out.get()
    }

    /// Its diagnostics so far.
    pub(crate) fn stderr(&self) -> String {
        self.err.get().join("\n")
    }

    /// The lines of the access log on standard output, as JSON.
    pub(crate) fn log_lines(&self) -> Vec<Value> {
        self.out.get().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a line of the access log in which `field` has this value.
    #[track_caller]
    pub(crate) fn log_line(&self, field: &str, value: impl Into<Value>) -> Value {
        let value = value.into();
        let found = within(DEADLINE, || self.log_lines().into_iter().find(|line| line[field] == value));
        found.unwrap_or_else(|| panic!("no log line with {field} = {value} in {:#?}", self.stdout_lines()))
    }

    /// `edgeway check` of a document, with the words filled in.
    #[track_caller]
    pub(crate) fn check(yaml: &str) -> Output {
        Self::command(yaml, &["check", "edgeway.yaml"])
    }

    /// Any command, run in a directory where `edgeway.yaml` holds the document.
    #[track_caller]
    pub(crate) fn command(yaml: &str, arguments: &[&str]) -> Output {
        let place = Place::new(&[]);
        place.write(&place.document(yaml));
        edgeway(place.dir.path(), arguments, &[])
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the gateway said:\n{}", self.stderr());
        }
    }
}

/// Through the shell's own `kill`: the crate forbids `unsafe`, and so needs no binding of `kill(2)` either.
#[track_caller]
fn signal(process: u32, name: &str) {
    let status = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &process.to_string()]).status();
    assert!(status.expect("a shell").success(), "no signal {name} to process {process}");
}

fn ask(address: &str, request: &Request) -> std::io::Result<Response> {
    Connection::try_open(address)?.try_request(request)
}

/// Where a document has its admin listener; `None` when it has none.
fn admin_address(document: &str) -> Option<String> {
    let line = document.lines().find_map(|line| line.strip_prefix("admin:"))?;
    let value = line.trim().trim_start_matches("{ listen:").trim_end_matches('}');
    let value = value.trim().trim_matches(['"', '\'']);
    (value != "false").then(|| value.to_owned())
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Both, diagnostics first.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.stderr, self.stdout)
    }
}

/// Runs `edgeway` with these arguments; it must end by itself within the deadline.
#[track_caller]
pub(crate) fn edgeway(dir: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .current_dir(dir)
        .env_remove("RUST_LOG")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let read = |mut from: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut text = String::new();
            from.read_to_string(&mut text).map(|_| text).unwrap_or_default()
        })
    };
    let out = read(Box::new(child.stdout.take().expect("piped")));
    let err = read(Box::new(child.stderr.take().expect("piped")));
    let status = within(DEADLINE, || child.try_wait().expect("the child can be asked"));
    if status.is_none() {
        child.kill().expect("it can be killed");
        child.wait().expect("it was killed");
    }
    let (stdout, stderr) = (out.join().expect("read"), err.join().expect("read"));
    let status = status.unwrap_or_else(|| panic!("edgeway {arguments:?} did not end: {stdout}{stderr}"));
    Output { code: status.code(), stdout, stderr }
}

/// The samples of `/metrics`.
pub(crate) struct Metrics(Vec<Sample>);

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| Self::sample(line).unwrap_or_else(|| panic!("`{line}` is no sample"))).collect())
    }

    fn sample(line: &str) -> Option<Sample> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, mut rest) = series.split_once('{').unwrap_or((series, "}"));
        let mut labels = BTreeMap::new();
        while !rest.is_empty() && rest != "}" {
            let (label, after) = rest.split_once("=\"")?;
            let (text, after) = after.split_once('"')?;
            labels.insert(label.trim_start_matches(',').to_owned(), text.to_owned());
            rest = after;
        }
        Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
    }

    /// The sum of all samples of this name that have these labels; `None` when there is no such sample.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| {
            let has = |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|known| known == value);
            sample.name == name && labels.iter().all(has)
        };
        self.0.iter().filter(fits).map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// All samples of a name, for a message; all names when there is none.
    pub(crate) fn list(&self, name: &str) -> String {
        let line = |sample: &Sample| format!("{}{:?} {}", sample.name, sample.labels, sample.value);
        let of_name: Vec<_> = self.0.iter().filter(|sample| sample.name == name).map(line).collect();
        if of_name.is_empty() { self.0.iter().map(line).collect::<Vec<_>>().join("\n") } else { of_name.join("\n") }
    }
}

/// Starts `edgeway demo` or another command that goes on until it is told to stop.
pub(crate) struct Running {
    child: Child,
    out: Lines,
    err: Lines,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(BINARY)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = Lines::of(child.stdout.take().expect("piped"));
        let err = Lines::of(child.stderr.take().expect("piped"));
        Self { child, out, err }
    }

    /// All that it has printed so far.
    pub(crate) fn said(&self) -> String {
        format!("{}\n{}", self.out.get().join("\n"), self.err.get().join("\n"))
    }

    #[track_caller]
    pub(crate) fn stop(mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        let mut status = None;
        eventually("it stops on SIGTERM", || {
            status = self.child.try_wait().expect("the child can be asked");
            status.is_some()
        });
        status.expect("it has stopped")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
