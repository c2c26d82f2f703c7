//! Changes of the set of slots: who joins, who leaves, how many are needed.

use super::{
    super::{
        SlotError,
        table::{self, Table},
    },
    Seat, Slots, Standing,
};
use crate::domain::id::RootId;

/// How the set of slots is to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reshare {
    /// Without this slot.
    Retire(u8),
    /// As configured: empty slots join, those that no configured slot is are retired, and the configured `k` holds.
    Match,
}

impl Slots {
    /// Before slots join: the table counts them as holding the present root until they do. If the attempt fails, what
    /// they keep of it is of a root under which everything of now may have been sealed, in a file that was not whole. False where
    /// no slot joins.
    pub(crate) fn announce(&mut self, change: &Reshare, next: RootId) -> Result<bool, SlotError> {
        self.tend();
        let joining = self.joining(change)?.len();
        if joining == 0 {
            return Ok(false);
        }
        // Everything that would be refused later is refused here.
        let mut rehearsal = self.table.clone();
        rehearsal.announce(joining, next);
        self.apply(Some(change), &mut rehearsal, next)?;
        let spent = SlotError::Sharing("every number has been given to a slot");
        self.table.announce(joining, next).ok_or(spent)?;
        Ok(true)
    }

    /// Slots that were announced got nothing.
    pub(crate) fn withdraw(&mut self, next: RootId) {
        self.table.withdraw(Some(next), None);
        self.unsaid = true;
    }

    /// The seats that a change of the set lets join.
    fn joining(&self, change: &Reshare) -> Result<Vec<usize>, SlotError> {
        let Reshare::Match = change else { return Ok(Vec::new()) };
        let unknown = |seat: &Seat| matches!(seat.standing, Standing::Away(_) | Standing::Foreign | Standing::Copy);
        if self.seats.iter().any(unknown) {
            return Err(SlotError::Sharing("each configured slot must be there, and empty or of this key store"));
        }
        let empty = |(_, seat): &(usize, &Seat)| seat.standing == Standing::Empty;
        Ok(self.seats.iter().enumerate().filter(empty).map(|(at, _)| at).collect())
    }

    /// Changes the table; gives the seats that join and their numbers.
    pub(super) fn apply(
        &self,
        change: Option<&Reshare>,
        table: &mut Table,
        next: RootId,
    ) -> Result<Vec<(usize, u8)>, SlotError> {
        let Some(change) = change else { return Ok(Vec::new()) };
        let join = self.joining(change)?;
        let (leave, k) = match change {
            Reshare::Retire(number) if table.present().all(|member| member.number != *number) => {
                return Err(SlotError::Sharing("no slot with this number shares the root"));
            }
            Reshare::Retire(number) => (vec![*number], table.k()),
            Reshare::Match => {
                let seated = |number| self.seats.iter().any(|seat| seat.number == Some(number));
                let numbers = table.present().map(|member| member.number);
                (numbers.filter(|number| !seated(*number)).collect(), self.k)
            }
        };
        let count = table.present().count() - leave.len() + join.len();
        if count > table::MAX_SLOTS || usize::from(k) > count || 2 * usize::from(k) <= count {
            return Err(SlotError::Sharing("more than half of the slots must be needed, and no more than there are"));
        }
        // Whatever an attempt that fails leaves in slots is counted by the threshold of before.
        if k < table.k() {
            return Err(SlotError::Sharing("the threshold of a key store cannot become smaller"));
        }
        let numbers: Vec<u8> = table.announced(next).collect();
        table.reshare(k, &leave, &numbers);
        Ok(join.into_iter().zip(numbers).collect())
    }
}
