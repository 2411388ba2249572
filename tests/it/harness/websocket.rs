//! WebSocket (RFC 6455), as much as an echo needs: the handshake, and frames that are not fragmented.
//!
//! Written out, SHA-1 included: a hundred lines here against a dozen more crates to build.

use std::io::{self, Write};

use super::client::Connection;
use super::wire::{Wire, fault};

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;

/// A client's side of a WebSocket.
pub(crate) struct WebSocket {
    wire: Wire,
}

impl WebSocket {
    /// Opens `path` at `address`; panics when the handshake fails.
    #[track_caller]
    pub(crate) fn open(address: &str, path: &str) -> Self {
        // Any 16 bytes in base64; this one is the RFC's example.
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let mut connection = Connection::open(address);
        connection.send(format!(
            "GET {path} HTTP/1.1\r\nHost: edgeway.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ));
        let response = connection.read_response("GET");
        assert_eq!(response.status, 101, "no upgrade: {response:?}");
        assert_eq!(response.header("sec-websocket-accept"), Some(&*accept_key(key)), "{response:?}");
        Self { wire: connection.into_wire() }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, text: &str) {
        write_frame(&mut self.wire, TEXT, true, text.as_bytes()).expect("a frame goes out");
    }

    /// The next message; an error when the peer closes instead.
    pub(crate) fn receive(&mut self) -> io::Result<String> {
        match read_frame(&mut self.wire)? {
            (TEXT, payload) => Ok(String::from_utf8_lossy(&payload).into_owned()),
            (opcode, _) => Err(fault(&format!("a frame of type {opcode}"))),
        }
    }

    /// Says goodbye and waits for the answer.
    #[track_caller]
    pub(crate) fn close(mut self) {
        write_frame(&mut self.wire, CLOSE, true, &1000u16.to_be_bytes()).expect("a frame goes out");
        assert_eq!(read_frame(&mut self.wire).expect("the answer to our goodbye").0, CLOSE);
    }
}

/// What answers a client's key.
pub(crate) fn accept_key(key: &str) -> String {
    base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()))
}

/// The next frame: its type and what it carries, unmasked.
pub(crate) fn read_frame(wire: &mut Wire) -> io::Result<(u8, Vec<u8>)> {
    let head = wire.exactly(2)?;
    let (opcode, masked) = (head[0] & 0x0f, head[1] & 0x80 != 0);
    let length = match head[1] & 0x7f {
        126 => wire.exactly(2)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
        127 => wire.exactly(8)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
        short => usize::from(short),
    };
    let mask = if masked { wire.exactly(4)? } else { vec![0; 4] };
    let payload = wire.exactly(length)?;
    Ok((opcode, payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()))
}

/// Sends one whole message; clients mask theirs.
pub(crate) fn write_frame(wire: &mut Wire, opcode: u8, masked: bool, payload: &[u8]) -> io::Result<()> {
    let mut frame = vec![0x80 | opcode];
    let flag = if masked { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..=125 => frame.push(flag | short as u8),
        medium @ 126..=65_535 => {
            frame.push(flag | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(flag | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    if masked {
        let mask = [7, 21, 3, 101];
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        frame.extend_from_slice(payload);
    }
    wire.stream.write_all(&frame)
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for position in 0..4 {
            let digit = (bits >> (18 - 6 * position) & 63) as usize;
            text.push(if position <= group.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    text
}

/// FIPS 180-4, 6.1.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut words = [0u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks(4)) {
            *word = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        }
        for t in 16..80 {
            words[t] = (words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (t, word) in words.iter().enumerate() {
            let (mix, constant) = match t / 20 {
                0 => (b & c | !b & d, 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6u32),
            };
            let next = a.rotate_left(5).wrapping_add(mix).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}
