//! What a key store knows of its slots, and what is left of old roots. Pure.
//!
//! The table lies in clear in the key store and travels in the command of every rotation. For every slot that ever received a
//! share it says from which generation to which one (`joined`, `left`), and the generation below which it is known to
//! hold nothing any more (`confirmed`): a slot that has committed to generation g has destroyed every older share, and with
//! them whatever opens older shares that wait for it in copies of the key store (see [`super::shares`]).
//!
//! So a share of root g is *left* with every slot that was in g's sharing and is not confirmed beyond g, be it lost, retired
//! or away; and root g is *destroyed* when fewer than k of them are. What the table says may lag behind (it is written with
//! the next rotation): then it counts too many as left, never too few.

use crate::{
    domain::{id::RootId, time::Timestamp},
    keys::{
        Forgets,
        backing::{Family, KeyValue, Row},
    },
};

/// Row of the table.
pub const NAME: &[u8] = b"table";
/// Most slots that share one root.
pub const MAX_SLOTS: usize = 9;
const MEMBER: usize = 1 + 8 + 8 + 8 + 16;

/// A slot that received a share at some time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its number.
    pub number: u8,
    /// First generation of which it received a share.
    pub joined: u64,
    /// First generation of which it did not; none while it is one of those that share the root.
    pub left: Option<u64>,
    /// It holds no share of an older generation than this.
    pub confirmed: u64,
    /// The root whose share it held when that was confirmed.
    pub holds: RootId,
}

/// What slots that have been wiped and are gone declared: roots of before are forgotten as well as by them, at best.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Departed {
    /// One of them forgets by best effort.
    best_effort: bool,
    /// When the last backup of one of them has expired, in milliseconds since 1970; 0 where none had any.
    until_ms: i64,
}

/// How near the slots that are there come to a root of before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// They hold enough shares of it.
    Opens,
    /// With slots that are away, or with shares that wait in some state of the backup, there may be enough.
    MayOpen,
    /// All are there and none holds a share of it.
    Never,
}

/// All of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    departed: Departed,
    /// Generation of the root that it was drawn up for.
    generation: u64,
    /// How many shares give the root, from which generation on; ascending, never empty.
    thresholds: Vec<(u64, u8)>,
    members: Vec<Member>,
    /// The highest number that was ever given out.
    highest: u8,
}

impl Table {
    /// Of a first start: slots 1 to `count`, of which any `k` give the root.
    pub fn first(k: u8, count: u8, holds: RootId) -> Self {
        let member = |number| Member { number, joined: 1, left: None, confirmed: 1, holds };
        let members = (1..=count).map(member).collect();
        Self { departed: Departed::default(), generation: 1, thresholds: vec![(1, k)], members, highest: count }
    }

    /// Generation of the present root.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The next root.
    pub fn advance(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// How many shares give the present root.
    pub fn k(&self) -> u8 {
        self.thresholds.last().map_or(1, |(_, k)| *k)
    }

    /// Those that share the present root.
    pub fn present(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.left.is_none())
    }

    /// One that has, or may have, a share.
    pub fn member(&self, number: u8) -> Option<&Member> {
        self.members.iter().find(|member| member.number == number)
    }

    /// All of which something may be left.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A slot committed to a root, and holds nothing else.
    pub fn confirm(&mut self, number: u8, generation: u64, holds: RootId) {
        for member in self.members.iter_mut().filter(|member| member.number == number) {
            (member.confirmed, member.holds) = (generation, holds);
        }
    }

    /// A slot that was retired is empty. It declared how well it forgets.
    pub fn wiped(&mut self, number: u8, forgets: Forgets, now: Timestamp) {
        self.members.retain(|member| member.number != number || member.left.is_none());
        self.departed.best_effort |= forgets == Forgets::BestEffort;
        if let Some(last) = forgets.last_copy(now) {
            self.departed.until_ms = self.departed.until_ms.max(last.0);
        }
    }

    /// What those declared that are gone, as of now; none where nothing of them matters any more.
    pub fn departed(&self, now: Timestamp) -> Option<Forgets> {
        let left = u64::try_from(self.departed.until_ms.saturating_sub(now.0)).unwrap_or(0);
        let days = left.div_ceil(86_400_000);
        match (self.departed.best_effort, u32::try_from(days).unwrap_or(u32::MAX)) {
            (true, _) => Some(Forgets::BestEffort),
            (false, 0) => None,
            (false, days) => Some(Forgets::After { days }),
        }
    }

    /// Numbers for so many slots that are to get shares of a root which may never seal anything: until they join they count as
    /// slots that hold the present root and have left. None when there are no numbers left.
    pub fn announce(&mut self, count: usize, root: RootId) -> Option<Vec<u8>> {
        let (generation, mut new) = (self.generation, Vec::new());
        for _ in 0..count {
            self.highest = self.highest.checked_add(1)?;
            new.push(self.highest);
            let left = Some(generation + 1);
            let number = self.highest;
            self.members.push(Member { number, joined: generation, left, confirmed: generation, holds: root });
        }
        Some(new)
    }

    /// Numbers that were announced, for this root or any, all or one of them, got no share.
    pub fn withdraw(&mut self, root: Option<RootId>, number: Option<u8>) {
        let announced = |member: &Member| {
            member.left.is_some()
                && root.is_none_or(|root| root == member.holds)
                && number.is_none_or(|number| number == member.number)
        };
        self.members.retain(|member| !announced(member));
    }

    /// Numbers that were announced for a root.
    pub fn announced(&self, root: RootId) -> impl Iterator<Item = u8> {
        self.members
            .iter()
            .filter(move |member| member.holds == root && member.left.is_some())
            .map(|member| member.number)
    }

    /// From the present root on another set shares it: without `leave`, with those that `join`.
    pub fn reshare(&mut self, k: u8, leave: &[u8], join: &[u8]) {
        let generation = self.generation;
        for member in self.members.iter_mut().filter(|member| leave.contains(&member.number)) {
            member.left = Some(generation);
        }
        for member in self.members.iter_mut().filter(|member| join.contains(&member.number)) {
            (member.joined, member.left, member.confirmed) = (generation, None, generation);
        }
        if self.k() != k {
            self.thresholds.push((generation, k));
        }
    }

    /// How near `holding` shares come to a root of before, where `there` tells which of the slots that had one are there.
    pub fn reach(&self, generation: u64, holding: usize, there: impl Fn(u8) -> bool) -> Reach {
        let had = |member: &&Member| member.joined <= generation && member.left.is_none_or(|left| generation < left);
        if holding >= usize::from(self.k_of(generation)) {
            Reach::Opens
        } else if holding == 0 && self.members.iter().filter(had).all(|member| there(member.number)) {
            Reach::Never
        } else {
            Reach::MayOpen
        }
    }

    /// How many shares of a root of before are left.
    pub fn shares_left(&self, generation: u64) -> usize {
        let holds = |member: &&Member| {
            member.joined <= generation
                && member.left.is_none_or(|left| generation < left)
                && member.confirmed <= generation
        };
        self.members.iter().filter(holds).count()
    }

    /// How many shares give a root of before.
    pub fn k_of(&self, generation: u64) -> u8 {
        self.thresholds.iter().rev().find(|(from, _)| *from <= generation).map_or(1, |(_, k)| *k)
    }

    /// Every root below this generation is destroyed; the present one where all are. What is left, and how many are needed,
    /// only changes at the generations that the table names: no other has to be looked at.
    pub fn destroyed_before(&self) -> u64 {
        let present = self.generation;
        let named = self.members.iter().flat_map(|member| [member.joined, member.confirmed]);
        named
            .chain(self.thresholds.iter().map(|(from, _)| *from))
            .filter(|at| *at < present && self.shares_left(*at) >= usize::from(self.k_of(*at)))
            .min()
            .unwrap_or(present)
    }

    /// Forgets what nothing is left of.
    pub fn tidy(&mut self) {
        self.members.retain(|member| member.left.is_none_or(|left| member.confirmed < left));
        // How many it took of a root that is destroyed says why it is, as long as somebody is counted for it.
        let settled = self.destroyed_before();
        let counted = self.members.iter().map(|member| member.joined).min().unwrap_or(settled);
        while self.thresholds.get(1).is_some_and(|(from, _)| *from <= settled.min(counted)) {
            self.thresholds.remove(0);
        }
    }

    /// Its row.
    pub fn row(&self) -> Row {
        Row::put(Family::Slots, NAME, self.encode())
    }

    /// The row's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, self.highest, self.thresholds.len() as u8, self.members.len() as u8];
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.push(self.departed.best_effort.into());
        out.extend_from_slice(&self.departed.until_ms.to_be_bytes());
        for (from, k) in &self.thresholds {
            out.extend_from_slice(&from.to_be_bytes());
            out.push(*k);
        }
        for member in &self.members {
            out.push(member.number);
            out.extend_from_slice(&member.joined.to_be_bytes());
            out.extend_from_slice(&member.left.unwrap_or(0).to_be_bytes());
            out.extend_from_slice(&member.confirmed.to_be_bytes());
            out.extend_from_slice(&member.holds.0);
        }
        out
    }

    /// The table among these rows; none when it is not there, or not a table.
    pub fn of(rows: &[KeyValue]) -> Option<Self> {
        rows.iter().find(|(name, _)| name == NAME).and_then(|(_, content)| Self::decode(content))
    }

    /// Reads it; none when it is not a table.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let ([1, highest, thresholds, members], rest) = bytes.split_first_chunk()? else { return None };
        let (generation, rest) = rest.split_first_chunk()?;
        let ([best_effort], rest) = rest.split_first_chunk()?;
        let (until_ms, rest) = rest.split_first_chunk()?;
        let departed = Departed { best_effort: *best_effort != 0, until_ms: i64::from_be_bytes(*until_ms) };
        let (first, second) = rest.split_at_checked(usize::from(*thresholds) * 9)?;
        if *thresholds == 0 || second.len() != usize::from(*members) * MEMBER {
            return None;
        }
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
        let thresholds = first.chunks_exact(9).map(|row| Some((number(&row[..8])?, row[8])));
        let members = second.chunks_exact(MEMBER).map(|row| {
            Some(Member {
                number: row[0],
                joined: number(&row[1..9])?,
                left: Some(number(&row[9..17])?).filter(|left| *left != 0),
                confirmed: number(&row[17..25])?,
                holds: RootId(row[25..].try_into().ok()?),
            })
        });
        let table = Self {
            departed,
            generation: u64::from_be_bytes(*generation),
            thresholds: thresholds.collect::<Option<_>>()?,
            members: members.collect::<Option<_>>()?,
            highest: *highest,
        };
        let numbered = table.members.iter().all(|member| (1..=table.highest).contains(&member.number));
        let shared = (1..=table.present().count()).contains(&usize::from(table.k()));
        (numbered && shared).then_some(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RootId = RootId([7; 16]);

    fn join(table: &mut Table, k: u8, leave: &[u8], count: usize) {
        let new = table.announce(count, RootId([8; 16])).expect("numbers are left");
        table.reshare(k, leave, &new);
    }

    #[test]
    fn a_slot_that_was_to_join_counts_as_one_that_holds_the_root_until_it_is_wiped() {
        let mut table = Table::first(1, 1, ID);
        assert_eq!(table.announce(2, RootId([8; 16])), Some(vec![2, 3]));
        // The attempt failed; the next rotation erases.
        table.advance(2);
        table.confirm(1, 2, ID);
        table.tidy();
        assert_eq!((table.shares_left(1), table.destroyed_before()), (2, 1));
        for number in [2, 3] {
            table.wiped(number, Forgets::AtOnce, Timestamp(0));
        }
        assert_eq!((table.shares_left(1), table.destroyed_before()), (0, 2));
        assert_eq!(table.announce(1, RootId([9; 16])), Some(vec![4]), "no number is given twice");
    }

    #[test]
    fn what_departed_slots_declared_is_remembered() {
        const DAY_MS: i64 = 86_400_000;
        let mut table = Table::first(2, 3, ID);
        assert_eq!(table.departed(Timestamp(0)), None);
        table.advance(2);
        table.reshare(2, &[1], &[]);
        table.wiped(1, Forgets::After { days: 35 }, Timestamp(0));
        let table_read = Table::decode(&table.encode()).expect("a table");
        assert_eq!(table_read.departed(Timestamp(DAY_MS * 5 / 2)), Some(Forgets::After { days: 33 }));
        assert_eq!(table_read.departed(Timestamp(35 * DAY_MS)), None);
        table.wiped(2, Forgets::BestEffort, Timestamp(0));
        assert_eq!(table.departed(Timestamp(99 * DAY_MS)), Some(Forgets::BestEffort));
    }

    #[test]
    fn a_root_is_destroyed_when_fewer_than_k_shares_are_left() {
        let mut table = Table::first(2, 3, ID);
        table.advance(2);
        assert_eq!((table.shares_left(1), table.destroyed_before()), (3, 1));
        table.confirm(1, 2, ID);
        assert_eq!((table.shares_left(1), table.destroyed_before()), (2, 1), "two that still hold it are enough");
        table.confirm(2, 2, ID);
        assert_eq!((table.shares_left(1), table.destroyed_before()), (1, 2));
    }

    #[test]
    fn lost_and_retired_slots_count_until_they_are_wiped() {
        let mut table = Table::first(2, 3, ID);
        // Slot 1 is lost at generation 1; the others go on, and a fourth takes its place.
        table.advance(2);
        join(&mut table, 2, &[1], 1);
        // Slot 2 goes away in the middle of it: with the lost one it still has what gives the first root.
        table.confirm(3, 2, ID);
        table.confirm(4, 2, ID);
        assert_eq!((table.shares_left(1), table.destroyed_before()), (2, 1));
        table.advance(9);
        table.tidy();
        assert_eq!(table.destroyed_before(), 1, "and it stays so however many generations pass");
        for number in [2, 3, 4] {
            table.confirm(number, 9, ID);
        }
        assert_eq!((table.shares_left(1), table.destroyed_before()), (1, 9));
        table.wiped(1, Forgets::AtOnce, Timestamp(0));
        assert_eq!(table.shares_left(1), 0);
    }

    #[test]
    fn a_threshold_holds_for_the_generations_that_it_was_set_for() {
        let mut table = Table::first(1, 1, ID);
        table.advance(2);
        join(&mut table, 2, &[], 2);
        table.confirm(2, 2, ID);
        table.confirm(3, 2, ID);
        assert_eq!(table.destroyed_before(), 1, "one share was the whole root");
        table.confirm(1, 2, ID);
        assert_eq!(table.destroyed_before(), 2);
    }

    #[test]
    fn a_higher_threshold_takes_back_nothing_that_was_destroyed() {
        let mut table = Table::first(2, 3, ID);
        // Slot 1 is lost, and replaced; then five share the root.
        table.advance(2);
        join(&mut table, 2, &[1], 1);
        let settle = |table: &mut Table| {
            let (generation, numbers) = (table.generation(), table.present().map(|member| member.number));
            numbers.collect::<Vec<_>>().into_iter().for_each(|number| table.confirm(number, generation, ID));
            table.tidy();
        };
        settle(&mut table);
        assert_eq!((table.shares_left(1), table.destroyed_before()), (1, 2));
        table.advance(3);
        join(&mut table, 3, &[], 2);
        for generation in 4..8 {
            settle(&mut table);
            assert_eq!(table.destroyed_before(), table.generation(), "one of two was never enough");
            table.advance(generation);
        }
        assert_eq!((table.k_of(1), table.k()), (2, 3));
        // Once nobody is counted for the first root any more, nothing need be known of it.
        table.wiped(1, Forgets::AtOnce, Timestamp(0));
        for member in [2, 3] {
            table.reshare(3, &[member], &[]);
            table.wiped(member, Forgets::AtOnce, Timestamp(0));
        }
        table.tidy();
        assert_eq!((table.thresholds.len(), table.destroyed_before()), (2, 6));
    }

    #[test]
    fn a_table_reads_back_as_it_was_written() {
        let mut table = Table::first(2, 3, ID);
        table.advance(4);
        join(&mut table, 3, &[2], 3);
        table.confirm(3, 4, RootId([1; 16]));
        assert_eq!(Table::decode(&table.encode()), Some(table));
    }

    proptest::proptest! {
        #[test]
        fn hostile_tables_never_panic(content: Vec<u8>) {
            let mut framed = content.clone();
            if let [version, ..] = framed.as_mut_slice() {
                *version = 1;
            }
            for bytes in [content, framed] {
                if let Some(mut table) = Table::decode(&bytes) {
                    table.destroyed_before();
                    table.departed(Timestamp(0));
                    table.tidy();
                }
            }
        }
    }
}
