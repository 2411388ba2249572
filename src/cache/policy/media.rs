//! Media types (RFC 9110 8.3.1), and which of them the endings of static files promise.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::cache::rules::list;

/// The endings of static files, and the types that they may be served as. What ends in none of these is not minded.
const ENDINGS: &[(&[&str], &[&str])] = &[
    (&["css"], &["text/css"]),
    (&["js", "mjs", "cjs"], &["text/javascript", "application/javascript", "application/x-javascript"]),
    (&["json", "map", "webmanifest"], &["application/*", "text/json", "text/plain"]),
    (&["wasm"], &["application/wasm", "application/octet-stream"]),
    (&["txt", "md", "csv", "tsv"], &["text/plain", "text/markdown", "text/csv", "text/tab-separated-values"]),
    (&["xml", "rss", "atom"], &["text/xml", "application/*"]),
    (
        &["gif", "png", "apng", "jpg", "jpeg", "webp", "avif", "bmp", "ico", "tif", "tiff", "svg", "svgz", "heic"],
        &["image/*"],
    ),
    (&["woff", "woff2", "ttf", "otf", "eot"], &["font/*", "application/*"]),
    (&["mp3", "m4a", "ogg", "oga", "opus", "wav", "flac", "aac", "weba"], &["audio/*", "application/ogg"]),
    (&["mp4", "m4v", "webm", "ogv", "avi", "mov", "mkv", "mpg", "mpeg", "ts"], &["video/*", "application/ogg"]),
    (&["m3u8", "mpd", "m4s"], &["application/*", "audio/*", "video/*"]),
    (&["pdf", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "odt", "ods", "epub", "ps", "eps"], &["application/*"]),
    (&["zip", "gz", "tgz", "bz2", "xz", "zst", "br", "7z", "rar", "tar", "jar", "apk"], &["application/*"]),
    (&["exe", "dmg", "iso", "bin", "msi", "deb", "rpm", "img", "swf", "class"], &["application/*"]),
];

/// HTML is none of them, whatever else a pattern allows.
const PAGES: [&str; 2] = ["text/html", "application/xhtml+xml"];

/// Whether the content type is one that the ending of the path promises. A path without an ending that we know promises
/// nothing; a response without a type keeps no promise.
pub(super) fn agree(path: &str, headers: &HeaderMap) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((_, ending)) = name.rsplit_once('.') else { return true };
    let is_ending = |known: &&str| known.eq_ignore_ascii_case(ending);
    let Some((_, allowed)) = ENDINGS.iter().find(|(endings, _)| endings.iter().any(is_ending)) else {
        return true;
    };
    let Some(kind) = headers.get(CONTENT_TYPE).map(|value| essence(value.as_bytes())) else { return false };
    let is_page = PAGES.iter().any(|page| page.as_bytes().eq_ignore_ascii_case(kind));
    !is_page && allowed.iter().any(|pattern| matches(pattern, kind))
}

/// The type without its parameters.
pub(super) fn essence(value: &[u8]) -> &[u8] {
    list::trim(value.split(|byte| *byte == b';').next().unwrap_or_default())
}

/// Whether the pattern, `image/*` or a whole type in lower case, takes this type.
pub(super) fn matches(pattern: &str, kind: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => kind.len() > prefix.len() && kind[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes()),
        None => kind.eq_ignore_ascii_case(pattern.as_bytes()),
    }
}

/// Whether the text is a media type, or all of a kind.
pub(super) fn is_pattern(text: &str) -> bool {
    let is_token = |text: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        !text.is_empty() && text.bytes().all(is_inner)
    };
    text.split_once('/').is_some_and(|(kind, rest)| is_token(kind) && (rest == "*" || is_token(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_promises_a_type() {
        for (path, kind, wanted) in [
            ("/x.css", Some("text/css; charset=utf-8"), true),
            ("/x.CSS", Some("TEXT/CSS"), true),
            ("/x.css", Some("text/html"), false),
            ("/x.css", None, false),
            ("/account;x.css", Some("text/html"), false),
            ("/account%2Fx.js", Some("text/html;charset=utf-8"), false),
            ("/a.css/account", Some("text/html"), true),
            ("/account", Some("text/html"), true),
            ("/account", None, true),
            ("/x.html", Some("text/html"), true),
            ("/x.php", Some("text/html"), true),
            ("/x.min.js", Some("application/javascript"), true),
            ("/x.jpg", Some("image/webp"), true),
            ("/x.jpg", Some("image"), false),
            ("/x.json", Some("application/ld+json"), true),
            ("/x.pdf", Some("application/xhtml+xml"), false),
            ("/.css", Some("text/html"), false),
            ("/x.", Some("text/html"), true),
        ] {
            let headers = kind.map(|kind| (CONTENT_TYPE, kind.parse().unwrap())).into_iter().collect();
            assert_eq!(agree(path, &headers), wanted, "{path} {kind:?}");
        }
    }

    #[test]
    fn a_pattern_is_a_type_or_all_of_a_kind() {
        for (text, wanted) in [
            ("image/*", true),
            ("text/css", true),
            ("application/ld+json", true),
            ("image", false),
            ("*/*", false),
            ("image/p*", false),
            ("/png", false),
            ("text/html; charset=utf-8", false),
        ] {
            assert_eq!(is_pattern(text), wanted, "{text}");
        }
        assert!(matches("image/*", b"Image/PNG") && !matches("image/*", b"image/") && !matches("image/*", b"imagex/a"));
    }
}
