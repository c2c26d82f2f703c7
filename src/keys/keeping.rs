//! What a recording's entry says about keeping it, and what readers see of an entry.
//!
//! All of it lies in sealed pages only, beside the secrets whose fate it decides (invariant I10): no row name, day list or
//! index outside a page says when something is due. The key store stores it and finds by it; what is allowed and when
//! something is to go is for the vault to say.

use super::RecordingPath;
use crate::domain::{
    id::{PageId, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
    time::Minute,
};
use std::collections::HashSet;

/// How long, and under which rules, a recording is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keeping {
    /// End of the call; [`Minute::NONE`] while it runs.
    pub ended: Minute,
    /// When the audio is to be looked at again; [`Minute::NEVER`]: only an event can make it due.
    pub audio_due: Minute,
    /// The same for the facts.
    pub facts_due: Minute,
    /// Erasure of the audio is refused before; [`Minute::NONE`]: no floor.
    pub audio_floor: Minute,
    /// The same for the facts.
    pub facts_floor: Minute,
    /// Which of the tenant's grounds the floors have; 0: none.
    pub ground: u8,
    /// Jurisdiction of the recording, ISO 3166 alpha-2; zeros: none stated.
    pub jurisdiction: [u8; 2],
    /// Kept, not played, not exported, and never due.
    pub restricted: bool,
    /// Why the call may be recorded, the vault's number; 0: not stated.
    pub basis: u8,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            ended: Minute::NONE,
            audio_due: Minute::NEVER,
            facts_due: Minute::NEVER,
            audio_floor: Minute::NONE,
            facts_floor: Minute::NONE,
            ground: 0,
            jurisdiction: [0; 2],
            restricted: false,
            basis: 0,
        }
    }
}

impl Keeping {
    /// When an entry with these leaves is to be looked at again.
    pub fn due(&self, audio: bool, facts: bool) -> Minute {
        if self.restricted {
            return Minute::NEVER;
        }
        let audio = if audio { self.audio_due } else { Minute::NEVER };
        let facts = if facts { self.facts_due } else { Minute::NEVER };
        audio.min(facts)
    }
}

/// A recording's entry without its secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordingEntry {
    /// Names the recording's rows.
    pub row: RowId,
    /// What it is; the vault's number.
    pub kind: u8,
    /// How long it is kept.
    pub keeping: Keeping,
    /// Other subscribers of the tenant who are bound to it, ascending.
    pub parties: Vec<SubscriberHandle>,
    /// Whether erasing any one of them erases it.
    pub wrapped: bool,
    /// The recording it was made from.
    pub parent: Option<RecordingHandle>,
    /// What was made from it.
    pub children: Vec<RecordingHandle>,
    /// Whether the audio lives. Neither leaf does once somebody whom a wrapped recording is bound to was erased.
    pub audio_present: bool,
    /// Whether the facts live.
    pub facts_present: bool,
    /// How many objects it has.
    pub objects: usize,
}

impl RecordingEntry {
    /// Whether any leaf lives. What is left of a recording that somebody bound to it took along has none.
    pub fn lives(&self) -> bool {
        self.audio_present || self.facts_present
    }
}

/// Tenants (without a subscriber) and subscribers of which nothing is looked for.
pub type PassedOver = HashSet<(TenantHandle, Option<SubscriberHandle>)>;

/// A recording that is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// Where it lies.
    pub at: RecordingPath,
    /// The page that has its entry: what is on one page is erased at the price of one.
    pub page: PageId,
    /// What its entry says.
    pub entry: RecordingEntry,
}
