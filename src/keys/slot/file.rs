//! A root slot in a file: three sectors of 4096 bytes, written in place.
//!
//! ```text
//! offset  bytes  field (of a sector; a sector of zeros is free)
//!      0      4  magic "QTRS"
//!      4      1  version, 1
//!      5      1  number of the slot
//!      6      2  zero
//!      8      8  generation
//!     16     16  root id
//!     32     32  share of that root
//!     64     32  SHA-256 of bytes 0..64
//!     96         zero
//! ```
//!
//! By cases: `stage` writes a free or broken sector only, so a torn write harms no valid record. `commit` first makes sure
//! that the record to keep is valid, then overwrites the others with zeros and syncs; torn, they are invalid or still
//! whole, and the next start finishes the work. It overwrites sectors that read as zeros too: they may do so in the page
//! cache only, when an earlier process died, or its sync failed, behind the write, and the old root is then still on the
//! disk. The file is created at the first `stage`, so that opening changes nothing; a file that is there gets its name
//! synced, which whoever created it may not have lived to do. A file that was removed, replaced or whose volume went away
//! under a running gateway still reads and syncs; each call therefore looks whether the path still leads to it.
//!
//! What it cannot do: make flash or a copying file system forget the old blocks. It declares *best effort*. It belongs
//! on a medium that is in no snapshot and no backup.

use super::{
    super::backing::{create_folder, sync_folder},
    Forgets, Record, Slot, SlotError,
};
use crate::{
    crypto::{secret::Secret, stack},
    domain::id::RootId,
};
use std::{
    fs::{File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Bytes in a sector.
pub const SECTOR: usize = 4096;
/// Sectors in a slot file.
pub const SECTORS: usize = 3;
/// What a record takes of its sector.
const HEAD: usize = 96;
/// The first four bytes of a sector in use.
pub const MAGIC: [u8; 4] = *b"QTRS";

/// Reads one sector; none when it is free or broken. Public: the forensics tool reads slots with it.
pub fn parse_sector(sector: &[u8]) -> Option<Record> {
    let (fields, rest) = sector.split_at_checked(64)?;
    let checksum = rest.get(..32)?;
    let [m0, m1, m2, m3, 1, number, 0, 0] = *fields.first_chunk::<8>()? else { return None };
    if [m0, m1, m2, m3] != MAGIC || number == 0 || checksum != digest(fields).as_ref() {
        return None;
    }
    Some(Record {
        generation: u64::from_be_bytes(fields[8..16].try_into().ok()?),
        id: RootId(fields[16..32].try_into().ok()?),
        number,
        share: Secret::from_bytes(fields[32..64].try_into().ok()?),
    })
}

fn sector_of(record: &Record) -> Zeroizing<Vec<u8>> {
    let mut sector = Zeroizing::new(vec![0; SECTOR]);
    sector[..4].copy_from_slice(&MAGIC);
    sector[4] = 1;
    sector[5] = record.number;
    sector[8..16].copy_from_slice(&record.generation.to_be_bytes());
    sector[16..32].copy_from_slice(&record.id.0);
    sector[32..64].copy_from_slice(record.share.expose());
    let checksum = digest(&sector[..64]);
    sector[64..96].copy_from_slice(checksum.as_ref());
    sector
}

pub(super) fn digest(bytes: &[u8]) -> ring::digest::Digest {
    // The root is among them.
    stack::wiped(|| ring::digest::digest(&ring::digest::SHA256, bytes))
}

/// The slot in a file.
pub struct FileSlot {
    path: PathBuf,
    file: Option<File>,
}

impl FileSlot {
    /// Opens a slot and locks it. A file that is not there yet is an empty slot.
    pub fn open(path: &Path) -> Result<Self, SlotError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { path: path.to_owned(), file: None });
            }
            Err(error) => return Err(io(error)),
        };
        lock(&file)?;
        if file.metadata().map_err(io)?.len() != (SECTOR * SECTORS) as u64 {
            return Err(SlotError::NotASlot);
        }
        file.sync_all().and_then(|()| create_folder(folder(path))).map_err(io)?;
        sync_folder(folder(path)).map_err(io)?;
        Ok(Self { path: path.to_owned(), file: Some(file) })
    }

    fn created(&mut self) -> Result<&File, SlotError> {
        if self.file.is_none() {
            create_folder(folder(&self.path)).map_err(io)?;
            // Under another name until it is whole: what has the slot's name is a slot. All of it now, so that a full disk is
            // met here and not at an erasure.
            let new = self.path.with_added_extension("new");
            let mut options = OpenOptions::new();
            let file =
                options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&new).map_err(io)?;
            lock(&file)?;
            file.set_len((SECTOR * SECTORS) as u64).map_err(io)?;
            file.write_all_at(&[0; SECTOR * SECTORS], 0).map_err(io)?;
            // Never over a slot that came to lie there meanwhile: a volume that was mounted.
            if self.path.exists() {
                return Err(SlotError::Held);
            }
            file.sync_all().and_then(|()| std::fs::rename(&new, &self.path)).map_err(io)?;
            sync_folder(folder(&self.path)).map_err(io)?;
            self.file = Some(file);
        }
        self.file.as_ref().ok_or(SlotError::NotASlot)
    }

    /// Of each sector all that it may say. On the heap: what lies on the stack is copied when it moves, and the copy stays.
    fn heads(&self) -> Result<Zeroizing<Vec<u8>>, SlotError> {
        let mut heads = Zeroizing::new(vec![0; HEAD * SECTORS]);
        if let Some(file) = &self.file {
            let (own, there) = (file.metadata().map_err(io)?, std::fs::metadata(&self.path).map_err(io)?);
            if (own.dev(), own.ino()) != (there.dev(), there.ino()) {
                return Err(SlotError::Io("another file lies in its place".to_owned()));
            }
            for (number, head) in heads.chunks_exact_mut(HEAD).enumerate() {
                file.read_exact_at(head, (number * SECTOR) as u64).map_err(io)?;
            }
        }
        Ok(heads)
    }

    fn wipe(&mut self, doomed: impl Fn(&[u8]) -> bool) -> Result<(), SlotError> {
        let heads = self.heads()?;
        let Some(file) = &self.file else { return Ok(()) };
        for (number, _) in heads.chunks_exact(HEAD).enumerate().filter(|(_, head)| doomed(head)) {
            file.write_all_at(&[0; SECTOR], (number * SECTOR) as u64).map_err(io)?;
        }
        file.sync_data().map_err(io)
    }
}

impl Slot for FileSlot {
    fn records(&mut self) -> Result<Vec<Record>, SlotError> {
        Ok(self.heads()?.chunks_exact(HEAD).filter_map(parse_sector).collect())
    }

    fn stage(&mut self, record: &Record) -> Result<(), SlotError> {
        let heads = self.heads()?;
        let free = heads.chunks_exact(HEAD).position(|head| parse_sector(head).is_none()).ok_or(SlotError::Full)?;
        let file = self.created()?;
        file.write_all_at(&sector_of(record), (free * SECTOR) as u64).map_err(io)?;
        file.sync_data().map_err(io)
    }

    fn commit(&mut self, keep: RootId) -> Result<(), SlotError> {
        if !self.records()?.iter().any(|record| record.id == keep) {
            return Err(SlotError::Missing);
        }
        self.wipe(|sector| parse_sector(sector).is_none_or(|record| record.id != keep))
    }

    fn discard(&mut self, root: RootId) -> Result<(), SlotError> {
        self.wipe(|sector| parse_sector(sector).is_some_and(|record| record.id == root))
    }

    fn clear(&mut self) -> Result<(), SlotError> {
        self.wipe(|_| true)
    }

    fn forgets(&self) -> Forgets {
        Forgets::BestEffort
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn lock(file: &File) -> Result<(), SlotError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => Err(SlotError::Held),
        Err(std::fs::TryLockError::Error(error)) => Err(io(error)),
    }
}

pub(super) fn io(error: std::io::Error) -> SlotError {
    SlotError::Io(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("slot").join("root");
        (dir, path)
    }

    fn record(generation: u64, share: &Secret) -> Record {
        Record { generation, id: super::super::root_id(share), number: 3, share: share.duplicate() }
    }

    fn ids(slot: &mut FileSlot) -> Vec<(u64, RootId)> {
        slot.records().expect("reads").iter().map(|record| (record.generation, record.id)).collect()
    }

    #[test]
    fn opening_creates_nothing() {
        let (_dir, path) = slot();
        assert!(ids(&mut FileSlot::open(&path).expect("opens")).is_empty());
        assert!(!path.exists());
    }

    #[test]
    fn commit_leaves_no_byte_of_the_other_roots() {
        let (_dir, path) = slot();
        let (old, new) = (Secret::random(), Secret::random());
        let mut slot = FileSlot::open(&path).expect("opens");
        slot.stage(&record(1, &old)).expect("stages");
        slot.stage(&record(2, &new)).expect("stages");
        slot.commit(super::super::root_id(&new)).expect("commits");
        drop(slot);
        let bytes = std::fs::read(&path).expect("reads");
        assert!(!bytes.windows(8).any(|window| window == &old.expose()[..8]));
        let mut slot = FileSlot::open(&path).expect("opens");
        assert_eq!(ids(&mut slot), [(2, super::super::root_id(&new))]);
    }

    #[test]
    fn a_file_that_is_gone_or_another_is_noticed_while_it_is_open() {
        let (_dir, path) = slot();
        let mut slot = FileSlot::open(&path).expect("opens");
        slot.stage(&record(1, &Secret::random())).expect("stages");
        let aside = path.with_added_extension("aside");
        std::fs::rename(&path, &aside).expect("moves");
        assert!(slot.records().is_err() && slot.stage(&record(2, &Secret::random())).is_err());
        std::fs::copy(&aside, &path).expect("copies");
        assert!(slot.records().is_err() && slot.clear().is_err(), "a copy is another file");
        std::fs::rename(&aside, &path).expect("moves back");
        assert_eq!(ids(&mut slot).len(), 1);
    }

    #[test]
    fn clearing_leaves_no_byte_also_of_what_is_broken() {
        let (_dir, path) = slot();
        let mut slot = FileSlot::open(&path).expect("opens");
        for generation in 1..=2 {
            slot.stage(&record(generation, &Secret::random())).expect("stages");
        }
        drop(slot);
        let mut bytes = std::fs::read(&path).expect("reads");
        bytes[64] ^= 1;
        std::fs::write(&path, &bytes).expect("writes");
        let mut slot = FileSlot::open(&path).expect("opens");
        assert_eq!(ids(&mut slot).len(), 1);
        slot.clear().expect("clears");
        assert!(std::fs::read(&path).expect("reads").iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_slot_is_never_made_over_another() {
        let (_dir, path) = slot();
        let mut absent = FileSlot::open(&path).expect("opens");
        let mut there = FileSlot::open(&path).expect("opens");
        there.stage(&record(1, &Secret::random())).expect("stages");
        let before = std::fs::read(&path).expect("reads");
        assert!(absent.stage(&record(2, &Secret::random())).is_err());
        assert_eq!(before, std::fs::read(&path).expect("reads"));
    }

    #[test]
    fn commit_to_a_root_that_is_not_there_changes_nothing() {
        let (_dir, path) = slot();
        let mut slot = FileSlot::open(&path).expect("opens");
        slot.stage(&record(1, &Secret::random())).expect("stages");
        let before = std::fs::read(&path).expect("reads");
        assert!(matches!(slot.commit(RootId([9; 16])), Err(SlotError::Missing)));
        assert_eq!(before, std::fs::read(&path).expect("reads"));
    }

    #[test]
    fn a_torn_record_is_no_record_and_is_wiped() {
        let (_dir, path) = slot();
        let kept = Secret::random();
        let mut slot = FileSlot::open(&path).expect("opens");
        slot.stage(&record(1, &kept)).expect("stages");
        slot.stage(&record(2, &Secret::random())).expect("stages");
        drop(slot);
        let mut bytes = std::fs::read(&path).expect("reads");
        bytes[SECTOR + 40] ^= 1;
        std::fs::write(&path, &bytes).expect("writes");
        let mut slot = FileSlot::open(&path).expect("opens");
        assert_eq!(ids(&mut slot).len(), 1);
        slot.commit(super::super::root_id(&kept)).expect("commits");
        assert!(std::fs::read(&path).expect("reads")[SECTOR..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_start_destroys_what_reads_as_destroyed() {
        let (_dir, path) = slot();
        let kept = Secret::random();
        let mut slot = FileSlot::open(&path).expect("opens");
        slot.stage(&record(1, &kept)).expect("stages");
        drop(slot);
        let file = File::options().write(true).open(&path).expect("opens");
        file.set_modified(std::time::UNIX_EPOCH).expect("sets a time");
        let mut slot = FileSlot::open(&path).expect("opens");
        slot.commit(super::super::root_id(&kept)).expect("commits");
        let written = file.metadata().expect("there").modified().expect("a time");
        assert!(written > std::time::UNIX_EPOCH, "whatever the other sectors read as, they are written");
    }

    #[test]
    fn a_full_slot_refuses_a_fourth_root() {
        let (_dir, path) = slot();
        let mut slot = FileSlot::open(&path).expect("opens");
        for generation in 1..=3 {
            slot.stage(&record(generation, &Secret::random())).expect("stages");
        }
        assert!(matches!(slot.stage(&record(4, &Secret::random())), Err(SlotError::Full)));
        assert_eq!(ids(&mut slot).len(), 3);
    }

    #[test]
    fn a_slot_has_one_holder() {
        let (_dir, path) = slot();
        let mut first = FileSlot::open(&path).expect("opens");
        first.stage(&record(1, &Secret::random())).expect("stages");
        assert!(matches!(FileSlot::open(&path), Err(SlotError::Held)));
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let sector = sector_of(&record(7, &Secret::random()));
        assert_eq!(parse_sector(&sector).map(|record| (record.generation, record.number)), Some((7, 3)));
        for bit in 0..96 * 8 {
            let mut changed = sector.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_sector(&changed).is_none(), "{bit}");
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_sectors_never_panic(content: Vec<u8>) {
            let _ = parse_sector(&content);
            let mut framed = [&MAGIC[..], &[1, 1, 0, 0], &content].concat();
            framed.resize(64, 0);
            let checksum = digest(&framed);
            framed.extend_from_slice(checksum.as_ref());
            proptest::prop_assert!(parse_sector(&framed).is_some());
        }

        #[test]
        fn a_hostile_file_is_no_slot_or_holds_no_record(content: Vec<u8>, whole: bool) {
            let (_dir, path) = slot();
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("creates");
            let mut content = content;
            if whole {
                content.resize(SECTOR * SECTORS, 0x5a);
            }
            std::fs::write(&path, &content).expect("writes");
            match FileSlot::open(&path) {
                Ok(mut slot) => proptest::prop_assert!(ids(&mut slot).is_empty()),
                Err(error) => proptest::prop_assert!(matches!(error, SlotError::NotASlot)),
            }
        }
    }
}
