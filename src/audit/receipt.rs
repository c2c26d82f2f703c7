//! What a receipt states, and its text: byte for byte, so that anybody can read one and nobody can read it two ways.
//!
//! A receipt file is a C2SP signed note whose text is the statement, followed by a C2SP
//! [log proof](https://c2sp.org/tlog-proof) that the statement is an entry of the log (`docs/audit.md` has the table):
//!
//! ```text
//! quietus receipt 1
//! receipt: 0f1e…                        32 hexadecimal digits, random
//! gateway: quietus/uk-eu                origin of the log, name of the key
//! about: recording                      recording | subscriber | tenant | expiry | withdrawal
//! scope: 51ab…                          the commitment, 64 hexadecimal digits; of a batch a line for each recording
//! parts: audio and facts                audio and facts | audio | facts | everything | as listed
//! state: destroyed                      sealed | destroyed | destroyed by TIME | nothing was left | ciphertext removed
//! requested: 2026-11-23T23:24:38.5Z
//! stated: 2026-11-23T23:24:39Z
//! generation: 17 to 18                  every root from the first up to before the second is destroyed, or is to be
//! slot: forgets best-effort             one line for each slot
//! ciphertext: eu-west-2 pending         one line for each region: pending | removed
//! ciphertext gone by: 2026-12-23T23:24:39Z
//! egress: not recorded by this version
//! follows: 9a8b…                        only where it follows another receipt
//! not proved: …                         always the same lines
//!
//! — quietus/uk-eu …
//! c2sp.org/tlog-proof@v1
//! index 17
//! …
//! ```
//!
//! The statement names nobody. What it is about is a *commitment*: SHA-256 over a label, 32 bytes that the client drew (the
//! *opening*), and the scope's text. Without the opening it tells nothing, also to somebody who guesses names; with it,
//! whoever kept it shows what the receipt was about. The gateway keeps no opening. A batch (an expiry, a withdrawal of
//! consent) has a commitment for each recording: whoever has the opening finds the line of a recording whose id it has.
//!
//! A statement is read strictly: what parses is exactly what would be written again.

use super::Hash;
use crate::domain::{
    id::{ReceiptId, RecordingId},
    time::Timestamp,
};
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use std::fmt::Write as _;

/// The first line.
const FIRST: &str = "quietus receipt 1";
/// What goes before an opening in a commitment.
const COMMITMENT: &[u8] = b"quietus/1 receipt scope\0";
/// This version keeps no ledger of copies that left.
const EGRESS: &str = "egress: not recorded by this version";
/// What no receipt proves.
const NOT_PROVED: &str = "\
not proved: that what is named existed, how many recordings it was, how large, or of when
not proved: that a slot forgot better than it declares
not proved: that nobody kept what he heard, read or exported before
";
/// Most scopes in a statement.
pub const MAX_SCOPES: usize = 512;
/// Most bytes in a statement.
pub const MAX_STATEMENT: usize = 48 << 10;

/// The 32 bytes that open a commitment.
pub type Opening = [u8; 32];

/// What kind of thing was erased.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// One recording.
    Recording,
    /// A subscriber and everything below.
    Subscriber,
    /// A tenant and everything below.
    Tenant,
    /// Recordings of one tenant whose time had come.
    Expiry,
    /// Recordings of one tenant that rested on a consent which was withdrawn.
    Withdrawal,
}

/// Which parts of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parts {
    /// Both leaves of a recording.
    Both,
    /// The audio alone.
    Audio,
    /// The facts alone.
    Facts,
    /// All there was.
    Everything,
    /// What the scope's text says of each recording.
    Listed,
}

/// How far it got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nothing opens with the root that seals the top now; those of before are not destroyed yet.
    Sealed,
    /// The root is destroyed.
    Destroyed,
    /// The root is destroyed when its last copy has expired.
    DestroyedBy(Timestamp),
    /// Nothing lived when it was asked for.
    NothingLeft,
    /// The ciphertext is gone from every region as well.
    Removed,
}

/// One slot, and what it declares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// `at-once`, `best-effort`, `after 35d`.
    pub forgets: String,
    /// It lies on the key store's file system: copies of that may hold old roots.
    pub beside_store: bool,
}

/// What a receipt states.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Names the receipt. Random.
    pub id: ReceiptId,
    /// Origin of the log.
    pub gateway: String,
    /// What kind of thing.
    pub about: About,
    /// The commitment to the scope; of an expiry one for each recording.
    pub scopes: Vec<Hash>,
    /// Which parts.
    pub parts: Parts,
    /// How far it got.
    pub state: State,
    /// When it was asked for.
    pub requested: Timestamp,
    /// When this was stated.
    pub stated: Timestamp,
    /// Every root from the first up to before the second is destroyed, or is to be. Equal where nothing was left.
    pub generations: (u64, u64),
    /// The slots.
    pub slots: Vec<Slot>,
    /// The regions, and whether the ciphertext is removed from there.
    pub ciphertext: Vec<(String, bool)>,
    /// When it will be, at the latest.
    pub gone_by: Option<Timestamp>,
    /// The receipt that this one follows.
    pub follows: Option<ReceiptId>,
}

/// The text is no statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is not a statement of a receipt; it differs at or after the line `{0}`")]
pub struct NotAStatement(pub &'static str);

/// The scope's text for a recording.
pub fn recording_scope(id: RecordingId) -> String {
    format!("recording {id}")
}

/// The scope's text for a subscriber.
pub fn subscriber_scope(tenant: &str, subscriber: &str) -> String {
    format!("subscriber {tenant}/{subscriber}")
}

/// The scope's text for a tenant.
pub fn tenant_scope(tenant: &str) -> String {
    format!("tenant {tenant}")
}

/// The scope's text for one recording of an expiry.
pub fn expired_scope(id: RecordingId, parts: Parts) -> String {
    format!("recording {id} {}", parts.word())
}

/// The commitment to a scope's text. Its label and opening have fixed lengths, so it can be read one way only.
pub fn commitment(opening: &Opening, scope: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, &[COMMITMENT, opening, scope.as_bytes()].concat()).as_ref());
    hash
}

impl About {
    const ALL: [About; 5] = [About::Recording, About::Subscriber, About::Tenant, About::Expiry, About::Withdrawal];

    /// The word in a receipt.
    pub fn word(self) -> &'static str {
        match self {
            About::Recording => "recording",
            About::Subscriber => "subscriber",
            About::Tenant => "tenant",
            About::Expiry => "expiry",
            About::Withdrawal => "withdrawal",
        }
    }

    /// Whether it is of a batch: with a scope for each recording.
    pub fn is_batch(self) -> bool {
        matches!(self, About::Expiry | About::Withdrawal)
    }

    /// The number in a stored receipt.
    pub fn number(self) -> u32 {
        Self::ALL.iter().position(|about| *about == self).map_or(0, |at| at as u32 + 1)
    }

    /// Reads the number back.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|about| about.number() == number)
    }
}

impl Parts {
    const ALL: [Parts; 5] = [Parts::Both, Parts::Audio, Parts::Facts, Parts::Everything, Parts::Listed];

    /// The words in a receipt.
    pub fn word(self) -> &'static str {
        match self {
            Parts::Both => "audio and facts",
            Parts::Audio => "audio",
            Parts::Facts => "facts",
            Parts::Everything => "everything",
            Parts::Listed => "as listed",
        }
    }

    /// The number in a stored receipt.
    pub fn number(self) -> u32 {
        Self::ALL.iter().position(|parts| *parts == self).map_or(0, |at| at as u32 + 1)
    }

    /// Reads the number back.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|parts| parts.number() == number)
    }
}

impl State {
    fn words(self) -> String {
        match self {
            State::Sealed => "sealed".to_owned(),
            State::Destroyed => "destroyed".to_owned(),
            State::DestroyedBy(when) => format!("destroyed by {}", moment(when)),
            State::NothingLeft => "nothing was left".to_owned(),
            State::Removed => "ciphertext removed".to_owned(),
        }
    }

    fn from_words(words: &str) -> Option<Self> {
        match words {
            "sealed" => Some(State::Sealed),
            "destroyed" => Some(State::Destroyed),
            "nothing was left" => Some(State::NothingLeft),
            "ciphertext removed" => Some(State::Removed),
            _ => words.strip_prefix("destroyed by ").and_then(read_moment).map(State::DestroyedBy),
        }
    }
}

const BESIDE_STORE: &str = ", on the file system of the key store";

impl Statement {
    /// The text that is signed and logged.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{FIRST}\nreceipt: {}\ngateway: {}\nabout: {}\n{}parts: {}\nstate: {}\nrequested: {}\nstated: {}\n\
             generation: {} to {}\n",
            self.id,
            self.gateway,
            self.about.word(),
            self.scopes.iter().map(|scope| format!("scope: {}\n", HEXLOWER.encode(scope))).collect::<String>(),
            self.parts.word(),
            self.state.words(),
            moment(self.requested),
            moment(self.stated),
            self.generations.0,
            self.generations.1,
        );
        // Writing into a string does not fail.
        for slot in &self.slots {
            let beside = if slot.beside_store { BESIDE_STORE } else { "" };
            let _ = writeln!(text, "slot: forgets {}{beside}", slot.forgets);
        }
        for (region, removed) in &self.ciphertext {
            let _ = writeln!(text, "ciphertext: {region} {}", if *removed { "removed" } else { "pending" });
        }
        if let Some(when) = self.gone_by {
            let _ = writeln!(text, "ciphertext gone by: {}", moment(when));
        }
        let _ = writeln!(text, "{EGRESS}");
        if let Some(first) = self.follows {
            let _ = writeln!(text, "follows: {first}");
        }
        text + NOT_PROVED
    }

    /// Reads such a text.
    pub fn parse(text: &str) -> Result<Self, NotAStatement> {
        if text.len() > MAX_STATEMENT {
            return Err(NotAStatement("quietus receipt 1"));
        }
        let mut lines = Lines(text);
        let read = Self::read(&mut lines)?;
        // Times, numbers and optional lines have one spelling each: the one that is written.
        if read.text() == text { Ok(read) } else { Err(NotAStatement("requested")) }
    }

    fn read(lines: &mut Lines<'_>) -> Result<Self, NotAStatement> {
        lines.fixed(FIRST, "quietus receipt 1")?;
        let id = lines.field("receipt", receipt_id)?;
        let gateway = lines.field("gateway", |value| (!value.is_empty()).then(|| value.to_owned()))?;
        let about = lines.field("about", |value| About::ALL.into_iter().find(|about| about.word() == value))?;
        let mut scopes = Vec::new();
        while let Some(value) = lines.optional("scope: ") {
            let hash = HEXLOWER.decode(value.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
            scopes.push(hash.ok_or(NotAStatement("scope"))?);
        }
        if scopes.is_empty() || scopes.len() > MAX_SCOPES || (!about.is_batch() && scopes.len() > 1) {
            return Err(NotAStatement("scope"));
        }
        let parts = lines.field("parts", |value| Parts::ALL.into_iter().find(|parts| parts.word() == value))?;
        let state = lines.field("state", State::from_words)?;
        let requested = lines.field("requested", read_moment)?;
        let stated = lines.field("stated", read_moment)?;
        let generations = lines.field("generation", |value| {
            let (from, to) = value.split_once(" to ")?;
            Some((from.parse().ok()?, to.parse().ok()?))
        })?;
        let mut slots = Vec::new();
        while let Some(value) = lines.optional("slot: forgets ") {
            let (forgets, beside_store) = match value.strip_suffix(BESIDE_STORE) {
                Some(forgets) => (forgets, true),
                None => (value, false),
            };
            slots.push(Slot { forgets: forgets.to_owned(), beside_store });
        }
        let mut ciphertext = Vec::new();
        while let Some(value) = lines.optional("ciphertext: ") {
            let (region, state) = value.rsplit_once(' ').ok_or(NotAStatement("ciphertext"))?;
            ciphertext.push((region.to_owned(), state == "removed"));
        }
        let gone_by = match lines.optional("ciphertext gone by: ") {
            Some(value) => Some(read_moment(value).ok_or(NotAStatement("ciphertext gone by"))?),
            None => None,
        };
        lines.fixed(EGRESS, "egress")?;
        let follows = match lines.optional("follows: ") {
            Some(value) => Some(receipt_id(value).ok_or(NotAStatement("follows"))?),
            None => None,
        };
        if lines.0 != NOT_PROVED {
            return Err(NotAStatement("not proved"));
        }
        Ok(Self {
            id,
            gateway,
            about,
            scopes,
            parts,
            state,
            requested,
            stated,
            generations,
            slots,
            ciphertext,
            gone_by,
            follows,
        })
    }
}

/// What is left to read.
struct Lines<'a>(&'a str);

impl<'a> Lines<'a> {
    /// The next line, if it begins with this.
    fn optional(&mut self, prefix: &str) -> Option<&'a str> {
        let (line, rest) = self.0.split_once('\n')?;
        let value = line.strip_prefix(prefix)?;
        self.0 = rest;
        Some(value)
    }

    fn fixed(&mut self, line: &str, name: &'static str) -> Result<(), NotAStatement> {
        match self.optional(line) {
            Some("") => Ok(()),
            _ => Err(NotAStatement(name)),
        }
    }

    fn field<T>(&mut self, name: &'static str, read: impl Fn(&'a str) -> Option<T>) -> Result<T, NotAStatement> {
        let value = self.optional(name).and_then(|value| value.strip_prefix(": "));
        value.and_then(read).ok_or(NotAStatement(name))
    }
}

fn receipt_id(value: &str) -> Option<ReceiptId> {
    ReceiptId::from_slice(&HEXLOWER.decode(value.as_bytes()).ok()?)
}

/// RFC 3339, UTC, as short as the milliseconds allow.
fn moment(at: Timestamp) -> String {
    // The years of jiff's calendar are far outside of any clock that this program runs on.
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| format!("{} ms", at.0), |at| at.to_string())
}

fn read_moment(value: &str) -> Option<Timestamp> {
    value.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_millisecond()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Statement {
        Statement {
            id: ReceiptId([0x0f; 16]),
            gateway: "quietus/uk-eu".into(),
            about: About::Recording,
            scopes: vec![commitment(&[9; 32], "recording x")],
            parts: Parts::Both,
            state: State::Destroyed,
            requested: Timestamp(1_795_476_278_500),
            stated: Timestamp(1_795_476_279_000),
            generations: (17, 18),
            slots: vec![
                Slot { forgets: "best-effort".into(), beside_store: true },
                Slot { forgets: "at-once".into(), beside_store: false },
            ],
            ciphertext: vec![("eu-west-2".into(), false), ("eu-west-1".into(), true)],
            gone_by: Some(Timestamp(1_798_068_279_000)),
            follows: None,
        }
    }

    #[test]
    fn a_statement_reads_back() {
        let second = Statement {
            state: State::Removed,
            about: About::Expiry,
            parts: Parts::Listed,
            scopes: vec![[3; 32]; MAX_SCOPES],
            gone_by: None,
            follows: Some(ReceiptId([1; 16])),
            ..sample()
        };
        let later = Statement { state: State::DestroyedBy(Timestamp(1_800_000_000_000)), ..sample() };
        let of = |state| Statement { state, ..sample() };
        for statement in [sample(), second, later, of(State::NothingLeft), of(State::Sealed)] {
            assert_eq!(Statement::parse(&statement.text()).as_ref(), Ok(&statement));
        }
    }

    #[test]
    fn the_text_is_the_documented_one() {
        let text = sample().text();
        let page = include_str!("../../docs/audit.md");
        let start = page.find(FIRST).expect("the page shows a receipt");
        let shown = page[start..].split("\n\n").next().expect("a first part");
        let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
        let shown: Vec<String> = shown.lines().map(name).collect();
        let written: Vec<String> = text.lines().map(name).collect();
        assert_eq!(written, shown, "the lines of a receipt, in their order");
        for line in NOT_PROVED.lines().chain([EGRESS]) {
            assert!(page.contains(line), "{line}");
        }
    }

    #[test]
    fn a_statement_has_one_spelling() {
        let text = sample().text();
        for (from, to) in [
            ("17 to 18", "017 to 18"),
            ("38.5Z", "38.50Z"),
            ("receipt: 0f", "receipt: 0F"),
            ("about: recording\n", "about: recording \n"),
            ("eu-west-1 removed", "eu-west-1 Removed"),
            ("gateway: quietus/uk-eu\n", "gateway: \n"),
            ("egress", "Egress"),
        ] {
            let other = text.replacen(from, to, 1);
            assert_ne!(other, text, "{from} is in the text");
            assert!(Statement::parse(&other).is_err(), "{to}");
        }
    }

    #[test]
    fn a_commitment_opens_for_its_scope_and_opening_alone() {
        let scope = subscriber_scope("acme", "+441632960001");
        let made = commitment(&[1; 32], &scope);
        assert_eq!(made, commitment(&[1; 32], "subscriber acme/+441632960001"));
        assert_ne!(made, commitment(&[2; 32], &scope));
        assert_ne!(made, commitment(&[1; 32], &subscriber_scope("acme", "+441632960002")));
        // As written in docs/audit.md.
        let by_hand = [b"quietus/1 receipt scope".as_slice(), &[0], &[1; 32], scope.as_bytes()].concat();
        assert_eq!(made[..], *digest(&SHA256, &by_hand).as_ref());
    }

    #[test]
    fn only_an_expiry_has_several_scopes_and_none_has_none() {
        for (about, scopes, good) in [
            (About::Expiry, 2, true),
            (About::Expiry, 1, true),
            (About::Withdrawal, 2, true),
            (About::Recording, 1, true),
            (About::Recording, 2, false),
            (About::Expiry, 0, false),
            (About::Expiry, MAX_SCOPES + 1, false),
        ] {
            let statement = Statement { about, scopes: vec![[7; 32]; scopes], ..sample() };
            assert_eq!(Statement::parse(&statement.text()).is_ok(), good, "{} with {scopes}", about.word());
        }
    }

    #[test]
    fn numbers_read_back() {
        for about in About::ALL {
            assert_eq!(About::from_number(about.number()), Some(about));
        }
        for parts in Parts::ALL {
            assert_eq!(Parts::from_number(parts.number()), Some(parts));
        }
        assert_eq!((About::from_number(0), Parts::from_number(0)), (None, None));
    }

    proptest::proptest! {
        #[test]
        fn hostile_statements_never_panic(text: String, at: usize, byte: u8, cut: usize) {
            let _ = Statement::parse(&text);
            let mut bytes = sample().text().into_bytes();
            let len = bytes.len();
            bytes[at % len] = byte;
            bytes.truncate(len - cut % len);
            if let Ok(text) = String::from_utf8(bytes) && let Ok(read) = Statement::parse(&text) {
                proptest::prop_assert_eq!(read.text(), text);
            }
        }
    }
}
