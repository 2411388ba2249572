//! The tags of a response, by which operators purge it: from fields like `Cache-Tag` and `Surrogate-Key`.

use http::header::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::purges::Purges;

/// The tags in a field's value, which commas or blanks part.
pub fn split(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| matches!(byte, b',' | b' ' | b'\t')).filter(|tag| !tag.is_empty())
}

/// The hashes of all tags in these fields, each once.
pub fn read(headers: &HeaderMap, fields: &[HeaderName]) -> SmallVec<[u64; 4]> {
    let lines = fields.iter().flat_map(|name| headers.get_all(name));
    let mut tags: SmallVec<[u64; 4]> = lines.flat_map(|line| split(line.as_bytes())).map(Purges::tag_hash).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_parted_by_commas_or_blanks_and_count_once() {
        let (cache_tag, surrogate_key) =
            (HeaderName::from_static("cache-tag"), HeaderName::from_static("surrogate-key"));
        let mut headers = HeaderMap::new();
        for (name, value) in [(&cache_tag, "a, b,,c"), (&surrogate_key, "b  d"), (&cache_tag, "e")] {
            headers.append(name, value.parse().unwrap());
        }
        let mut wanted = ["a", "b", "c", "d", "e"].map(|tag| Purges::tag_hash(tag.as_bytes()));
        wanted.sort_unstable();
        assert_eq!(read(&headers, &[cache_tag.clone(), surrogate_key])[..], wanted);
        assert_eq!(read(&headers, &[]).len(), 0);
        assert_eq!(read(&HeaderMap::new(), &[cache_tag]).len(), 0);
    }
}
