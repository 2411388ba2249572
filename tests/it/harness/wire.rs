//! HTTP/1.1 as bytes on a stream, the same for clients and origins.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::wait::DEADLINE;

/// A connection by TCP or by a Unix socket.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects to `127.0.0.1:80` or `unix:/path`.
    pub(crate) fn connect(address: &str) -> io::Result<Self> {
        let stream = match address.strip_prefix("unix:") {
            Some(path) => Self::Unix(UnixStream::connect(path)?),
            None => Self::Tcp(TcpStream::connect_timeout(&socket_address(address)?, DEADLINE)?),
        };
        stream.ready()
    }

    /// Connects from an address of our own choice.
    pub(crate) fn connect_from(source: IpAddr, address: &str) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&socket_address(address)?.into(), DEADLINE)?;
        Self::Tcp(socket.into()).ready()
    }

    pub(crate) fn ready(self) -> io::Result<Self> {
        self.read_within(DEADLINE)?;
        match &self {
            Self::Tcp(tcp) => {
                tcp.set_nodelay(true)?;
                tcp.set_write_timeout(Some(DEADLINE))?;
            }
            Self::Unix(unix) => unix.set_write_timeout(Some(DEADLINE))?,
        }
        Ok(self)
    }

    /// How long a read may wait.
    pub(crate) fn read_within(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.set_read_timeout(Some(limit)),
            Self::Unix(unix) => unix.set_read_timeout(Some(limit)),
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(tcp) => Self::Tcp(tcp.try_clone()?),
            Self::Unix(unix) => Self::Unix(unix.try_clone()?),
        })
    }

    /// Closes both directions, whoever else holds the stream.
    pub(crate) fn shut(&self) {
        // An error means that it is closed already.
        let _ = match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Both),
            Self::Unix(unix) => unix.shutdown(Shutdown::Both),
        };
    }

    /// Closes with a reset instead of a farewell.
    pub(crate) fn reset(self) {
        if let Self::Tcp(tcp) = self {
            socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(into),
            Self::Unix(unix) => unix.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write(bytes),
            Self::Unix(unix) => unix.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn socket_address(address: &str) -> io::Result<SocketAddr> {
    address.parse().map_err(|_| fault(&format!("`{address}` is no address")))
}

/// Header fields in the order of the wire, duplicates and all; names in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl Headers {
    /// The first field of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// Every field of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value).collect()
    }
}

/// The start line and the fields of a message.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) headers: Headers,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Head {
    /// Where the body of this message ends; `otherwise` when the head does not say.
    pub(crate) fn framing(&self, otherwise: Framing) -> Framing {
        let chunked = self.headers.get("transfer-encoding").is_some_and(|te| te.eq_ignore_ascii_case("chunked"));
        match self.headers.get("content-length") {
            _ if chunked => Framing::Chunked,
            Some(length) => Framing::Length(length.parse().expect("a Content-Length in digits")),
            None => otherwise,
        }
    }
}

/// A stream with what was read ahead from it.
pub(crate) struct Wire {
    pub(crate) stream: Stream,
    pub(crate) ahead: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// Reads more into `ahead`; `false` at the end of the stream.
    pub(crate) fn more(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk)?;
        self.ahead.extend_from_slice(&chunk[..count]);
        Ok(count > 0)
    }

    /// The next head; `None` when the stream ends before its first byte.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                break end;
            }
            if !self.more()? {
                return if self.ahead.is_empty() { Ok(None) } else { Err(fault("the stream ended within a head")) };
            }
        };
        let text = String::from_utf8(self.take(end + 4)).map_err(|_| fault("a head that is not UTF-8"))?;
        let mut lines = text.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(|field| {
            let (name, value) = field.split_once(':').ok_or_else(|| fault(&format!("`{field}` is no field")))?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Ok(Some(Head { line, headers: Headers(fields.collect::<io::Result<_>>()?) }))
    }

    /// The body that `framing` promises; an error when the stream ends before it does.
    pub(crate) fn body(&mut self, framing: Framing) -> io::Result<Vec<u8>> {
        match framing {
            Framing::None => Ok(Vec::new()),
            Framing::Length(length) => self.exactly(length),
            Framing::Chunked => self.chunks(),
            Framing::UntilClose => {
                while self.more()? {}
                Ok(std::mem::take(&mut self.ahead))
            }
        }
    }

    /// This many bytes.
    pub(crate) fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < length {
            if !self.more()? {
                return Err(fault(&format!("the stream ended after {} of {length} bytes", self.ahead.len())));
            }
        }
        Ok(self.take(length))
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.line()?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| fault(&format!("`{size}` is no chunk size")))?;
            if size == 0 {
                // Trailer fields, then the empty line.
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.append(&mut self.exactly(size)?);
            self.exactly(2)?;
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                let line = self.take(end + 2);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more()? {
                return Err(fault("the stream ended within a chunk"));
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

pub(crate) fn fault(message: &str) -> io::Error {
    io::Error::other(message.to_owned())
}
