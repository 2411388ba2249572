//! `sticky`: the requests of one client go to the server that its first one went to, by a cookie that the gateway sets.
//!
//! What the cookie holds is a tag: a keyed hash (HMAC-SHA256) of the names of upstream and server, worked out for each
//! server when it joins. So a request costs a look for the cookie and one into a table, no client can choose a server or
//! tell which one it has, and gateways that have the secret in common agree.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::header::{COOKIE, HeaderName};
use pingora::http::RequestHeader;
use ring::hmac;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::backend::Backend;
use crate::diag::Scope;
use crate::keep::Keep;
use crate::template::cookies;
use crate::units::HumanDuration;

/// The fewest bytes of a secret: with fewer, whoever has a cookie could find it out.
const MIN_SECRET: usize = 16;
/// The most bytes that are read of a file with a secret.
const MAX_SECRET: u64 = 4096;
/// Bytes of a keyed hash that are kept in a tag.
const TAG_BYTES: usize = 16;
/// Characters of a tag.
const TAG_LEN: usize = 22;

/// Whether clients stick to servers, and how: `true`, `cookie` or a mapping.
#[derive(Clone, Debug, Default)]
pub struct Config(Option<Settings>);

/// The cookie that makes clients stick to servers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Sticky")]
pub struct Settings {
    /// Its name. Default: `edgeway_` and eight digits made of the upstream's name, so that upstreams of one site do not
    /// take each other's.
    pub cookie: Option<String>,
    /// What only your gateways know, 16 characters or more: with the same secret and the same names, several gateways
    /// agree on cookies, and they outlive a restart. Default: random, and kept over reloads.
    pub secret: Option<String>,
    /// A file with the secret, relative to the folder of the document, in place of `secret`. White space at its ends does
    /// not count.
    pub secret_file: Option<String>,
    /// How long clients keep it, from the response that sets it on; later ones do not prolong it. Default: until the
    /// browser is closed.
    pub max_age: Option<HumanDuration>,
    /// Whether it is sent when another site leads the client here: `lax`, when it follows a link; `strict`, never; `none`,
    /// always, which browsers believe only over HTTPS. Default: `lax`.
    pub same_site: SameSite,
    /// The paths that it is sent with: this one and those below. Default: `/`.
    pub path: String,
}

/// When a cookie is sent along to a site that another one leads to.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// When the client follows a link.
    #[default]
    Lax,
    /// Never.
    Strict,
    /// Always.
    None,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cookie: None,
            secret: None,
            secret_file: None,
            max_age: None,
            same_site: SameSite::default(),
            path: "/".to_owned(),
        }
    }
}

impl Config {
    /// What is set, if clients stick to servers at all.
    pub fn settings(&self) -> Option<&Settings> {
        self.0.as_ref()
    }
}

/// The cookie of an upstream at work.
pub struct Sticky {
    upstream: Arc<str>,
    cookie: Box<str>,
    secret: Arc<Secret>,
    attributes: Box<str>,
}

/// The key of the tags. Kept over reloads when it is random.
struct Secret(hmac::Key);

/// What a cookie holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag([u8; TAG_LEN]);

impl Sticky {
    /// The cookie of `upstream`. Reports at `at` what is wrong, and gives `None` then; paths are relative to `folder`.
    pub fn build(settings: &Settings, upstream: &str, keep: &Keep, folder: &Path, at: &Scope<'_>) -> Option<Self> {
        let cookie = cookie_name(settings, upstream, at);
        let attributes = attributes(settings, at);
        let secret = secret(settings, upstream, keep, folder, at);
        Some(Self { upstream: upstream.into(), cookie: cookie?, secret: secret?, attributes: attributes? })
    }

    /// What the cookie holds for the server with this label.
    pub fn tag(&self, label: &str) -> Tag {
        let mut context = hmac::Context::with_key(&self.secret.0);
        // The length keeps apart what would read the same one after the other.
        context.update(&(self.upstream.len() as u64).to_le_bytes());
        context.update(self.upstream.as_bytes());
        context.update(label.as_bytes());
        let mut text = [0; TAG_LEN];
        URL_SAFE_NO_PAD
            .encode_slice(&context.sign().as_ref()[..TAG_BYTES], &mut text)
            .expect("22 characters hold 16 bytes");
        Tag(text)
    }

    /// The first tag of the request that is known: a client may send a cookie more than once, for different paths.
    pub fn find<T>(&self, head: &RequestHeader, known: impl Fn(&Tag) -> Option<T>) -> Option<T> {
        let fields = head.headers.get_all(COOKIE).iter();
        let values = fields.flat_map(|field| cookies(field.as_bytes(), self.cookie.as_bytes()));
        values.filter_map(Tag::read).find_map(|tag| known(&tag))
    }

    /// Both forms of [`Sticky::set_cookie`], made once.
    pub fn fields(&self, tag: Tag) -> SetCookie {
        SetCookie { http: self.set_cookie(tag, false), https: self.set_cookie(tag, true) }
    }

    /// The field of a response that gives a client this tag; over HTTPS the client shall not send it otherwise.
    pub fn set_cookie(&self, tag: Tag, https: bool) -> HeaderValue {
        let secure = if https { "; Secure" } else { "" };
        let tag = str::from_utf8(&tag.0).unwrap_or_default();
        HeaderValue::try_from(format!("{}={tag}{}{secure}", self.cookie, self.attributes))
            .expect("name and path were checked when they were read")
    }
}

impl Tag {
    /// A cookie's value, in quotes or not; `None`: it has another length.
    fn read(value: &[u8]) -> Option<Self> {
        let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
        bare.try_into().ok().map(Self)
    }
}

/// The backends of an upstream by their tags.
pub struct Sessions {
    sticky: Arc<Sticky>,
    backends: Arc<[Arc<Backend>]>,
    by_tag: HashMap<Tag, u32, ahash::RandomState>,
    by_label: HashMap<Arc<str>, SetCookie, ahash::RandomState>,
}

/// The fields that lead a client back to where it was.
pub struct SetCookie {
    http: HeaderValue,
    https: HeaderValue,
}

impl SetCookie {
    /// The field for a client that came by HTTPS, or not.
    pub fn over(&self, https: bool) -> &HeaderValue {
        if https { &self.https } else { &self.http }
    }
}

impl Sessions {
    /// Works out the tags of all backends.
    pub fn new(sticky: &Arc<Sticky>, backends: &Arc<[Arc<Backend>]>) -> Self {
        let (mut by_tag, mut by_label) = (HashMap::default(), HashMap::default());
        for (position, backend) in (0..).zip(backends.iter()) {
            let tag = sticky.tag(backend.label());
            by_tag.entry(tag).or_insert(position);
            by_label.insert(Arc::clone(backend.label()), sticky.fields(tag));
        }
        Self { sticky: Arc::clone(sticky), backends: Arc::clone(backends), by_tag, by_label }
    }

    /// Whether these are the backends that the tags were worked out for.
    pub fn are_of(&self, backends: &Arc<[Arc<Backend>]>) -> bool {
        Arc::ptr_eq(&self.backends, backends)
    }

    /// The backend that the client of this request had before.
    pub fn find(&self, head: &RequestHeader) -> Option<&Arc<Backend>> {
        let position = self.sticky.find(head, |tag| self.by_tag.get(tag).copied())?;
        self.backends.get(position as usize)
    }

    /// The field of a response that makes its client stick to this backend.
    pub fn cookie(&self, backend: &Backend, https: bool) -> Option<&HeaderValue> {
        Some(self.by_label.get(backend.label())?.over(https))
    }
}

fn cookie_name(settings: &Settings, upstream: &str, at: &Scope<'_>) -> Option<Box<str>> {
    let Some(name) = &settings.cookie else {
        // Not the name itself: clients need not know what upstreams there are.
        let digest = ring::digest::digest(&ring::digest::SHA256, upstream.as_bytes());
        let digits = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}"));
        return Some(format!("edgeway_{}", digits.collect::<String>()).into());
    };
    // A cookie's name is a token (RFC 6265 4.1.1), as a field's is.
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        at.key("cookie").error_hint(
            format!("`{}` cannot be the name of a cookie", name.escape_debug()),
            "write letters, digits, `-` and `_`, as in `session_server`",
        );
        return None;
    }
    Some(name.as_str().into())
}

fn attributes(settings: &Settings, at: &Scope<'_>) -> Option<Box<str>> {
    let path = &settings.path;
    let path_is_sound =
        path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_control() && byte != b';');
    if !path_is_sound {
        at.key("path").error_hint(
            format!("`{}` cannot be the path of a cookie", path.escape_debug()),
            "write a path that begins with `/` and has no semicolon, as in `/shop`",
        );
    }
    let same_site = match settings.same_site {
        SameSite::Lax => "Lax",
        SameSite::Strict => "Strict",
        SameSite::None => "None",
    };
    let mut text = format!("; Path={path}; HttpOnly; SameSite={same_site}");
    if let Some(HumanDuration(max_age)) = settings.max_age {
        if max_age.as_secs() == 0 {
            at.key("max_age").error_hint(
                "a cookie that is forgotten at once",
                "write a second or more, as in `8h`, or leave `max_age` out to keep it until the browser is closed",
            );
            return None;
        }
        text += &format!("; Max-Age={}", max_age.as_secs());
    }
    path_is_sound.then(|| text.into())
}

fn secret(settings: &Settings, upstream: &str, keep: &Keep, folder: &Path, at: &Scope<'_>) -> Option<Arc<Secret>> {
    let (bytes, at) = match (&settings.secret, &settings.secret_file) {
        (None, None) => return random_secret(upstream, keep, at),
        (Some(text), None) => (text.as_bytes().to_vec(), at.key("secret")),
        (None, Some(path)) => {
            let at = at.key("secret_file");
            (read_secret(&folder.join(path), &at)?, at)
        }
        (Some(_), Some(_)) => {
            at.key("secret_file").error_hint("two secrets, this one and `secret`", "leave one of them out");
            return None;
        }
    };
    if bytes.len() < MIN_SECRET {
        at.error_hint(
            format!("a secret of {} characters can be found out by trying", bytes.len()),
            "take 16 or more that nobody could guess, as `openssl rand -hex 32` tells",
        );
        return None;
    }
    Some(Arc::new(Secret(hmac::Key::new(hmac::HMAC_SHA256, &bytes))))
}

/// The secret that this process has for the upstream. One that a document names is not kept: it may change.
fn random_secret(upstream: &str, keep: &Keep, at: &Scope<'_>) -> Option<Arc<Secret>> {
    let random = ring::rand::SystemRandom::new();
    let Ok(key) = hmac::Key::generate(hmac::HMAC_SHA256, &random) else {
        at.error_hint("the system gives no random bytes for a secret", "write a `secret`, or name a `secret_file`");
        return None;
    };
    Some(keep.get_or(upstream, || Secret(key)))
}

fn read_secret(file: &Path, at: &Scope<'_>) -> Option<Vec<u8>> {
    if std::fs::metadata(file).is_ok_and(|found| !found.is_file()) {
        // Opening a pipe would wait for a writer.
        at.error_hint(format!("`{}` is not a file", file.display()), "name a plain file");
        return None;
    }
    let mut text = Vec::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(MAX_SECRET).read_to_end(&mut text));
    if let Err(error) = read {
        at.error_hint(
            format!("cannot read `{}`: {error}", file.display()),
            "check the path, and who may read the file",
        );
        return None;
    }
    Some(text.trim_ascii().to_vec())
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Config;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `cookie`, or a mapping, as in `{ cookie: server, max_age: 8h }`")
            }
            fn visit_bool<E: Error>(self, sticks: bool) -> Result<Config, E> {
                Ok(Config(sticks.then(Settings::default)))
            }
            fn visit_str<E: Error>(self, by: &str) -> Result<Config, E> {
                if by == "cookie" { self.visit_bool(true) } else { Err(E::unknown_variant(by, &["cookie"])) }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Config, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(Some).map(Config)
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Config {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "StickyForms".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<Settings>();
        json_schema!({ "anyOf": [{ "type": "boolean" }, { "const": "cookie" }, settings] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    const SECRET: &str = "secret: 0123456789abcdef";

    fn build(yaml: &str, upstream: &str) -> Sticky {
        let config: Config = serde_yaml::from_str(yaml).unwrap();
        let issues = Issues::default();
        let settings = config.settings().unwrap();
        let built = Sticky::build(settings, upstream, &Keep::default(), Path::new("."), &issues.root());
        assert_eq!(issues.into_vec(), [], "{yaml}");
        built.unwrap()
    }

    fn text(tag: Tag) -> String {
        String::from_utf8(tag.0.to_vec()).unwrap()
    }

    #[test]
    fn a_tag_depends_on_the_secret_the_upstream_and_the_server_alone() {
        let tag = |yaml: &str, upstream: &str, label: &str| text(build(yaml, upstream).tag(label));
        let known = tag(SECRET, "api", "10.0.0.1:80");
        // Pinned, for gateways of different versions must agree.
        assert_eq!(known, "dFTVifRccJX-xgP5gcRopg");
        assert_eq!(known, tag(&format!("{{ {SECRET}, cookie: other, path: /x }}"), "api", "10.0.0.1:80"));
        for (yaml, upstream, label) in [
            ("secret: 0123456789abcdeg", "api", "10.0.0.1:80"),
            (SECRET, "apis", "10.0.0.1:80"),
            (SECRET, "api", "10.0.0.1:81"),
            (SECRET, "api1", "0.0.0.1:80"),
            ("true", "api", "10.0.0.1:80"),
        ] {
            assert_ne!(tag(yaml, upstream, label), known, "{yaml} {upstream} {label}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others_and_junk_is_none() {
        let sticky = build(&format!("{{ {SECRET}, cookie: srv }}"), "api");
        let (own, other) = (sticky.tag("a:1"), sticky.tag("b:1"));
        let (a, b) = (text(own), text(other));
        let find = |fields: &[&str]| {
            let mut head = RequestHeader::build("GET", b"/", None).unwrap();
            fields.iter().for_each(|field| _ = head.append_header("cookie", *field).unwrap());
            sticky
                .find(&head, |tag| [(own, 'a'), (other, 'b')].into_iter().find(|(known, _)| known == tag))
                .map(|f| f.1)
        };
        let flipped = format!("{}{}", &a[..21], if a.ends_with('A') { 'B' } else { 'A' });
        for (fields, found) in [
            (&[&*format!("srv={a}")][..], Some('a')),
            (&[&format!("x=1; srv={a}; y=2")], Some('a')),
            (&[&format!("x=1;srv=\"{b}\";y")], Some('b')),
            (&["x=1", &format!("srv={b}")], Some('b')),
            // What an older secret made, or a stranger, does not hide what is right.
            (&[&format!("srv={flipped}; srv={b}")], Some('b')),
            (&[&format!("srv={}; srv={a}", "x".repeat(22))], Some('a')),
            (&[&format!("srv={flipped}")], None),
            (&[&format!("srv={a}x")], None),
            (&[&format!("srv={}", &a[..21])], None),
            (&[&format!("srv=\"{a}")], None),
            (&[&format!("srv2={a}; xsrv={a}; SRV={a}")], None),
            (&["srv", "srv=", "=;;=", "srv=\u{e9}", ";"], None),
            (&["srv=a:1", "srv=0"], None),
            (&[], None),
        ] {
            assert_eq!(find(fields), found, "{fields:?}");
        }
    }

    #[test]
    fn a_cookie_is_for_the_client_alone() {
        for (yaml, https, field) in [
            ("cookie: srv", false, "srv=TAG; Path=/; HttpOnly; SameSite=Lax"),
            ("cookie: srv", true, "srv=TAG; Path=/; HttpOnly; SameSite=Lax; Secure"),
            ("{ cookie: srv, max_age: 8h }", false, "srv=TAG; Path=/; HttpOnly; SameSite=Lax; Max-Age=28800"),
            (
                "{ cookie: srv, same_site: strict, path: /a }",
                true,
                "srv=TAG; Path=/a; HttpOnly; SameSite=Strict; Secure",
            ),
            ("{ cookie: srv, same_site: none }", true, "srv=TAG; Path=/; HttpOnly; SameSite=None; Secure"),
            ("cookie", false, "edgeway_14c2529e=TAG; Path=/; HttpOnly; SameSite=Lax"),
            ("true", false, "edgeway_14c2529e=TAG; Path=/; HttpOnly; SameSite=Lax"),
        ] {
            let sticky = build(yaml, "api");
            let tag = sticky.tag("a:1");
            let field = field.replace("TAG", &text(tag));
            assert_eq!(sticky.set_cookie(tag, https).to_str().unwrap(), field, "{yaml}");
        }
        assert_ne!(build("true", "api").cookie, build("true", "shop").cookie);
    }

    #[test]
    fn a_random_secret_outlives_a_reload_and_one_of_a_file_is_read() {
        let (keep, issues, dir) = (Keep::default(), Issues::default(), tempfile::tempdir().unwrap());
        let build = |yaml: &str, upstream: &str| {
            let config: Config = serde_yaml::from_str(yaml).unwrap();
            Sticky::build(config.settings().unwrap(), upstream, &keep, dir.path(), &issues.root()).unwrap()
        };
        let before = build("true", "api");
        assert_eq!(before.tag("a:1"), build("max_age: 1h", "api").tag("a:1"));
        let sign = |sticky: &Sticky| hmac::sign(&sticky.secret.0, b"x").as_ref().to_vec();
        assert_eq!(sign(&before), sign(&build("true", "api")));
        assert_ne!(sign(&before), sign(&build("true", "shop")));
        std::fs::write(dir.path().join("secret"), "  0123456789abcdef\n").unwrap();
        assert_eq!(build("secret_file: secret", "api").tag("a:1"), build(SECRET, "api").tag("a:1"));
    }

    #[test]
    fn what_cannot_work_is_told_with_its_place() {
        for (yaml, path, message, hint) in [
            ("cookie: 'a b'", "cookie", "cannot be the name of a cookie", "letters"),
            ("cookie: ''", "cookie", "cannot be the name of a cookie", "letters"),
            ("secret: short", "secret", "a secret of 5 characters", "openssl rand"),
            ("{ secret: 0123456789abcdef, secret_file: x }", "secret_file", "two secrets", "leave one"),
            ("secret_file: nowhere", "secret_file", "cannot read", "check the path"),
            ("secret_file: .", "secret_file", "is not a file", "plain file"),
            ("max_age: 0", "max_age", "forgotten at once", "leave `max_age` out"),
            ("path: shop", "path", "cannot be the path of a cookie", "begins with `/`"),
            ("path: '/a; Domain=x'", "path", "cannot be the path of a cookie", "no semicolon"),
        ] {
            let issues = Issues::default();
            let config: Config = serde_yaml::from_str(yaml).unwrap();
            let (root, folder) = (issues.root(), Path::new("."));
            let settings = config.settings().unwrap();
            let built = Sticky::build(settings, "api", &Keep::default(), folder, &root.key("sticky"));
            let issues = issues.into_vec();
            assert!(built.is_none() && issues.len() == 1, "{yaml}");
            assert_eq!(issues[0].path.to_string(), format!("sticky.{path}"), "{yaml}");
            assert!(issues[0].message.contains(message), "{yaml}: {}", issues[0].message);
            assert!(issues[0].hint.as_ref().unwrap().contains(hint), "{yaml}: {:?}", issues[0].hint);
        }
    }

    #[test]
    fn it_is_off_unless_it_is_written() {
        assert!(Config::default().settings().is_none());
        assert!(serde_yaml::from_str::<Config>("false").unwrap().settings().is_none());
        for (yaml, fault) in
            [("source_ip", "expected `cookie`"), ("{ cokie: x }", "unknown field `cokie`"), ("3", "`true`, `cookie`")]
        {
            let error = serde_yaml::from_str::<Config>(yaml).unwrap_err().to_string();
            assert!(error.contains(fault), "{yaml}: {error}");
        }
    }
}
