//! A slot in a PKCS#11 token (a hardware security module, a smart card, SoftHSM): each share of a root (the root itself where one
//! is enough) is sealed under a wrapping key that never leaves the token, and destroyed by destroying that key. What is sealed
//! lies in a [file](blob).
//!
//! Why a file, and not an object in the token: the file need not forget, since copies of it open with nothing once the key
//! is destroyed, so it costs the token no space and no wear; some tokens keep no data objects at all; and two objects in a
//! token are no more made in one step than one object and a file.
//!
//! A record is *valid* when its sector is whole and the token holds its key. One wrapping key for each record, sealing once. The
//! keys of a slot bear its id in their label, so that slots may share a token, and what no record names is found.
//!
//! # By cases
//! `stage`: make a key, seal under it, write a sector that holds no whole record, sync. Cut off after the key: a key that sealed
//! nothing which was ever written; no record is touched, and the next `commit` destroys it. Torn sector: no record, the same.
//! Failed: the key is destroyed if the token still answers; else as above.
//!
//! `commit`: *open* the record to keep (so that nothing is destroyed for a successor that the token cannot open), destroy every
//! other key of the slot, look whether any is left, then wipe the other sectors.
//! - *Keys first*: a sector without its key is rubbish, while a key whose sector was wiped would open any old copy of the file.
//! - *Every other key, by label and not by what the file says*: the previous root's, a staged one's, and those that a cut-off
//!   `stage`, or another state of the file, left behind.
//! - Cut off between keys: the record to keep is valid, some others are; the start commits again. Cut off before the wipe:
//!   sectors without keys beside the one to keep; the start wipes them.
//!
//! `discard` wipes the sector, then destroys its key; nothing was ever written that is sealed under a root which is
//! discarded, so a key that is left by a cut-off harms nobody until the `commit` of the start. Thus the other order, which
//! leaves whole sectors without a key, is `commit`'s alone, where a valid record stands beside. Hence:
//!
//! *Whole records, and the token holds the key of none*: never our own doing. It is another token under the same label, or it
//! was initialised again. Nothing is changed: the file would still open with the right one.
//!
//! `clear` is a commit that keeps nothing: every key of the slot by its label, then every sector.
//!
//! What it cannot do: hold two processes apart that use copies of one file with one token. Each takes the other's keys for
//! rubbish. The file is locked; do not start a copy.
//!
//! What it takes on trust: that a key which the token says it made or destroyed is durably so (SoftHSM unlinks files, and syncs
//! none: it is for trying and testing), and that the token has no backup that it was not declared with ([`Forgets`]).

pub mod blob;
pub mod token;

pub use token::{ModuleToken, Token, TokenError};

use super::{Forgets, Record, Slot, SlotError};
use crate::{
    crypto::{random, secret::Secret},
    domain::id::RootId,
};
use blob::{Blob, BlobFile, Content};
use std::path::Path;

/// Names a slot in the labels of its keys. Random.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotId(pub [u8; 16]);

/// Names a wrapping key. Random.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyId(pub [u8; 16]);

/// The slot in a token.
pub struct Pkcs11Slot {
    file: BlobFile,
    token: Box<dyn Token>,
    forgets: Forgets,
}

impl Pkcs11Slot {
    /// Opens and locks the file. The token is first asked when it is needed. `forgets` is what the operator declares about it.
    pub fn open(path: &Path, token: Box<dyn Token>, forgets: Forgets) -> Result<Self, SlotError> {
        Ok(Self { file: BlobFile::open(path)?, token, forgets })
    }

    fn open_blob(&mut self, slot: SlotId, blob: &Blob) -> Result<Secret, SlotError> {
        Ok(self.token.open(slot, blob.key, &blob.nonce, &blob.associated(), &blob.sealed)?)
    }
}

impl Slot for Pkcs11Slot {
    fn records(&mut self) -> Result<Vec<Record>, SlotError> {
        let Some(Content { slot, blobs, .. }) = self.file.read()? else { return Ok(Vec::new()) };
        let whole: Vec<Blob> = blobs.into_iter().flatten().collect();
        if whole.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.token.keys(slot)?;
        let valid: Vec<&Blob> = whole.iter().filter(|blob| keys.contains(&blob.key)).collect();
        if valid.is_empty() {
            return Err(SlotError::ForeignToken);
        }
        let record = |blob: &Blob| {
            let share = self.open_blob(slot, blob)?;
            Ok(Record { generation: blob.generation, id: blob.root, number: blob.number, share })
        };
        valid.into_iter().map(record).collect()
    }

    fn stage(&mut self, record: &Record) -> Result<(), SlotError> {
        let free = match self.file.read()? {
            Some(content) => content.blobs.iter().position(Option::is_none).ok_or(SlotError::Full)?,
            None => 0,
        };
        let slot = self.file.made()?;
        let (key, nonce) = (KeyId(random()), random());
        let Record { generation, id: root, number, share } = record;
        let (generation, root, number) = (*generation, *root, *number);
        let mut blob = Blob { generation, root, number, key, nonce, sealed: [0; blob::SEALED] };
        let sealed = self.token.seal(slot, key, &nonce, &blob.associated(), share)?;
        let written = match sealed.try_into() {
            Ok(sealed) => {
                blob.sealed = sealed;
                self.file.write(free, &blob)
            }
            Err(_) => Err(TokenError::Failed("it sealed to another length".to_owned()).into()),
        };
        if written.is_err() {
            // A token that does not answer now is asked by the next commit.
            let _ = self.token.destroy(slot, key);
        }
        written
    }

    fn commit(&mut self, keep: RootId) -> Result<(), SlotError> {
        let Some(Content { slot, blobs, used }) = self.file.read()? else { return Err(SlotError::Missing) };
        let kept = blobs.iter().position(|blob| blob.as_ref().is_some_and(|blob| blob.root == keep));
        let Some((kept, blob)) = kept.and_then(|kept| Some((kept, blobs[kept].as_ref()?))) else {
            return Err(SlotError::Missing);
        };
        match self.open_blob(slot, blob) {
            Err(SlotError::Token(TokenError::NoKey)) => return Err(SlotError::Missing),
            opened => drop(opened?),
        }
        let mut others = self.token.keys(slot)?;
        others.retain(|key| *key != blob.key);
        for key in &others {
            self.token.destroy(slot, *key)?;
        }
        if !others.is_empty() && self.token.keys(slot)?.iter().any(|key| *key != blob.key) {
            return Err(TokenError::Failed("it still has a key that it destroyed".to_owned()).into());
        }
        let rubbish: Vec<usize> = (0..used.len()).filter(|sector| used[*sector] && *sector != kept).collect();
        self.file.wipe(&rubbish)
    }

    fn discard(&mut self, root: RootId) -> Result<(), SlotError> {
        let Some(Content { slot, blobs, .. }) = self.file.read()? else { return Ok(()) };
        for (sector, blob) in blobs.iter().enumerate() {
            if let Some(blob) = blob.as_ref().filter(|blob| blob.root == root) {
                self.file.wipe(&[sector])?;
                self.token.destroy(slot, blob.key)?;
            }
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), SlotError> {
        let Some(Content { slot, used, .. }) = self.file.read()? else { return Ok(()) };
        for key in self.token.keys(slot)? {
            self.token.destroy(slot, key)?;
        }
        if !self.token.keys(slot)?.is_empty() {
            return Err(TokenError::Failed("it still has a key that it destroyed".to_owned()).into());
        }
        let rubbish: Vec<usize> = (0..used.len()).filter(|sector| used[*sector]).collect();
        self.file.wipe(&rubbish)
    }

    fn forgets(&self) -> Forgets {
        self.forgets
    }
}
