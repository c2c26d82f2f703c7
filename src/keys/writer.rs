//! The two threads that write, and what they answer.
//!
//! The *writer* takes what is queued and erases nothing, plans it as one batch, and applies it with one sync. The [`rotator`] owns
//! the slots. It takes what erases, has the slots stage the next root, and writes a batch that rotates the root once for all its
//! erasures and holds nothing else, so that a slot that refuses fails nobody else. As soon as that batch is applied the writer
//! goes on with creates under the new generation, while the rotator has the slots destroy the root of before and then answers.
//! Meanwhile everything that erases waits, and shares the next rotation: so at most one root is staged, and nobody who erases is
//! told that it is destroyed before the commit, not even when nothing was left to erase. Where rotations must keep an interval (a
//! token wears), whatever erases waits in the same way until it is over; a store that closes waits for nothing.
//!
//! One of them writes at a time: from the look at the present state to the batch that changes it is a [`Turn`](inbox::Turn).
//! No slot is asked in a turn, so nobody who creates waits for one.
//!
//! Every slot is read once a minute, and a slot that is away is asked again every two seconds. So an erasure that was sealed
//! because too many shares of the old root were out of reach becomes destroyed as soon as enough of them come back. What becomes
//! known of slots meanwhile the rotator writes into their table itself, between two rotations: a table that was drawn up before a
//! rotation is never written behind it.
//!
//! Where there is a backup, the rotator first waits until it has the rotation; when its object storage is away, those who
//! erase are told that it is *sealed*, further rotations go on, and the slot is finished when the backup has caught up.
//!
//! By cases, when a step of a rotation fails: *too few slots stage* → the staged records are discarded, the keys that were
//! drawn are dropped, the callers are told; the next attempt draws anew. *Any write or sync fails* (the file, the batch, the
//! slot's commit) → nobody knows what is on the disk; the process aborts and the next start finds out.

mod flusher;
mod inbox;
mod rotator;

use super::{
    CommitError, Committed, DoomedBatch, Mutation, Reshare, Slots,
    backing::Row,
    backup::keeper::{Keeper, OnFatal},
    command::ApplyError,
    plan::{Planner, RootKey, Taken},
    store::{Settings, Shared},
};
use crate::domain::time::Timestamp;
use flusher::Flusher;
use inbox::{Inbox, Next};
use rotator::Rotator;
use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Most mutations in one batch.
const BATCH: usize = 512;
/// Most mutations that wait; more wait outside.
const QUEUED: usize = 4096;

/// What to do when nobody knows what is on the disk.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// Abort the process.
    #[default]
    Abort,
    /// Stop the threads, as a killed process would. For crash tests, which go on in the same process.
    #[cfg(test)]
    Stop,
}

/// What is asked for.
pub(super) enum Work {
    Mutate(Mutation),
    Swept(DoomedBatch),
    Reshare(Reshare),
}

impl Work {
    fn erases(&self) -> bool {
        match self {
            Work::Mutate(mutation) => mutation.changes.iter().any(super::Change::erases),
            Work::Swept(_) => false,
            Work::Reshare(_) => true,
        }
    }
}

type Answer = Result<Committed, CommitError>;
/// Who is answered, and what.
type Reply = (oneshot::Sender<Answer>, Answer);

struct Request {
    work: Work,
    /// When it came.
    since: Timestamp,
    reply: oneshot::Sender<Answer>,
    _permit: OwnedSemaphorePermit,
}

/// The handle: closes both threads when dropped.
pub(super) struct Writer {
    desk: Desk,
    threads: Vec<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Writer {
    /// `keeper` keeps the backup; an erasure waits for it so long.
    pub(super) fn start(
        shared: Arc<Shared>,
        slots: Slots,
        settings: Settings,
        keeper: Option<(Keeper, Duration)>,
    ) -> std::io::Result<Self> {
        let inbox = Arc::new(Inbox::new(settings.clock, settings.min_rotation_interval));
        inbox.over(shared.all_destroyed());
        let desk = Desk { shared, inbox, on_failure: settings.on_failure };
        let patience = keeper.as_ref().map_or(Duration::ZERO, |(_, patience)| *patience);
        let (unflushed, files) = flusher::channel();
        let now = Instant::now();
        let (looked, asked, checked) = (now, now, now);
        let rotator = Rotator { desk: desk.clone(), slots, unflushed, patience, looked, asked, checked };
        let flusher = Flusher(desk.clone());
        let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let keeper = match keeper {
            None => None,
            Some((keeper, _)) => {
                let desk = desk.clone();
                let on_fatal: OnFatal = Box::new(move |what| desk.fail(&what).unwrap_or(()));
                Some(spawn("keys-backup").spawn(move || keeper.run(&on_fatal))?)
            }
        };
        let writes = desk.clone();
        let threads = vec![
            spawn("keys-writer").spawn(move || writes.run())?,
            spawn("keys-rotator").spawn(move || rotator.run())?,
            spawn("keys-flusher").spawn(move || flusher.run(&files))?,
        ];
        Ok(Self { desk, threads, keeper })
    }

    pub(super) async fn submit(&self, work: Work) -> Answer {
        self.desk.inbox.submit(work).await
    }

    /// Since when the oldest waits of what erases.
    pub(super) fn waiting_since(&self) -> Option<Timestamp> {
        self.desk.inbox.waiting_since()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.desk.inbox.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the key store panicked");
            }
        }
        // Last: the rotator may wait for a delta.
        if let Some(backlog) = &self.desk.shared.backlog {
            backlog.close();
        }
        if self.keeper.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the keeper of the backup panicked");
        }
    }
}

/// What the threads have in common.
#[derive(Clone)]
struct Desk {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    on_failure: OnFailure,
}

/// A batch that is applied, or of which nothing was left to write.
struct Written {
    /// The last command.
    number: u64,
    /// How long its bytes are, where it rotated.
    rotation: Option<usize>,
    replies: Vec<Reply>,
}

impl Written {
    fn answer(self) {
        self.replies.into_iter().for_each(|(reply, said)| answer(reply, said));
    }
}

impl Desk {
    /// The writer.
    fn run(self) {
        while let Some((requests, turn)) = self.inbox.take() {
            let written = self.write(requests, None);
            drop(turn);
            written.into_iter().for_each(Written::answer);
        }
    }

    /// Plans and writes one batch in the caller's turn. `next` is the root that it brings if it erases, and what the key store is
    /// to know of how the slots share it. None where the medium failed and everything has stopped: the callers learn it after
    /// that.
    fn write(&self, requests: Vec<Request>, next: Option<(&RootKey, Vec<Row>)>) -> Option<Written> {
        let reading = self.shared.read();
        let (root, number) = (reading.present.root.clone(), reading.present.last_number + 1);
        let before = root.generation;
        let log_size = reading.present.log_size;
        let mut planner = Planner::new(&reading, &reading.present.index, root, log_size, self.shared.limits);
        let mut taken = Vec::with_capacity(requests.len());
        for Request { work, reply, .. } in requests {
            let nothing = |()| Taken { erased: false, log: 0..0 };
            let one = match work {
                Work::Reshare(_) => planner.renew_root().map(nothing).map_err(CommitError::from),
                Work::Mutate(mutation) => planner.mutate(mutation),
                Work::Swept(step) => planner.sweep(&step).map(nothing).map_err(CommitError::from),
            };
            taken.push((reply, one));
        }
        let next = next.filter(|_| planner.rotates());
        let refuse = |taken: Vec<(_, Result<Taken, CommitError>)>, error: CommitError| {
            let replies =
                taken.into_iter().map(|(reply, one)| (reply, Err(one.err().unwrap_or(error.clone())))).collect();
            Some(Written { number: number - 1, rotation: None, replies })
        };
        if planner.rotates() && next.is_none() {
            return refuse(taken, CommitError::Malformed("what erases something is not among what erases nothing"));
        }
        let drawn = planner.finish(number, next.as_ref().map(|(root, _)| *root));
        drop(reading);
        let (mut command, published) = match drawn {
            Ok(drawn) => drawn,
            Err(error) => return refuse(taken, error.into()),
        };
        let root = next.map(|(root, rows)| {
            command.rows.extend(rows);
            root.clone()
        });
        let (rotated, to) = (root.is_some(), root.as_ref().map_or(before, |root| root.generation));
        let mut rotation = None;
        if !command.rows.is_empty() {
            let encoded = command.encode();
            rotation = rotated.then_some(encoded.len());
            if rotated && let Err(error) = self.shared.backing.put_pending(number, &encoded) {
                return self.fail(&error);
            }
            match self.shared.apply(&command, &encoded, published, root) {
                Ok(()) => {}
                // Nothing was written; but a rotation's file may be, so only a start can tell.
                Err(ApplyError::Read(error)) if !rotated => return refuse(taken, error.into()),
                Err(error) => return self.fail(&error),
            }
        }
        let number = if command.rows.is_empty() { number - 1 } else { number };
        // Of a rotation the rotator says it.
        let destroyed = !rotated && self.shared.all_destroyed();
        let committed = |Taken { erased, log }| {
            let from = if erased { before } else { to };
            Committed { erased, generation_from: from, generation_to: to, log, number, destroyed }
        };
        let replies = taken.into_iter().map(|(reply, one)| (reply, one.map(committed))).collect();
        Some(Written { number, rotation, replies })
    }

    /// Stops everything: what is on the disk is unknown. Says what the medium said, which names nothing.
    fn fail<T>(&self, what: &dyn std::fmt::Display) -> Option<T> {
        tracing::error!(%what, "the key store cannot go on: a write or sync failed, or the backup contradicts it");
        if self.on_failure == OnFailure::Abort {
            std::process::abort();
        }
        if let Some(backlog) = &self.shared.backlog {
            backlog.abandon();
        }
        self.inbox.stop();
        None
    }
}

/// A caller that went away does not want its answer.
fn answer(reply: oneshot::Sender<Answer>, answer: Answer) {
    drop(reply.send(answer));
}
