//! The decision of a start, as a pure function of what it found: whether it goes on, from which state, and what becomes of
//! each file of a rotation. It reads and changes nothing, so the model of the protocol (`keys/tests/protocol`) asks it too.

use super::OpenError;
use crate::{domain::id::RootId, keys::command::Rotation};

/// What a file of a rotation holds.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// Not all of a command: its attempt did not reach the commit point.
    Torn,
    /// A whole command, and the change of root that it makes.
    Whole(Option<Rotation>),
}

impl Content {
    /// The change of root that it makes, where it is whole.
    pub fn rotation(self) -> Option<Rotation> {
        match self {
            Content::Torn => None,
            Content::Whole(rotation) => rotation,
        }
    }
}

/// How the start goes on.
#[derive(Debug)]
pub struct Decision {
    /// The root that the top names once `fill` is applied; the slot holds it.
    pub root: RootId,
    /// Number of the last command once `fill` is applied.
    pub last_number: u64,
    /// Files to apply, in this order.
    pub fill: Vec<u64>,
    /// Files to unlink before anything else is planned.
    pub torn: Vec<u64>,
    /// Files that have done their work once everything is flushed; those of `fill` among them, and those that had done it before.
    pub done: Vec<u64>,
}

/// Decides from the last command's number and the root that the top names, the files in ascending order by the number that each
/// gives, 0 where it gives none, and the roots that the slot holds. An error means that nothing may be changed.
pub fn decide(
    last_number: u64,
    root: RootId,
    files: &[(u64, Content)],
    held: &[RootId],
) -> Result<Decision, OpenError> {
    if held.is_empty() {
        return Err(OpenError::SlotIsEmpty);
    }
    let mut decision = Decision { root, last_number, fill: Vec::new(), torn: Vec::new(), done: Vec::new() };
    for (number, content) in files.iter().copied() {
        if number > decision.last_number + 1 {
            return Err(OpenError::Gap { from: decision.last_number + 1, to: number - 1 });
        }
        match content {
            Content::Torn => decision.torn.push(number),
            Content::Whole(_) if number <= decision.last_number => decision.done.push(number),
            Content::Whole(rotation) => {
                let Some(rotation) = rotation.filter(|rotation| rotation.from == decision.root) else {
                    return Err(OpenError::Damaged("a pending command was planned on another state"));
                };
                (decision.last_number, decision.root) = (number, rotation.to);
                decision.fill.push(number);
                decision.done.push(number);
            }
        }
    }
    if held.contains(&decision.root) { Ok(decision) } else { Err(OpenError::ForeignRoot) }
}
