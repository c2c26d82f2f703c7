//! The one writer, and the finisher that waits for the slot.
//!
//! The writer takes what is queued, plans it as one batch, and applies it with one sync; a batch that erases rotates the root
//! once for all its erasures, and holds nothing else, so that a slot that refuses fails nobody else. As soon as the batch is
//! applied the writer goes on with creates under the new generation, while the finisher has the slot destroy the root of
//! before and then answers. Meanwhile everything that erases waits, and
//! shares the next rotation: so at most one root is staged, and nobody who erases is told that it is destroyed before the
//! commit, not even when nothing was left to erase. Where rotations must keep an interval (a token wears), whatever erases
//! waits in the same way until it is over; a store that closes waits for nothing.
//!
//! Every slot is read once a minute, and a slot that is away is asked again every two seconds. So an erasure that was sealed
//! because too many shares of the old root were out of reach becomes destroyed as soon as enough of them come back.
//!
//! Where there is a backup, the finisher first waits until it has the rotation; when its object storage is away, those who
//! erase are told that it is *sealed*, further rotations go on, and the slot is finished when the backup has caught up.
//!
//! By cases, when a step of a rotation fails: *too few slots stage* → the staged records are discarded, the keys that were
//! drawn are dropped, the callers are told; the next attempt draws anew. *Any write or sync fails* (the file, the batch, the
//! slot's commit) → nobody knows what is on the disk; the process aborts and the next start finds out.

mod flusher;

use super::{
    CommitError, Committed, DoomedBatch, Mutation, ReadError, Reshare, Slots,
    backing::Row,
    backup::keeper::Keeper,
    command::{ApplyError, Command},
    plan::{Planner, Published, RootKey, Taken},
    slot::{SlotError, root_id},
    store::{Settings, Shared},
};
use crate::{
    crypto::secret::Secret,
    domain::{
        id::RootId,
        time::{Clock, Timestamp},
    },
};
use flusher::Flusher;
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Most mutations in one batch.
const BATCH: usize = 512;
/// Most mutations that wait; more wait outside.
const QUEUED: usize = 4096;
/// How often it is looked whether the backup has what the slots wait for, and at a clock that may be set.
const LOOK: Duration = Duration::from_millis(50);
/// How often a slot that is away is asked again.
const ASK: Duration = Duration::from_secs(2);
/// How often every slot is read.
const CHECK: Duration = Duration::from_secs(60);

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

/// What is asked of the writer.
pub(super) enum Work {
    Mutate(Mutation),
    Swept(DoomedBatch),
    Reshare(Reshare),
    /// The table of slots is written as it is now.
    Table,
}

impl Work {
    fn erases(&self) -> bool {
        match self {
            Work::Mutate(mutation) => mutation.changes.iter().any(super::Change::erases),
            Work::Swept(_) | Work::Table => false,
            Work::Reshare(_) => true,
        }
    }
}

type Answer = Result<Committed, CommitError>;

struct Request {
    work: Work,
    reply: oneshot::Sender<Answer>,
    _permit: OwnedSemaphorePermit,
}

/// The queue in front of the writer.
struct Inbox {
    state: Mutex<Queue>,
    wake: Condvar,
    permits: Arc<Semaphore>,
    /// Of those that erase, which may wait long: they do not take the places of the others.
    erasing: Arc<Semaphore>,
    clock: Clock,
    interval_ms: i64,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    /// A rotation waits for its slot.
    finishing: bool,
    /// No rotation before.
    rests_until: Option<Timestamp>,
    closed: bool,
    /// The writer or the finisher stopped on a failure.
    failed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Queue)) {
        change(&mut self.lock());
        self.wake.notify_all();
    }

    /// Has the table of slots written where it does not say yet that one was wiped. Where the queue is full, the next time.
    fn note(&self, slots: &mut Slots) {
        if let Ok(permit) = self.permits.clone().try_acquire_owned()
            && slots.take_unsaid()
        {
            let (reply, _) = oneshot::channel();
            self.change(|queue| queue.requests.push_back(Request { work: Work::Table, reply, _permit: permit }));
        }
    }

    /// Waits for work that may go on now; none when there is none and will be none.
    fn take(&self) -> Option<Vec<Request>> {
        let mut queue = self.lock();
        loop {
            if queue.failed {
                return None;
            }
            // A clock that was set back does not make it longer.
            let left = queue.rests_until.map_or(0, |until| until.0 - self.clock.now().0);
            let rests = !queue.closed && (1..=self.interval_ms).contains(&left);
            let batch = queue.eligible(rests);
            if !batch.is_empty() {
                return Some(batch);
            }
            if queue.closed && queue.requests.is_empty() && !queue.finishing {
                return None;
            }
            if rests && !queue.requests.is_empty() {
                queue = self.wake.wait_timeout(queue, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            } else {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Queue {
    fn eligible(&mut self, rests: bool) -> Vec<Request> {
        if !self.finishing && !rests {
            // Erasures in batches of their own: a slot that refuses fails them, and nobody else.
            let erases = self.requests.front().is_some_and(|first| first.work.erases());
            let alike = self.requests.iter().take(BATCH).take_while(|request| request.work.erases() == erases).count();
            return self.requests.drain(..alike).collect();
        }
        let (mut batch, mut later) = (Vec::new(), VecDeque::new());
        for request in self.requests.drain(..) {
            if batch.len() < BATCH && !request.work.erases() {
                batch.push(request);
            } else {
                later.push_back(request);
            }
        }
        self.requests = later;
        batch
    }
}

/// The writer's handle: closes the writer when dropped.
pub(super) struct Writer {
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Writer {
    /// `keeper` keeps the backup; an erasure waits for it so long.
    pub(super) fn start(
        shared: Arc<Shared>,
        mut slots: Slots,
        settings: Settings,
        keeper: Option<(Keeper, Duration)>,
    ) -> std::io::Result<Self> {
        let inbox = Arc::new(Inbox {
            state: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            permits: Arc::new(Semaphore::new(QUEUED)),
            erasing: Arc::new(Semaphore::new(QUEUED)),
            clock: settings.clock,
            interval_ms: settings.min_rotation_interval.as_millis() as i64,
        });
        inbox.note(&mut slots);
        let (slots, on_failure) = (Arc::new(Mutex::new(slots)), settings.on_failure);
        let (finish, rotations) = mpsc::channel();
        let patience = keeper.as_ref().map_or(Duration::ZERO, |(_, patience)| *patience);
        let (unflushed, files) = flusher::channel();
        let flusher = Flusher { shared: shared.clone(), inbox: inbox.clone(), on_failure };
        let finisher = Finisher {
            shared: shared.clone(),
            slots: slots.clone(),
            inbox: inbox.clone(),
            on_failure,
            unflushed,
            patience,
            asked: Instant::now(),
            checked: Instant::now(),
        };
        let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let keeper = match keeper {
            None => None,
            Some((keeper, _)) => {
                let (shared, inbox) = (shared.clone(), inbox.clone());
                let on_fatal: Box<dyn Fn(&str) + Send> = Box::new(move |what| fail(on_failure, &shared, &inbox, what));
                Some(spawn("keys-backup").spawn(move || keeper.run(&on_fatal))?)
            }
        };
        let thread = Thread { shared: shared.clone(), slots, inbox: inbox.clone(), on_failure, finish, patience };
        let threads = vec![
            spawn("keys-writer").spawn(move || thread.run())?,
            spawn("keys-finisher").spawn(move || finisher.run(&rotations))?,
            spawn("keys-flusher").spawn(move || flusher.run(&files))?,
        ];
        Ok(Self { inbox, shared, threads, keeper })
    }

    pub(super) async fn submit(&self, work: Work) -> Answer {
        let permits = if work.erases() { &self.inbox.erasing } else { &self.inbox.permits };
        let permit = permits.clone().acquire_owned().await.map_err(|_| CommitError::Closed)?;
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.inbox.lock();
            if queue.failed {
                return Err(CommitError::Closed);
            }
            queue.requests.push_back(Request { work, reply, _permit: permit });
        }
        self.inbox.wake.notify_all();
        answer.await.unwrap_or(Err(CommitError::Closed))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.inbox.change(|queue| queue.closed = true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the key store panicked");
            }
        }
        // Last: the finisher may wait for a delta.
        if let Some(backlog) = &self.shared.backlog {
            backlog.close();
        }
        if self.keeper.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the keeper of the backup panicked");
        }
    }
}

/// Stops everything: what is on the disk is unknown. Says what the medium said, which names nothing.
fn fail(on_failure: OnFailure, shared: &Shared, inbox: &Inbox, what: &str) {
    tracing::error!(what, "the key store cannot go on: a write or sync failed, or the backup contradicts it");
    if on_failure == OnFailure::Abort {
        std::process::abort();
    }
    if let Some(backlog) = &shared.backlog {
        backlog.abandon();
    }
    inbox.change(|queue| {
        queue.failed = true;
        // Nobody takes from it any more, where it is the writer that stopped.
        queue.requests.clear();
    });
}

struct Thread {
    shared: Arc<Shared>,
    slots: Arc<Mutex<Slots>>,
    inbox: Arc<Inbox>,
    on_failure: OnFailure,
    finish: mpsc::Sender<Finish>,
    /// How long it waits for the backup.
    patience: Duration,
}

/// A rotation whose batch is applied.
struct Finish {
    keep: RootId,
    number: u64,
    replies: Vec<(oneshot::Sender<Answer>, Committed)>,
}

/// A batch that cannot be written; the callers are told.
enum Refused {
    Told(CommitError),
    /// The medium failed.
    Fatal(String),
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        Refused::Told(error.into())
    }
}

impl Thread {
    fn run(self) {
        while let Some(requests) = self.inbox.take() {
            let mut replies = Vec::with_capacity(requests.len());
            match self.write(requests, &mut replies) {
                Ok(()) => {}
                Err(Refused::Told(error)) => {
                    for (reply, _) in replies {
                        answer(reply, Err(error.clone()));
                    }
                }
                Err(Refused::Fatal(what)) => return fail(self.on_failure, &self.shared, &self.inbox, &what),
            }
        }
    }

    /// Plans and writes one batch. On success every caller is answered, or will be by the finisher.
    fn write(
        &self,
        requests: Vec<Request>,
        accepted: &mut Vec<(oneshot::Sender<Answer>, Taken)>,
    ) -> Result<(), Refused> {
        let next_key = Arc::new(Secret::random());
        match self.announce(&requests, root_id(&next_key)) {
            Ok(()) => {}
            Err(Refused::Told(error)) => {
                requests.into_iter().for_each(|request| answer(request.reply, Err(error.clone())));
                return Ok(());
            }
            Err(fatal) => return Err(fatal),
        }
        let full = requests.len() == BATCH;
        let reading = self.shared.read();
        let (root, number) = (reading.present.root.clone(), reading.present.last_number + 1);
        let log_size = reading.present.log_size;
        let mut planner = Planner::new(&reading, &reading.present.index, root.clone(), log_size, self.shared.limits);
        let (mut reshare, mut table) = (None, false);
        for Request { work, reply, .. } in requests {
            let taken = match work {
                Work::Table => {
                    table = true;
                    Ok(Taken { erased: false, log: 0..0 })
                }
                Work::Reshare(_) if reshare.is_some() => {
                    Err(CommitError::Malformed("one change of the slots at a time"))
                }
                Work::Reshare(change) => {
                    reshare = Some(change);
                    planner.renew_root().map(|()| Taken { erased: false, log: 0..0 }).map_err(CommitError::from)
                }
                Work::Mutate(mutation) => planner.mutate(mutation),
                Work::Swept(step) => {
                    planner.sweep(&step).map(|()| Taken { erased: false, log: 0..0 }).map_err(CommitError::from)
                }
            };
            match taken {
                Ok(taken) => accepted.push((reply, taken)),
                Err(error) => answer(reply, Err(error)),
            }
        }
        let next = planner.rotates().then(|| {
            let (generation, id) = (root.generation + 1, root_id(&next_key));
            RootKey { generation, id, key: next_key.clone() }
        });
        drop(next_key);
        let (mut command, published) = planner.finish(number, next.as_ref())?;
        drop(reading);

        if let Some(next) = &next {
            command.rows.extend(self.stage(next, reshare.as_ref())?);
        } else if table {
            command.rows.push(self.slots.lock().unwrap_or_else(PoisonError::into_inner).row());
        }
        let encoded = command.encode();
        if next.is_some() {
            self.shared.backing.put_pending(number, &encoded).map_err(fatal)?;
        }
        if !command.rows.is_empty() {
            self.apply(&command, &encoded, published, next.clone())?;
        }
        let before = root.generation;
        let to = next.as_ref().map_or(before, |next| next.generation);
        // Before the finisher can answer: its answer says that the root of before is nowhere.
        drop(root);
        let number = if command.rows.is_empty() { number - 1 } else { number };
        // Of a rotation the finisher says it.
        let destroyed = next.is_none() && self.shared.all_destroyed();
        let replies = accepted.drain(..).map(|(reply, Taken { erased, log })| {
            let from = if erased { before } else { to };
            (reply, Committed { erased, generation_from: from, generation_to: to, log, number, destroyed })
        });
        match next {
            Some(next) => {
                {
                    let mut queue = self.inbox.lock();
                    queue.finishing = true;
                    // Whoever found no room in this one has waited long enough.
                    queue.rests_until = (!full).then(|| self.inbox.clock.now().plus_ms(self.inbox.interval_ms));
                }
                let rotation = Finish { keep: next.id, number, replies: replies.collect() };
                self.finish.send(rotation).map_err(|_| fatal("the finisher is gone"))?;
            }
            None => replies.for_each(|(reply, committed)| answer(reply, Ok(committed))),
        }
        Ok(())
    }

    fn apply(
        &self,
        command: &Command,
        encoded: &[u8],
        published: Published,
        root: Option<RootKey>,
    ) -> Result<(), Refused> {
        match self.shared.apply(command, encoded, published, root) {
            Ok(()) => Ok(()),
            // Nothing was written; but a rotation's file may be, so only a start can tell.
            Err(ApplyError::Read(error)) if command.rotation.is_none() => Err(error.into()),
            Err(error) => Err(fatal(error)),
        }
    }

    /// Before slots join: a command of its own says so, and the backup has it, before they get anything.
    fn announce(&self, requests: &[Request], next: RootId) -> Result<(), Refused> {
        let change = requests.iter().find_map(|request| match &request.work {
            Work::Reshare(change) => Some(change),
            _ => None,
        });
        let Some(change) = change else { return Ok(()) };
        let told = |refusal| Refused::Told(CommitError::Slot(refusal));
        let away =
            || told(SlotError::Sharing("the backup's object storage is away, and must know of a slot that joins"));
        // Known before a number is given out: numbers are few, and none is given twice.
        if self.shared.backlog.as_ref().is_some_and(|backlog| backlog.status().away) {
            return Err(away());
        }
        let row = self.slots.lock().unwrap_or_else(PoisonError::into_inner).announce(change, next).map_err(told)?;
        let Some(row) = row else { return Ok(()) };
        let number = self.shared.read().present.last_number + 1;
        let command = Command { number, rotation: None, expects: Vec::new(), rows: vec![row] };
        self.apply(&command, &command.encode(), Published::default(), None)?;
        match &self.shared.backlog {
            Some(backlog) if !backlog.wait(number, self.patience) => {
                let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
                slots.withdraw(next);
                self.inbox.note(&mut slots);
                Err(away())
            }
            _ => Ok(()),
        }
    }

    fn stage(&self, next: &RootKey, reshare: Option<&Reshare>) -> Result<Vec<Row>, Refused> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let staged = slots.stage(next, reshare);
        self.inbox.note(&mut slots);
        staged.map_err(|refusal| Refused::Told(CommitError::Slot(refusal)))
    }
}

fn fatal(error: impl std::fmt::Display) -> Refused {
    Refused::Fatal(error.to_string())
}

/// A caller that went away does not want its answer.
fn answer(reply: oneshot::Sender<Answer>, answer: Answer) {
    drop(reply.send(answer));
}

struct Finisher {
    shared: Arc<Shared>,
    slots: Arc<Mutex<Slots>>,
    inbox: Arc<Inbox>,
    on_failure: OnFailure,
    /// Takes the rotations whose files may go once there was a flush.
    unflushed: mpsc::SyncSender<u64>,
    /// How long a rotation waits for its delta.
    patience: Duration,
    /// When slots that are away were last asked.
    asked: Instant,
    /// When all were last read.
    checked: Instant,
}

impl Finisher {
    fn run(mut self, rotations: &mpsc::Receiver<Finish>) {
        loop {
            let owed = self.shared.backlog.as_ref().is_some_and(|backlog| backlog.is_owed());
            let short = self.slots().is_short();
            let next = match (owed, short) {
                (false, false) => rotations.recv_timeout(CHECK),
                (false, true) => rotations.recv_timeout(ASK),
                (true, _) => rotations.recv_timeout(LOOK),
            };
            // Callers of a rotation that failed learn it when their senders fall: after the store has stopped.
            let (went, _callers) = match next {
                Ok(mut rotation) => (self.finish(&mut rotation), Some(rotation)),
                Err(mpsc::RecvTimeoutError::Timeout) => (self.look(), None),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            if let Err(error) = went {
                return fail(self.on_failure, &self.shared, &self.inbox, &error.to_string());
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the slots destroy the roots of before once the backup has the rotation, and answers.
    fn finish(&mut self, rotation: &mut Finish) -> Result<(), SlotError> {
        let (keep, number) = (rotation.keep, rotation.number);
        match &self.shared.backlog {
            Some(backlog) if !backlog.wait(number, self.patience) => {
                let mut slots = self.slots();
                slots.put_off(keep, backlog.put_off())?;
                self.shared.tell(&slots);
            }
            _ => self.commit(keep)?,
        }
        let destroyed = self.shared.all_destroyed();
        for (reply, committed) in rotation.replies.drain(..) {
            answer(reply, Ok(Committed { destroyed, ..committed }));
        }
        self.inbox.change(|queue| queue.finishing = false);
        // Where the flusher has stopped everything has: there is nobody to tell.
        let _ = self.unflushed.send(number);
        Ok(())
    }

    /// The lock is held to the end: what a rotation behind this one leaves is not to be taken for destroyed.
    fn commit(&mut self, keep: RootId) -> Result<(), SlotError> {
        let slots = self.slots.clone();
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        self.commit_in(&mut slots, keep)
    }

    fn commit_in(&mut self, slots: &mut Slots, keep: RootId) -> Result<(), SlotError> {
        slots.commit(keep)?;
        if let Some(backlog) = &self.shared.backlog {
            backlog.settled();
        }
        self.tell(slots);
        Ok(())
    }

    fn tell(&self, slots: &mut Slots) {
        self.shared.tell(slots);
        self.inbox.note(slots);
    }

    /// Finishes what was put off, and asks slots that were away. Where a further rotation is on its way, that one does both.
    fn look(&mut self) -> Result<(), SlotError> {
        let ask = self.asked.elapsed() >= ASK;
        let slots = self.slots.clone();
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.is_staged() {
            return Ok(());
        }
        if self.checked.elapsed() >= CHECK {
            slots.check();
            self.tell(&mut slots);
            self.checked = Instant::now();
        }
        if ask && slots.is_short() {
            slots.tend();
            self.tell(&mut slots);
            self.asked = Instant::now();
        }
        // Nothing is staged: what is due is a rotation that was put off.
        match self.shared.backlog.as_ref().and_then(|backlog| backlog.due()) {
            Some(keep) => self.commit_in(&mut slots, keep),
            None => Ok(()),
        }
    }
}
