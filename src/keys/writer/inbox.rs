//! The queues in front of the two threads that write, and whose turn it is.
//!
//! Since when what erases waits is known here, and the rotator is not needed to tell it: a slot may hang, and it with the slot.
//!
//! What erases waits for slots, and waits apart. The rotator goes first when it wants its turn: it has one root staged then, and
//! between two of its turns slots are asked, in which time whoever creates has his.

use super::{super::Reshare, Answer, BATCH, CommitError, QUEUED, Request, Work};
use crate::domain::time::{Clock, Timestamp};
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, oneshot};

/// How often a clock that may be set is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Both queues.
pub(super) struct Inbox {
    state: Mutex<Queue>,
    /// Wakes the writer.
    writer: Condvar,
    /// Wakes the rotator.
    rotator: Condvar,
    permits: Arc<Semaphore>,
    /// Of those that erase, which may wait long: they do not take the places of the others.
    erasing_permits: Arc<Semaphore>,
    clock: Clock,
    interval_ms: i64,
}

#[derive(Default)]
struct Queue {
    /// What erases nothing.
    plain: VecDeque<Request>,
    erasing: VecDeque<Request>,
    /// When the oldest came of those that the rotator has taken and not answered.
    rotating: Option<Timestamp>,
    /// When the oldest came of those that are answered and not destroyed.
    sealed: Option<Timestamp>,
    /// Somebody writes.
    taken: bool,
    /// The rotator wants to.
    wanted: bool,
    /// No rotation before.
    rests_until: Option<Timestamp>,
    closed: bool,
    /// A thread stopped on a failure.
    failed: bool,
}

/// What the rotator does next.
pub(super) enum Next {
    /// Erasures of one rotation, or one change of the set of slots.
    Rotate(Vec<Request>),
    /// Nothing came for a while.
    Look,
    /// The store closes, or has stopped.
    End,
}

/// The one who writes.
pub(super) struct Turn<'a>(&'a Inbox);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.taken = false;
        // Nobody is woken for nothing: between two creates that would be another change of threads.
        let (wanted, waits) = (queue.wanted, !queue.plain.is_empty());
        drop(queue);
        if wanted {
            self.0.rotator.notify_one();
        } else if waits {
            self.0.writer.notify_one();
        }
    }
}

impl Inbox {
    /// Empty. Rotations keep an interval by this clock.
    pub fn new(clock: Clock, interval: Duration) -> Self {
        Self {
            state: Mutex::new(Queue::default()),
            writer: Condvar::new(),
            rotator: Condvar::new(),
            permits: Arc::new(Semaphore::new(QUEUED)),
            erasing_permits: Arc::new(Semaphore::new(QUEUED)),
            clock,
            interval_ms: interval.as_millis() as i64,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Queue)) {
        change(&mut self.lock());
        self.writer.notify_one();
        self.rotator.notify_one();
    }

    /// Queues work, and waits for its answer.
    pub async fn submit(&self, work: Work) -> Answer {
        let erases = work.erases();
        let since = self.clock.now();
        let permits = if erases { &self.erasing_permits } else { &self.permits };
        let permit = permits.clone().acquire_owned().await.map_err(|_| CommitError::Closed)?;
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.lock();
            if queue.failed {
                return Err(CommitError::Closed);
            }
            let requests = if erases { &mut queue.erasing } else { &mut queue.plain };
            requests.push_back(Request { work, since, reply, _permit: permit });
        }
        if erases { &self.rotator } else { &self.writer }.notify_one();
        answer.await.unwrap_or(Err(CommitError::Closed))
    }

    /// Waits for work that erases nothing, and for the turn to write it; none when there is none and will be none.
    pub fn take(&self) -> Option<(Vec<Request>, Turn<'_>)> {
        let mut queue = self.lock();
        loop {
            if queue.failed || (queue.closed && queue.plain.is_empty()) {
                return None;
            }
            if !queue.plain.is_empty() && !queue.taken && !queue.wanted {
                queue.taken = true;
                let count = queue.plain.len().min(BATCH);
                return Some((queue.plain.drain(..count).collect(), Turn(self)));
            }
            queue = self.writer.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the rotator's turn to write; none where everything has stopped.
    pub fn turn(&self) -> Option<Turn<'_>> {
        let mut queue = self.lock();
        queue.wanted = true;
        while queue.taken && !queue.failed {
            queue = self.rotator.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.wanted = false;
        if queue.failed {
            return None;
        }
        queue.taken = true;
        Some(Turn(self))
    }

    /// Waits for what may be erased now, so long at most. Where the time is over already it is to be looked first, whoever waits.
    pub fn next(&self, pause: Duration) -> Next {
        let until = Instant::now() + pause;
        let mut queue = self.lock();
        loop {
            if queue.failed || (queue.closed && queue.erasing.is_empty()) {
                return Next::End;
            }
            if pause.is_zero() {
                return Next::Look;
            }
            // A clock that was set back does not make it longer.
            let left = queue.rests_until.map_or(0, |until| until.0 - self.clock.now().0);
            let rests = !queue.closed && (1..=self.interval_ms).contains(&left);
            if !queue.erasing.is_empty() && !rests {
                return Next::Rotate(queue.of_one_rotation());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Look;
            }
            let wait = if queue.erasing.is_empty() { left } else { left.min(LOOK) };
            queue = self.rotator.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// There was a rotation: none is for an interval, but for those who found no room in this one and have waited long enough.
    pub fn rest(&self, full: bool) {
        self.lock().rests_until = (!full).then(|| self.clock.now().plus_ms(self.interval_ms));
    }

    /// Whatever the rotator took is over: it waits no more, or for its root to be destroyed. What is left from before a start
    /// waits since the start.
    pub fn over(&self, all_destroyed: bool) {
        let now = self.clock.now();
        let mut queue = self.lock();
        let rotating = queue.rotating.take();
        queue.sealed = if all_destroyed { None } else { queue.sealed.or(rotating).or(Some(now)) };
    }

    /// Since when the oldest waits of what erases.
    pub fn waiting_since(&self) -> Option<Timestamp> {
        let queue = self.lock();
        let queued = queue.erasing.front().map(|request| request.since);
        queue.sealed.or(queue.rotating).or(queued)
    }

    /// What is queued is done, and nothing comes any more.
    pub fn close(&self) {
        self.change(|queue| queue.closed = true);
    }

    /// Nothing is done any more.
    pub fn stop(&self) {
        self.change(|queue| {
            queue.failed = true;
            queue.plain.clear();
            queue.erasing.clear();
        });
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.lock().failed
    }
}

impl Queue {
    /// Erasures up to the next change of the slots, or that change alone.
    fn of_one_rotation(&mut self) -> Vec<Request> {
        let reshares = |request: &Request| matches!(request.work, Work::Reshare(Reshare::Retire(_) | Reshare::Match));
        let alike = self.erasing.iter().take(BATCH).take_while(|request| !reshares(request)).count();
        self.rotating = self.erasing.front().map(|request| request.since);
        self.erasing.drain(..alike.max(1)).collect()
    }
}
