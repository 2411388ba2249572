//! What the filters of a route cost per request: the chain of `ip_rules` and `headers`, and header changes alone.

use std::hint::black_box;
use std::task::{Context, Poll, Waker};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use edgeway::diag::Issues;
use edgeway::exchange::{Exchange, Facts};
use edgeway::filter::headers::{self, HeaderOps};
use edgeway::filter::{BuildContext, Chain, Config};
use edgeway::keep::Keep;
use pingora::http::{RequestHeader, ResponseHeader};
use serde_json::json;

/// A request as browsers send it: ten fields.
fn head() -> RequestHeader {
    let mut head = RequestHeader::build("GET", b"/blog/hello?page=2", Some(16)).expect("a sound target");
    for (name, value) in [
        ("Host", "example.com"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "en-US,en;q=0.5"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Referer", "https://example.com/blog"),
        ("Cookie", "session=0123456789abcdef; theme=dark"),
        ("Sec-Fetch-Site", "same-origin"),
        ("X-Internal-User", "forged"),
        ("Priority", "u=0, i"),
    ] {
        head.insert_header(name, value).expect("a sound field");
    }
    head
}

fn response_head() -> ResponseHeader {
    let mut head = ResponseHeader::build(200, Some(16)).expect("a sound status");
    for (name, value) in [("Content-Type", "text/html"), ("Content-Length", "1024"), ("Server", "x"), ("ETag", "\"1\"")]
    {
        head.insert_header(name, value).expect("a sound field");
    }
    head
}

fn ops() -> serde_json::Value {
    let literals = json!({
        "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
        "X-Env": "production", "X-Gateway": "edge-1", "X-Client": "${client.ip}",
    });
    json!({ "request": { "set": literals }, "response": { "set": literals, "remove": ["Server"] } })
}

fn exchange() -> Exchange {
    let mut exchange = Exchange::new();
    exchange.client = [203, 0, 113, 9].into();
    exchange.host = "example.com".into();
    exchange
}

fn chain(configs: &serde_json::Value) -> Chain {
    let configs: Vec<Config> = serde_json::from_value(configs.clone()).expect("sound filters");
    let (issues, keep) = (Issues::default(), Keep::default());
    let chain = Chain::build(&configs, &BuildContext { captures: &[], keep: &keep, owner: "" }, &issues.root());
    assert!(!issues.has_errors());
    chain
}

/// Runs the chain, which never waits here.
fn run(chain: &Chain, head: &mut RequestHeader, exchange: &mut Exchange) {
    let future = std::pin::pin!(chain.request(head, exchange, "blog"));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(reply) => assert!(black_box(reply).is_none()),
        Poll::Pending => unreachable!("no filter here does I/O"),
    }
}

fn benches(criterion: &mut Criterion) {
    let networks: Vec<String> = (0..1000_u32).map(|n| format!("10.{}.{}.0/25", n / 250, n % 250)).collect();
    let rules = json!({ "ip_rules": { "deny": networks } });
    let mut exchange = exchange();

    for (name, configs) in [
        ("no filter", json!([])),
        ("ip_rules of 1000", json!([rules])),
        ("ip_rules of 1000, headers", json!([rules, { "headers": ops() }])),
    ] {
        let chain = chain(&configs);
        criterion.bench_function(&format!("chain/{name}"), |bencher| {
            bencher.iter_batched_ref(head, |head| run(&chain, head, &mut exchange), BatchSize::SmallInput);
        });
    }

    let config: headers::Config = serde_json::from_value(ops()).expect("sound operations");
    let ops = HeaderOps::build(&config, &[], &Issues::default().root()).expect("sound operations");
    criterion.bench_function("headers/request, 5 literals and 1 template", |bencher| {
        bencher.iter_batched_ref(head, |head| ops.apply_request(head, &exchange, "blog"), BatchSize::SmallInput);
    });
    let request = head();
    let facts =
        Facts { request: &request, exchange: &exchange, response: None, route: "blog", upstream: "", backend: "" };
    criterion.bench_function("headers/response, 5 literals, 1 template, 1 removed", |bencher| {
        bencher.iter_batched_ref(response_head, |head| ops.apply_response(head, &facts), BatchSize::SmallInput);
    });
}

criterion_group!(chain_benches, benches);
criterion_main!(chain_benches);
