//! Serving: what `run` and `demo` have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::terminal::{colour, tell};
use crate::config::load::Document;
use crate::gateway::{self, Environment, Gateway};
use crate::keep::Keep;
use crate::server::{self, Ears, Start};

/// Serves a document that was read.
pub(super) fn serve(document: Document, path: Option<PathBuf>, ready: impl FnOnce(&Gateway)) -> Result<(), String> {
    let ears = Ears::open()?;
    let keep = Arc::new(Keep::default());
    let stats = Arc::default();
    let folder = path.as_deref().map_or_else(|| Path::new(""), gateway::folder);
    let environment = Environment { generation: 1, folder, keep: &keep, stats: &stats };
    let checked = gateway::check_document(document, &environment, colour())?;
    if !checked.warnings.is_empty() {
        tell(&checked.warnings);
    }
    server::run(Start { checked, path, keep, stats, colour: colour() }, ears, ready)
}
