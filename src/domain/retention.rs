//! Retention policies: how long what is kept, when it must be gone, and what may not be erased before when. Pure.
//!
//! - [`time`]: lengths and moments. `policies/presets` holds the policies that ship, [`presets`] finds them.
//! - `parse`: TOML into [`Policy`]; every error names line, field and remedy.
//! - `check`: what must hold between the rules of one policy.
//! - [`Policy::verdict`]: what a policy says about one leaf of one recording.
//! - `display`: a policy as it was understood, as TOML again.
//!
//! # Which rule governs
//!
//! For one part (audio, facts) of one recording exactly one `keep` rule governs: of those that match its category, its
//! jurisdiction and the present states of account and subscriber, the most specific. A rule that names a category goes
//! before one that does not; then one that names a jurisdiction; then the one that names more states. Two rules that could
//! match the same at the same rank are an error in the policy, so nothing ever depends on the order of lines. A rule
//! that never governs is an error too, and so is a policy under which something could stay for ever once its account is
//! closed.
//!
//! The governing rule's earliest `not_after` whose event has happened is the promise. The runner aims a `margin` before it,
//! so that the key is gone, and the slot has confirmed it, when the promise falls due.
//!
//! # What holds of every verdict
//!
//! - `aim` is never before the call ended (or, while it runs, was seen running), `not_before`, or any floor. A floor that lasts longer than a promise wins,
//!   which a policy must say (`yields_to_floor`) where it can be seen to happen; `not_after` then moves with it.
//! - `aim` + margin ≤ `not_after`.
//! - Every floor that matches counts, and the latest wins. A floor hangs on the end of the call or on a date alone: it
//!   neither waits for an account's close nor ends with it.

mod check;
mod display;
mod parse;
pub mod presets;
pub mod time;
mod verdict;

pub use parse::{MAX_RULES, MAX_TEXT, Outline, Parameter, Parameters};
pub use time::spoken;
pub use time::{Event, Length, NotALength, When};
pub use verdict::{CallEnd, Floor, Subject, Verdict};

use crate::domain::{basis::Basis, time::Timestamp};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// What is kept. The numbers are those of the wire and of what is sealed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Category {
    /// A call.
    Call = 1,
    /// A voicemail.
    Voicemail = 2,
    /// A transcript.
    Transcript = 3,
    /// A video.
    Video = 4,
    /// A message.
    Message = 5,
    /// Uploaded media.
    Media = 6,
    /// Connection and login data.
    Connection = 7,
}

impl Category {
    /// Every one of them.
    pub const ALL: [Category; 7] = [
        Category::Call,
        Category::Voicemail,
        Category::Transcript,
        Category::Video,
        Category::Message,
        Category::Media,
        Category::Connection,
    ];

    /// From its number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|category| *category as u8 == number)
    }

    /// The word in a policy.
    pub fn word(self) -> &'static str {
        match self {
            Category::Call => "call",
            Category::Voicemail => "voicemail",
            Category::Transcript => "transcript",
            Category::Video => "video",
            Category::Message => "message",
            Category::Media => "media",
            Category::Connection => "connection",
        }
    }
}

/// A leaf of a recording.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Part {
    /// What was heard.
    Audio,
    /// What is known about it.
    Facts,
}

impl Part {
    /// Both.
    pub const ALL: [Part; 2] = [Part::Audio, Part::Facts];

    /// The word in a policy.
    pub fn word(self) -> &'static str {
        match self {
            Part::Audio => "audio",
            Part::Facts => "facts",
        }
    }
}

/// A country: ISO 3166-1 alpha-2, in capitals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Jurisdiction([u8; 2]);

/// The text is no country code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a country as two capital letters (ISO 3166-1 alpha-2), such as `DE`")]
pub struct NotAJurisdiction;

impl Jurisdiction {
    /// From the bytes in an entry; zeros are none.
    pub fn from_bytes(bytes: [u8; 2]) -> Option<Self> {
        bytes.iter().all(u8::is_ascii_uppercase).then_some(Self(bytes))
    }

    /// The bytes in an entry.
    pub fn to_bytes(self) -> [u8; 2] {
        self.0
    }
}

impl FromStr for Jurisdiction {
    type Err = NotAJurisdiction;

    fn from_str(text: &str) -> Result<Self, NotAJurisdiction> {
        text.as_bytes().try_into().ok().and_then(Self::from_bytes).ok_or(NotAJurisdiction)
    }
}

impl fmt::Display for Jurisdiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// What an account is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccountState {
    /// In use.
    Open,
    /// Closed; its grace runs.
    Closed {
        /// Since when.
        at: Timestamp,
    },
}

/// What a subscriber is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubscriberState {
    /// In use.
    Active,
    /// Deactivated.
    Deactivated {
        /// Since when.
        at: Timestamp,
    },
}

/// Whose erasure destroys a call between subscribers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartyRule {
    /// The owner's alone.
    Owner,
    /// That of any bound party.
    Any,
}

/// Who must agree to a purge, or to a close that is due at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Approval {
    /// Whoever asks repeats the name.
    Confirm,
    /// Somebody else approves.
    SecondPerson,
}

/// How a purge, or a close that is due at once, comes about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PurgeRule {
    /// Who must agree.
    pub approval: Approval,
    /// How long it can be withdrawn.
    pub cooling_off: Length,
}

impl PurgeRule {
    /// Whether a purge by this rule takes fewer people or less time than by another.
    pub fn asks_less_than(&self, other: &Self) -> bool {
        let person = |rule: &Self| rule.approval == Approval::SecondPerson;
        (person(other) && !person(self)) || other.cooling_off.surely_beyond(self.cooling_off) > 0
    }
}

/// What a recording must state about the basis on which it was made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BasisRule {
    /// Any of these. Empty: none need be stated.
    pub required: Vec<Basis>,
    /// The evidence must name every party.
    pub evidence_of_all_parties: bool,
    /// An announcement must be stated.
    pub announcement: bool,
}

/// What must hold of account and subscriber for a rule to match; none: either.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct States {
    closed: Option<bool>,
    deactivated: Option<bool>,
}

impl States {
    fn matches(self, closed: bool, deactivated: bool) -> bool {
        self.closed.is_none_or(|wanted| wanted == closed) && self.deactivated.is_none_or(|wanted| wanted == deactivated)
    }

    fn named(self) -> usize {
        usize::from(self.closed.is_some()) + usize::from(self.deactivated.is_some())
    }

    /// Whether both can match at the same time.
    fn meets(self, other: Self) -> bool {
        let meet = |a: Option<bool>, b: Option<bool>| a.is_none() || b.is_none() || a == b;
        meet(self.closed, other.closed) && meet(self.deactivated, other.deactivated)
    }
}

/// Which leaves a rule is about.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Reach {
    parts: Vec<Part>,
    /// Empty: all.
    categories: Vec<Category>,
    /// Empty: all, and where none is stated.
    jurisdictions: Vec<Jurisdiction>,
    states: States,
}

impl Reach {
    fn covers(&self, category: Category, part: Part, jurisdiction: Option<Jurisdiction>) -> bool {
        self.parts.contains(&part)
            && (self.categories.is_empty() || self.categories.contains(&category))
            && (self.jurisdictions.is_empty() || jurisdiction.is_some_and(|it| self.jurisdictions.contains(&it)))
    }

    /// Ranks rules that match the same.
    fn rank(&self) -> (bool, bool, usize) {
        (!self.categories.is_empty(), !self.jurisdictions.is_empty(), self.states.named())
    }

    /// Whether both can match the same at the same time.
    fn meets(&self, other: &Self) -> bool {
        self.parts.iter().any(|part| other.parts.contains(part))
            && self.beside(other)
            && self.states.meets(other.states)
    }

    /// Whether both can match parts of one recording.
    fn beside(&self, other: &Self) -> bool {
        fn meet<T: PartialEq>(a: &[T], b: &[T]) -> bool {
            a.is_empty() || b.is_empty() || a.iter().any(|item| b.contains(item))
        }
        meet(&self.categories, &other.categories) && meet(&self.jurisdictions, &other.jurisdictions)
    }
}

/// A `keep` rule.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Keep {
    line: u32,
    reach: Reach,
    not_before: Option<When>,
    not_after: Vec<When>,
    yields_to_floor: bool,
}

/// A `floor` rule. Its reach names no states.
#[derive(Clone, PartialEq, Eq, Debug)]
struct FloorRule {
    line: u32,
    reach: Reach,
    keep_at_least: When,
    ground: String,
}

/// A `basis` rule.
#[derive(Clone, PartialEq, Eq, Debug)]
struct BasisLine {
    line: u32,
    /// Empty: all.
    jurisdictions: Vec<Jurisdiction>,
    rule: BasisRule,
}

/// A retention policy that was checked.
#[derive(Clone, Debug)]
pub struct Policy {
    name: String,
    summary: String,
    margin: Length,
    parties: PartyRule,
    sweep_deadline: Length,
    purge: PurgeRule,
    subscribers_decide: bool,
    basis: Vec<BasisLine>,
    keep: Vec<Keep>,
    floors: Vec<FloorRule>,
}

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, {field}: {remedy}")]
pub struct PolicyError {
    /// Counted from 1; 0 where nothing in the text is to blame.
    pub line: u32,
    /// The field, with its table: `keep.not_after`.
    pub field: String,
    /// What to write instead.
    pub remedy: String,
}

impl Policy {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One sentence on what it is for.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// How far ahead of a promise the runner aims.
    pub fn margin(&self) -> Length {
        self.margin
    }

    /// Whose erasure destroys a call between subscribers.
    pub fn parties(&self) -> PartyRule {
        self.parties
    }

    /// Within what time the ciphertext of what was erased must be removed.
    pub fn sweep_deadline(&self) -> Length {
        self.sweep_deadline
    }

    /// How a purge comes about.
    pub fn purge(&self) -> PurgeRule {
        self.purge
    }

    /// Whether subscribers decide who of the provider's staff hears their own recordings, beside the tenant's administrators.
    pub fn subscribers_decide(&self) -> bool {
        self.subscribers_decide
    }

    /// What a recording made under a jurisdiction must state about its basis.
    pub fn basis(&self, jurisdiction: Option<Jurisdiction>) -> BasisRule {
        let named = |line: &&BasisLine| jurisdiction.is_some_and(|it| line.jurisdictions.contains(&it));
        let general = |line: &&BasisLine| line.jurisdictions.is_empty();
        let found = self.basis.iter().find(named).or_else(|| self.basis.iter().find(general));
        found.map(|line| line.rule.clone()).unwrap_or_default()
    }

    /// Whether closing an account makes anything due at that moment: then a close needs what a purge needs.
    pub fn due_at_close(&self) -> bool {
        let at_once = |when: &When| match when {
            When::After(length, Event::Close) => length.surely_beyond(self.margin) <= 0,
            _ => false,
        };
        self.keep.iter().flat_map(|rule| &rule.not_after).any(at_once)
    }

    /// When what is left of an account goes that was closed at a moment, once nothing recorded is left of it: half a margin
    /// before the longest promise that counts from the close. None: no rule counts from it.
    pub fn account_goes(&self, closed: Timestamp) -> Option<Timestamp> {
        self.leftovers_go(Event::Close, closed)
    }

    /// The same of a subscriber that was deactivated at a moment.
    pub fn subscriber_goes(&self, deactivated: Timestamp) -> Option<Timestamp> {
        self.leftovers_go(Event::Deactivation, deactivated)
    }

    fn leftovers_go(&self, event: Event, at: Timestamp) -> Option<Timestamp> {
        let promises = self.keep.iter().flat_map(|rule| &rule.not_after).filter_map(|when| match when {
            When::After(length, of) if *of == event => Some(length.after(at)),
            When::After(..) | When::On(_) => None,
        });
        let promise = promises.max()?;
        let aim = self.margin.before(promise);
        Some(aim.plus_ms(promise.0.saturating_sub(aim.0) / 2).max(at))
    }

    /// Every ground that the floors of one recording can have, joined where audio and facts have different ones.
    pub fn grounds(&self) -> BTreeSet<String> {
        let of = |part: Part| self.floors.iter().filter(move |floor| floor.reach.parts.contains(&part));
        let mut grounds: BTreeSet<String> = self.floors.iter().map(|floor| floor.ground.clone()).collect();
        for audio in of(Part::Audio) {
            let together = |facts: &&FloorRule| facts.reach.beside(&audio.reach);
            grounds.extend(of(Part::Facts).filter(together).map(|facts| joined(&audio.ground, &facts.ground)));
        }
        grounds
    }

    /// The ground of a recording with these floors; one of [`Policy::grounds`].
    pub fn joined_ground(audio: Option<&Floor>, facts: Option<&Floor>) -> Option<String> {
        match (audio, facts) {
            (Some(audio), Some(facts)) => Some(joined(&audio.ground, &facts.ground)),
            (one, other) => one.or(other).map(|floor| floor.ground.clone()),
        }
    }

    /// Something that another policy governs and this one does not.
    pub fn lacks_of(&self, other: &Policy) -> Option<(Category, Part)> {
        let rules = self.keep.iter().chain(&other.keep);
        let named: BTreeSet<Jurisdiction> = rules.flat_map(|rule| rule.reach.jurisdictions.clone()).collect();
        let jurisdictions = || [None].into_iter().chain(named.iter().copied().map(Some));
        let governs = |policy: &Policy, category, part, jurisdiction| {
            policy.keep.iter().any(|rule| rule.reach.covers(category, part, jurisdiction))
        };
        let all = Category::ALL.into_iter().flat_map(|category| Part::ALL.map(|part| (category, part)));
        all.into_iter().find(|(category, part)| {
            jurisdictions()
                .any(|place| governs(other, *category, *part, place) && !governs(self, *category, *part, place))
        })
    }
}

fn joined(audio: &str, facts: &str) -> String {
    if audio == facts { audio.to_owned() } else { format!("{audio} (audio), {facts} (facts)") }
}

/// The same rules; which lines they stand on does not matter.
impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

#[cfg(test)]
mod tests;
