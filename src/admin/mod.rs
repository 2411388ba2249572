//! Where operators look in and step in: its own listener, and the table of endpoints, one row each.

mod answer;
mod asked;
mod cache;
mod status;
mod upstreams;

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN};
use http::{Method, Response, StatusCode};
use pingora::apps::http_app::ServeHttp;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use crate::gateway::Gateway;
use crate::listen::Connection;
use answer::{Answer, Later};
use asked::{Asked, decoded};

/// One endpoint: how and where it is asked, what it tells or does, and how.
struct Endpoint {
    method: Method,
    /// A segment in braces is whatever stands there.
    path: &'static str,
    about: &'static str,
    answer: How,
}

/// How an endpoint answers.
enum How {
    Now(fn(&Gateway, &Asked) -> Answer),
    /// It waits for a disk.
    Later(for<'a> fn(&'a Gateway, &'a Asked) -> Later<'a>),
}

const ENDPOINTS: &[Endpoint] = &[
    get("/metrics", "what is counted, for Prometheus", status::metrics),
    get("/healthz", "200 while the process lives", status::healthz),
    get("/readyz", "200 while it takes requests, 503 while it drains", status::readyz),
    get("/upstreams", "all upstreams and their backends, as JSON", upstreams::list),
    post("/upstreams/{upstream}/backends/{address}/drain", "it takes nothing new", upstreams::drain),
    post("/upstreams/{upstream}/backends/{address}/undrain", "it takes requests again", upstreams::undrain),
    get("/cache", "all caches and their numbers, as JSON", cache::zones),
    slow("/cache/{cache}", "what is stored, as JSON; `prefix` of the URL, `limit`", cache::list),
    slow("/cache/{cache}/{object}", "all of one, by its id or URL, as JSON", cache::inspect),
    post("/cache/purge", "of all caches: `url`, `prefix`, `host`, `tag`, `all`; `soft`", cache::purge_all),
    post("/cache/{cache}/purge", "the same of one", cache::purge),
];

const fn get(path: &'static str, about: &'static str, answer: fn(&Gateway, &Asked) -> Answer) -> Endpoint {
    Endpoint { method: Method::GET, path, about, answer: How::Now(answer) }
}

const fn slow(
    path: &'static str,
    about: &'static str,
    answer: for<'a> fn(&'a Gateway, &'a Asked) -> Later<'a>,
) -> Endpoint {
    Endpoint { method: Method::GET, path, about, answer: How::Later(answer) }
}

const fn post(path: &'static str, about: &'static str, answer: fn(&Gateway, &Asked) -> Answer) -> Endpoint {
    Endpoint { method: Method::POST, path, about, answer: How::Now(answer) }
}

impl Endpoint {
    /// What stands in the braces, decoded; `None`: another path.
    fn parts(&self, path: &str) -> Option<Vec<String>> {
        let mut parts = Vec::new();
        let mut asked = path.split('/');
        for known in self.path.split('/') {
            let segment = asked.next()?;
            if known.starts_with('{') {
                parts.push(decoded(segment)?);
            } else if known != segment {
                return None;
            }
        }
        asked.next().is_none().then_some(parts)
    }

    fn takes(&self, method: &Method) -> bool {
        self.method == *method || self.method == Method::GET && *method == Method::HEAD
    }
}

/// The admin side of a gateway.
pub struct Admin {
    gateway: Arc<Gateway>,
}

impl Admin {
    /// The admin side of this gateway.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    async fn answer(&self, head: &RequestHeader) -> Answer {
        let path = head.uri.path();
        let there = || ENDPOINTS.iter().filter_map(|endpoint| Some((endpoint, endpoint.parts(path)?)));
        if let Some((endpoint, parts)) = there().find(|(endpoint, _)| endpoint.takes(&head.method)) {
            if endpoint.method == Method::POST && head.headers.contains_key(ORIGIN) {
                // A page of some site, opened by an operator, could send it.
                return Answer::text(StatusCode::FORBIDDEN, "not from a browser\n".to_owned());
            }
            return match Asked::new(parts, head.uri.query()) {
                Some(asked) => match endpoint.answer {
                    How::Now(answer) => answer(&self.gateway, &asked),
                    How::Later(answer) => answer(&self.gateway, &asked).await,
                },
                None => Answer::text(StatusCode::BAD_REQUEST, "the query cannot be read\n".to_owned()),
            };
        }
        if let Some((endpoint, _)) = there().next() {
            return Answer::other_method(if endpoint.method == Method::GET { "GET, HEAD" } else { "POST" });
        }
        let status = if path == "/" { StatusCode::OK } else { StatusCode::NOT_FOUND };
        let row = |known: &Endpoint| format!("{:<4} {:<51} {}\n", known.method.as_str(), known.path, known.about);
        Answer::text(status, ENDPOINTS.iter().map(row).collect())
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        if let Some(connection) = Connection::of(session) {
            connection.begin_request();
        }
        let head = session.req_header();
        let answer = self.answer(head).await;
        let mut response = Response::builder()
            .status(answer.status)
            .header(CONTENT_TYPE, answer.content_type)
            .header(CONTENT_LENGTH, answer.body.len())
            .header(CACHE_CONTROL, "no-store");
        if let Some(methods) = answer.allow {
            response = response.header(ALLOW, methods);
        }
        let body = if head.method == Method::HEAD { Vec::new() } else { answer.body };
        response.body(body).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_gives_what_stands_in_its_braces() {
        let endpoint = post("/upstreams/{upstream}/backends/{address}/drain", "", upstreams::drain);
        for (path, parts) in [
            ("/upstreams/api/backends/127.0.0.1:80/drain", Some(["api", "127.0.0.1:80"])),
            ("/upstreams/a%20b/backends/unix:%2Frun%2fapp.sock/drain", Some(["a b", "unix:/run/app.sock"])),
            ("/upstreams/api/backends/%5B::1%5D:80/drain", Some(["api", "[::1]:80"])),
            ("/upstreams/api/backends/x/drain/", None),
            ("/upstreams/api/backends/x", None),
            ("/upstreams/api/servers/x/drain", None),
            ("/upstreams/api/backends/%/drain", None),
            ("/upstreams/api/backends/%4/drain", None),
            ("/upstreams/api/backends/%+1/drain", None),
            ("/upstreams/api/backends/%ff/drain", None),
        ] {
            let parts = parts.map(|parts| parts.map(str::to_owned).to_vec());
            assert_eq!(endpoint.parts(path), parts, "{path}");
        }
    }
}
