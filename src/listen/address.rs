//! `Address`: where a listener listens: `127.0.0.1:80`, `:80`, `[::1]:80`, `unix:/path`.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The longest path that fits into a Unix socket's address on Linux, without its closing zero.
const MAX_UNIX_PATH: usize = 107;

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// `:80`: every address of the machine, IPv4 and IPv6, through one socket.
    All(u16),
    /// One address. A written IPv6 address takes IPv6 only, so `[::]:80` and `0.0.0.0:80` may stand side by side.
    Inet(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Whether the kernel would refuse to listen on both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Unix(_), _) | (_, Self::Unix(_)) => false,
            (a, b) => {
                let (port, covers_a) = a.inet();
                let (other_port, covers_b) = b.inet();
                port == other_port && port != 0 && covers_a.meets(&covers_b)
            }
        }
    }

    /// This address with the port that its socket got, for port 0 lets the kernel choose one.
    pub(super) fn with_port(&self, port: u16) -> Self {
        match self {
            Self::All(_) => Self::All(port),
            Self::Inet(address) => Self::Inet(SocketAddr::new(address.ip(), port)),
            Self::Unix(path) => Self::Unix(path.clone()),
        }
    }

    fn inet(&self) -> (u16, Covers) {
        match self {
            Self::All(port) => (*port, Covers::Everything),
            Self::Inet(address) if address.ip().is_unspecified() => (address.port(), Covers::Family(address.ip())),
            Self::Inet(address) => (address.port(), Covers::One(address.ip())),
            Self::Unix(_) => (0, Covers::Everything),
        }
    }
}

/// The addresses of the machine that one socket takes.
enum Covers {
    Everything,
    Family(IpAddr),
    One(IpAddr),
}

impl Covers {
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everything, _) | (_, Self::Everything) => true,
            (Self::One(a), Self::One(b)) => a == b,
            (Self::Family(a) | Self::One(a), Self::Family(b) | Self::One(b)) => a.is_ipv4() == b.is_ipv4(),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        let port = text.strip_prefix(':').or_else(|| text.strip_prefix("*:"));
        if let Some(port) = port.filter(|port| !port.contains(':')) {
            return number(port).map(Self::All).ok_or_else(|| format!("`{port}` is no port; ports are 1 to 65535"));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Inet(address));
        }
        if let Some(port) = number(text) {
            return Err(format!("`{text}` lacks an address; write `:{port}` for every address, or `127.0.0.1:{port}`"));
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Err(format!("`{text}` lacks a port, as in `{}`", SocketAddr::new(ip, 80)));
        }
        if text.starts_with('/') {
            return Err(format!("`{text}` looks like a Unix socket; write `unix:{text}`"));
        }
        Err(match text.rsplit_once(':') {
            Some((host, port)) if number(port).is_some() => {
                format!(
                    "`{host}` is no IP address; a listener needs one, as in `127.0.0.1:{port}`, or `:{port}` for all"
                )
            }
            Some((_, port)) if !port.is_empty() => format!("`{port}` is no port; ports are 1 to 65535"),
            _ => format!("`{text}` is no address; write `127.0.0.1:80`, `:80`, `[::1]:80` or `unix:/path`"),
        })
    }
}

fn unix(path: &str) -> Result<Address, String> {
    if !path.starts_with('/') {
        return Err(format!("the path of a Unix socket must be absolute, as in `unix:/run/{path}`"));
    }
    if path.len() > MAX_UNIX_PATH || path.contains('\0') {
        return Err(format!("the path of a Unix socket is at most {MAX_UNIX_PATH} bytes long"));
    }
    Ok(Address::Unix(path.into()))
}

/// Digits only: `parse` alone would take `+80`.
fn number(digits: &str) -> Option<u16> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(port) => write!(f, ":{port}"),
            Self::Inet(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Address;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, as in `127.0.0.1:80`, `:80` or `unix:/run/edgeway.sock`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Address, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Address, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "ListenAddress".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "where to listen: an address and port, `:port` for every address (IPv4 and IPv6), or `unix:/path`",
            "examples": ["127.0.0.1:80", ":80", "[::1]:80", "unix:/run/edgeway.sock"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_addresses_so() {
        for (text, shown) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            (":80", ":80"),
            ("*:80", ":80"),
            ("[::1]:80", "[::1]:80"),
            ("[::]:443", "[::]:443"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            (" :8080 ", ":8080"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn a_slip_is_told_with_its_mend() {
        for (text, told) in [
            ("80", "write `:80`"),
            ("127.0.0.1", "lacks a port, as in `127.0.0.1:80`"),
            ("::1", "as in `[::1]:80`"),
            ("localhost:80", "`localhost` is no IP address"),
            (":70000", "`70000` is no port"),
            ("127.0.0.1:http", "`http` is no port"),
            (":", "is no port"),
            (":+80", "is no port"),
            ("/run/x.sock", "write `unix:/run/x.sock`"),
            ("unix:x.sock", "must be absolute"),
            ("", "is no address"),
        ] {
            let fault = text.parse::<Address>().unwrap_err();
            assert!(fault.contains(told), "{text}: {fault}");
        }
        let long = format!("unix:/{}", "x".repeat(200));
        assert!(long.parse::<Address>().unwrap_err().contains("107 bytes"));
    }

    #[test]
    fn two_addresses_overlap_when_the_kernel_would_refuse_the_second() {
        for (a, b, overlap) in [
            (":80", ":80", true),
            (":80", "127.0.0.1:80", true),
            (":80", "[::1]:80", true),
            (":80", ":81", false),
            ("0.0.0.0:80", "10.0.0.1:80", true),
            ("0.0.0.0:80", "[::]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("10.0.0.1:80", "10.0.0.2:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", ":80", false),
        ] {
            let (one, two): (Address, Address) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(one.overlaps(&two), overlap, "{a} {b}");
            assert_eq!(two.overlaps(&one), overlap, "{b} {a}");
        }
    }
}
