//! The rotator: has the slots stage a root, writes what erases under it, has them destroy the one of before, and answers.
//!
//! It owns the slots. Nobody who creates ever waits for one: a token that takes its time, or hangs, holds up what erases and
//! nothing else.
//!
//! A root is staged before the batch is planned. Where all that is to go is gone already no slot is asked; where that shows in the
//! plan alone, the staged root is taken back: nothing was ever sealed under it.

use super::{
    super::{
        Change, CommitError, Reshare, Slots,
        command::Command,
        plan::{Published, RootKey},
        slot::{SlotError, root_id},
    },
    BATCH, Desk, Next, Reply, Request, Work, Written, answer,
    flusher::Unflushed,
};
use crate::{crypto::secret::Secret, domain::id::RootId};
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

/// How often it is looked whether the backup has what the slots wait for.
const LOOK: Duration = Duration::from_millis(50);
/// How often a slot that is away is asked again.
const ASK: Duration = Duration::from_secs(2);
/// How often every slot is read.
const CHECK: Duration = Duration::from_secs(60);

/// The thread's part.
pub(super) struct Rotator {
    pub desk: Desk,
    pub slots: Slots,
    /// Takes the rotations whose files may go once there was a flush.
    pub unflushed: mpsc::SyncSender<Unflushed>,
    /// How long a rotation waits for its delta.
    pub patience: Duration,
    /// When it last looked after the slots.
    pub looked: Instant,
    /// When slots that are away were last asked.
    pub asked: Instant,
    /// When all were last read.
    pub checked: Instant,
}

impl Rotator {
    /// Runs until the store is closed, or has stopped.
    pub fn run(mut self) {
        self.say();
        loop {
            // Before anything else is staged: it makes room, and whoever is refused may ask again without a pause.
            self.settle();
            let owed = self.desk.shared.backlog.as_ref().is_some_and(|backlog| backlog.is_owed());
            let pause = match (owed, self.slots.is_short()) {
                (false, false) => CHECK,
                (false, true) => ASK,
                (true, _) => LOOK,
            };
            match self.desk.inbox.next(pause.saturating_sub(self.looked.elapsed())) {
                Next::Rotate(requests) => self.rotate(requests),
                Next::Look => self.look(),
                Next::End => return,
            }
            self.say();
        }
    }

    /// From the stage to the answer.
    fn rotate(&mut self, requests: Vec<Request>) {
        if self.is_gone_already(&requests) {
            let Some(turn) = self.desk.inbox.turn() else { return };
            // Nobody else writes now, so it stays so.
            if self.is_gone_already(&requests) {
                let written = self.desk.write(requests, None);
                drop(turn);
                return written.into_iter().for_each(|written| self.answer(written.replies));
            }
        }
        let key = Arc::new(Secret::random());
        let generation = self.desk.shared.read().present.root.generation + 1;
        let next = RootKey { generation, id: root_id(&key), key };
        let change = requests.iter().find_map(|request| match &request.work {
            Work::Reshare(change) => Some(change.clone()),
            Work::Mutate(_) | Work::Swept(_) => None,
        });
        let announced = change.as_ref().map_or(Ok(()), |change| self.announce(change, next.id));
        let rows = match announced.and_then(|()| self.slots.stage(&next, change.as_ref())) {
            Ok(rows) => rows,
            Err(refusal) => {
                let refused = |it: Request| (it.reply, Err(CommitError::Slot(refusal.clone())));
                return self.answer(requests.into_iter().map(refused).collect());
            }
        };
        let full = requests.len() == BATCH;
        let Some(turn) = self.desk.inbox.turn() else { return };
        let Some(written) = self.desk.write(requests, Some((&next, rows))) else { return };
        drop(turn);
        let keep = next.id;
        // Whoever is answered is told that the root of before is nowhere, and this one will be that in turn.
        drop(next);
        if let Some(bytes) = written.rotation {
            self.desk.inbox.rest(full);
            self.finish(keep, bytes, written);
        } else {
            self.slots.unstage();
            self.answer(written.replies);
        }
    }

    /// Whether nothing is left of what these would erase, and none of them adds anything that another might.
    fn is_gone_already(&self, requests: &[Request]) -> bool {
        let reading = self.desk.shared.read();
        requests.iter().all(|request| match &request.work {
            Work::Mutate(mutation) => {
                let matters = |change: &Change| change.adds() || (change.erases() && reading.may_erase(change));
                !mutation.changes.iter().any(matters)
            }
            Work::Swept(_) | Work::Reshare(_) => false,
        })
    }

    /// Has the slots destroy the roots of before once the backup has the rotation, and answers.
    fn finish(&mut self, keep: RootId, bytes: usize, mut written: Written) {
        let number = written.number;
        let destroyed = match self.desk.shared.backlog.clone() {
            Some(backlog) if !backlog.wait(number, self.patience) => self.slots.put_off(keep, backlog.put_off()),
            _ => self.commit(keep),
        };
        if let Err(error) = destroyed {
            // The callers learn it after the store has stopped.
            return self.desk.fail(&error).unwrap_or(());
        }
        self.tell();
        let destroyed = self.desk.shared.all_destroyed();
        let committed = written.replies.iter_mut().filter_map(|(_, said)| said.as_mut().ok());
        committed.for_each(|committed| committed.destroyed = destroyed);
        self.answer(written.replies);
        // Where the flusher has stopped everything has: there is nobody to tell.
        let _ = self.unflushed.send(Unflushed { number, bytes });
    }

    /// Answers those that were taken, none of which waits any more but for its root to be destroyed.
    fn answer(&self, replies: Vec<Reply>) {
        self.desk.inbox.over(self.desk.shared.all_destroyed());
        replies.into_iter().for_each(|(reply, said)| answer(reply, said));
    }

    /// Says what the slots hold now. Whoever is woken by that finds nothing that waits.
    fn tell(&self) {
        self.desk.inbox.over(self.slots.all_destroyed());
        self.desk.shared.tell(&self.slots);
    }

    fn commit(&mut self, keep: RootId) -> Result<(), SlotError> {
        self.slots.commit(keep)?;
        if let Some(backlog) = &self.desk.shared.backlog {
            backlog.settled();
        }
        Ok(())
    }

    /// Asks slots that were away, and the others whether they still are there.
    fn look(&mut self) {
        self.looked = Instant::now();
        if self.checked.elapsed() >= CHECK {
            self.slots.check();
            self.checked = Instant::now();
        }
        if self.asked.elapsed() >= ASK && self.slots.is_short() {
            self.slots.tend();
            self.asked = Instant::now();
        }
        self.tell();
    }

    /// Finishes what was put off, once the backup has it.
    fn settle(&mut self) {
        let due = self.desk.shared.backlog.as_ref().and_then(|backlog| backlog.due());
        if let Some(keep) = due {
            match self.commit(keep) {
                Ok(()) => self.tell(),
                Err(error) => self.desk.fail(&error).unwrap_or(()),
            }
        }
    }

    /// Has the key store's table of slots say what is known here and not there.
    fn say(&mut self) {
        if self.slots.take_unsaid() {
            self.write_table();
        }
    }

    /// Gives the number of the command; none where everything has stopped.
    fn write_table(&mut self) -> Option<u64> {
        let _turn = self.desk.inbox.turn()?;
        let number = self.desk.shared.read().present.last_number + 1;
        let command = Command { number, rotation: None, expects: Vec::new(), rows: vec![self.slots.row()] };
        match self.desk.shared.apply(&command, &command.encode(), Published::default(), None) {
            Ok(()) => Some(number),
            Err(error) => self.desk.fail(&error),
        }
    }

    /// Before slots join: a command of its own says so, and the backup has it, before they get anything.
    fn announce(&mut self, change: &Reshare, next: RootId) -> Result<(), SlotError> {
        let away = SlotError::Sharing("the backup's object storage is away, and must know of a slot that joins");
        let backlog = self.desk.shared.backlog.clone();
        // Known before a number is given out: numbers are few, and none is given twice.
        if backlog.as_ref().is_some_and(|backlog| backlog.status().away) {
            return Err(away);
        }
        if !self.slots.announce(change, next)? {
            return Ok(());
        }
        let number = self.write_table().ok_or(SlotError::Sharing("the key store has stopped"))?;
        match backlog {
            Some(backlog) if !backlog.wait(number, self.patience) => {
                self.slots.withdraw(next);
                Err(away)
            }
            _ => Ok(()),
        }
    }
}
