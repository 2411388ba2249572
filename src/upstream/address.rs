//! `ServerAddress`: where a server listens: `10.0.0.1:8080`, `[::1]:8080`, `app.internal:8080` or `unix:/run/app.sock`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerAddress {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// A name, in lower case, that is resolved when the document is compiled, and a port.
    Name(Box<str>, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Why a text is no [`ServerAddress`], and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressFault {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// Whether a text is meant as a server's address (right or wrong) rather than as the name of an upstream.
pub fn looks_like_address(text: &str) -> bool {
    text.contains([':', '/']) || text.parse::<IpAddr>().is_ok()
}

impl FromStr for ServerAddress {
    type Err = AddressFault;

    fn from_str(text: &str) -> Result<Self, AddressFault> {
        if text.is_empty() {
            return Err(fault("a server's address is empty", FORMS));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return Err(url_fault(text, scheme, rest));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        if text.starts_with(['/', '.']) {
            return Err(fault(
                format!("`{text}` is no address"),
                format!("for a Unix socket write `unix:` before its absolute path, as in `unix:/{}`", {
                    text.trim_start_matches(['.', '/'])
                }),
            ));
        }
        if let Some((host_and_port, _)) = text.split_once('/') {
            return Err(fault(
                format!("`{text}` has a path, and a server's address has none"),
                format!("write `{host_and_port}`; what the path becomes is said by the route's `rewrite`"),
            ));
        }
        if let Some(bracketed) = text.strip_prefix('[') {
            return ipv6(text, bracketed);
        }
        match text.parse() {
            Ok(IpAddr::V6(ip)) => return Err(fault(no_port(text), format!("write it as `[{ip}]:80`"))),
            Ok(IpAddr::V4(ip)) => return Err(fault(no_port(text), format!("write the port too, as in `{ip}:80`"))),
            Err(_) => {}
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(fault(no_port(text), format!("write the port too, as in `{text}:80`")));
        };
        let port = port_of(text, host, port)?;
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return Ok(Self::Socket((ip, port).into()));
        }
        name(host).map(|name| Self::Name(name, port))
    }
}

impl ServerAddress {
    /// The host name that must be resolved, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name, _) => Some(name),
            Self::Socket(_) | Self::Unix(_) => None,
        }
    }

    /// What a `Host` field says of this address (RFC 9110, 7.2): without the port when it is 80, and `localhost` for
    /// a Unix socket, which has no name of its own.
    pub fn authority(&self) -> String {
        match self {
            Self::Socket(SocketAddr::V6(at)) if at.port() == 80 => format!("[{}]", at.ip()),
            // Without its zone, which means nothing to anybody else (RFC 6874, 4).
            Self::Socket(SocketAddr::V6(at)) => format!("[{}]:{}", at.ip(), at.port()),
            Self::Socket(SocketAddr::V4(at)) if at.port() == 80 => at.ip().to_string(),
            // Nor with the dot that makes a name absolute: servers do not look for it.
            Self::Name(name, port) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                if *port == 80 { name.to_owned() } else { format!("{name}:{port}") }
            }
            Self::Socket(_) => self.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(at) => at.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

const FORMS: &str =
    "write host and port, as in `10.0.0.1:8080`, or the path of a Unix socket, as in `unix:/run/app.sock`";

fn fault(message: impl Into<String>, hint: impl Into<String>) -> AddressFault {
    AddressFault { message: message.into(), hint: hint.into() }
}

fn no_port(text: &str) -> String {
    format!("`{text}` has no port")
}

fn url_fault(text: &str, scheme: &str, rest: &str) -> AddressFault {
    let message = format!("`{text}` is a URL, not a server's address");
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && !port.contains(']'));
    match scheme.to_ascii_lowercase().as_str() {
        "unix" => fault(message, format!("write `unix:/{}`", rest.trim_start_matches('/'))),
        "https" => fault(message, "write host and port; servers are spoken to in plain HTTP"),
        _ if host.is_empty() => fault(message, FORMS),
        _ if has_port => fault(message, format!("write host and port: `{host}`")),
        _ => fault(message, format!("write host and port: `{host}:80`")),
    }
}

fn unix(path: &str) -> Result<ServerAddress, AddressFault> {
    if !path.starts_with('/') {
        return Err(fault(
            format!("`unix:{path}` is no absolute path"),
            "write the whole path of the socket, as in `unix:/run/app.sock`",
        ));
    }
    // The kernel's field holds 108 bytes: longer paths, and such with a NUL, can never be connected to.
    match std::os::unix::net::SocketAddr::from_pathname(path) {
        Ok(_) => Ok(ServerAddress::Unix(path.into())),
        Err(_) => Err(fault(
            format!("`unix:{path}` cannot be the path of a socket"),
            "a socket's path has at most 107 bytes, none of them NUL",
        )),
    }
}

fn ipv6(text: &str, bracketed: &str) -> Result<ServerAddress, AddressFault> {
    let no_address = || fault(format!("`{text}` is no IPv6 address with a port"), "write it as `[::1]:8080`");
    let (ip, rest) = bracketed.split_once(']').ok_or_else(no_address)?;
    if rest.is_empty() && ip.parse::<Ipv6Addr>().is_ok() {
        return Err(fault(no_port(text), format!("write the port too, as in `{text}:80`")));
    }
    let port = rest.strip_prefix(':').ok_or_else(no_address)?;
    port_of(text, &format!("[{ip}]"), port)?;
    text.parse().map(ServerAddress::Socket).map_err(|_| no_address())
}

fn port_of(text: &str, host: &str, port: &str) -> Result<u16, AddressFault> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(0) => Err(fault(format!("port 0 in `{text}` can never be connected to"), "write the port of the server")),
        Ok(port) if digits => Ok(port),
        _ if port.is_empty() => Err(fault(no_port(text), format!("write the port too, as in `{host}:80`"))),
        _ if digits => Err(fault(format!("`{port}` in `{text}` is no port"), "the highest port is 65535")),
        _ => Err(fault(format!("`{port}` in `{text}` is no port"), FORMS)),
    }
}

/// A host name as DNS and the hosts file know it (RFC 1123, 2.1; underscores are let through, for they are in use).
fn name(host: &str) -> Result<Box<str>, AddressFault> {
    let no_name = |hint: &str| Err(fault(format!("`{host}` is neither an IP address nor a host name"), hint));
    if host.is_empty() {
        return Err(fault("the address has no host before its port", FORMS));
    }
    if host.contains(':') {
        return no_name("write an IPv6 address in brackets, as in `[::1]:8080`");
    }
    if !host.is_ascii() {
        return no_name("write the name in its ASCII form, as in `xn--bcher-kva.example`");
    }
    // Else the system would take `10.1` for 10.0.0.1, and ask DNS for `10.0.0.256`.
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return no_name("an IPv4 address has four numbers from 0 to 255, as in `10.0.0.1`");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let relative = host.strip_suffix('.').unwrap_or(host);
    if relative.len() > 253 || !relative.split('.').all(label) {
        return no_name("a host name has letters, digits, hyphens and dots, as in `app.internal`");
    }
    Ok(host.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_people_write_it_and_prints_the_same() {
        for text in [
            "10.0.0.1:8080",
            "[::1]:8080",
            "[fe80::1%2]:80",
            "app.internal:80",
            "my_app:3000",
            "localhost:1",
            "unix:/run/app.sock",
        ] {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), text);
        }
        assert_eq!("App.Internal.:80".parse::<ServerAddress>().unwrap().name(), Some("app.internal."));
    }

    #[test]
    fn a_wrong_address_is_told_what_to_write() {
        for (text, message, hint) in [
            ("", "empty", "10.0.0.1:8080"),
            ("http://app:3000/x", "is a URL", "`app:3000`"),
            ("http://app/", "is a URL", "`app:80`"),
            ("http://[::1]", "is a URL", "`[::1]:80`"),
            ("https://app", "is a URL", "plain HTTP"),
            ("unix:///run/x", "is a URL", "`unix:/run/x`"),
            ("/run/x.sock", "no address", "`unix:/run/x.sock`"),
            ("./x.sock", "no address", "`unix:/x.sock`"),
            ("unix:x.sock", "no absolute path", "whole path"),
            ("app:80/v1", "has a path", "`app:80`"),
            ("app", "no port", "`app:80`"),
            ("app:", "no port", "`app:80`"),
            ("10.0.0.1", "no port", "`10.0.0.1:80`"),
            ("::1", "no port", "`[::1]:80`"),
            ("[::1]", "no port", "`[::1]:80`"),
            ("[::1]80", "no IPv6 address", "[::1]:8080"),
            ("[::1", "no IPv6 address", "[::1]:8080"),
            ("[10.0.0.1]:80", "no IPv6 address", "[::1]:8080"),
            ("app:0", "port 0", "port of the server"),
            ("[::1]:0", "port 0", "port of the server"),
            ("app:65536", "no port", "65535"),
            ("app:+80", "no port", "host and port"),
            ("app:http", "no port", "host and port"),
            (":80", "no host", "host and port"),
            ("a:b:80", "neither", "brackets"),
            ("10.0.0.256:80", "neither", "0 to 255"),
            ("10.1:80", "neither", "0 to 255"),
            ("bücher.example:80", "neither", "xn--"),
            ("user@app:80", "neither", "letters"),
            ("a..b:80", "neither", "letters"),
            ("a b:80", "neither", "letters"),
        ] {
            let fault = text.parse::<ServerAddress>().expect_err(text);
            assert!(fault.message.contains(message), "{text}: {}", fault.message);
            assert!(fault.hint.contains(hint), "{text}: {}", fault.hint);
        }
        assert!(format!("unix:/{}", "x".repeat(108)).parse::<ServerAddress>().is_err());
        assert!("unix:/a\0b".parse::<ServerAddress>().is_err());
    }

    #[test]
    fn an_address_is_told_from_the_name_of_an_upstream() {
        for (text, address) in
            [("api", false), ("api-v1.2", false), ("app:80", true), ("10.0.0.1", true), ("::1", true), ("/x", true)]
        {
            assert_eq!(looks_like_address(text), address, "{text}");
        }
    }

    #[test]
    fn a_host_field_leaves_out_the_usual_port() {
        for (address, authority) in [
            ("app:80", "app"),
            ("app:81", "app:81"),
            ("app.internal.:80", "app.internal"),
            ("app.internal.:81", "app.internal:81"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[::1]:81", "[::1]:81"),
            ("[fe80::1%2]:81", "[fe80::1]:81"),
            ("unix:/x", "localhost"),
        ] {
            assert_eq!(address.parse::<ServerAddress>().unwrap().authority(), authority);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            if let Ok(address) = text.parse::<ServerAddress>() {
                proptest::prop_assert_eq!(address.to_string().parse::<ServerAddress>(), Ok(address));
            }
        }
    }
}
