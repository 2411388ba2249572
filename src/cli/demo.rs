//! `edgeway demo`: a gateway and three tiny origins in one process, from a document that is built in.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use clap::Args;

use crate::config::load::Document;

/// The document: the same file that stands in `conf/`.
const DOCUMENT: &str = include_str!("../../conf/demo.yaml");

/// How long an origin waits for the next request.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the demo listens.
#[derive(Args)]
pub(super) struct Options {
    /// The address of the gateway
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// The address of the admin endpoint
    #[arg(long, default_value = "127.0.0.1:9900")]
    admin: String,
}

pub(super) fn demo(options: &Options) -> Result<(), String> {
    let mut origins = Vec::new();
    for (name, port) in [("one", 9101), ("two", 9102), ("three", 9103)] {
        origins.push(origin(name, port).map_err(|error| format!("error: the origin {name} cannot start: {error}"))?);
    }
    let environment = |name: &str| match name {
        "LISTEN" => Some(options.listen.clone()),
        "ADMIN" => Some(options.admin.clone()),
        "ORIGIN_ONE" => Some(origins[0].clone()),
        "ORIGIN_TWO" => Some(origins[1].clone()),
        "ORIGIN_THREE" => Some(origins[2].clone()),
        _ => None,
    };
    let document = Document::from_text("demo.yaml", DOCUMENT, &environment)
        .map_err(|broken| broken.report(super::terminal::colour()))?;
    let guide = guide(&reachable(&options.listen), &reachable(&options.admin), &origins);
    let told = super::serve::serve(document, None, |_| super::terminal::tell(&guide));
    // The document is sound: only its addresses can be at fault.
    told.map_err(|report| format!("{report}\n`--listen` and `--admin` choose other addresses for the demo"))
}

/// Starts an origin that names itself, at this port or, when that is taken, another, and gives its address.
fn origin(name: &'static str, port: u16) -> std::io::Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", port)).or_else(|_| TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?.to_string();
    std::thread::Builder::new().name(format!("origin-{name}")).spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(name, stream));
        }
    })?;
    Ok(address)
}

/// Answers the requests of one connection until it closes.
fn serve(name: &str, stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(head) = read_head(&mut reader)? {
        let told: String = head.iter().filter(|line| is_telling(line)).map(|line| format!("  {line}\n")).collect();
        let request = head.first().map_or("nothing", String::as_str);
        let body = format!("This is origin {name}. I was asked:\n  {request}\n{told}");
        let length = body.len();
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: origin-{name}/1.0\r\n")?;
        write!(writer, "Content-Length: {length}\r\n\r\n{body}")?;
    }
    Ok(())
}

/// The lines of the next request's head, its body skipped; `None` at the end of the connection.
fn read_head(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Vec<String>>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.by_ref().take(16 * 1024).read_line(&mut line)? == 0 || head.len() > 200 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        head.push(line.to_owned());
    }
    let field = |wanted: &str| {
        let mut pairs = head.iter().filter_map(|line| line.split_once(':'));
        pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    if field("transfer-encoding").is_some() {
        // Good enough for a demo: an answer, and then the end of the connection.
        return Ok(Some(head));
    }
    let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    Ok(Some(head))
}

/// Whether a field says what the gateway did to the request.
fn is_telling(line: &str) -> bool {
    let name = line.split_once(':').map_or("", |(name, _)| name).to_ascii_lowercase();
    name == "host" || name.starts_with("x-")
}

/// An address to ask: one that stands for all of the machine is none for curl.
fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("" | "*" | "0.0.0.0" | "[::]", port)) => format!("127.0.0.1:{port}"),
        _ => listen.to_owned(),
    }
}

fn guide(listen: &str, admin: &str, origins: &[String]) -> String {
    let tries = [
        (format!("-i {listen}/shop/hello"), "origin one, three of four times, or two; asked for /hello"),
        (format!("-i {listen}/canary/x"), "about every tenth answer is origin three's"),
        (format!("-i -H 'X-Beta: 1' {listen}/canary/x"), "always three: a route with more conditions goes first"),
        (format!("-i {listen}/users/42/orders"), "an origin, asked for /v2/orders, with X-User-Id: 42"),
        (format!("-i {listen}/cached/x"), "the same origin for 10 s: Age and Cache-Status say why"),
        (format!("-i {listen}/blog/some-post"), "308, to https://blog.example.com/some-post"),
        (format!("-i {listen}/whoami"), "your address, and the id of this request"),
        (format!("-i {listen}/internal/x"), "403: a filter lets only 10.0.0.0/8 in"),
        (
            format!("-i -H 'X-Forwarded-For: 10.1.2.3' {listen}/internal/x"),
            "passes: the demo trusts your machine as a proxy",
        ),
        (format!("-i {listen}/down"), "502: nobody listens there; both servers were tried"),
        (format!("-i {listen}/nowhere"), "404, with the document's own page"),
        (format!("-i -H 'Host: static.localhost' {listen}/"), "another site"),
        (format!("-s {admin}/metrics"), "the counters of all this"),
    ];
    // Few commands are longer, and terminals are not wide: those stand out.
    let width = tries.iter().map(|(command, _)| command.len()).filter(|length| *length < 44).max().unwrap_or(0);
    let tries: String = tries.iter().map(|(command, told)| format!("  curl {command:<width$}  {told}\n")).collect();
    format!(
        "\
A gateway on http://{listen} and three origins: one on {}, two on {}, three on {}.
The document is built in; the same stands in conf/demo.yaml. In another terminal, try:

{tries}
Each request leaves one line of JSON below. Ctrl-C stops it.
",
        origins[0], origins[1], origins[2]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guide_tells_to_try_can_be_tried() {
        for (listen, asked) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(reachable(listen), asked);
        }
    }
}
