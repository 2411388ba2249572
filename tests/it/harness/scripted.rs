//! `Answer`: what a scripted origin says to one request, and how well it says it.

use std::io::{self, Write};

use super::wire::Wire;

/// One answer of a scripted origin. By itself it is sent whole, with its length.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    interim: String,
    how: How,
    held: bool,
}

/// How an answer goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Whole,
    Chunked,
    /// The second half of the body only after `Origin::release`.
    HalfHeld,
    /// Closes after half the body, with the length told.
    Broken,
    /// Closes after half the body, within the chunks.
    BrokenChunks,
    /// Closes without a word.
    Gone,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (fields, interim) = (Vec::new(), String::new());
        Self { status, fields, body: body.into(), interim, how: How::Whole, held: false }
    }

    /// 200 with this body.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    /// 200 with this body and `Cache-Control`.
    pub(crate) fn cached(control: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::ok(body).field("Cache-Control", control)
    }

    /// The connection closes without a word.
    pub(crate) fn gone() -> Self {
        Self { how: How::Gone, ..Self::new(0, "") }
    }

    /// With one more field.
    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// With these fields too.
    pub(crate) fn fields(self, fields: &[(&str, &str)]) -> Self {
        fields.iter().fold(self, |answer, (name, value)| answer.field(name, value))
    }

    /// Without the fields of this name.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self
    }

    /// With this body instead.
    pub(crate) fn with_body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// After this interim response, written as it stands.
    pub(crate) fn after(mut self, interim: &str) -> Self {
        self.interim = interim.into();
        self
    }

    /// Only after `Origin::release`.
    pub(crate) fn held(self) -> Self {
        Self { held: true, ..self }
    }

    /// The second half of the body only after `Origin::release`.
    pub(crate) fn half_held(self) -> Self {
        Self { how: How::HalfHeld, ..self }
    }

    /// In chunks: its length is not told.
    pub(crate) fn chunked(self) -> Self {
        Self { how: How::Chunked, ..self }
    }

    /// The connection closes after half of the body.
    pub(crate) fn broken(self) -> Self {
        let how = if self.how == How::Chunked { How::BrokenChunks } else { How::Broken };
        Self { how, ..self }
    }

    /// Sends it; whether the connection is kept.
    pub(super) fn send(&self, wire: &mut Wire, method: &str, wait: impl Fn()) -> io::Result<bool> {
        if self.held {
            wait();
        }
        if self.how == How::Gone {
            return Ok(false);
        }
        let mut head = format!("{}HTTP/1.1 {} Status\r\n", self.interim, self.status);
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        let is_chunked = matches!(self.how, How::Chunked | How::BrokenChunks);
        match self.status {
            204 | 304 => {}
            _ if is_chunked => head += "Transfer-Encoding: chunked\r\n",
            _ => head += &format!("Content-Length: {}\r\n", self.body.len()),
        }
        wire.stream.write_all((head + "\r\n").as_bytes())?;
        if method == "HEAD" || matches!(self.status, 204 | 304) {
            return Ok(true);
        }
        let (first, second) = self.body.split_at(self.body.len() / 2);
        let piece = |wire: &mut Wire, bytes: &[u8]| match is_chunked && !bytes.is_empty() {
            true => {
                write!(wire.stream, "{:x}\r\n", bytes.len())?;
                wire.stream.write_all(bytes)?;
                wire.stream.write_all(b"\r\n")
            }
            false => wire.stream.write_all(bytes),
        };
        piece(wire, first)?;
        match self.how {
            How::Broken | How::BrokenChunks => return Ok(false),
            How::HalfHeld => wait(),
            _ => {}
        }
        piece(wire, second)?;
        if is_chunked {
            wire.stream.write_all(b"0\r\n\r\n")?;
        }
        Ok(true)
    }
}
