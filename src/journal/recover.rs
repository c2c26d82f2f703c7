//! What earlier runs left: a scan of all segments, each by itself.
//!
//! Every segment is synced, dropped from the page cache and read from the disk, in this order, so that what is found is
//! durable (see the crash cases in [`super`]). Then, frame by frame:
//!
//! - a whole frame with the right checksum is kept;
//! - zeros up to the end are the segment's unused part;
//! - anything else is *damage*, from there to the next whole frame. A batch that was cut off by a crash looks like this at
//!   the end of the newest segment, and nothing in it was acknowledged. Elsewhere the medium has lost something. In both
//!   cases the frames behind are kept (they open or they do not, the seal decides that), and the count is reported.
//!
//! Segments without a frame are unlinked. None is written to again.

use super::{FrameRef, OpenError, SEGMENT_BYTES, frame, index::Index, segment_path};
use crate::domain::id::RowId;
use rustix::fs::Advice;
use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

/// What a start found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The frames of each call, in the order in which they were written.
    pub calls: BTreeMap<RowId, Vec<FrameRef>>,
    /// Places that are neither frames nor unused.
    pub damage: Vec<Damage>,
}

/// A place in a segment that is neither a frame nor unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number, as in its file name.
    pub segment: u32,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// Whole frames behind it in the segment; zero for the torn tail that a crash leaves.
    pub frames_behind: u64,
}

fn doing(doing: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { doing, source }
}

/// Creates the folder where missing and locks it for as long as the file that is returned is open.
pub(super) fn lock(dir: &Path) -> Result<File, OpenError> {
    let folders: Vec<&Path> = dir.ancestors().filter(|folder| !folder.as_os_str().is_empty()).collect();
    for folder in folders.into_iter().rev() {
        let is_new = !folder.is_dir();
        if is_new {
            DirBuilder::new().mode(0o700).create(folder).map_err(doing("creating its folder"))?;
        }
        // Its own name also where it is there: whoever created it may have died before this.
        if is_new || folder == dir {
            let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(above).and_then(|above| above.sync_all()).map_err(doing("syncing the folder above"))?;
        }
    }
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("LOCK"))
        .map_err(doing("opening its lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked),
        Err(TryLockError::Error(error)) => Err(doing("locking it")(error)),
    }
}

/// Scans the folder. Gives what was found, the index over it, and the number of the next segment.
pub(super) fn recover(dir: &Path) -> Result<(Recovered, Index, u32), OpenError> {
    let mut recovered = Recovered::default();
    let mut index = Index::default();
    let numbers = segments(dir)?;
    for &number in &numbers {
        let bytes = read(dir, number)?;
        let used = bytes.len() - trailing_zeros(&bytes);
        let found = scan(&bytes, used, number, &mut recovered.damage);
        if found.is_empty() {
            std::fs::remove_file(segment_path(dir, number)).map_err(doing("unlinking an empty segment"))?;
            continue;
        }
        index.written(number, used as u64);
        for frame::Found { row, reference } in found {
            index.recovered(row, reference);
            recovered.calls.entry(row).or_default().push(reference);
        }
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(doing("syncing its folder"))?;
    let next = match numbers.last() {
        Some(last) => last.checked_add(1).ok_or(OpenError::Exhausted)?,
        None => 1,
    };
    Ok((recovered, index, next))
}

fn segments(dir: &Path) -> Result<Vec<u32>, OpenError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(doing("listing its folder"))? {
        let entry = entry.map_err(doing("listing its folder"))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".qtj")).and_then(|number| number.parse().ok());
        // The spelling must be the one that we write, so that no two names stand for one segment.
        if let Some(number) = number.filter(|number| segment_path(dir, *number) == entry.path())
            && entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn read(dir: &Path, number: u32) -> Result<Vec<u8>, OpenError> {
    let mut file = File::open(segment_path(dir, number)).map_err(doing("opening a segment"))?;
    file.sync_all().map_err(doing("syncing a segment"))?;
    // Advice: where the file system does not take it, a crash of the machine is what empties the cache.
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
    let len = file.metadata().map_err(doing("reading a segment"))?.len();
    if len > SEGMENT_BYTES.end() + frame::disk_len(frame::MAX_PLAINTEXT) as u64 {
        return Err(OpenError::Oversized(number));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    file.by_ref().take(len).read_to_end(&mut bytes).map_err(doing("reading a segment"))?;
    Ok(bytes)
}

/// The whole frames of a segment; what else is in it is added to `damage`.
fn scan(bytes: &[u8], used: usize, number: u32, damage: &mut Vec<Damage>) -> Vec<frame::Found> {
    let first_damage = damage.len();
    let mut found = Vec::new();
    // Frames found before each of this segment's damages.
    let mut before = Vec::new();
    let mut at = 0;
    loop {
        if let Some(frame) = frame::parse(bytes, at, number) {
            at += frame.reference.disk_len();
            found.push(frame);
            continue;
        }
        if at >= used {
            break;
        }
        let next = next_frame(bytes, at + 1, used, number);
        damage.push(Damage {
            segment: number,
            offset: at as u64,
            bytes: (next.unwrap_or(used) - at) as u64,
            frames_behind: 0,
        });
        before.push(found.len());
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    for (damage, before) in damage[first_damage..].iter_mut().zip(before) {
        damage.frames_behind = (found.len() - before) as u64;
    }
    found
}

fn next_frame(bytes: &[u8], from: usize, used: usize, number: u32) -> Option<usize> {
    (from..used).find(|at| bytes[*at..].starts_with(&frame::MAGIC) && frame::parse(bytes, *at, number).is_some())
}

fn trailing_zeros(bytes: &[u8]) -> usize {
    const BLOCK: [u8; 4096] = [0; 4096];
    let blocks = bytes.rchunks_exact(BLOCK.len()).take_while(|block| **block == BLOCK).count() * BLOCK.len();
    let rest = &bytes[..bytes.len() - blocks];
    blocks + rest.iter().rev().take_while(|byte| **byte == 0).count()
}
