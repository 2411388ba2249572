//! The names by which the gateway's metrics and log fields go: told here once.

/// Documents read again, by `result`: see [`RELOADED`] and [`REFUSED`].
pub(crate) const RELOADS: &str = "edgeway_reloads_total";
/// Put in force.
pub(crate) const RELOADED: &[(&str, &str)] = &[("result", "ok")];
/// Refused: the old one stays.
pub(crate) const REFUSED: &[(&str, &str)] = &[("result", "failed")];
/// Finished requests, by `site`, `route` and status `class`.
pub(crate) const REQUESTS: &str = "edgeway_requests_total";
/// Responses of backends, by `upstream`, `backend` and status `class`.
pub(crate) const UPSTREAM_REQUESTS: &str = "edgeway_upstream_requests_total";
/// Requests tried on another backend, by `upstream` and `backend` that failed.
pub(crate) const RETRIES: &str = "edgeway_upstream_retries_total";
/// Failed attempts to connect, by `upstream` and `backend`.
pub(crate) const CONNECT_ERRORS: &str = "edgeway_upstream_connect_errors_total";
/// Requests that no backend took, by `upstream` and `reason`.
pub(crate) const UPSTREAM_REFUSED: &str = "edgeway_upstream_refused_total";
/// Requests that wait for a place, by `upstream`.
pub(crate) const QUEUE_LENGTH: &str = "edgeway_upstream_queue_length";
/// 0: closed, 1: open, 2: half open; by `upstream`.
pub(crate) const CIRCUIT_STATE: &str = "edgeway_upstream_circuit_state";
/// How often a circuit opened, by `upstream`.
pub(crate) const CIRCUIT_OPENED: &str = "edgeway_upstream_circuit_open_total";
/// What an adaptive limit has come to, by `upstream`.
pub(crate) const CONCURRENCY_LIMIT: &str = "edgeway_upstream_concurrency_limit";
/// Connections to backends whose connections are limited, by `upstream` and `backend`.
pub(crate) const UPSTREAM_CONNECTIONS: &str = "edgeway_upstream_open_connections";
/// Retries not made, by `upstream`.
pub(crate) const RETRIES_REFUSED: &str = "edgeway_upstream_retry_budget_exhausted_total";
/// Copies of requests, by `site`, `route` and `result`.
pub(crate) const MIRRORED: &str = "edgeway_mirrored_requests_total";
/// Requests under way, by `upstream` and `backend`.
pub(crate) const ACTIVE: &str = "edgeway_upstream_active_requests";
/// Whether a backend takes requests, by `upstream` and `backend`.
pub(crate) const BACKEND_UP: &str = "edgeway_upstream_backend_up";
/// What the health of a backend adds up to, by `upstream`, `backend` and `state`.
pub(crate) const BACKEND_STATE: &str = "edgeway_upstream_backend_state";
/// Active health checks, by `upstream`, `backend` and `result`.
pub(crate) const HEALTH_CHECKS: &str = "edgeway_upstream_health_checks_total";
/// How often a backend was left out, by `upstream` and `backend`.
pub(crate) const EJECTIONS: &str = "edgeway_upstream_ejections_total";
/// How long requests took, by `site` and `route`.
pub(crate) const DURATION_COUNT: &str = "edgeway_request_duration_seconds_count";
/// How long connecting took, by `upstream` and `backend`.
pub(crate) const CONNECT_COUNT: &str = "edgeway_upstream_connect_seconds_count";
/// How long the first byte took, by `upstream` and `backend`.
pub(crate) const FIRST_BYTE_COUNT: &str = "edgeway_upstream_first_byte_seconds_count";
/// Bytes of request bodies, by `site` and `route`.
pub(crate) const RECEIVED: &str = "edgeway_request_bytes_total";
/// Bytes of response bodies, by `site` and `route`.
pub(crate) const SENT: &str = "edgeway_response_bytes_total";
/// Connections open now.
pub(crate) const OPEN_CONNECTIONS: &str = "edgeway_connections_open";
/// Connections accepted.
pub(crate) const ACCEPTED: &str = "edgeway_connections_total";
/// Connections closed at once, by `reason`: `limit`, `client_limit`.
pub(crate) const CONNECTIONS_REFUSED: &str = "edgeway_connections_refused_total";
/// Requests refused before routing, by `reason`: `malformed`, `head_timeout`, `head_too_large`.
pub(crate) const REQUESTS_REFUSED: &str = "edgeway_requests_refused_total";
/// Kept-alive connections closed because no further request came in time.
pub(crate) const IDLE_TIMEOUTS: &str = "edgeway_idle_timeouts_total";
/// Requests that no route took, by status `class`.
pub(crate) const UNROUTED: &str = "edgeway_unrouted_requests_total";
/// Version and revision as labels; always 1.
pub(crate) const BUILD_INFO: &str = "edgeway_build_info";

/// Fields of a JSON line of the access log.
pub(crate) mod log {
    pub(crate) const STATUS: &str = "status";
    pub(crate) const METHOD: &str = "method";
    pub(crate) const HOST: &str = "host";
    /// The path and query as sent.
    pub(crate) const PATH: &str = "path";
    pub(crate) const CLIENT: &str = "client";
    pub(crate) const REQUEST_ID: &str = "id";
    pub(crate) const ROUTE: &str = "route";
    pub(crate) const UPSTREAM: &str = "upstream";
    pub(crate) const BACKEND: &str = "backend";
    pub(crate) const SENT: &str = "bytes_sent";
    pub(crate) const DURATION: &str = "duration_ms";
    pub(crate) const FAILURE: &str = "failure";
}
