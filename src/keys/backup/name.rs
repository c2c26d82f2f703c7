//! What the objects of a backup are called, and which of them lead to which state.
//!
//! ```text
//! backup/STORE/base/NUMBER-CHAIN-ROOT-TAKEN-PART-m           a part of a base; the last one ends with -e
//! backup/STORE/delta/FIRST-LAST-BEFORE-AFTER-ROOT-TAKEN      commands FIRST to LAST
//! ```
//!
//! All fields are lower-case hexadecimal: STORE has 32 digits (the store's id), all others 16: numbers of commands; the first
//! 8 bytes of the chain over all commands so far (of the state before and after); the first 8 bytes of the id of the root that
//! opens the state; milliseconds since 1970; PART from 0. So a name tells how many commands were written until when, and when
//! roots changed, as the dates of the objects and the clear parts of pages do, and nothing else.
//!
//! A name is a hint: what it says is checked against the content before anything is made of it. It is what makes a plan
//! possible without a download.

use super::super::command::Chain;
use crate::domain::{
    id::{RootId, StoreId},
    time::Timestamp,
};
use std::{collections::HashMap, fmt};

/// What all names begin with.
pub const PREFIX: &str = "backup/";
/// Bytes of a chain or root id that a name holds.
const SHORT: usize = 8;

/// The beginning of a chain or of a root's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Short([u8; SHORT]);

impl Short {
    fn of(bytes: &[u8]) -> Self {
        let mut short = [0; SHORT];
        short.copy_from_slice(&bytes[..SHORT]);
        Self(short)
    }
}

impl From<Chain> for Short {
    fn from(chain: Chain) -> Self {
        Self::of(&chain.0)
    }
}

impl From<RootId> for Short {
    fn from(root: RootId) -> Self {
        Self::of(&root.0)
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A state of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Its last command.
    pub number: u64,
    /// The chain up to there.
    pub chain: Short,
    /// The root that opens it.
    pub root: Short,
}

/// A base, or one of its parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BaseName {
    /// The state that it holds.
    pub mark: Mark,
    /// When it was begun.
    pub taken: Timestamp,
}

impl BaseName {
    /// The name of a part.
    pub fn part(&self, store: StoreId, part: u64, last: bool) -> String {
        let Mark { number, chain, root } = self.mark;
        let end = if last { "e" } else { "m" };
        format!("{PREFIX}{store}/base/{number:016x}-{chain}-{root}-{:016x}-{part:016x}-{end}", self.taken.0)
    }
}

/// A delta.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeltaName {
    /// Its first command.
    pub first: u64,
    /// The chain before that.
    pub before: Short,
    /// The state behind its last command.
    pub mark: Mark,
    /// When it was put.
    pub taken: Timestamp,
}

impl DeltaName {
    /// The name.
    pub fn text(&self, store: StoreId) -> String {
        let Self { first, before, mark: Mark { number, chain, root }, taken } = self;
        format!("{PREFIX}{store}/delta/{first:016x}-{number:016x}-{before}-{chain}-{root}-{:016x}", taken.0)
    }
}

/// What the names of a store's bases begin with.
pub fn bases(store: StoreId) -> String {
    format!("{PREFIX}{store}/base/")
}

/// What the names of a store's deltas begin with.
pub fn deltas(store: StoreId) -> String {
    format!("{PREFIX}{store}/delta/")
}

/// What lies between the names of deltas that begin before this command and those of the others.
pub fn deltas_from(store: StoreId, first: u64) -> String {
    format!("{PREFIX}{store}/delta/{first:016x}")
}

enum Name {
    Part(BaseName, u64, bool),
    Delta(DeltaName),
}

/// Reads a name; none when it is not one of ours.
fn parse(text: &str) -> Option<(StoreId, Name)> {
    let mut folders = text.strip_prefix(PREFIX)?.split('/');
    let (store, kind, fields) = (folders.next()?, folders.next()?, folders.next()?);
    if folders.next().is_some() {
        return None;
    }
    let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
    let store = StoreId::from_slice(&hex(store)?)?;
    let fields: Vec<&str> = fields.split('-').collect();
    let short = |at: usize| Some(Short(hex(fields.get(at)?)?.try_into().ok()?));
    let number = |at: usize| short(at).map(|short| u64::from_be_bytes(short.0));
    let time = |at: usize| number(at).and_then(|ms| i64::try_from(ms).ok()).map(Timestamp);
    let name = match (kind, fields.len()) {
        ("base", 6) => {
            let mark = Mark { number: number(0)?, chain: short(1)?, root: short(2)? };
            let last = match fields[5] {
                "e" => true,
                "m" => false,
                _ => return None,
            };
            Name::Part(BaseName { mark, taken: time(3)? }, number(4)?, last)
        }
        ("delta", 6) => {
            let mark = Mark { number: number(1)?, chain: short(3)?, root: short(4)? };
            let delta = DeltaName { first: number(0)?, before: short(2)?, mark, taken: time(5)? };
            (1..=mark.number).contains(&delta.first).then_some(Name::Delta(delta))?
        }
        _ => return None,
    };
    Some((store, name))
}

/// The objects of one store's backup.
#[derive(Default)]
pub struct Catalogue {
    /// Bases that are whole, with the number of their parts; newest state last.
    pub bases: Vec<(BaseName, u64)>,
    /// Deltas, by their first command.
    pub deltas: Vec<DeltaName>,
    /// Every object's name, and when it was put.
    pub objects: Vec<(String, Timestamp)>,
}

/// How to get to a state: a base and the deltas behind it.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where it begins.
    pub base: BaseName,
    /// How many parts the base has.
    pub parts: u64,
    /// Each begins where the one before it ended.
    pub deltas: Vec<DeltaName>,
    /// Where it ends.
    pub mark: Mark,
}

/// A base of which parts were seen, and its last part.
type Seen = (BaseName, Vec<u64>, Option<u64>);

/// Sorts names by store. What is not ours is passed over.
pub fn catalogues(names: &[String]) -> HashMap<StoreId, Catalogue> {
    let mut found: HashMap<StoreId, Catalogue> = HashMap::new();
    let mut parts: HashMap<(StoreId, String), Seen> = HashMap::new();
    for text in names {
        let Some((store, name)) = parse(text) else { continue };
        let catalogue = found.entry(store).or_default();
        match name {
            Name::Delta(delta) => {
                catalogue.objects.push((text.clone(), delta.taken));
                catalogue.deltas.push(delta);
            }
            Name::Part(base, part, last) => {
                catalogue.objects.push((text.clone(), base.taken));
                let (_, seen, end) =
                    parts.entry((store, base.part(store, 0, false))).or_insert((base, Vec::new(), None));
                seen.push(part);
                if last {
                    *end = Some(part);
                }
            }
        }
    }
    for ((store, _), (base, mut seen, end)) in parts {
        seen.sort_unstable();
        seen.dedup();
        let whole = end.is_some_and(|end| seen.iter().copied().eq(0..=end));
        if let (true, Some(catalogue)) = (whole, found.get_mut(&store)) {
            catalogue.bases.push((base, seen.len() as u64));
        }
    }
    for catalogue in found.values_mut() {
        catalogue.bases.sort_unstable_by_key(|(base, _)| (base.mark.number, base.taken));
        catalogue.deltas.sort_unstable_by_key(|delta| (delta.first, delta.mark.number, delta.taken));
    }
    found
}

#[derive(Clone, Copy)]
enum Step {
    Base(usize),
    Delta(usize),
}

/// States by number and chain, each with the last step to it.
type Reached = HashMap<(u64, Short), (Mark, Step)>;

impl Catalogue {
    /// Every state that the objects lead to.
    fn reached(&self) -> Reached {
        // A state that a delta ends at has a higher number than the one it begins at, so that one pass in the order of first
        // commands reaches all of them.
        let mut reached = Reached::new();
        for (at, (base, _)) in self.bases.iter().enumerate() {
            reached.insert((base.mark.number, base.mark.chain), (base.mark, Step::Base(at)));
        }
        for (at, delta) in self.deltas.iter().enumerate() {
            if reached.contains_key(&(delta.first - 1, delta.before)) {
                let end = (delta.mark.number, delta.mark.chain);
                reached.entry(end).or_insert((delta.mark, Step::Delta(at)));
            }
        }
        reached
    }

    /// The way to the newest state whose root is held; the shortest one that there is.
    pub fn best(&self, holds: impl Fn(Short) -> bool) -> Option<Way> {
        let reached = self.reached();
        let held = reached.values().filter(|(mark, _)| holds(mark.root));
        let (mark, mut from) = *held.max_by_key(|(mark, _)| (mark.number, mark.chain))?;
        let mut deltas = Vec::new();
        loop {
            match from {
                Step::Base(at) => {
                    deltas.reverse();
                    let (base, parts) = self.bases[at];
                    return Some(Way { base, parts, deltas, mark });
                }
                Step::Delta(at) => {
                    let delta = self.deltas[at];
                    deltas.push(delta);
                    from = reached.get(&(delta.first - 1, delta.before))?.1;
                }
            }
        }
    }

    /// States behind a command, whatever opens them: how many, the newest, and when that was written. None: there is none.
    pub fn newer(&self, number: u64) -> Option<(u64, Mark, Timestamp)> {
        let mut newer: Vec<_> = self.reached().into_values().filter(|(mark, _)| mark.number > number).collect();
        newer.sort_unstable_by_key(|(mark, _)| (mark.number, mark.chain));
        let (mark, step) = *newer.last()?;
        let taken = match step {
            Step::Base(at) => self.bases[at].0.taken,
            Step::Delta(at) => self.deltas[at].taken,
        };
        Some((newer.len() as u64, mark, taken))
    }

    /// The deltas that lead from a command to a state, the last of them ending there; none when they do not reach back.
    pub fn deltas_to(&self, mark: Mark, from: u64) -> Option<Vec<DeltaName>> {
        let (mut number, mut chain, mut way) = (mark.number, mark.chain, Vec::new());
        while number > from {
            let mut ending =
                self.deltas.iter().filter(|delta| (delta.mark.number, delta.mark.chain) == (number, chain));
            let delta = *ending.next()?;
            (number, chain) = (delta.first - 1, delta.before);
            way.push(delta);
        }
        way.reverse();
        Some(way)
    }

    /// Objects that are older than `before` and that the way to the newest state does not need.
    pub fn aged(&self, way: &Way, store: StoreId, before: Timestamp) -> Vec<String> {
        let needed: std::collections::HashSet<String> = (0..way.parts)
            .map(|part| way.base.part(store, part, part + 1 == way.parts))
            .chain(way.deltas.iter().map(|delta| delta.text(store)))
            .collect();
        let old = self.objects.iter().filter(|(name, taken)| *taken < before && !needed.contains(name));
        old.map(|(name, _)| name.clone()).collect()
    }
}
