//! `Source`: whom an upstream asks for its servers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::http_client::HttpClient;
use crate::upstream::server::Server;

/// How long at most until something that failed is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whom an upstream asks for its servers.
#[async_trait]
pub trait Source: Send {
    /// Asks once.
    async fn ask(&mut self) -> Result<Told, Fault>;

    /// After how long it is asked again when it failed so many times in a row, at least once.
    fn pause(&self, failures: u32) -> Duration;
}

/// What a source is given to work with.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// Where relative paths begin.
    pub folder: &'a Path,
    /// What asks endpoints. It belongs to the runtime that it is first used on.
    pub client: &'a Arc<HttpClient>,
}

/// What a source told.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// The servers; at least one, and nothing is wrong with any. `None`: the same as before.
    pub servers: Option<Vec<Server>>,
    /// After how long it is to be asked again.
    pub again: Duration,
}

/// Why there are no servers: one clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody answers, or nobody knows.
    Failed(String),
    /// What was told is wrong, and refused as a whole.
    Refused(String),
}

impl Fault {
    /// The clause.
    pub fn reason(&self) -> &str {
        match self {
            Self::Failed(reason) | Self::Refused(reason) => reason,
        }
    }
}

/// What became of some questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many there were.
    pub asked: usize,
    /// To so many nobody had an answer.
    pub failed: usize,
    /// So many answers were wrong.
    pub refused: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.asked += more.asked;
        self.failed += more.failed;
        self.refused += more.refused;
    }
}

/// Pauses that double from `first` on, up to half a minute, so that what is down is not asked all the time.
pub fn growing_pause(first: Duration, failures: u32) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE).max(first)
}
