//! The format of the directory. What has another one is moved aside at once, and deleted in the background.

use std::fs;
use std::io;
use std::path::Path;

use super::files::{Files, is_gone, replace};
use super::format::{Name, VERSION};
use super::home::Home;
use crate::cache::tick::Tick;

/// Moves the objects of another format aside, and says that ours are here.
pub(super) fn check(files: &Files) -> io::Result<()> {
    let path = files.below("VERSION");
    match fs::read_to_string(&path) {
        Ok(version) if version == VERSION => return Ok(()),
        Err(error) if is_gone(&error) => {}
        // What is no text is no version of ours either.
        Ok(_) => move_aside(files)?,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => move_aside(files)?,
        Err(error) => return Err(error),
    }
    replace(&files.below(&format!("VERSION.{}", Tick::now().0)), &path, VERSION.as_bytes())
}

fn move_aside(files: &Files) -> io::Result<()> {
    tracing::warn!("cache {}: is of another format, so it is begun anew", files.root().display());
    let aside = files.below(&format!("old-{}", Tick::now().0));
    super::files::make_directory(&aside)?;
    for name in (0..=u8::MAX).map(|directory| format!("{directory:02x}")).chain(["tmp".to_owned()]) {
        match fs::rename(files.below(&name), aside.join(&name)) {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Deletes what was moved aside, as far as it has names of ours.
pub(super) fn delete_old(files: &Files) {
    for entry in fs::read_dir(files.root()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("old-"));
        if number.is_some_and(|number| number.parse::<u64>().is_ok()) {
            delete(&entry.path());
        }
    }
}

fn delete(aside: &Path) {
    for directory in fs::read_dir(aside).into_iter().flatten().flatten() {
        if directory.file_name() == "tmp" {
            // As a living one does with its dead siblings.
            _ = Home::claim(&directory.path()).map(|home| home.others());
        }
        for entry in fs::read_dir(directory.path()).into_iter().flatten().flatten() {
            if entry.file_name().to_str().and_then(Name::parse).is_some() {
                _ = fs::remove_file(entry.path());
            }
        }
        _ = fs::remove_dir(directory.path());
    }
    _ = fs::remove_dir(aside);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::id::Id;

    #[test]
    fn another_format_is_begun_anew_and_what_is_not_ours_stays() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path().into());
        check(&files).unwrap();
        let id = Id::of(b"a");
        drop(files.lock(&id).unwrap());
        fs::write(files.meta(&id), b"x").unwrap();
        check(&files).unwrap();
        assert!(files.meta(&id).exists(), "the same format");

        fs::write(files.below("README"), b"mine").unwrap();
        fs::write(files.directory(id.bytes()[0]).join("notes.txt"), b"mine").unwrap();
        fs::write(files.below("VERSION"), b"\xff 9").unwrap();
        check(&files).unwrap();
        assert!(!files.meta(&id).exists());
        assert_eq!(fs::read_to_string(files.below("VERSION")).unwrap(), VERSION);
        delete_old(&files);
        assert!(files.below("README").exists());
        let aside = fs::read_dir(root.path()).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap().path();
        let left = fs::read_dir(aside).unwrap().flatten().next().unwrap().path();
        assert_eq!(fs::read_dir(&left).unwrap().count(), 1, "only what is not ours");
        assert!(left.join("notes.txt").exists());
    }
}
