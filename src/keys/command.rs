//! The numbered command: the only thing that writes to the key store.
//!
//! It carries sealed bytes and clear ids only, so it may be stored, backed up or replicated. It names every page it
//! builds on with the version it expects; [`Command::apply`] refuses on a mismatch and the proposer plans again. Every
//! page on the way from the top is among them, so a create below an erased parent is refused here too.
//!
//! ```text
//! bytes  field
//!     4  magic "QTCM"
//!     1  version, 1
//!     1  1 when it rotates, else 0
//!     2  zero
//!     8  number
//!    40  only when it rotates: generation (8), root id before (16), root id after (16)
//!     4  pages: for each page id (16), expected version (8)
//!     4  rows: for each family (1), 1 put or 0 delete (1), name length (2), name, [content length (4), content]
//!    32  SHA-256 of everything before
//! ```

use super::{
    ReadError,
    backing::{Backing, BackingError, Family, Row},
    page::Clear,
};
use crate::{
    crypto::envelope::{Envelope, Kind},
    domain::id::{PageId, RootId},
};

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"QTCM";
/// Row of the last command's number.
pub const NUMBER: &[u8] = b"number";
/// Row of the chain over all commands.
pub const CHAIN: &[u8] = b"chain";

/// What was written up to a command, and in which order: two stores that agree on it have the same history, whatever their
/// numbers say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Chain(pub [u8; 32]);

impl Chain {
    /// Before the first command.
    pub const START: Chain = Chain([0; 32]);

    /// With one more command, of which these are the bytes, known to be whole: SHA-256 of the chain before and of the digest at
    /// their end.
    pub fn and(self, command: &[u8]) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(&self.0);
        context.update(&command[command.len().saturating_sub(32)..]);
        let mut chain = [0; 32];
        chain.copy_from_slice(context.finish().as_ref());
        Self(chain)
    }
}

/// A change of root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rotation {
    /// Generation of the root that comes.
    pub generation: u64,
    /// The root that sealed the top.
    pub from: RootId,
    /// The root that seals the top now.
    pub to: RootId,
}

/// One atomic step of the key store.
pub struct Command {
    /// One more than the command before.
    pub number: u64,
    /// Where it changes the root.
    pub rotation: Option<Rotation>,
    /// The pages it builds on.
    pub expects: Vec<(PageId, u64)>,
    /// What it writes, in order.
    pub rows: Vec<Row>,
}

/// Why a command was not applied. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Its number is not the next.
    #[error("the command's number is not the next")]
    Number,
    /// A page has another version than it expects, or the top another root.
    #[error("the command was planned on another state")]
    Stale,
    /// The medium failed; whether anything was written is unknown.
    #[error(transparent)]
    Backing(#[from] BackingError),
    /// The versions cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Bytes that are no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are not a whole command")]
pub struct NotACommand;

impl Command {
    /// Writes its rows, its number and the chain in one synced batch, if `state` is what it was planned on. Where there is a
    /// backup, the command itself goes with them and waits for it; `sent` is the last one that need not wait any more.
    pub fn apply(
        &self,
        backing: &dyn Backing,
        state: &dyn State,
        sent: Option<&mut Sent>,
    ) -> Result<Chain, ApplyError> {
        self.apply_encoded(&self.encode(), backing, state, sent)
    }

    /// The same where its bytes are at hand: a rotation has them in its file already.
    pub fn apply_encoded(
        &self,
        encoded: &[u8],
        backing: &dyn Backing,
        state: &dyn State,
        sent: Option<&mut Sent>,
    ) -> Result<Chain, ApplyError> {
        if state.last_number() + 1 != self.number {
            return Err(ApplyError::Number);
        }
        if self.rotation.is_some_and(|rotation| rotation.from != state.root()) {
            return Err(ApplyError::Stale);
        }
        for (page, version) in &self.expects {
            if state.version(*page)? != Some(*version) {
                return Err(ApplyError::Stale);
            }
        }
        let before = state.chain();
        let chain = before.and(encoded);
        let mut own = vec![
            Row::put(Family::Meta, NUMBER, self.number.to_be_bytes().to_vec()),
            Row::put(Family::Meta, CHAIN, chain.0.to_vec()),
        ];
        if let Some(sent) = sent {
            own.extend(sent.forget().map(|number| Row::delete(Family::Outbox, number.to_be_bytes())));
            let waiting = [&before.0[..], encoded].concat();
            own.push(Row::put(Family::Outbox, self.number.to_be_bytes(), waiting));
        }
        backing.write(&[&self.rows, &own])?;
        Ok(chain)
    }

    /// The bytes of a rotation's file.
    pub fn encode(&self) -> Vec<u8> {
        let rows = self.rows.iter().map(|row| 8 + row.key.len() + row.value.as_ref().map_or(0, Vec::len));
        let mut out = Vec::with_capacity(100 + 24 * self.expects.len() + rows.sum::<usize>());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[1, u8::from(self.rotation.is_some()), 0, 0]);
        out.extend_from_slice(&self.number.to_be_bytes());
        if let Some(rotation) = &self.rotation {
            out.extend_from_slice(&rotation.generation.to_be_bytes());
            out.extend_from_slice(&rotation.from.0);
            out.extend_from_slice(&rotation.to.0);
        }
        out.extend_from_slice(&(self.expects.len() as u32).to_be_bytes());
        for (page, version) in &self.expects {
            out.extend_from_slice(&page.0);
            out.extend_from_slice(&version.to_be_bytes());
        }
        out.extend_from_slice(&(self.rows.len() as u32).to_be_bytes());
        for row in &self.rows {
            encode_row(row.family, &row.key, row.value.as_deref(), &mut out);
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, &out);
        out.extend_from_slice(digest.as_ref());
        out
    }

    /// The root that a command brings, from its bytes; none when it does not rotate.
    pub fn root_brought(bytes: &[u8]) -> Option<RootId> {
        let rotates = bytes.get(5) == Some(&1);
        bytes.get(40..56).filter(|_| rotates).and_then(RootId::from_slice)
    }

    /// The root that has to seal the top before a command, from its bytes; none when it does not rotate.
    pub fn root_replaced(bytes: &[u8]) -> Option<RootId> {
        let rotates = bytes.get(5) == Some(&1);
        bytes.get(24..40).filter(|_| rotates).and_then(RootId::from_slice)
    }

    /// Reads a command; anything torn or changed is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotACommand> {
        match Self::decode_first(bytes)? {
            (command, []) => Ok(command),
            _ => Err(NotACommand),
        }
    }

    /// The same where something lies behind it.
    pub fn decode_first(bytes: &[u8]) -> Result<(Self, &[u8]), NotACommand> {
        let mut reader = Reader(bytes);
        let [magic @ .., 1, rotates, 0, 0]: [u8; 8] = reader.array()? else { return Err(NotACommand) };
        if magic != MAGIC || rotates > 1 {
            return Err(NotACommand);
        }
        let number = reader.number()?;
        let rotation = if rotates == 1 {
            Some(Rotation { generation: reader.number()?, from: RootId(reader.array()?), to: RootId(reader.array()?) })
        } else {
            None
        };
        let mut expects = Vec::new();
        for _ in 0..u32::from_be_bytes(reader.array()?) {
            expects.push((PageId(reader.array()?), reader.number()?));
        }
        let mut rows = Vec::new();
        for _ in 0..u32::from_be_bytes(reader.array()?) {
            rows.push(reader.row()?);
        }
        let content = &bytes[..bytes.len() - reader.0.len()];
        if ring::digest::digest(&ring::digest::SHA256, content).as_ref() != reader.take(32)? {
            return Err(NotACommand);
        }
        Ok((Self { number, rotation, expects, rows }, reader.0))
    }
}

/// The number that bytes give which begin like a command, be it whole or not.
pub fn number_in(bytes: &[u8]) -> Option<u64> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let number = rest.first_chunk()?;
    (head[..4] == MAGIC).then(|| u64::from_be_bytes(*number))
}

/// A row as commands and bases hold it.
pub(super) fn encode_row(family: Family, key: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(&[family as u8, u8::from(value.is_some())]);
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(key);
    if let Some(value) = value {
        out.extend_from_slice(&(value.len() as u32).to_be_bytes());
        out.extend_from_slice(value);
    }
}

/// Takes fields off the front of bytes from outside.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], NotACommand> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(NotACommand)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], NotACommand> {
        self.take(N)?.try_into().map_err(|_| NotACommand)
    }

    pub(super) fn number(&mut self) -> Result<u64, NotACommand> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn row(&mut self) -> Result<Row, NotACommand> {
        let [family, put] = self.array()?;
        let family = Family::from_byte(family).ok_or(NotACommand)?;
        let len = u16::from_be_bytes(self.array()?);
        let key = self.take(usize::from(len))?.to_vec();
        let value = match put {
            0 => None,
            1 => {
                let len = u32::from_be_bytes(self.array()?) as usize;
                Some(self.take(len)?.to_vec())
            }
            _ => return Err(NotACommand),
        };
        Ok(Row { family, key, value })
    }
}

/// Which commands wait for the backup no more, and of which the rows still lie there.
#[derive(Clone, Copy)]
pub struct Sent {
    /// Rows up to this command are gone.
    pub gone: u64,
    /// The backup has the commands up to this one.
    pub sent: u64,
}

impl Sent {
    /// Rows that go with the next batch, so that no sync is spent on them.
    fn forget(&mut self) -> impl Iterator<Item = u64> + use<> {
        let from = self.gone + 1;
        self.gone = self.gone.max(self.sent.min(self.gone + FORGOTTEN));
        from..=self.gone
    }
}

/// Most rows of sent commands that go with one batch.
const FORGOTTEN: u64 = 1024;

/// What a command is checked against.
pub trait State {
    /// Number of the last command.
    fn last_number(&self) -> u64;
    /// The chain over the commands so far.
    fn chain(&self) -> Chain;
    /// The root that the top names.
    fn root(&self) -> RootId;
    /// A page's version; none when it is not there.
    fn version(&self, page: PageId) -> Result<Option<u64>, ReadError>;
}

/// The state as the rows tell it, without a key.
pub struct StoredState<'a> {
    backing: &'a dyn Backing,
    last_number: u64,
    chain: Chain,
    root: RootId,
}

impl<'a> StoredState<'a> {
    /// Reads number and root; none when no command was ever applied.
    pub fn read(backing: &'a dyn Backing) -> Result<Option<Self>, ReadError> {
        let Some(number) = backing.get(Family::Meta, NUMBER)? else { return Ok(None) };
        let number: [u8; 8] = number.try_into().map_err(|_| ReadError::Damaged("the number of the last command"))?;
        let chain = match backing.get(Family::Meta, CHAIN)? {
            Some(chain) => Chain(chain.try_into().map_err(|_| ReadError::Damaged("the chain over the commands"))?),
            None => Chain::START,
        };
        let top = backing
            .get(Family::Pages, &super::page::TOP.0)?
            .ok_or(ReadError::Damaged("there are commands and no top page"))?;
        let root = clear_of(&top)?.root.ok_or(ReadError::Damaged("the top page names no root"))?;
        Ok(Some(Self { backing, last_number: u64::from_be_bytes(number), chain, root }))
    }
}

impl State for StoredState<'_> {
    fn last_number(&self) -> u64 {
        self.last_number
    }

    fn chain(&self) -> Chain {
        self.chain
    }

    fn root(&self) -> RootId {
        self.root
    }

    fn version(&self, page: PageId) -> Result<Option<u64>, ReadError> {
        stored_version(self.backing, page)
    }
}

/// A page's version as the rows tell it: that of its last appended row, or of the page row.
pub fn stored_version(backing: &dyn Backing, page: PageId) -> Result<Option<u64>, ReadError> {
    match backing.scan(Family::Pages, &page.0, None, usize::MAX)?.last() {
        Some((_, value)) => Ok(Some(clear_of(value)?.version)),
        None => Ok(None),
    }
}

/// The clear part of a row in `Pages`.
pub fn clear_of(value: &[u8]) -> Result<Clear, ReadError> {
    let damaged = ReadError::Damaged("a page's clear part");
    let envelope = Envelope::parse(value).map_err(|_| damaged.clone())?;
    match envelope.kind {
        Kind::Top | Kind::Page | Kind::Append => {
            Clear::decode(envelope.clear, envelope.kind == Kind::Top).map_err(|_| damaged)
        }
        _ => Err(damaged),
    }
}

impl From<BackingError> for ReadError {
    fn from(error: BackingError) -> Self {
        ReadError::Backing(error.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Command {
        Command {
            number: 7,
            rotation: Some(Rotation { generation: 3, from: RootId([1; 16]), to: RootId([2; 16]) }),
            expects: vec![(PageId([3; 16]), 9)],
            rows: vec![Row::put(Family::Doomed, *b"name", vec![1, 2, 3]), Row::delete(Family::Pages, [4; 24])],
        }
    }

    #[test]
    fn a_command_reads_back_as_it_was_written() {
        let bytes = sample().encode();
        let again = Command::decode(&bytes).expect("reads back");
        assert_eq!(again.encode(), bytes);
        assert_eq!((again.number, again.rotation.map(|r| r.generation)), (7, Some(3)));
        assert_eq!(Command::root_replaced(&bytes), Some(RootId([1; 16])));
        assert_eq!(Command::root_brought(&bytes), Some(RootId([2; 16])));
        let quiet = Command { rotation: None, ..sample() }.encode();
        assert_eq!((Command::root_replaced(&quiet), Command::root_brought(&quiet)), (None, None));
    }

    #[test]
    fn a_torn_or_changed_file_is_no_command() {
        let bytes = sample().encode();
        for cut in 0..bytes.len() {
            assert!(Command::decode(&bytes[..cut]).is_err(), "{cut}");
            let mut changed = bytes.clone();
            changed[cut] ^= 0x40;
            assert!(Command::decode(&changed).is_err(), "{cut}");
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(content: Vec<u8>) {
            let _ = Command::decode(&content);
            let mut framed = [&MAGIC[..], &[1, 1, 0, 0], &content].concat();
            let digest = ring::digest::digest(&ring::digest::SHA256, &framed);
            framed.extend_from_slice(digest.as_ref());
            let _ = Command::decode(&framed);
        }
    }
}
