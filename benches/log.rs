//! What one line of access log costs the request's thread: formatting it, and handing it to the writer.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use edgeway::diag::Issues;
use edgeway::exchange::{Exchange, Facts, RequestId};
use edgeway::keep::Keep;
use edgeway::observe::metrics::{self, About};
use edgeway::observe::{BackendStats, LogFormat, ProcessStats, RouteStats, access_log};
use pingora::http::RequestHeader;

fn request() -> RequestHeader {
    let mut request = RequestHeader::build("GET", b"/api/orders/4711?expand=items&page=2", None).expect("a sound head");
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
    request.insert_header("user-agent", agent).expect("a sound field");
    request.insert_header("referer", "https://shop.example.com/orders").expect("a sound field");
    request
}

fn exchange() -> Exchange {
    let mut exchange = Exchange::new();
    exchange.id = RequestId::random();
    exchange.client = "203.0.113.77".parse().expect("an address");
    exchange.client_port = 51_234;
    exchange.host = "shop.example.com".into();
    exchange.status = 200;
    exchange.tries = 1;
    exchange.bytes_sent = 12_345;
    exchange.connect_time = Some(Duration::from_micros(812));
    exchange.first_byte = Some(Duration::from_micros(10_345));
    exchange
}

fn format(text: &str) -> LogFormat {
    LogFormat::build(text, &Issues::default().root()).expect("a sound format")
}

fn log(c: &mut Criterion) {
    let (request, exchange) = (request(), exchange());
    let facts = Facts {
        request: &request,
        exchange: &exchange,
        response: None,
        route: "orders",
        upstream: "api",
        backend: "10.0.0.1:8080",
    };
    let template = "${client.ip} ${request.method} \"${request.uri}\" ${response.status} ${duration_ms} \"${request.headers.user-agent}\"";
    for (name, text) in [("json", "json"), ("combined", "combined"), ("template", template)] {
        let format = format(text);
        c.bench_function(&format!("log/{name}"), |b| {
            b.iter(|| {
                let mut line = Vec::with_capacity(768);
                format.write(black_box(&facts), &mut line);
                line
            });
        });
    }

    // Formatting, queueing and, on the writer's thread, writing; in bursts that the queue takes, as no gateway makes
    // lines as fast as this loop would.
    let (keep, stats, issues) = (Keep::default(), Arc::new(ProcessStats::default()), Issues::default());
    let outputs = vec![access_log::Output { to: "/dev/null".into(), format: "json".into() }];
    let log = access_log::Config::Outputs(outputs).build(&keep, &stats, &issues.root());
    log.start();
    c.bench_function("log/json, pushed", |b| {
        b.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            let mut left = count;
            while left > 0 {
                let burst = left.min(4096);
                let begun = std::time::Instant::now();
                (0..burst).for_each(|_| log.record(black_box(&facts)));
                spent += begun.elapsed();
                assert!(log.flush(Duration::from_secs(10)));
                left -= burst;
            }
            spent
        });
    });
    assert_eq!(stats.log_lines_dropped.get(), 0);
}

fn scrape(c: &mut Criterion) {
    let about = About { version: "0.0.0", pingora: "0.9.1", started_at: 0.0 };
    for (routes, used) in [(10, 10), (10_000, 0), (10_000, 1_000), (10_000, 10_000)] {
        let (keep, process) = (Keep::default(), ProcessStats::default());
        let held: Vec<_> = (0..routes)
            .map(|n| {
                let route = keep.get_or(&RouteStats::key("example.com", &format!("route-{n}")), RouteStats::default);
                let backend = keep.get_or(&BackendStats::key("api", &format!("10.0.0.1:{n}")), BackendStats::default);
                if n < used {
                    route.requests.count(200);
                    route.duration.observe(Duration::from_millis(n));
                }
                (route, backend)
            })
            .collect();
        let bytes = metrics::render(&process, &keep, about).len();
        c.bench_function(&format!("scrape/{used} of {routes} routes used, {bytes} bytes"), |b| {
            b.iter(|| metrics::render(&process, &keep, about));
        });
        drop(held);
    }
}

criterion_group!(benches, log, scrape);
criterion_main!(benches);
