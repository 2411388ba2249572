//! `Id`: the name of what is stored, made from its key.

use std::fmt;
use std::str::FromStr;

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest as _};

/// The BLAKE2b-128 digest of a key (RFC 7693). Nobody can make two keys with the same one, so it stands for the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 16]);

impl Id {
    /// The id of this key.
    pub fn of(key: &[u8]) -> Self {
        Self(Blake2b::<U16>::digest(key).into())
    }

    /// The id that was written as these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// 64 of its bits: as good as random, for tables.
    pub fn bits(&self) -> u64 {
        u64::from_le_bytes(self.0[..8].try_into().unwrap_or_default())
    }

    /// The id of something that belongs to this one: a variant, or a slice.
    pub fn with(&self, more: &[u8]) -> Self {
        let mut digest = Blake2b::<U16>::new();
        digest.update(self.0);
        digest.update(more);
        Self(digest.finalize().into())
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex).ok_or(())?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_can_be_read_back() {
        let id = Id::of(b"a key");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(Id::from_bytes(*id.bytes()), id);
        for text in ["", "12", "+2345678901234567890123456789012", &"g".repeat(32)] {
            assert_eq!(text.parse::<Id>(), Err(()), "{text}");
        }
    }

    #[test]
    fn other_keys_have_other_ids() {
        assert_ne!(Id::of(b"a"), Id::of(b"b"));
        assert_ne!(Id::of(b"a").with(b"x"), Id::of(b"a").with(b"y"));
        assert_ne!(Id::of(b"a").with(b""), Id::of(b"a"));
    }
}
