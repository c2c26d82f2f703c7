//! The attacker of the design's section 1, and so the yardstick of every erasure.
//!
//! Given any number of copies of the key store, the journal and their backups from any time, root slots, and folders of
//! objects, it finds out what can still be read:
//!
//! 1. [`carve`] reads the raw bytes of every file and keeps each envelope and journal frame that it meets, of any version:
//!    in tables, in logs (whose records it puts together, see [`wal`]), in files of pending commands, in anything. No
//!    database is opened, because none would show what it overwrote.
//! 2. [`closure`] takes the roots out of the slots and follows, to a fixpoint, what opens what: tops, pages of any
//!    version, appended entries, and with the secrets in them values and journal frames. [`page`] reads the bodies.
//! 3. [`objects`] tries every object: first the secret that its id leads to, then every audio secret there is.
//! 4. [`report`] says which objects are readable, and on request each value's state and where given strings occur.
//!
//! It shares the definitions of formats with the gateway, and nothing that the gateway does: pages are read by a parser
//! of its own, written from `docs/format.md`. Checksums are not looked at, since an attacker would not either. What
//! authenticates and yet is not understood makes it fail: a yardstick must not be short without saying so.
//!
//! It holds an index in memory (about a hundred bytes for each distinct value found), never whole files. It prints secrets
//! only for `--export-key`.

pub mod carve;
pub mod closure;
pub mod find;
pub mod objects;
pub mod page;
pub mod report;
pub mod wal;

use carve::Carved;
use closure::Closure;
use find::Needles;
use indicatif::{ProgressBar, ProgressStyle};
use objects::Objects;
use std::{
    io,
    path::{Path, PathBuf},
};

/// What to look at.
#[derive(Default)]
pub struct Options {
    /// Folders (or files) with key stores, journals, backups.
    pub keys: Vec<PathBuf>,
    /// Root slots, folders or files.
    pub slots: Vec<PathBuf>,
    /// Folders with objects.
    pub objects: Vec<PathBuf>,
    /// Strings to look for in everything opened.
    pub find: Vec<String>,
    /// Try every secret on everything that is still sealed, not only what ids lead to.
    pub exhaustive: bool,
}

/// What came of it.
pub struct Findings {
    /// What was found in files, opened or not.
    pub carved: Carved,
    /// What could be opened.
    pub closure: Closure,
    /// The objects.
    pub objects: Objects,
    /// The strings.
    pub needles: Needles,
}

/// Why it could not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file for what was put together out of logs could not be made or written.
    #[error("a temporary file: {0}")]
    Spill(io::Error),
    /// Something authenticated but is not in the format that this program knows.
    #[error("{0} sealed values opened but are in a format this program does not know; its findings would be too few")]
    NotUnderstood(u64),
}

impl Error {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { path: path.to_owned(), source }
    }
}

/// Carves, opens, tries.
pub fn investigate(options: &Options) -> Result<Findings, Error> {
    let mut needles = Needles::new(&options.find);
    let carved = Carved::from_paths(&options.keys, &mut needles)?;
    let closure = Closure::of(&carved, &options.slots, options.exhaustive, &mut needles)?;
    let objects = Objects::tried(&options.objects, &carved, &closure, options.exhaustive, &mut needles)?;
    match closure.not_understood {
        0 => Ok(Findings { carved, closure, objects, needles }),
        several => Err(Error::NotUnderstood(several)),
    }
}

/// Every regular file at or below a path, in order of name; symbolic links are not followed.
fn files_below(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(next) = folders.pop() {
        let kind = match std::fs::symlink_metadata(&next) {
            Ok(found) => found.file_type(),
            // Removed while we look.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && next != path => continue,
            Err(error) => return Err(Error::read(&next)(error)),
        };
        if kind.is_file() {
            files.push(next);
        } else if kind.is_dir() || (next == path && next.is_dir()) {
            for entry in std::fs::read_dir(&next).map_err(Error::read(&next))? {
                folders.push(entry.map_err(Error::read(&next))?.path());
            }
        } else if next == path && next.is_file() {
            files.push(next);
        }
    }
    files.sort();
    Ok(files)
}

/// A bar on a terminal, nothing elsewhere.
fn progress(what: &'static str, total: u64, bytes: bool) -> ProgressBar {
    let template =
        if bytes { "{msg:>16} [{bar:40}] {bytes}/{total_bytes}" } else { "{msg:>16} [{bar:40}] {pos}/{len}" };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_message(what)
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
