//! `http`: the servers are told by an HTTP endpoint, which is asked again and again.
//!
//! With the `ETag` of the list in force (RFC 9110, 8.8.3), so that an endpoint need not repeat what has not changed.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, ETAG, HOST, IF_NONE_MATCH};
use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::form::{Form, Short};
use super::list;
use super::source::{Fault, Given, Source, Told};
use crate::diag::Scope;
use crate::http_client::{Answer, HttpClient, Limits, Url};
use crate::units::HumanDuration;

/// The shortest time between two questions.
const LEAST: Duration = Duration::from_millis(100);

/// An HTTP endpoint that tells the servers.
pub type Config = Form<Settings>;

/// An HTTP endpoint that tells the servers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DiscoverHttp")]
pub struct Settings {
    /// Where it is asked by GET, `http://…` or `https://…`. It answers 200 with a list in JSON or YAML, in the forms of
    /// `servers`, or 304 when it knows the `If-None-Match` sent to it. Redirects are not followed.
    pub url: String,
    /// How often it is asked, `100ms` or more. Default: `10s`.
    #[serde(default = "every")]
    pub every: HumanDuration,
    /// How long an answer may take in all. Default: `5s`.
    #[serde(default = "timeout")]
    pub timeout: HumanDuration,
    /// Header fields of the question, as in `{ Authorization: "Bearer ${TOKEN}" }`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

fn every() -> HumanDuration {
    HumanDuration::secs(10)
}

fn timeout() -> HumanDuration {
    HumanDuration::secs(5)
}

impl Short for Settings {
    const WHAT: &'static str = "the URL of an endpoint";
    const EXAMPLE: &'static str = "http://registry.internal/servers";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self { url: text.to_owned(), every: every(), timeout: timeout(), headers: BTreeMap::new() })
    }
}

impl Config {
    /// What is asked.
    pub fn what(&self) -> &str {
        &self.settings.url
    }

    /// Reports what cannot work.
    pub fn check(&self, at: &Scope<'_>) {
        let settings = &self.settings;
        if let Err(fault) = settings.url.parse::<Url>() {
            self.at(at, "url", |at| at.error_hint(fault, "write it as in `http://registry.internal/servers`"));
        }
        if settings.every.0 < LEAST {
            at.key("every").error_hint(
                format!("an endpoint cannot be asked every `{}`", settings.every),
                "write `100ms` or more; some seconds will do in most cases",
            );
        }
        if settings.timeout.0.is_zero() {
            at.key("timeout").error_hint("no answer comes within `0`", "write how long it may take, as in `5s`");
        }
        for (name, value) in &settings.headers {
            let at = at.key("headers");
            let at = at.key(name);
            match field(name, value) {
                Err(fault) => at.error_hint(fault, "write a name and a text, as in `Authorization: Bearer …`"),
                Ok((name, _)) if [HOST, IF_NONE_MATCH].contains(&name) => {
                    at.error_hint(format!("the gateway sets `{name}` by itself"), "leave it out");
                }
                Ok(_) => {}
            }
        }
    }

    /// The endpoint at work.
    pub fn build(&self, given: &Given<'_>) -> impl Source + use<> {
        let settings = &self.settings;
        let mut headers = vec![(ACCEPT, HeaderValue::from_static("application/json, application/yaml, */*;q=0.5"))];
        headers.extend(settings.headers.iter().filter_map(|(name, value)| field(name, value).ok()));
        Endpoint {
            client: Arc::clone(given.client),
            url: settings.url.clone(),
            every: settings.every.0,
            limits: Limits { total: settings.timeout.0, max_body: list::LARGEST },
            headers,
            known: None,
            wrong: None,
            tag: None,
        }
    }
}

fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name = HeaderName::from_str(name).map_err(|_| format!("`{name}` is no name of a header field"))?;
    let mut value = HeaderValue::from_str(value).map_err(|_| "the value has a byte that no header field may have")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// An endpoint, and what it said.
struct Endpoint {
    client: Arc<HttpClient>,
    url: String,
    every: Duration,
    limits: Limits,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The text that came last, right or wrong.
    known: Option<Bytes>,
    /// What is wrong with it.
    wrong: Option<String>,
    /// The tag of the last sound list. A wrong one's is not kept: that it is still there is still wrong.
    tag: Option<HeaderValue>,
}

#[async_trait]
impl Source for Endpoint {
    async fn ask(&mut self) -> Result<Told, Fault> {
        let mut headers = self.headers.clone();
        headers.extend(self.tag.clone().map(|tag| (IF_NONE_MATCH, tag)));
        let answer = self.client.get(&self.url, &headers, self.limits).await;
        let answer = answer.map_err(|fault| Fault::Failed(format!("`{}`: {fault}", self.url)))?;
        self.take(answer)
    }

    fn pause(&self, _: u32) -> Duration {
        self.every
    }
}

impl Endpoint {
    fn take(&mut self, answer: Answer) -> Result<Told, Fault> {
        let unchanged = Told { servers: None, again: self.every };
        match answer.head.status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if self.tag.is_some() => {
                // What was wrong in between is gone again.
                self.wrong = None;
                self.known = None;
                return Ok(unchanged);
            }
            status => return Err(Fault::Failed(format!("`{}` answers {}", self.url, status.as_u16()))),
        }
        let is_known = self.known.as_ref() == Some(&answer.body);
        if let Some(wrong) = self.wrong.as_ref().filter(|_| is_known) {
            return Err(Fault::Refused(wrong.clone()));
        }
        let text = std::str::from_utf8(&answer.body).map_err(|_| "the list is not UTF-8".to_owned());
        let parsed = if is_known { None } else { Some(text.and_then(list::parse)) };
        self.known = Some(answer.body);
        self.wrong = parsed.as_ref().and_then(|parsed| parsed.as_ref().err().cloned());
        if self.wrong.is_none() {
            self.tag = answer.head.headers.get(ETAG).cloned();
        }
        let Some(parsed) = parsed else { return Ok(unchanged) };
        parsed.map(|servers| Told { servers: Some(servers), again: self.every }).map_err(Fault::Refused)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    /// An endpoint of the test: answers each request with what it was told to, and notes the request.
    struct Registry {
        url: String,
        answer: Arc<Mutex<String>>,
        seen: Arc<Mutex<String>>,
        task: JoinHandle<()>,
    }

    fn build(yaml: &str) -> impl Source + use<> {
        let given = Given { folder: Path::new(""), client: &Arc::default() };
        serde_yaml::from_str::<Config>(yaml).unwrap().build(&given)
    }

    impl Drop for Registry {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    impl Registry {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/servers", listener.local_addr().unwrap());
            let (answer, seen) = <(Arc<Mutex<String>>, Arc<Mutex<String>>)>::default();
            let (answers, notes) = (Arc::clone(&answer), Arc::clone(&seen));
            let task = tokio::spawn(async move {
                let mut silent = Vec::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(stream.read_u8().await.unwrap());
                    }
                    *notes.lock().unwrap() = String::from_utf8(request).unwrap().to_ascii_lowercase();
                    let answer = answers.lock().unwrap().clone();
                    // Who refuses an answer by its length hangs up in the midst of it.
                    let _ = stream.write_all(answer.as_bytes()).await;
                    if answer.is_empty() {
                        silent.push(stream);
                    }
                }
            });
            Self { url, answer, seen, task }
        }

        fn answers(&self, status: u16, head: &str, body: &str) {
            let length = body.len();
            *self.answer.lock().unwrap() =
                format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}");
        }

        fn is_silent(&self) {
            self.answer.lock().unwrap().clear();
        }

        fn saw(&self, line: &str) -> bool {
            self.seen.lock().unwrap().contains(line)
        }

        fn source(&self, more: &str) -> impl Source + use<> {
            let yaml = format!("{{ url: '{}', every: 2s{more} }}", self.url);
            build(&yaml)
        }
    }

    fn addresses(told: Result<Told, Fault>) -> Option<Vec<String>> {
        let told = told.unwrap();
        assert_eq!(told.again, Duration::from_secs(2));
        Some(told.servers?.into_iter().map(|server| server.settings.address).collect())
    }

    #[tokio::test]
    async fn a_list_is_asked_for_by_its_tag_and_taken_when_it_has_changed() {
        let registry = Registry::start().await;
        let mut source = registry.source(", headers: { Authorization: Bearer x }");
        registry.answers(200, "ETag: \"1\"\r\n", r#"["10.0.0.1:80"]"#);
        assert_eq!(addresses(source.ask().await).unwrap(), ["10.0.0.1:80"]);
        assert!(registry.saw("get /servers http/1.1") && registry.saw("authorization: bearer x"));
        assert!(!registry.saw("if-none-match"));
        registry.answers(304, "", "");
        assert_eq!(addresses(source.ask().await), None);
        assert!(registry.saw("if-none-match: \"1\""));
        registry.answers(200, "ETag: \"2\"\r\n", "- 10.0.0.2:80\n");
        assert_eq!(addresses(source.ask().await).unwrap(), ["10.0.0.2:80"]);
        // Another tag, the same list.
        registry.answers(200, "ETag: \"3\"\r\n", "- 10.0.0.2:80\n");
        assert_eq!(addresses(source.ask().await), None);
        registry.answers(304, "", "");
        assert_eq!(addresses(source.ask().await), None);
        assert!(registry.saw("if-none-match: \"3\""));
    }

    #[tokio::test]
    async fn what_is_no_list_is_told_and_asked_for_again() {
        let registry = Registry::start().await;
        let mut source = registry.source(", timeout: 300ms");
        registry.answers(304, "", "");
        assert!(matches!(source.ask().await, Err(Fault::Failed(why)) if why.ends_with("answers 304")));
        registry.answers(500, "", "oh");
        assert!(matches!(source.ask().await, Err(Fault::Failed(why)) if why.ends_with("/servers` answers 500")));
        registry.answers(302, "Location: /\r\n", "");
        assert!(matches!(source.ask().await, Err(Fault::Failed(why)) if why.ends_with("answers 302")));
        registry.answers(200, "", &"#".repeat(list::LARGEST + 1));
        assert!(matches!(source.ask().await, Err(Fault::Failed(why)) if why.contains("more than 4MiB")));
        registry.is_silent();
        assert!(matches!(source.ask().await, Err(Fault::Failed(why)) if why.contains("within 300ms")));
        registry.answers(200, "", "[10.0.0.1:80]");
        assert_eq!(addresses(source.ask().await).unwrap(), ["10.0.0.1:80"]);
    }

    #[tokio::test]
    async fn a_bad_list_stays_refused_however_it_is_tagged() {
        let registry = Registry::start().await;
        let mut source = registry.source("");
        registry.answers(200, "ETag: good\r\n", "[10.0.0.1:80]");
        source.ask().await.unwrap();
        registry.answers(200, "ETag: bad\r\n", "[10.0.0.1:80,\n app]");
        for _ in 0..2 {
            let refused = source.ask().await.unwrap_err();
            assert!(
                matches!(&refused, Fault::Refused(why) if why.starts_with("line 2: `app` has no port")),
                "{refused:?}"
            );
            assert!(registry.saw("if-none-match: good"));
        }
        registry.answers(304, "", "");
        assert_eq!(addresses(source.ask().await), None);
        registry.answers(200, "ETag: bad\r\n", "[10.0.0.1:80,\n app]");
        source.ask().await.unwrap_err();
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_there_is_told() {
        let mut source = build("http://127.0.0.1:1/");
        let told = source.ask().await.unwrap_err();
        assert_eq!(told, Fault::Failed("`http://127.0.0.1:1/`: connection refused".to_owned()));
    }
}
