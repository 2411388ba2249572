//! A request to the admin address of a running gateway.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How many bytes it may have.
const MOST: u64 = 256 << 20;

/// The status and the body of the answer. `address`: a TCP address, or `unix:` and a path.
pub(super) fn ask(address: &str, method: &str, target: &str) -> Result<(u16, String), String> {
    let told = |error: std::io::Error| format!("error: {address} does not answer: {error}");
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{length}Connection: close\r\n\r\n");
    let answer = if let Some(path) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(path).map_err(told)?;
        stream.set_read_timeout(Some(LIMIT)).map_err(told)?;
        exchange(stream, &request).map_err(told)?
    } else {
        let address = address.parse().map_err(|error| format!("error: `{address}` is no address: {error}"))?;
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(told)?;
        stream.set_read_timeout(Some(LIMIT)).map_err(told)?;
        exchange(stream, &request).map_err(told)?
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("error: {address} does not speak HTTP"))?;
    Ok((status, body.to_owned()))
}

fn exchange(mut stream: impl Read + Write, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    Read::take(stream, MOST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A text as a part of a path or of a query (RFC 3986 2.1).
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("%{byte:02X}");
        }
    }
    escaped
}
