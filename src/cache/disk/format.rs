//! What stands in the files: the head of a `.m` file, its record and its body; the order of use; the names.
//!
//! ```text
//! .m      magic 8, format 2, inline? 1, 0, record's length 4, id 16, generation 8, asked 8, body's length 8, boot 8,
//!         CRC of the body 4, CRC of what follows the head 4, CRC of the head 4; the record; the body when it is inline
//! order   magic 8; per object: id 16, generation 8, blocks 4, use 1; CRC of all before it 4
//! usage   bytes in use 8, CRC 4
//! ```
//!
//! Numbers are little-endian, CRCs CRC-32. A head is checked alone, so that a scan need not read bodies.

use bytes::{Buf as _, BufMut as _, Bytes};

use crate::cache::id::Id;
use crate::cache::record::{self, Record};
use crate::cache::tick::Tick;

/// What the file `VERSION` holds. A change to a format below, or to the layout, changes it.
pub(super) const VERSION: &str = "edgeway cache 1\n";

const MAGIC: &[u8; 8] = b"edgewayM";
const ORDER_MAGIC: &[u8; 8] = b"edgewayO";
/// Ours and the record's.
const FORMAT: u16 = u16::from_le_bytes([1, record::FORMAT]);
/// How long a head is.
pub(super) const HEAD: usize = 76;
/// The unit in which files are counted: what a file system gives at least.
pub(super) const BLOCK: u64 = 4096;
/// No record and no inline body is larger; what says so is damaged.
const LARGEST: u64 = 1 << 30;

/// How many blocks a file of this length takes.
pub(super) const fn blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK)
}

/// What a `.m` file says before its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Under what it is stored.
    pub id: Id,
    /// Which body of this id: the name of its file, and what tells two commits apart.
    pub generation: Tick,
    /// The record's `asked`.
    pub asked: Tick,
    /// Length of the record.
    pub record: u32,
    /// Length of the body.
    pub body: u64,
    /// Whether the body follows the record.
    pub inline: bool,
    /// The run of the operating system in which the body was written; 0: not known.
    pub boot: u64,
    /// The CRC of a body in a file of its own.
    pub body_crc: u32,
}

impl Head {
    /// How long its file is.
    pub(super) fn file_len(&self) -> u64 {
        let inline = if self.inline { self.body } else { 0 };
        (HEAD as u64).saturating_add(u64::from(self.record)).saturating_add(inline)
    }

    /// How many blocks its files take together.
    pub(super) fn blocks(&self) -> u64 {
        blocks(self.file_len()) + if self.inline { 0 } else { blocks(self.body) }
    }

    /// Reads the head of the file of `id`. `None`: damaged, another's, or of another format.
    pub(super) fn decode(bytes: &[u8], id: &Id) -> Option<Self> {
        Self::decode_with_rest(bytes, id).map(|(head, _)| head)
    }

    fn decode_with_rest(bytes: &[u8], id: &Id) -> Option<(Self, u32)> {
        let mut head = bytes.get(..HEAD)?;
        if crc32fast::hash(&head[..HEAD - 4]).to_le_bytes() != head[HEAD - 4..] || !head.starts_with(MAGIC) {
            return None;
        }
        head.advance(MAGIC.len());
        if head.get_u16_le() != FORMAT {
            return None;
        }
        let inline = head.get_u8() == 1;
        head.advance(1);
        let record = head.get_u32_le();
        let mut name = [0; 16];
        head.copy_to_slice(&mut name);
        let [generation, asked, body, boot] = std::array::from_fn(|_| head.get_u64_le());
        let (body_crc, rest_crc) = (head.get_u32_le(), head.get_u32_le());
        let (generation, asked) = (Tick(generation), Tick(asked));
        let read = Self { id: Id::from_bytes(name), generation, asked, record, body, inline, boot, body_crc };
        (read.id == *id && read.file_len() <= LARGEST).then_some((read, rest_crc))
    }
}

/// A `.m` file in full. `head.record` and `head.asked` are set here. `None`: the record is too long for one.
pub(super) fn encode(head: &Head, record: &Record, inline: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(record.encoded_len()).ok()?;
    let mut out = Vec::with_capacity(HEAD + record.encoded_len() + inline.len());
    out.put_slice(MAGIC);
    out.put_u16_le(FORMAT);
    out.put_u8(u8::from(head.inline));
    out.put_u8(0);
    out.put_u32_le(length);
    out.put_slice(head.id.bytes());
    for number in [head.generation.0, record.asked.0, head.body, head.boot] {
        out.put_u64_le(number);
    }
    out.put_u32_le(head.body_crc);
    out.put_u64_le(0);
    record.encode(&mut out);
    out.put_slice(inline);
    let rest = crc32fast::hash(&out[HEAD..]);
    out[HEAD - 8..HEAD - 4].copy_from_slice(&rest.to_le_bytes());
    let own = crc32fast::hash(&out[..HEAD - 4]);
    out[HEAD - 4..HEAD].copy_from_slice(&own.to_le_bytes());
    Some(out)
}

/// Reads a whole `.m` file of `id`; the third is the inline body, empty when it has a file. `None`: damaged.
pub(super) fn decode(file: &Bytes, id: &Id) -> Option<(Head, Record, Bytes)> {
    let (head, rest_crc) = Head::decode_with_rest(file, id)?;
    if file.len() as u64 != head.file_len() || crc32fast::hash(&file[HEAD..]) != rest_crc {
        return None;
    }
    let body = HEAD + head.record as usize;
    let record = Record::decode(file.slice(HEAD..body))?;
    (record.asked == head.asked).then(|| (head, record, file.slice(body..)))
}

/// One object in the saved order of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub id: Id,
    pub generation: Tick,
    pub blocks: u32,
    /// How often it was used lately, and [`Place::KEPT`] when it has proved itself.
    pub usage: u8,
}

impl Place {
    pub(super) const KEPT: u8 = 0x80;
    const LENGTH: usize = 29;
}

/// The order of use as a file.
pub(super) fn encode_order(places: impl ExactSizeIterator<Item = Place>) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + places.len() * Place::LENGTH);
    out.put_slice(ORDER_MAGIC);
    for place in places {
        out.put_slice(place.id.bytes());
        out.put_u64_le(place.generation.0);
        out.put_u32_le(place.blocks);
        out.put_u8(place.usage);
    }
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out
}

/// Reads what `encode_order` wrote; nothing of a damaged file.
pub(super) fn decode_order(file: &[u8]) -> impl Iterator<Item = Place> {
    let places = sealed(file).and_then(|file| file.strip_prefix(ORDER_MAGIC)).unwrap_or_default();
    places.chunks_exact(Place::LENGTH).map(|mut place| {
        let mut id = [0; 16];
        place.copy_to_slice(&mut id);
        let generation = Tick(place.get_u64_le());
        Place { id: Id::from_bytes(id), generation, blocks: place.get_u32_le(), usage: place.get_u8() }
    })
}

/// How many bytes are in use, as a file.
pub(super) fn encode_usage(bytes: u64) -> [u8; 12] {
    let number = bytes.to_le_bytes();
    let mut out = [0; 12];
    out[..8].copy_from_slice(&number);
    out[8..].copy_from_slice(&crc32fast::hash(&number).to_le_bytes());
    out
}

/// Reads what `encode_usage` wrote.
pub(super) fn decode_usage(file: &[u8]) -> Option<u64> {
    sealed(file).and_then(|number| number.try_into().ok()).map(u64::from_le_bytes)
}

/// What stands before the CRC at the end, when that is right.
fn sealed(file: &[u8]) -> Option<&[u8]> {
    let (text, crc) = file.split_last_chunk::<4>()?;
    (crc32fast::hash(text).to_le_bytes() == *crc).then_some(text)
}

/// What the name of a file in one of the 256 directories says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// `<id>.m`
    Meta(Id),
    /// `<id>-<generation>.b`
    Body(Id, Tick),
}

impl Name {
    /// Reads a name. `None`: it is none of ours.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let lower = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if let Some(id) = name.strip_suffix(".m") {
            return id.parse().ok().filter(|_| lower(id)).map(Self::Meta);
        }
        let (id, generation) = name.strip_suffix(".b")?.split_once('-')?;
        if generation.len() != 16 || !lower(id) || !lower(generation) {
            return None;
        }
        Some(Self::Body(id.parse().ok()?, Tick(u64::from_str_radix(generation, 16).ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::cache::record::{Kind, Terms};

    fn record() -> Record {
        Record::new(Tick(7), Terms::default(), (200, Kind::Whole), "http://a/", &[3], &HeaderMap::new()).unwrap()
    }

    fn head(inline: bool) -> Head {
        let length = record().encoded_len() as u32;
        let (id, generation, asked) = (Id::of(b"a"), Tick(5), Tick(7));
        Head { id, generation, asked, record: length, body: 4, inline, boot: 9, body_crc: 8 }
    }

    #[test]
    fn a_file_can_be_read_back() {
        for (inline, body) in [(true, &b"body"[..]), (false, b"")] {
            let file = Bytes::from(encode(&head(inline), &record(), body).unwrap());
            assert_eq!(file.len() as u64, head(inline).file_len());
            assert_eq!(decode(&file, &Id::of(b"a")), Some((head(inline), record(), Bytes::from_static(body))));
            assert_eq!(Head::decode(&file[..HEAD], &Id::of(b"a")), Some(head(inline)));
            assert_eq!(decode(&file, &Id::of(b"b")), None, "another id");
        }
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let file = encode(&head(true), &record(), b"body").unwrap();
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&changed.into(), &Id::of(b"a")), None, "byte {at} changed");
            assert_eq!(decode(&Bytes::copy_from_slice(&file[..at]), &Id::of(b"a")), None, "{at} bytes left");
        }
        assert_eq!(decode(&[&file[..], b"x"].concat().into(), &Id::of(b"a")), None, "one byte more");
        assert_eq!(decode(&vec![0; file.len()].into(), &Id::of(b"a")), None, "zeros");
    }

    #[test]
    fn an_order_can_be_read_back_and_a_damaged_one_is_empty() {
        let place = |key: &[u8]| Place { id: Id::of(key), generation: Tick(6), blocks: 3, usage: Place::KEPT | 2 };
        let places = [place(b"a"), place(b"b")];
        let mut file = encode_order(places.into_iter());
        assert_eq!(decode_order(&file).collect::<Vec<_>>(), places);
        file[20] ^= 1;
        assert_eq!(decode_order(&file).count(), 0);
        assert_eq!(decode_order(b"").count(), 0);
        assert_eq!(decode_usage(&encode_usage(77)), Some(77));
        assert_eq!(decode_usage(&[1; 12]), None);
    }

    #[test]
    fn only_names_of_ours_are_taken() {
        let id = Id::of(b"a");
        assert_eq!(Name::parse(&format!("{id}.m")), Some(Name::Meta(id)));
        assert_eq!(Name::parse(&format!("{id}-00000000000000ff.b")), Some(Name::Body(id, Tick(255))));
        for name in ["", ".m", "a.m", "README.m", "x-1.b", "lost+found"] {
            assert_eq!(Name::parse(name), None, "{name}");
        }
        assert_eq!(Name::parse(&format!("{id}-+0000000000000ff.b")), None);
        assert_eq!(Name::parse(&format!("{id}-ff.b")), None);
        assert_eq!(Name::parse(&format!("{}.m", id.to_string().to_uppercase())), None);
    }

    #[test]
    fn files_are_counted_in_whole_blocks() {
        for (length, expected) in [(0, 0), (1, 1), (4096, 1), (4097, 2)] {
            assert_eq!(blocks(length), expected, "{length}");
        }
    }
}
