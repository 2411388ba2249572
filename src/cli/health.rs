//! `edgeway health`: asks a running gateway whether it is ready.

use std::io::{Read, Write};

use super::terminal::print;

pub(super) fn health(address: &str) -> Result<(), String> {
    let told = |error: std::io::Error| format!("error: {address} does not answer: {error}");
    let limit = std::time::Duration::from_secs(5);
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = if let Some(path) = address.strip_prefix("unix:") {
        let stream = std::os::unix::net::UnixStream::connect(path).map_err(told)?;
        stream.set_read_timeout(Some(limit)).map_err(told)?;
        ask(stream, request).map_err(told)?
    } else {
        let address = address.parse().map_err(|error| format!("error: `{address}` is no address: {error}"))?;
        let stream = std::net::TcpStream::connect_timeout(&address, limit).map_err(told)?;
        stream.set_read_timeout(Some(limit)).map_err(told)?;
        ask(stream, request).map_err(told)?
    };
    let status = answer.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => print("ready\n"),
        _ => Err(format!("error: {address} answers with status {status}")),
    }
}

fn ask(mut stream: impl Read + Write, request: &[u8]) -> std::io::Result<String> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    Read::take(stream, 64 * 1024).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
