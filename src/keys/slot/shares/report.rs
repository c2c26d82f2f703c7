//! How the slots stand, as it is shown.

use super::Slots;
use crate::keys::Forgets;

/// What became of a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It holds the present share.
    Present,
    /// It is one of ours and holds an older share.
    Behind,
    /// It was retired, and still holds something.
    Retired,
    /// It was retired and is not there: what it may hold counts as left, and nothing is missing without it.
    Left,
    /// It holds nothing: new, wiped, or not mounted.
    Empty,
    /// It holds what another configured slot holds.
    Copy,
    /// It holds something of another key store.
    Foreign,
    /// It cannot be used.
    Away(String),
}

impl Standing {
    /// In words.
    pub fn words(&self) -> String {
        match self {
            Standing::Present => "matches".to_owned(),
            Standing::Behind => "holds an older share".to_owned(),
            Standing::Retired => "was retired".to_owned(),
            Standing::Left => "was retired, and is not known to be wiped".to_owned(),
            Standing::Empty => "is empty".to_owned(),
            Standing::Copy => "is a copy of another slot: empty it, and never copy a slot".to_owned(),
            Standing::Foreign => "holds a root of another key store".to_owned(),
            Standing::Away(why) => format!("is away ({why})"),
        }
    }
}

/// One slot.
#[derive(Clone, Debug)]
pub struct SlotReport {
    /// Where it is; empty for one that no configured slot is.
    pub name: String,
    /// Its number, where it is known.
    pub number: Option<u8>,
    /// What became of it.
    pub standing: Standing,
    /// What it declares; none where it could not be opened.
    pub forgets: Option<Forgets>,
    /// It holds no share of an older generation than this.
    pub confirmed: Option<u64>,
}

impl SlotReport {
    /// Whether it holds its share of the present root.
    pub fn matches(&self) -> bool {
        self.standing == Standing::Present
    }

    /// Whether a share is missing.
    pub fn is_short(&self) -> bool {
        !matches!(self.standing, Standing::Present | Standing::Left)
    }

    /// In words, for others than the node's operator: why it is away tells where it is.
    pub fn brief(&self) -> String {
        match &self.standing {
            Standing::Away(_) => "is away".to_owned(),
            standing => standing.words(),
        }
    }
}

/// All slots.
#[derive(Clone, Debug, Default)]
pub struct SlotsReport {
    /// How many shares give the root.
    pub k: u8,
    /// How many slots share the present root.
    pub of: usize,
    /// Generation of the present root.
    pub generation: u64,
    /// Every root below this generation is destroyed.
    pub destroyed_before: u64,
    /// Shares that are left of the oldest root that is not destroyed; none where every old root is.
    pub shares_left: Option<usize>,
    /// How many more slots may be lost without losing everything.
    pub losses_survivable: usize,
    /// What slots declared that have been wiped and are gone, where it still matters.
    pub departed: Option<Forgets>,
    /// Each slot.
    pub slots: Vec<SlotReport>,
}

impl Slots {
    /// As they are shown.
    pub fn report(&self) -> SlotsReport {
        let confirmed = |number| self.table.member(number).map(|member| member.confirmed);
        let mut slots: Vec<_> = self
            .seats
            .iter()
            .map(|seat| SlotReport {
                name: seat.name.clone(),
                number: seat.number,
                standing: seat.standing.clone(),
                forgets: seat.forgets,
                confirmed: seat.number.and_then(confirmed),
            })
            .collect();
        for member in self.table.members() {
            if self.seats.iter().all(|seat| seat.number != Some(member.number)) {
                let standing = if member.left.is_some() {
                    Standing::Left
                } else {
                    Standing::Away("no configured slot has its number".to_owned())
                };
                slots.push(SlotReport {
                    name: String::new(),
                    number: Some(member.number),
                    standing,
                    forgets: None,
                    confirmed: Some(member.confirmed),
                });
            }
        }
        let holding = self.seats.iter().filter(|seat| seat.standing == Standing::Present).count();
        let (generation, destroyed_before) = (self.table.generation(), self.table.destroyed_before());
        SlotsReport {
            k: self.table.k(),
            of: self.table.present().count(),
            generation,
            destroyed_before,
            shares_left: (destroyed_before < generation).then(|| self.table.shares_left(destroyed_before)),
            losses_survivable: holding.saturating_sub(usize::from(self.table.k())),
            departed: self.table.departed(self.clock.now()),
            slots,
        }
    }

    /// What all of them together declare. While every slot is there: the weakest of the strongest that are needed to leave fewer
    /// than `k` shares of a root of before. While one is away or lost, whose share counts as left: the weakest of all. And
    /// never more than those declared that are gone. `after N d` is stronger than `best-effort`: it comes true.
    pub fn forgets(&self) -> Forgets {
        let strength = |forgets: &Forgets| match forgets {
            Forgets::AtOnce => (0, 0),
            Forgets::After { days } => (1, *days),
            Forgets::BestEffort => (2, 0),
        };
        let present = self.seats.iter().filter(|seat| seat.standing == Standing::Present);
        let mut declared: Vec<_> = present.filter_map(|seat| seat.forgets).collect();
        declared.sort_by_key(strength);
        let all_there = self.table.members().len() == declared.len();
        let needed = declared.len().saturating_sub(if all_there { usize::from(self.table.k()) } else { 1 });
        let weakest = declared.get(needed).copied().unwrap_or(Forgets::BestEffort);
        let departed = self.table.departed(self.clock.now());
        departed.into_iter().chain([weakest]).max_by_key(strength).unwrap_or(weakest)
    }
}
