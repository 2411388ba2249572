//! `file`: the servers stand in a file, which is read again and again.
//!
//! Reading is robust where notifications and times are not: files that are replaced by renaming, links that come to lead
//! elsewhere (as a Kubernetes ConfigMap's do), shares on a network. A text that has changed is taken only when it is
//! still the same a moment later, so that one who writes in place is not read half way.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::ask::PATIENCE;
use super::form::{Form, Short};
use super::list;
use super::source::{Fault, Given, Source, Told};
use crate::diag::Scope;
use crate::units::{ByteSize, HumanDuration};

/// How long a text must stay the same to be taken.
const STILL: Duration = Duration::from_millis(100);
/// The shortest time between two looks.
const LEAST: Duration = Duration::from_millis(100);

/// A file with a list of servers.
pub type Config = Form<Settings>;

/// A file with a list of servers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DiscoverFile")]
pub struct Settings {
    /// The file, relative to the folder of the document: a list in YAML or JSON, in the forms of `servers`.
    pub path: String,
    /// How often it is read, `100ms` or more. Default: `1s`.
    #[serde(default = "every")]
    pub every: HumanDuration,
}

fn every() -> HumanDuration {
    HumanDuration::secs(1)
}

impl Short for Settings {
    const WHAT: &'static str = "the path of a file";
    const EXAMPLE: &'static str = "servers.yaml";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self { path: text.to_owned(), every: every() })
    }
}

impl Config {
    /// What is asked.
    pub fn what(&self) -> &str {
        &self.settings.path
    }

    /// Reports what cannot work.
    pub fn check(&self, at: &Scope<'_>) {
        let settings = &self.settings;
        if settings.path.is_empty() {
            self.at(at, "path", |at| {
                at.error_hint("the path is empty", "name the file that lists the servers, as in `servers.yaml`");
            });
        }
        if settings.every.0 < LEAST {
            at.key("every").error_hint(
                format!("a file cannot be read every `{}`", settings.every),
                "write `100ms` or more; a second will do in most cases",
            );
        }
    }

    /// The file at work.
    pub fn build(&self, given: &Given<'_>) -> impl Source + use<> {
        ListFile {
            path: given.folder.join(&self.settings.path),
            every: self.settings.every.0,
            known: None,
            wrong: None,
            unsettled: None,
        }
    }
}

/// A file with a list of servers, and what it said.
struct ListFile {
    path: PathBuf,
    every: Duration,
    /// The text that was read last, right or wrong.
    known: Option<String>,
    /// What is wrong with it.
    wrong: Option<String>,
    /// Another text, which may not be all of it yet.
    unsettled: Option<String>,
}

#[async_trait]
impl Source for ListFile {
    async fn ask(&mut self) -> Result<Told, Fault> {
        let unsettled = self.unsettled.take();
        let text = match self.known {
            Some(_) => self.read().await?.0,
            None => self.read_first().await?,
        };
        if self.known.as_ref() == Some(&text) {
            return match &self.wrong {
                Some(wrong) => Err(Fault::Refused(wrong.clone())),
                None => Ok(Told { servers: None, again: self.every }),
            };
        }
        if self.known.is_some() && unsettled.as_ref() != Some(&text) {
            self.unsettled = Some(text);
            return Ok(Told { servers: None, again: STILL.min(self.every) });
        }
        let parsed = list::parse(&text);
        self.known = Some(text);
        self.wrong = parsed.as_ref().err().cloned();
        parsed.map(|servers| Told { servers: Some(servers), again: self.every }).map_err(Fault::Refused)
    }

    fn pause(&self, _: u32) -> Duration {
        self.every
    }
}

impl ListFile {
    /// The text, and whether it was written just now.
    async fn read(&self) -> Result<(String, bool), Fault> {
        let path = self.path.clone();
        let read = timeout(PATIENCE, tokio::task::spawn_blocking(move || read(&path))).await;
        let late = |_| Fault::Failed(format!("`{}` was not read within {} s", self.path.display(), PATIENCE.as_secs()));
        read.map_err(late)?.map_err(|error| error.to_string()).flatten().map_err(Fault::Failed)
    }

    /// The first text, with nothing to go by: one that was written just now is given a moment.
    async fn read_first(&self) -> Result<String, Fault> {
        let (mut text, mut is_new) = self.read().await?;
        for _ in 0..10 {
            if !is_new {
                break;
            }
            sleep(STILL).await;
            (text, is_new) = self.read().await?;
        }
        Ok(text)
    }
}

fn read(path: &Path) -> Result<(String, bool), String> {
    let plain = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no file `{}`", path.display()),
        io::ErrorKind::PermissionDenied => format!("this process may not read `{}`", path.display()),
        _ => format!("`{}` cannot be read: {}", path.display(), error.to_string().to_lowercase()),
    };
    // Opening a pipe would wait for its other end, and reading a device might never end.
    let about = std::fs::metadata(path).map_err(plain)?;
    if !about.is_file() {
        return Err(format!("`{}` is no file", path.display()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(list::LARGEST as u64 + 1).read_to_end(&mut bytes)).map_err(plain)?;
    if bytes.len() > list::LARGEST {
        return Err(format!("`{}` has more than {}", path.display(), ByteSize(list::LARGEST as u64)));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("`{}` is not UTF-8", path.display()))?;
    // A time that lies ahead tells nothing.
    let age = about.modified().ok().and_then(|written| written.elapsed().ok());
    Ok((text, age.is_some_and(|age| age < STILL)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;

    fn source(folder: &Path) -> impl Source + use<> {
        serde_yaml::from_str::<Config>("servers.yaml").unwrap().build(&Given { folder, client: &Arc::default() })
    }

    fn addresses(told: Result<Told, Fault>) -> Option<Vec<String>> {
        let servers = told.unwrap().servers?;
        Some(servers.into_iter().map(|server| server.settings.address).collect())
    }

    /// Asks until a changed text has settled.
    async fn settled(source: &mut impl Source) -> Result<Told, Fault> {
        let first = source.ask().await?;
        assert_eq!(first, Told { servers: None, again: STILL });
        source.ask().await
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_taken_once_it_holds_still() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("servers.yaml");
        fs::write(&path, "[10.0.0.1:80]").unwrap();
        let mut source = source(dir.path());
        assert_eq!(addresses(source.ask().await).unwrap(), ["10.0.0.1:80"]);
        assert_eq!(source.ask().await.unwrap(), Told { servers: None, again: Duration::from_secs(1) });
        fs::write(dir.path().join("new"), "[10.0.0.2:80]").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(addresses(settled(&mut source).await).unwrap(), ["10.0.0.2:80"]);
        assert_eq!(addresses(source.ask().await), None);
    }

    #[tokio::test]
    async fn a_link_that_comes_to_lead_elsewhere_is_followed() {
        // As a ConfigMap lies in a pod: the file links into `..data`, which links to a folder with a time as its name.
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (folder, list) in [("..1", "[10.0.0.1:80]"), ("..2", "[10.0.0.2:80]")] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("servers.yaml"), list).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/servers.yaml", at("servers.yaml")).unwrap();
        let mut source = source(dir.path());
        assert_eq!(addresses(source.ask().await).unwrap(), ["10.0.0.1:80"]);
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(addresses(settled(&mut source).await).unwrap(), ["10.0.0.2:80"]);
    }

    #[tokio::test]
    async fn a_list_that_is_being_written_is_not_taken_half_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("servers.yaml");
        fs::write(&path, "- 10.0.0.1:8080\n- 10.0.0.2:8080\n").unwrap();
        let mut source = source(dir.path());
        source.ask().await.unwrap();
        // Each of these is a sound list, and none of them is meant.
        for text in ["- 10.0.0.1:80", "- 10.0.0.1:8080\n", "- 10.0.0.1:8080\n- 10.0.0.2:80"] {
            fs::write(&path, text).unwrap();
            assert_eq!(addresses(source.ask().await), None, "{text}");
        }
        fs::write(&path, "- 10.0.0.1:8080\n- 10.0.0.2:8080\n").unwrap();
        assert_eq!(addresses(source.ask().await), None);
        assert_eq!(addresses(source.ask().await), None);
    }

    #[tokio::test]
    async fn a_bad_list_is_refused_until_it_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("servers.yaml");
        fs::write(&path, "[10.0.0.1:80]").unwrap();
        let mut source = source(dir.path());
        source.ask().await.unwrap();
        fs::write(&path, "- 10.0.0.1:80\n- nonsense\n").unwrap();
        let refused = settled(&mut source).await.unwrap_err();
        assert!(matches!(&refused, Fault::Refused(why) if why.starts_with("line 2: `nonsense` has no port")));
        assert_eq!(source.ask().await.unwrap_err(), refused);
        fs::write(&path, "[10.0.0.1:80]").unwrap();
        assert_eq!(addresses(settled(&mut source).await).unwrap(), ["10.0.0.1:80"]);
    }

    #[tokio::test]
    async fn what_is_no_readable_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("servers.yaml");
        let mut source = source(dir.path());
        let mut failed = async |part: &str| {
            let told = source.ask().await.unwrap_err();
            assert!(matches!(&told, Fault::Failed(why) if why.contains(part)), "{part}: {told:?}");
        };
        failed("there is no file").await;
        fs::create_dir(&path).unwrap();
        failed("is no file").await;
        fs::remove_dir(&path).unwrap();
        fs::write(&path, b"[\xff]").unwrap();
        failed("is not UTF-8").await;
        fs::write(&path, "#".repeat(list::LARGEST + 1)).unwrap();
        failed("has more than 4MiB").await;
        fs::write(&path, "[10.0.0.1:80]").unwrap();
        assert_eq!(addresses(source.ask().await).unwrap(), ["10.0.0.1:80"]);
        fs::remove_file(&path).unwrap();
        source.ask().await.unwrap_err();
        // Back again with the same text: nothing has changed.
        fs::write(&path, "[10.0.0.1:80]").unwrap();
        assert_eq!(addresses(source.ask().await), None);
    }
}
