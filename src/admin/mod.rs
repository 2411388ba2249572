//! Where operators look in: its own listener, and the table of endpoints, one row each.

mod answer;
mod status;

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Response, StatusCode};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

use crate::gateway::Gateway;
use crate::listen::Connection;
use answer::Answer;

/// One endpoint: its path, what it tells, and how.
struct Endpoint {
    path: &'static str,
    about: &'static str,
    answer: fn(&Gateway) -> Answer,
}

const ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/metrics", about: "what is counted, for Prometheus", answer: status::metrics },
    Endpoint { path: "/healthz", about: "200 while the process lives", answer: status::healthz },
    Endpoint { path: "/readyz", about: "200 while it takes requests, 503 while it drains", answer: status::readyz },
];

/// The admin side of a gateway.
pub struct Admin {
    gateway: Arc<Gateway>,
}

impl Admin {
    /// The admin side of this gateway.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    fn answer(&self, method: &Method, path: &str) -> Answer {
        let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| endpoint.path == path) else {
            let status = if path == "/" { StatusCode::OK } else { StatusCode::NOT_FOUND };
            let rows: Vec<String> =
                ENDPOINTS.iter().map(|known| format!("{:<10} {}\n", known.path, known.about)).collect();
            return Answer::text(status, rows.concat());
        };
        if matches!(*method, Method::GET | Method::HEAD) {
            (endpoint.answer)(&self.gateway)
        } else {
            Answer::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned())
        }
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        if let Some(connection) = Connection::of(session) {
            connection.begin_request();
        }
        let head = session.req_header();
        let answer = self.answer(&head.method, head.uri.path());
        let mut response = Response::builder()
            .status(answer.status)
            .header(CONTENT_TYPE, answer.content_type)
            .header(CONTENT_LENGTH, answer.body.len())
            .header(CACHE_CONTROL, "no-store");
        if answer.status == StatusCode::METHOD_NOT_ALLOWED {
            response = response.header(ALLOW, "GET, HEAD");
        }
        let body = if head.method == Method::HEAD { Vec::new() } else { answer.body };
        response.body(body).unwrap_or_default()
    }
}
