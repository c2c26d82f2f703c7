//! Copies of folders that are being written to, as a thief or a backup program takes them: file by file, without asking.
//!
//! A file that vanishes meanwhile is left out; one that grows is copied as far as it is. Nothing is made consistent:
//! what matters is what the bytes tell.

use anyhow::Context as _;
use std::{
    io::ErrorKind,
    ops::AddAssign,
    path::{Path, PathBuf},
};

/// What a folder holds.
#[derive(Default, Clone, Copy)]
pub struct Amount {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<Amount> {
    let mut amount = Amount::default();
    std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for path in entries(from)? {
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        if path.is_dir() {
            amount += copy(&path, &target)?;
            continue;
        }
        match std::fs::copy(&path, &target) {
            Ok(bytes) => amount += Amount { files: 1, bytes },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    Ok(amount)
}

/// Every file below a folder.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in entries(folder)? {
        if path.is_dir() {
            files.append(&mut self::files(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}
