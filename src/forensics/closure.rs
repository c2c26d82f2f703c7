//! What opens what, to a fixpoint.
//!
//! Roots are whatever 32 bytes of a slot lead to the root id that some top names in clear, at any offset: a record that was
//! overwritten badly, or a format of slot that this program does not know, is found too. Where a root is shared, every
//! combination of its shares is tried, those included that wait in the key store and open with an older share. From there keys lead to pages of
//! every version, pages to keys and secrets, secrets to values and journal frames. Where a leaf is wrapped for several
//! subscribers, every combination of their secrets that was met is tried.

use super::{
    Error,
    carve::{Carved, FRAME_HEADER, Sealed},
    files_below,
    find::Needles,
    page::{self, Entry, Id, Key, Leaf},
    progress,
};
use crate::{
    crypto::{
        envelope::{Envelope, Kind},
        epoch::OpeningKey,
        label::{Label, derive},
        secret::Secret,
        share,
    },
    domain::id::{RecordingHandle, RecordingId},
    proto::stored,
};
use prost::Message as _;
use ring::digest::{SHA256, digest};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fs::File,
    io::Read as _,
    path::PathBuf,
};

/// No slot is larger; of a larger file the beginning is looked at.
const MAX_SLOT: u64 = 1 << 20;

/// Shares of one root that are tried together, in every combination.
const MOST_SHARES: usize = 12;

/// The page id of tops, and of what was appended to one.
const TOP: Id = [0; 16];

/// What a secret is the secret of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// A tenant or subscriber.
    Account,
    /// A period.
    Period,
    /// The audio of a recording.
    Audio,
    /// The facts of a recording.
    Facts,
}

/// A secret that could be read.
#[derive(Clone, Copy)]
pub struct Known {
    /// The row it hangs on.
    pub row: Id,
    /// What it is of.
    pub role: Role,
    /// The secret.
    pub secret: Key,
    /// The recording, where it is one.
    pub recording: Option<RecordingId>,
}

/// What could be opened.
#[derive(Default)]
pub struct Closure {
    /// Roots that a top was sealed under.
    pub roots: usize,
    /// Page keys, by the page that they open; roots are the keys of the top.
    pub page_keys: HashSet<(Id, Key)>,
    /// Salts of the envelopes that opened.
    pub opened: HashSet<[u8; 32]>,
    /// Salts and numbers of the journal frames that opened.
    pub frames: HashSet<([u8; 32], [u8; 8])>,
    /// Entries that could be read: row and what it is.
    pub entries: BTreeMap<Id, &'static str>,
    /// Rows that objects belong to, by what slice rows and pages that opened say.
    pub slices: HashMap<Id, Vec<Id>>,
    /// Values that opened and are not in the format.
    pub not_understood: u64,
    /// Wrapped secrets that were met in pages, by the salt of their sealing: row, and whether one opened.
    pub wrapped: BTreeMap<[u8; 32], (Id, bool)>,
    secrets: HashMap<Id, Vec<Known>>,
    known: HashSet<(Id, Role, Key)>,
    /// Stable secrets by handle.
    accounts: HashMap<[u8; 8], Vec<Key>>,
    sealed_leaves: Vec<SealedLeaf>,
}

/// A wrapped secret, and whose secrets wrap it.
struct SealedLeaf {
    envelope: Vec<u8>,
    row: Id,
    role: Role,
    recording: Option<RecordingId>,
    bound: Vec<[u8; 8]>,
}

/// Where in the tree a page lies: what a recording's id is made of.
#[derive(Clone, Copy, Default)]
struct Context {
    tenant: Option<Key>,
    subscriber: Option<[u8; 8]>,
}

/// A page key, where it leads and what lies above.
struct PageKey {
    page: Id,
    key: Key,
    context: Context,
}

impl Closure {
    /// Follows everything that the slots lead to.
    pub fn of(carved: &Carved, slots: &[PathBuf], exhaustive: bool, needles: &mut Needles) -> Result<Self, Error> {
        let mut closure = Self::default();
        let roots = roots(carved, slots, &mut closure.opened)?;
        closure.pages(carved, &roots, exhaustive, needles)?;
        closure.unwrap_all();
        closure.values(carved, exhaustive, needles)?;
        closure.journal(carved, exhaustive, needles)?;
        Ok(closure)
    }

    /// The secrets that hang on a row.
    pub fn secrets_of(&self, row: &Id) -> &[Known] {
        self.secrets.get(row).map_or(&[], Vec::as_slice)
    }

    /// Every secret.
    pub fn secrets(&self) -> impl Iterator<Item = &Known> {
        self.secrets.values().flatten()
    }

    fn pages(&mut self, carved: &Carved, roots: &[Key], exhaustive: bool, needles: &mut Needles) -> Result<(), Error> {
        let is_page = |sealed: &&Sealed| matches!(sealed.kind, Kind::Page | Kind::Append);
        let mut by_page: HashMap<Id, Vec<&Sealed>> = HashMap::new();
        for sealed in carved.sealed.iter().filter(is_page) {
            by_page.entry(sealed.id).or_default().push(sealed);
        }
        let mut keys: Vec<PageKey> = Vec::new();
        let mut queue: VecDeque<PageKey> = VecDeque::new();
        for root in roots {
            let mut opens = false;
            for top in carved.sealed.iter().filter(|sealed| sealed.kind == Kind::Top) {
                opens |= self.page(carved, top, root, Context::default(), &mut queue, needles)?;
            }
            self.roots += usize::from(opens);
            // What was appended to the top is sealed under the root, too.
            queue.push_back(PageKey { page: TOP, key: *root, context: Context::default() });
        }
        loop {
            while let Some(next) = queue.pop_front() {
                if !self.page_keys.insert((next.page, next.key)) {
                    continue;
                }
                for sealed in by_page.get(&next.page).into_iter().flatten() {
                    self.page(carved, sealed, &next.key, next.context, &mut queue, needles)?;
                }
                keys.push(next);
            }
            if !exhaustive {
                return Ok(());
            }
            // Whatever is still sealed, with every page key; roots are among them.
            let fixed: Vec<(Key, Context)> = keys.iter().map(|key| (key.key, key.context)).collect();
            for sealed in carved.sealed.iter().filter(|sealed| is_page(sealed) || sealed.kind == Kind::Top) {
                for (key, context) in &fixed {
                    self.page(carved, sealed, key, *context, &mut queue, needles)?;
                }
            }
            if queue.iter().all(|next| self.page_keys.contains(&(next.page, next.key))) {
                return Ok(());
            }
        }
    }

    /// Tries one key on one page, and takes up what is in it.
    fn page(
        &mut self,
        carved: &Carved,
        sealed: &Sealed,
        key: &Key,
        context: Context,
        queue: &mut VecDeque<PageKey>,
        needles: &mut Needles,
    ) -> Result<bool, Error> {
        if self.opened.contains(&sealed.salt) {
            return Ok(false);
        }
        let bytes = carved.envelope(sealed)?;
        let (Some(plain), Ok(envelope)) = (opened(&bytes, key), Envelope::parse(&bytes)) else {
            return Ok(false);
        };
        self.opened.insert(sealed.salt);
        needles.search("page", &plain);
        let items = page::items_of(sealed.kind, envelope.clear);
        let entries = match sealed.kind {
            Kind::Append => page::appended(&plain, items),
            _ => page::body(&plain, items),
        };
        let Some(entries) = entries else {
            self.not_understood += 1;
            return Ok(true);
        };
        for entry in entries {
            self.entry(entry, context, queue, needles);
        }
        Ok(true)
    }

    fn entry(&mut self, entry: Entry, context: Context, queue: &mut VecDeque<PageKey>, needles: &mut Needles) {
        if let Some(row) = entry.row() {
            self.entries.insert(row, entry.what());
        }
        match entry {
            Entry::Branch { page, key } => queue.push_back(PageKey { page, key, context }),
            Entry::Account { tenant, handle, row, secret, page, key, name } => {
                needles.search("name", &name);
                self.learn(Known { row, role: Role::Account, secret, recording: None });
                let known = self.accounts.entry(handle).or_default();
                if !known.contains(&secret) {
                    known.push(secret);
                }
                let below = if tenant {
                    Context { tenant: Some(secret), subscriber: None }
                } else {
                    Context { subscriber: Some(handle), ..context }
                };
                queue.push_back(PageKey { page, key, context: below });
            }
            Entry::Period { row, secret } => self.learn(Known { row, role: Role::Period, secret, recording: None }),
            Entry::Recording { handle, row, audio, facts, parties } => {
                let recording = recording_id(context, handle);
                for (role, leaf) in [(Role::Audio, audio), (Role::Facts, facts)] {
                    match leaf {
                        None => {}
                        Some(Leaf::Plain(secret)) => self.learn(Known { row, role, secret, recording }),
                        Some(Leaf::Wrapped(envelope)) => {
                            let mut bound: Vec<_> = parties.iter().copied().chain(context.subscriber).collect();
                            bound.sort_unstable();
                            self.sealed_leaves.push(SealedLeaf { envelope, row, role, recording, bound });
                        }
                    }
                }
            }
            Entry::Bound { .. } => {}
        }
    }

    /// Tries each wrapped secret with all combinations of the secrets that are known of those who are bound.
    fn unwrap_all(&mut self) {
        for SealedLeaf { envelope, row, role, recording, bound } in std::mem::take(&mut self.sealed_leaves) {
            let Ok(sealed) = Envelope::parse(&envelope) else {
                self.not_understood += 1;
                continue;
            };
            let mut joined: Vec<Vec<u8>> = vec![Vec::new()];
            for handle in &bound {
                let known = self.accounts.get(handle).into_iter().flatten();
                joined = known.flat_map(|key| joined.iter().map(move |before| [before, &key[..]].concat())).collect();
            }
            let keys = joined.iter().map(|secrets| derive::<32>(secrets, Label::Parties, &[&row]));
            let plain = keys.into_iter().find_map(|key| sealed.open(&Secret::from_bytes(&key)).ok());
            let salt: [u8; 32] = envelope[16..48].try_into().unwrap_or_default();
            self.wrapped.entry(salt).or_insert((row, false)).1 |= plain.is_some();
            let Some(plain) = plain else { continue };
            match plain.as_slice().try_into() {
                Ok(secret) => self.learn(Known { row, role, secret, recording }),
                Err(_) => self.not_understood += 1,
            }
        }
    }

    fn learn(&mut self, known: Known) {
        if self.known.insert((known.row, known.role, known.secret)) {
            self.secrets.entry(known.row).or_default().push(known);
        }
    }

    fn values(&mut self, carved: &Carved, exhaustive: bool, needles: &mut Needles) -> Result<(), Error> {
        let every: Vec<Key> = if exhaustive { self.secrets().map(|known| known.secret).collect() } else { Vec::new() };
        // The parts of an audit entry name no row: each is tried with every secret that it may lie under.
        let of_periods = |periods: bool| -> Vec<Key> {
            self.secrets().filter(|known| (known.role == Role::Period) == periods).map(|known| known.secret).collect()
        };
        let (evidence, subjects) = (of_periods(true), of_periods(false));
        for sealed in &carved.sealed {
            if matches!(sealed.kind, Kind::Top | Kind::Page | Kind::Append) || self.opened.contains(&sealed.salt) {
                continue;
            }
            let named: Vec<Key> = self.secrets_of(&sealed.id).iter().map(|known| known.secret).collect();
            let unnamed = match sealed.kind {
                Kind::AuditEvidence => &evidence,
                Kind::AuditSubject => &subjects,
                _ => &every,
            };
            let secrets: Vec<Key> = named.into_iter().chain(unnamed.iter().copied()).collect();
            if secrets.is_empty() {
                continue;
            }
            let bytes = carved.envelope(sealed)?;
            let Some(plain) = secrets.iter().find_map(|secret| opened(&bytes, secret)) else {
                continue;
            };
            self.opened.insert(sealed.salt);
            needles.search(what(sealed.kind), &plain);
            if sealed.kind == Kind::Slice {
                match stored::Slice::decode(plain.as_slice()).map(|slice| Id::try_from(slice.object_id)) {
                    Ok(Ok(object)) => self.slices.entry(object).or_default().push(sealed.id),
                    _ => self.not_understood += 1,
                }
            }
        }
        Ok(())
    }

    fn journal(&mut self, carved: &Carved, exhaustive: bool, needles: &mut Needles) -> Result<(), Error> {
        let every: Vec<Key> = if exhaustive { self.secrets().map(|known| known.secret).collect() } else { Vec::new() };
        let bar = progress("journal frames", carved.frames.len() as u64, false);
        for frame in &carved.frames {
            bar.inc(1);
            let audio = self.secrets_of(&frame.row).iter().filter(|known| known.role == Role::Audio);
            let secrets: Vec<Key> = audio.map(|known| known.secret).chain(every.iter().copied()).collect();
            if secrets.is_empty() {
                continue;
            }
            let bytes = carved.frame(frame)?;
            let Some((header, sealed)) = bytes.split_at_checked(FRAME_HEADER) else {
                continue;
            };
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&frame.sequence);
            for secret in secrets {
                let secret = Secret::from_bytes(&secret);
                let key = OpeningKey::derive(&secret, Label::JournalFrame, &[&frame.row, &frame.salt]);
                let mut buffer = sealed.to_vec();
                if let Ok(plain) = key.open(nonce, header, &mut buffer) {
                    needles.search("journal frame", plain);
                    self.frames.insert((frame.salt, frame.sequence));
                    break;
                }
            }
        }
        bar.finish_and_clear();
        Ok(())
    }
}

/// What a value is called in the report.
pub fn what(kind: Kind) -> &'static str {
    match kind {
        Kind::Top => "top page",
        Kind::Page => "page",
        Kind::Append => "appended entry",
        Kind::Facts => "facts",
        Kind::Audio => "audio row",
        Kind::Slice => "slice row",
        Kind::TenantSettings => "tenant settings",
        Kind::Client => "client id",
        Kind::Open => "open recording",
        Kind::OpenCounters | Kind::ClosedCounters | Kind::Cell | Kind::PublishedCell => "statistic",
        Kind::TenantPolicy => "policy",
        Kind::ApiKey => "api key",
        Kind::Switch => "switch",
        Kind::SubscriberState => "subscriber state",
        Kind::Permission => "permission",
        Kind::Parked => "parked erasure",
        Kind::Hold => "hold",
        Kind::InboxItem => "inbox item",
        Kind::LogRef => "log reference",
        Kind::AuditEvidence | Kind::AuditSubject => "audit part",
        Kind::Basis => "basis",
        Kind::Timeline => "time line",
        Kind::Transition => "transition",
        Kind::Wrapped => "wrapped secret",
        Kind::Block => "blocked name",
        Kind::Webhook => "webhook",
        Kind::WaitingShare => "waiting share",
    }
}

fn opened(bytes: &[u8], key: &Key) -> Option<Vec<u8>> {
    let plain = Envelope::parse(bytes).ok()?.open(&Secret::from_bytes(key)).ok()?;
    Some(plain.to_vec())
}

/// Every 32 bytes in the slots that a top names as its root, and what shares in the slots give.
fn roots(carved: &Carved, slots: &[PathBuf], opened: &mut HashSet<[u8; 32]>) -> Result<Vec<Key>, Error> {
    let named: HashSet<Id> = carved.sealed.iter().filter_map(|sealed| sealed.root).collect();
    let (mut roots, mut shares) = (Vec::new(), Shares::default());
    let is_root = |root: &Key| *root != [0; 32] && named.contains(&*derive::<16>(root, Label::RootId, &[]));
    for path in slots {
        for file in files_below(path)? {
            let mut bytes = Vec::new();
            let slot = File::open(&file).map_err(Error::read(&file))?;
            slot.take(MAX_SLOT).read_to_end(&mut bytes).map_err(Error::read(&file))?;
            for window in bytes.windows(32) {
                let root: Key = window.try_into().unwrap_or_default();
                if is_root(&root) && !roots.contains(&root) {
                    roots.push(root);
                }
            }
            shares.read(&bytes);
        }
    }
    shares.follow(carved, opened)?;
    for root in shares.combined() {
        if is_root(&root) && !roots.contains(&root) {
            roots.push(root);
        }
    }
    Ok(roots)
}

/// Shares of roots, by root id: number and share. All that were met: a broken copy of one must not hide the good one.
#[derive(Default)]
struct Shares(BTreeMap<Id, Vec<(u8, Key)>>);

impl Shares {
    /// Takes what looks like a record of a slot, at any offset; those with the right checksum first.
    fn read(&mut self, bytes: &[u8]) {
        let records = bytes.windows(96).filter(|record| record[..5] == *b"QTRS\x01");
        let whole = |record: &&[u8]| digest(&SHA256, &record[..64]).as_ref() == &record[64..];
        let (whole, broken): (Vec<_>, Vec<_>) = records.partition(whole);
        for record in whole.into_iter().chain(broken) {
            if let (Ok(id), Ok(share)) = (record[16..32].try_into(), record[32..64].try_into()) {
                self.add(id, record[5], share);
            }
        }
    }

    fn add(&mut self, id: Id, number: u8, share: Key) -> bool {
        let shares = self.0.entry(id).or_default();
        let new = !shares.contains(&(number, share));
        if new {
            shares.push((number, share));
        }
        new
    }

    /// Opens shares that wait in the key store for a slot, until nothing new comes: each row opens once for each share.
    fn follow(&mut self, carved: &Carved, opened: &mut HashSet<[u8; 32]>) -> Result<(), Error> {
        let waiting: Vec<_> = carved.sealed.iter().filter(|sealed| sealed.kind == Kind::WaitingShare).collect();
        loop {
            let mut more = false;
            for sealed in &waiting {
                let bytes = carved.envelope(sealed)?;
                let Ok(envelope) = Envelope::parse(&bytes) else { continue };
                // The number, the root whose share opens it, the root whose share it is.
                let [number, ids @ ..] = envelope.clear else { continue };
                let Some((from, to)) = ids.split_at_checked(16) else { continue };
                let (Ok(from), Ok(to)) = (Id::try_from(from), Id::try_from(to)) else { continue };
                let shares = self.0.get(&from).cloned().unwrap_or_default();
                for (_, share) in shares.iter().filter(|(of, _)| of == number) {
                    let key = derive(share, Label::WaitingShare, &[&[*number], &from]);
                    let Ok(plain) = envelope.open(&Secret::from_bytes(&key)) else { continue };
                    if let Ok(share) = plain.as_slice().try_into() {
                        opened.insert(sealed.salt);
                        more |= self.add(to, *number, share);
                    }
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// What every set of shares of one root gives: how many are needed is not known here.
    fn combined(&self) -> Vec<Key> {
        let mut roots = Vec::new();
        for shares in self.0.values() {
            let shares = shares.iter().take(MOST_SHARES);
            let shares: Vec<_> = shares.map(|(number, share)| (*number, Secret::from_bytes(share))).collect();
            for mask in 1_u32..1 << shares.len() {
                let some = shares.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
                let some: Vec<_> = some.map(|(_, (number, share))| (*number, share)).collect();
                roots.extend(share::combine(&some).map(|root| *root.expose()));
            }
        }
        roots
    }
}

/// The id that clients hold, as `docs/format.md` section 7 makes it.
fn recording_id(context: Context, handle: Id) -> Option<RecordingId> {
    let (tenant, subscriber) = (context.tenant?, context.subscriber?);
    let mut masked = *derive::<8>(&tenant, Label::RecordingIdMask, &[&handle]);
    for (byte, mask) in masked.iter_mut().zip(subscriber) {
        *byte ^= mask;
    }
    let check = *derive::<8>(&tenant, Label::RecordingIdCheck, &[&handle, &masked]);
    Some(RecordingId { handle: RecordingHandle(handle), masked_subscriber: masked, check })
}
