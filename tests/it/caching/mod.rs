//! The cache, between a client and an origin whose answers the test writes.

mod asking;
mod corners;
mod disk;
mod filling;
mod freshness;
mod keys;
mod purging;
mod ranges;
mod revalidating;
mod slices;
mod storing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::{Answer, Gateway, H2, Origin, Request, Response, Seen, Wire, get, names};

type Script = Arc<dyn Fn(&Seen, usize) -> Answer + Send + Sync>;

/// A gateway with a cache, and its origin, which has a script for each path.
struct Stage {
    gateway: Gateway,
    origin: Origin,
    scripts: Arc<Mutex<HashMap<String, (Script, usize)>>>,
}

impl Stage {
    /// One route with these words behind `cache:`.
    #[track_caller]
    fn new(cache: &str) -> Self {
        Self::with(&format!("sites: [{{ routes: [{{ match: \"/*\", cache: {cache}, proxy: \"@origin\" }}] }}]\n"))
    }

    /// A document of its own.
    #[track_caller]
    fn with(yaml: &str) -> Self {
        let scripts = Arc::<Mutex<HashMap<String, (Script, usize)>>>::default();
        let shared = Arc::clone(&scripts);
        let origin = Origin::scripted("origin", move |seen, _| {
            let path = seen.path.split('?').next().unwrap_or_default();
            let (script, number) = {
                let mut scripts = shared.lock().unwrap();
                let Some((script, number)) = scripts.get_mut(path) else { return Answer::new(404, "no script") };
                *number += 1;
                (Arc::clone(script), *number)
            };
            script(seen, number)
        });
        Self { gateway: Gateway::before(&[&origin], yaml), origin, scripts }
    }

    /// What the origin says to requests for this path; `script` gets the number of each too, from 1 on.
    fn script(&self, path: &str, script: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) {
        self.scripts.lock().unwrap().insert(path.to_owned(), (Arc::new(script), 0));
    }

    /// What it says, one after the other; the last one stays.
    fn answers(&self, path: &str, answers: impl Into<Vec<Answer>>) {
        let answers = answers.into();
        self.script(path, move |_, number| answers[(number - 1).min(answers.len() - 1)].clone());
    }

    /// The same answer again and again, with the number of the request as the body.
    fn numbered(&self, path: &str, fields: &[(&str, &str)]) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.script(path, move |_, number| {
            let fields = fields.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>();
            Answer::ok(number.to_string()).fields(&fields)
        });
    }

    #[track_caller]
    fn get(&self, path: &str) -> Response {
        self.gateway.get(path)
    }

    #[track_caller]
    fn request(&self, request: &Request) -> Response {
        self.gateway.request(request)
    }

    #[track_caller]
    fn h2(&self, request: &Request) -> Response {
        H2::open(&self.gateway.address()).request(request)
    }

    /// The requests for this path, with or without a query, that have reached the origin.
    fn seen(&self, path: &str) -> Vec<Seen> {
        let is_it = |seen: &Seen| seen.path.split('?').next() == Some(path);
        self.origin.seen().into_iter().filter(is_it).collect()
    }

    fn asked(&self, path: &str) -> usize {
        self.seen(path).len()
    }
}

/// A GET with these fields.
fn ask(path: &str, fields: &[(&str, &str)]) -> Request {
    fields.iter().fold(get(path), |request, (name, value)| request.header(name, value))
}

/// Begins a request and reads its head and so much of its body.
#[track_caller]
fn begin(stage: &Stage, path: &str, count: usize) -> (Wire, Vec<u8>) {
    let mut connection = stage.gateway.connect();
    connection.send(get(path).bytes());
    let mut wire = connection.into_wire();
    let head = wire.head().unwrap().expect("a head");
    assert!(head.line.contains(" 200 "), "{}", head.line);
    let body = wire.exactly(count).unwrap();
    (wire, body)
}

fn open_connections(stage: &Stage) -> Option<f64> {
    stage.gateway.metrics().sum(names::OPEN_CONNECTIONS, &[])
}

/// What the cache says of a response.
fn told(response: &Response) -> String {
    response.headers.all("cache-status").join(", ")
}

fn is_hit(response: &Response) -> bool {
    told(response).contains("edgeway; hit")
}

/// Stale from the first moment on, but worth storing.
const STALE: &[(&str, &str)] = &[("Cache-Control", "max-age=90"), ("Age", "100"), ("ETag", "\"a\"")];

/// The time in so many seconds, as HTTP writes it.
fn date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + seconds;
    let (days, second) = (now.div_euclid(86_400), now.rem_euclid(86_400));
    let (mut year, mut left) = (1970, days);
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while left >= 365 + i64::from(is_leap(year)) {
        left -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    let weekday = DAYS[(days % 7) as usize];
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{weekday}, {:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", left + 1, MONTHS[month])
}
