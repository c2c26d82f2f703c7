//! Who is inside: every running ingest and playback, so that an erasure can cut them and wait until their secrets are
//! gone.
//!
//! A session enters *before* it reads a secret, and the guard lives at least as long as any copy of it. An erasure cuts,
//! commits, and cuts again: a session that read a live secret entered before the commit, so the second cut finds it; one
//! that enters later finds no secret to read.

use super::{Error, basis::withdrawn, permission::missing};
use crate::{
    domain::id::{PermissionId, RecordingHandle, TenantHandle},
    keys::RecordingPath,
};
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
    /// The consent that it rests on was withdrawn.
    Withdrawn,
    /// Another stream feeds the same recording now.
    TakenOver,
    /// The permission it rested on was revoked.
    Revoked,
    /// The gateway stops.
    Stopping,
}

impl From<Cut> for Error {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Erased => Error::Erased,
            Cut::TakenOver => Error::TakenOver,
            Cut::Revoked => missing("the customer's permission; it was revoked"),
            Cut::Restricted => Error::Restricted,
            Cut::Withdrawn => withdrawn(),
            Cut::Stopping => Error::Stopping,
        }
    }
}

/// What a session does with its recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Feeds it. One at a time.
    Ingest,
    /// Plays it.
    Playback,
    /// Corrects its facts. Nobody feeds it meanwhile, because whoever does holds their secret.
    Correction,
}

struct Entry {
    path: RecordingPath,
    role: Role,
    /// The permission that a playback rests on.
    grant: Option<PermissionId>,
    /// The recording that what is fed was made from.
    parent: Option<RecordingHandle>,
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

/// How long a correction waits: a recording that is finished has somebody inside for a moment more.
const LEAVING: Duration = Duration::from_secs(1);

impl Sessions {
    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters to play.
    pub fn enter_playback(&self, path: RecordingPath) -> Guard {
        self.enter(&mut self.entries(), path, Role::Playback)
    }

    /// Enters to feed; none where somebody feeds or corrects this recording already.
    pub fn enter_ingest(&self, path: RecordingPath) -> Option<Guard> {
        self.enter_alone(path, Role::Ingest)
    }

    /// Enters to correct the facts; none where somebody feeds or corrects this recording and does not leave in a moment.
    pub async fn enter_correction(&self, path: RecordingPath) -> Option<Guard> {
        let wait = async {
            loop {
                let mut left = std::pin::pin!(self.0.left.notified());
                left.as_mut().enable();
                if let Some(guard) = self.enter_alone(path, Role::Correction) {
                    return guard;
                }
                left.await;
            }
        };
        tokio::time::timeout(LEAVING, wait).await.ok()
    }

    fn enter_alone(&self, path: RecordingPath, role: Role) -> Option<Guard> {
        let mut entries = self.entries();
        let taken = entries.1.values().any(|entry| entry.role != Role::Playback && entry.path == path);
        (!taken).then(|| self.enter(&mut entries, path, role))
    }

    /// Whether somebody feeds a recording.
    pub fn is_fed(&self, path: RecordingPath) -> bool {
        self.entries().1.values().any(|entry| entry.role == Role::Ingest && entry.path == path)
    }

    /// Enters to feed, after cutting whoever did and waiting for whoever corrects.
    pub async fn take_over(&self, path: RecordingPath) -> Option<Guard> {
        loop {
            if !self.cut(Cut::TakenOver, |at, role| *at == path && role != Role::Playback).await {
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
        entries.1.insert(id, Entry { path, role, grant: None, parent: None, cut: sender });
        Guard { id, path, sessions: self.clone(), cut }
    }

    /// The recordings of a tenant that are being fed.
    pub fn fed(&self, tenant: TenantHandle) -> Vec<RecordingPath> {
        let entries = self.entries();
        let fed = entries.1.values().filter(|entry| entry.role == Role::Ingest && entry.path.tenant == tenant);
        fed.map(|entry| entry.path).collect()
    }

    /// Everything inside of a tenant, each with the recording that it was made from.
    pub fn inside(&self, tenant: TenantHandle) -> Vec<(RecordingPath, Option<RecordingHandle>)> {
        let entries = self.entries();
        let inside = entries.1.values().filter(|entry| entry.path.tenant == tenant);
        inside.map(|entry| (entry.path, entry.parent)).collect()
    }

    /// How many listen to recordings of a tenant.
    pub fn listening(&self, tenant: TenantHandle) -> usize {
        let entries = self.entries();
        entries.1.values().filter(|entry| entry.role == Role::Playback && entry.path.tenant == tenant).count()
    }

    /// How many recordings are being fed.
    pub fn feeding(&self) -> u64 {
        self.entries().1.values().filter(|entry| entry.role == Role::Ingest).count() as u64
    }

    /// Cuts all sessions that match and waits until they have left. False when some did not leave in time.
    pub async fn cut(&self, reason: Cut, matching: impl Fn(&RecordingPath, Role) -> bool) -> bool {
        self.cut_where(reason, |entry| matching(&entry.path, entry.role)).await
    }

    /// Cuts all playbacks that rest on a permission, after its revocation is durable: see [`super::permission`].
    pub async fn cut_grant(&self, grant: PermissionId) -> bool {
        self.cut_where(Cut::Revoked, |entry| entry.grant == Some(grant)).await
    }

    async fn cut_where(&self, reason: Cut, matching: impl Fn(&Entry) -> bool) -> bool {
        let wait = async {
            loop {
                let mut left = std::pin::pin!(self.0.left.notified());
                left.as_mut().enable();
                let mut inside = false;
                for entry in self.entries().1.values().filter(|entry| matching(entry)) {
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

    /// Says which permission this playback rests on.
    pub fn rest_on(&self, grant: Option<PermissionId>) {
        if let Some(entry) = self.sessions.entries().1.get_mut(&self.id) {
            entry.grant = grant;
        }
    }

    /// Says which recording this one is made from.
    pub fn made_from(&self, parent: Option<RecordingHandle>) {
        if let Some(entry) = self.sessions.entries().1.get_mut(&self.id) {
            entry.parent = parent;
        }
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
