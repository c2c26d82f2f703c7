//! Which roots the states of the backup need of the slots. Pure.
//!
//! [`Roots`] is the one answer to that. A start draws it up from what it finds and has the slots keep what it names; the backlog
//! holds it from then on; the keeper asks it which state may be spoken of, and the rotator what is owed. The model of the
//! protocol (`keys/tests/protocol`) drives the same type.
//!
//! While the backup has the newest rotation, the top's root is all that is needed. While it lacks it, three roots may be, by
//! cases over what a lost node could be restored to:
//! - *the state that the backup is known to have*: its root, the first of those before the top's;
//! - *a state that it may have*: at a start without object storage the rows of the outbox tell how far the backup is at least.
//!   Whoever ran before may have heard of more, and may have told others: every root that the slots still open then, the top's
//!   among them, is kept until object storage has been seen. Whichever start drew it, this one does not know what that one knew.
//!   One that may open again, once slots are back that are away now, is kept and not spoken of: it is not known to lead anywhere.
//!   Slots that hold it beside the two others are full, so while enough slots hold all three there is no further rotation that
//!   could let go of it, until the backup has the top;
//! - *the store's own*: the top's.
//!
//! Any other was drawn in between, nobody was told that the backup has a state under it, and nobody will be: it is dropped, and
//! [`Roots::published`] passes over the states that it sealed.
//!
//! The slots keep a list besides (`needed` in [`Slots`](super::super::Slots)), for two reasons. Their shares of older roots lie
//! there, beside the roots that these are of; and a slot may come back at any moment, also while a further rotation is staged,
//! which the list does not know of yet. It is what this type said when a rotation was finished or put off, whole: nothing is
//! added to it or taken from it by any rule of its own.

use crate::{
    domain::id::RootId,
    keys::{command::Rotation, slot::table::Reach},
};

/// Roots from that of the oldest state that may have to be restored to that of the top, and how far the backup is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Roots {
    /// Up to here the backup has everything, and the slots keep what opens it.
    backed: u64,
    /// Roots that sealed the top before and are not finished with, ascending.
    older: Vec<Older>,
    /// The root that seals the top.
    top: RootId,
    /// The command that brought it; 0 where it was there before.
    from: u64,
    /// Roots that a state of the backup may have, for all that is known of it: those that the slots kept at the start, while
    /// object storage has not been seen since.
    unsure: Vec<RootId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Older {
    from: u64,
    id: RootId,
    /// The slots do not keep it any more.
    dropped: bool,
    /// Too few of its shares are there to say that what it seals can be had.
    doubtful: bool,
}

impl Roots {
    /// Of a store that waits with no rotation. Where the backup was not `seen`, it may be further than `backed`.
    pub fn alone(top: RootId, backed: u64, seen: bool) -> Self {
        Self { backed, older: Vec::new(), top, from: 0, unsure: if seen { Vec::new() } else { vec![top] } }
    }

    /// At a start: from the rotations behind `backed` that wait, ascending, each with its command. `forgotten` tells whether a
    /// slot is known to have destroyed its share of a root of this generation, `reach` how near those that are there come to it. A
    /// root in the middle of which some slots have let go is no way to any state: to speak of one would have the older root dropped
    /// that leads to the backup. To let go of one of which some slots are merely away would lose what the backup has under it.
    pub fn found(
        top: RootId,
        backed: u64,
        rotations: &[(u64, Rotation)],
        seen: bool,
        forgotten: impl Fn(RootId, u64) -> bool,
        reach: impl Fn(RootId, u64) -> Reach,
    ) -> Self {
        // What a slot has forgotten it forgot because the backup has what came after.
        let finished =
            rotations.iter().take_while(|(_, rotation)| forgotten(rotation.from, rotation.generation - 1)).count();
        let (finished, waiting) = rotations.split_at(finished);
        let backed = finished.last().map_or(backed, |(number, _)| backed.max(*number));
        let mut roots = Self::alone(top, backed, seen);
        if let Some((_, first)) = waiting.first().filter(|(_, rotation)| rotation.from != top) {
            roots.older.push(Older { from: 0, id: first.from, dropped: false, doubtful: false });
            for (number, rotation) in waiting {
                if rotation.to == top {
                    roots.from = *number;
                } else {
                    let reach = reach(rotation.to, rotation.generation);
                    let (dropped, doubtful) = (seen || reach == Reach::Never, reach != Reach::Opens);
                    roots.older.push(Older { from: *number, id: rotation.to, dropped, doubtful });
                }
            }
        }
        if !seen {
            roots.unsure = roots.kept();
        }
        roots
    }

    /// A rotation was applied by this command.
    pub fn rotated(&mut self, number: u64, root: RootId) {
        self.older.push(Older { from: self.from, id: self.top, dropped: false, doubtful: false });
        (self.top, self.from) = (root, number);
    }

    /// The backup has everything up to a command. Not said of a state whose root is gone: a later one will do.
    pub fn published(&mut self, number: u64) {
        self.unsure.clear();
        let opens = number >= self.from || self.older_at(number).is_some_and(|root| !root.dropped && !root.doubtful);
        if number > self.backed && opens {
            self.backed = number;
        }
    }

    /// The last command that the backup has, as far as it may be told.
    pub fn backed(&self) -> u64 {
        self.backed
    }

    /// The backup lacks the newest rotation: roots in the middle, which neither a state of the backup nor the top needs, are
    /// dropped. What is published from now on needs none of them. Gives those before the top's that the slots keep.
    pub fn put_off(&mut self) -> Vec<RootId> {
        let needed = if self.backed < self.from { self.older_at(self.backed).map(|root| root.id) } else { None };
        for root in &mut self.older {
            root.dropped |= needed != Some(root.id) && !self.unsure.contains(&root.id);
        }
        self.needed()
    }

    /// Roots before the top's that the slots keep for the backup.
    pub fn needed(&self) -> Vec<RootId> {
        self.older.iter().filter(|root| !root.dropped).map(|root| root.id).collect()
    }

    /// All that the slots keep.
    pub fn kept(&self) -> Vec<RootId> {
        let mut kept = self.needed();
        kept.push(self.top);
        kept
    }

    /// Whether the backup is known to lack the newest rotation.
    pub fn is_behind(&self) -> bool {
        self.backed < self.from
    }

    /// Whether the slots keep more than the top's root, or are to be told that they need not.
    pub fn is_owed(&self) -> bool {
        !self.older.is_empty()
    }

    /// The top's root, once the backup has it and the slots may destroy every other that they still keep.
    pub fn due(&self) -> Option<RootId> {
        (self.is_owed() && !self.is_behind()).then_some(self.top)
    }

    /// The slots keep the top's root alone.
    pub fn settled(&mut self) {
        self.older.clear();
    }

    /// The root before the top's that opens the state behind a command.
    fn older_at(&self, number: u64) -> Option<Older> {
        self.older.iter().rev().find(|root| root.from <= number).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(root: u8) -> RootId {
        RootId([root; 16])
    }

    fn rotation(root: u8) -> Rotation {
        Rotation { generation: u64::from(root), from: id(root - 1), to: id(root) }
    }

    #[test]
    fn the_root_in_the_middle_is_dropped_and_its_states_are_not_spoken_of() {
        let mut roots = Roots::alone(id(1), 10, true);
        roots.rotated(11, id(2));
        assert_eq!((roots.put_off(), roots.due()), (vec![id(1)], None));
        roots.rotated(12, id(3));
        assert_eq!(roots.needed(), [id(1), id(2)], "until it is put off");
        assert_eq!(roots.put_off(), [id(1)]);
        assert_eq!(roots.kept(), [id(1), id(3)]);
        roots.published(11);
        assert_eq!((roots.backed(), roots.due()), (10, None));
        roots.published(13);
        assert_eq!((roots.backed(), roots.due()), (13, Some(id(3))));
        roots.settled();
        assert_eq!((roots.kept(), roots.is_owed(), roots.due()), (vec![id(3)], false, None));
    }

    #[test]
    fn a_state_that_is_published_in_time_keeps_its_root() {
        let mut roots = Roots::alone(id(1), 10, true);
        roots.rotated(11, id(2));
        roots.published(11);
        roots.rotated(12, id(3));
        assert_eq!((roots.backed(), roots.put_off()), (11, vec![id(2)]));
    }

    #[test]
    fn a_start_without_object_storage_keeps_the_tops_root_until_it_is_seen() {
        let mut roots = Roots::found(id(2), 10, &[(11, rotation(2))], false, |_, _| false, |_, _| Reach::Opens);
        assert_eq!((roots.kept(), roots.is_behind(), roots.is_owed()), (vec![id(1), id(2)], true, true));
        roots.rotated(12, id(3));
        assert_eq!(roots.put_off(), [id(1), id(2)], "either may be the newest in the backup");
        roots.published(11);
        assert_eq!((roots.backed(), roots.put_off()), (11, vec![id(2)]));
    }

    /// The first start kept its top's root 2, which the backup may have; root 3 came with an erasure behind it.
    #[test]
    fn a_second_start_without_object_storage_keeps_what_the_first_one_did() {
        let rotations = [(11, rotation(2)), (12, rotation(3))];
        let mut roots = Roots::found(id(3), 10, &rotations, false, |_, _| false, |_, _| Reach::Opens);
        assert_eq!(roots.needed(), [id(1), id(2)]);
        assert_eq!(roots.put_off(), [id(1), id(2)]);
        for (reach, needed) in [(Reach::Never, vec![id(1)]), (Reach::MayOpen, vec![id(1), id(2)])] {
            let mut roots = Roots::found(id(3), 10, &rotations, false, |_, _| false, |_, _| reach);
            assert_eq!((roots.needed(), roots.put_off()), (needed.clone(), needed), "{reach:?}");
            roots.published(11);
            assert_eq!(roots.backed(), 10, "it is not spoken of");
        }
        let seen = Roots::found(id(3), 10, &rotations, true, |_, _| false, |_, _| Reach::Opens);
        assert_eq!(seen.needed(), [id(1)]);
    }

    #[test]
    fn what_a_slot_has_forgotten_the_backup_needs_no_more() {
        let rotations = [(11, rotation(2)), (12, rotation(3)), (13, rotation(4))];
        let roots = Roots::found(id(4), 10, &rotations, true, |root, _| root == id(1), |_, _| Reach::Opens);
        assert_eq!((roots.backed(), roots.kept()), (11, vec![id(2), id(4)]));
        let roots = Roots::found(id(4), 10, &rotations, true, |_, _| true, |_, _| Reach::Opens);
        assert_eq!((roots.backed(), roots.kept(), roots.is_owed()), (13, vec![id(4)], false));
    }
}
