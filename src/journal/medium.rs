//! What the writing thread asks of the file system: four calls, and what to do when one of them fails beyond repair.
//! Tests put a medium of their own in its place, which counts, holds up or refuses.

use rustix::fs::{FallocateFlags, OFlags};
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

pub(super) trait Medium: Send {
    /// Creates a file and gives it all its blocks. On failure nothing is left of it.
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<File> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(path)?;
        match give_blocks(&file, bytes) {
            Ok(()) => Ok(file),
            Err(error) => {
                // An empty file that stays is dropped at the next start.
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    /// After a failed write or sync nobody knows what is on the disk: the process ends, and a start looks.
    fn fatal(&self, doing: &'static str, error: io::Error) {
        tracing::error!(doing, %error, "the journal cannot go on; aborting");
        std::process::abort();
    }
}

/// The file system itself.
pub(super) struct Disk;

impl Medium for Disk {}

fn give_blocks(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; 1 << 16];
            let mut at = 0;
            while at < bytes {
                let len = zeros.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
                file.write_all_at(&zeros[..len], at)?;
                at += len as u64;
            }
            Ok(())
        }
        other => Ok(other?),
    }
}
