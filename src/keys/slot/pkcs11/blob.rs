//! The file beside the token: what the wrapping keys seal. Four sectors of 4096 bytes, written in place.
//!
//! ```text
//! offset  bytes  field of the first sector
//!      0      4  magic "QTPH"
//!      4      1  version, 1
//!      5      3  zero
//!      8     16  slot id: in the label of every wrapping key
//!     24     32  SHA-256 of bytes 0..24
//!     56         zero
//!
//! offset  bytes  field of the others (a sector of zeros is free)
//!      0      4  magic "QTPR"
//!      4      1  version, 1
//!      5      1  number of the slot
//!      6      2  zero
//!      8      8  generation
//!     16     16  root id
//!     32     16  id of the wrapping key
//!     48     12  nonce
//!     60     48  share of that root: 32 bytes sealed under the wrapping key, 16 of tag; associated data: bytes 0..60
//!    108     32  SHA-256 of bytes 0..108
//!    140         zero
//! ```
//!
//! Nothing in it needs to be forgotten, so it may lie anywhere and be copied. The checksum tells torn from whole; what is true
//! the token tells.
//!
//! The first sector is written and synced before the first key is made, over a file of zeros, and never again. So a file of
//! zeros is one whose making was cut off, whatever its length, and nothing was ever in it; any other file without a first
//! sector is not ours and is left alone.

use super::{
    super::{
        SlotError,
        file::{digest, io, lock},
    },
    KeyId, SlotId,
};
use crate::{crypto::random, domain::id::RootId};
use std::{
    fs::{File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Bytes in a sector.
pub const SECTOR: usize = 4096;
/// Sectors for records.
pub const RECORDS: usize = 3;
/// Bytes in the file.
pub const LENGTH: usize = SECTOR * (1 + RECORDS);
/// The first four bytes of the file.
pub const HEAD_MAGIC: [u8; 4] = *b"QTPH";
/// The first four bytes of a record.
pub const RECORD_MAGIC: [u8; 4] = *b"QTPR";
/// Bytes of a nonce.
pub const NONCE: usize = 12;
/// Bytes of a sealed share.
pub const SEALED: usize = 32 + 16;

/// A record as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Counts rotations.
    pub generation: u64,
    /// Names the root without telling it.
    pub root: RootId,
    /// Of the slot, among those of its key store.
    pub number: u8,
    /// What it is sealed under.
    pub key: KeyId,
    /// Drawn for this one sealing.
    pub nonce: [u8; NONCE],
    /// The share, sealed.
    pub sealed: [u8; SEALED],
}

impl Blob {
    /// Reads one sector; none when it is free or broken.
    pub fn parse(sector: &[u8]) -> Option<Self> {
        let (fields, rest) = sector.split_at_checked(108)?;
        let checksum = rest.get(..32)?;
        let [m0, m1, m2, m3, 1, number, 0, 0] = *fields.first_chunk::<8>()? else { return None };
        if [m0, m1, m2, m3] != RECORD_MAGIC || number == 0 || checksum != digest(fields).as_ref() {
            return None;
        }
        Some(Self {
            number,
            generation: u64::from_be_bytes(fields[8..16].try_into().ok()?),
            root: RootId(fields[16..32].try_into().ok()?),
            key: KeyId(fields[32..48].try_into().ok()?),
            nonce: fields[48..60].try_into().ok()?,
            sealed: fields[60..].try_into().ok()?,
        })
    }

    /// What the seal holds together with the share: everything before it.
    pub fn associated(&self) -> [u8; 60] {
        let mut fields = [0; 60];
        fields[..4].copy_from_slice(&RECORD_MAGIC);
        (fields[4], fields[5]) = (1, self.number);
        fields[8..16].copy_from_slice(&self.generation.to_be_bytes());
        fields[16..32].copy_from_slice(&self.root.0);
        fields[32..48].copy_from_slice(&self.key.0);
        fields[48..].copy_from_slice(&self.nonce);
        fields
    }

    fn sector(&self) -> Vec<u8> {
        let mut sector = vec![0; SECTOR];
        sector[..60].copy_from_slice(&self.associated());
        sector[60..108].copy_from_slice(&self.sealed);
        let checksum = digest(&sector[..108]);
        sector[108..140].copy_from_slice(checksum.as_ref());
        sector
    }
}

fn parse_head(sector: &[u8]) -> Option<SlotId> {
    let (fields, rest) = sector.split_at_checked(24)?;
    let checksum = rest.get(..32)?;
    let good = fields[..4] == HEAD_MAGIC && fields[4..8] == [1, 0, 0, 0] && checksum == digest(fields).as_ref();
    good.then(|| fields[8..].try_into().ok().map(SlotId)).flatten()
}

fn head_sector(slot: SlotId) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    sector[..4].copy_from_slice(&HEAD_MAGIC);
    sector[4] = 1;
    sector[8..24].copy_from_slice(&slot.0);
    let checksum = digest(&sector[..24]);
    sector[24..56].copy_from_slice(checksum.as_ref());
    sector
}

/// What the file holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    /// Whose keys they are.
    pub slot: SlotId,
    /// The records by sector; none where a sector is free or broken.
    pub blobs: [Option<Blob>; RECORDS],
    /// Whether a sector has anything but zeros.
    pub used: [bool; RECORDS],
}

impl Content {
    /// Reads the whole file; none when its making was cut off.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, SlotError> {
        if bytes.len() <= LENGTH && bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let (head, records) = bytes.split_at_checked(SECTOR).ok_or(SlotError::NotASlot)?;
        let slot = parse_head(head).filter(|_| bytes.len() == LENGTH).ok_or(SlotError::NotASlot)?;
        let sector = |number: usize| &records[number * SECTOR..(number + 1) * SECTOR];
        Ok(Some(Self {
            slot,
            blobs: std::array::from_fn(|number| Blob::parse(sector(number))),
            used: std::array::from_fn(|number| sector(number).iter().any(|byte| *byte != 0)),
        }))
    }
}

/// The file, held by this process alone.
pub struct BlobFile {
    path: PathBuf,
    file: Option<File>,
}

impl BlobFile {
    /// Opens and locks it. A file that is not there yet is empty.
    pub fn open(path: &Path) -> Result<Self, SlotError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(io(error)),
        };
        if let Some(file) = &file {
            lock(file)?;
        }
        let opened = Self { path: path.to_owned(), file };
        opened.read()?;
        Ok(opened)
    }

    /// What it holds; none before it is made.
    pub fn read(&self) -> Result<Option<Content>, SlotError> {
        let Some(file) = &self.file else { return Ok(None) };
        let length = file.metadata().map_err(io)?.len();
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(LENGTH + 1)];
        file.read_exact_at(&mut bytes, 0).map_err(io)?;
        Content::parse(&bytes)
    }

    /// The slot's id; drawn, and the file made, where it was not.
    pub fn made(&mut self) -> Result<SlotId, SlotError> {
        if let Some(content) = self.read()? {
            return Ok(content.slot);
        }
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create_new(true).mode(0o600).open(&self.path).map_err(io)?;
                lock(&file)?;
                file
            }
        };
        // All of it now, so that a full disk is met here and not at an erasure.
        file.write_all_at(&[0; LENGTH], 0).map_err(io)?;
        file.sync_all().map_err(io)?;
        let slot = SlotId(random());
        file.write_all_at(&head_sector(slot), 0).map_err(io)?;
        file.sync_all().map_err(io)?;
        File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all()).map_err(io)?;
        self.file = Some(file);
        Ok(slot)
    }

    /// Writes a record, durably.
    pub fn write(&self, sector: usize, blob: &Blob) -> Result<(), SlotError> {
        self.overwrite(&[sector], &blob.sector())
    }

    /// Overwrites sectors with zeros, durably.
    pub fn wipe(&self, sectors: &[usize]) -> Result<(), SlotError> {
        if sectors.is_empty() { Ok(()) } else { self.overwrite(sectors, &[0; SECTOR]) }
    }

    fn overwrite(&self, sectors: &[usize], bytes: &[u8]) -> Result<(), SlotError> {
        let file = self.file.as_ref().ok_or(SlotError::NotASlot)?;
        for sector in sectors {
            file.write_all_at(bytes, ((1 + sector) * SECTOR) as u64).map_err(io)?;
        }
        file.sync_data().map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob() -> Blob {
        Blob {
            generation: 7,
            root: RootId([1; 16]),
            number: 3,
            key: KeyId([2; 16]),
            nonce: [3; NONCE],
            sealed: [4; SEALED],
        }
    }

    fn file(blobs: &[Blob]) -> Vec<u8> {
        let mut bytes = head_sector(SlotId([9; 16]));
        bytes.extend(blobs.iter().flat_map(Blob::sector));
        bytes.resize(LENGTH, 0);
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let content = Content::parse(&file(&[blob()])).expect("a slot").expect("made");
        assert_eq!(content.slot, SlotId([9; 16]));
        assert_eq!(content.blobs, [Some(blob()), None, None]);
        assert_eq!(content.used, [true, false, false]);
    }

    #[test]
    fn a_byte_that_changed_makes_no_record() {
        let good = blob().sector();
        for at in 0..140 {
            let mut sector = good.clone();
            sector[at] ^= 1;
            assert!(Blob::parse(&sector).is_none(), "byte {at}");
        }
    }

    #[test]
    fn making_that_was_cut_off_begins_again_and_no_other_file_is_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("slot");
        for length in [0, 1, SECTOR, LENGTH] {
            std::fs::write(&path, vec![0; length]).expect("written");
            let mut file = BlobFile::open(&path).expect("opens");
            assert!(file.read().expect("reads").is_none());
            let slot = file.made().expect("made");
            assert_eq!(file.read().expect("reads").expect("made").slot, slot);
            assert_eq!(file.made().expect("was made"), slot);
        }
        let full = file(&[blob()]);
        let mut broken = full.clone();
        broken[30] ^= 1;
        let longer = [full.as_slice(), &[0]].concat();
        let zeros = vec![0; LENGTH + 1];
        for other in [b"somebody's letter".as_slice(), &full[..LENGTH - 1], &broken, &longer, &zeros] {
            std::fs::write(&path, other).expect("written");
            assert!(matches!(BlobFile::open(&path), Err(SlotError::NotASlot)));
            assert_eq!(std::fs::read(&path).expect("reads"), other);
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_slot_files_never_panic(
            noise: Vec<u8>,
            at in 0..LENGTH,
            length in 0..LENGTH + SECTOR,
        ) {
            let _ = Content::parse(&noise);
            let _ = Blob::parse(&noise);
            let mut bytes = file(&[blob(), blob()]);
            for (byte, noise) in bytes[at..].iter_mut().zip(&noise) {
                *byte ^= noise;
            }
            bytes.resize(length, 0);
            let _ = Content::parse(&bytes);
        }
    }
}
