//! Who is inside: every running ingest and playback, so that an erasure can cut them and wait until their secrets are
//! gone.
//!
//! A session enters *before* it reads a secret, and the guard lives at least as long as any copy of it. An erasure cuts,
//! commits, and cuts again: a session that read a live secret entered before the commit, so the second cut finds it; one
//! that enters later finds no secret to read.

use crate::keys::RecordingPath;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Why a session was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// What it touches was erased.
    Erased,
    /// What it touches was restricted.
    Restricted,
    /// Another stream feeds the same recording now.
    TakenOver,
    /// The gateway stops.
    Stopping,
}

/// What a session does with its recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Feeds it. One at a time.
    Ingest,
    /// Plays it.
    Playback,
}

struct Entry {
    path: RecordingPath,
    role: Role,
    cut: watch::Sender<Option<Cut>>,
}

/// The last number that was given out, and who is inside.
type Entries = (u64, HashMap<u64, Entry>);

#[derive(Default)]
struct Shared {
    entries: Mutex<Entries>,
    left: Notify,
}

/// All running sessions.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Shared>);

/// Hears of a session's cut.
pub type Listener = watch::Receiver<Option<Cut>>;

/// A session's presence. Dropped last, after every secret of the session.
pub struct Guard {
    id: u64,
    path: RecordingPath,
    sessions: Sessions,
    cut: watch::Receiver<Option<Cut>>,
}

/// How long a cut waits for sessions to leave. All their waits listen for the cut, so this bound is never met unless a
/// task is starved; the caller reports it as a failure.
const CUT_LIMIT: Duration = Duration::from_secs(10);

impl Sessions {
    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters to play.
    pub fn enter_playback(&self, path: RecordingPath) -> Guard {
        self.enter(&mut self.entries(), path, Role::Playback)
    }

    /// Enters to feed; none where somebody feeds this recording already.
    pub fn enter_ingest(&self, path: RecordingPath) -> Option<Guard> {
        let mut entries = self.entries();
        let fed = entries.1.values().any(|entry| entry.role == Role::Ingest && entry.path == path);
        (!fed).then(|| self.enter(&mut entries, path, Role::Ingest))
    }

    /// Enters to feed, after cutting whoever did.
    pub async fn take_over(&self, path: RecordingPath) -> Option<Guard> {
        loop {
            if !self.cut(Cut::TakenOver, |at, role| *at == path && role == Role::Ingest).await {
                return None;
            }
            if let Some(guard) = self.enter_ingest(path) {
                return Some(guard);
            }
        }
    }

    fn enter(&self, entries: &mut Entries, path: RecordingPath, role: Role) -> Guard {
        let (sender, cut) = watch::channel(None);
        entries.0 += 1;
        let id = entries.0;
        entries.1.insert(id, Entry { path, role, cut: sender });
        Guard { id, path, sessions: self.clone(), cut }
    }

    /// How many recordings are being fed.
    pub fn feeding(&self) -> u64 {
        self.entries().1.values().filter(|entry| entry.role == Role::Ingest).count() as u64
    }

    /// Cuts all sessions that match and waits until they have left. False when some did not leave in time.
    pub async fn cut(&self, reason: Cut, matching: impl Fn(&RecordingPath, Role) -> bool) -> bool {
        let wait = async {
            loop {
                let mut left = std::pin::pin!(self.0.left.notified());
                left.as_mut().enable();
                let mut inside = false;
                for entry in self.entries().1.values().filter(|entry| matching(&entry.path, entry.role)) {
                    inside = true;
                    // The first reason stands.
                    entry.cut.send_if_modified(|cut| cut.replace(cut.unwrap_or(reason)).is_none());
                }
                if !inside {
                    return;
                }
                left.await;
            }
        };
        tokio::time::timeout(CUT_LIMIT, wait).await.is_ok()
    }
}

impl Guard {
    /// What this session is about.
    pub fn path(&self) -> RecordingPath {
        self.path
    }

    /// Whether this session has been cut.
    pub fn is_cut(&self) -> bool {
        self.cut.borrow().is_some()
    }

    /// Waits until this session is cut.
    pub async fn cut(&self) -> Cut {
        Self::heard(self.listener()).await
    }

    /// Hears of the cut without keeping the session inside; see [`Guard::heard`].
    pub fn listener(&self) -> Listener {
        self.cut.clone()
    }

    /// Waits until the listener's session is cut.
    pub async fn heard(mut listener: Listener) -> Cut {
        let cut = listener.wait_for(Option::is_some).await.ok().and_then(|cut| *cut);
        match cut {
            Some(cut) => cut,
            // The session has left: there is nothing to cut, for ever.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.sessions.entries().1.remove(&self.id);
        self.sessions.0.left.notify_waiters();
    }
}
