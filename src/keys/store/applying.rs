//! What the one who writes does under the lock: a batch to the medium, and to the state that readers see.

use super::{
    super::{
        ReadError,
        command::{self, Chain, Command, Sent, State},
        page::{Level, Page},
        plan::{Published, RootKey},
    },
    Present, Shared,
};
use crate::domain::id::{PageId, RootId};
use std::sync::{PoisonError, RwLockWriteGuard, atomic::Ordering};

impl Shared {
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Present> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.present.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a command, of which `encoded` are the bytes, and lets readers see what it did. `root` is the root from now on,
    /// where it changed.
    pub(in super::super) fn apply(
        &self,
        command: &Command,
        encoded: &[u8],
        published: Published,
        root: Option<RootKey>,
    ) -> Result<(), command::ApplyError> {
        let mut present = self.write();
        let mut sent = self.backlog.as_ref().map(|backlog| Sent { sent: backlog.backed(), ..present.sent });
        let state = Checked { shared: self, present: &present };
        let chain = command.apply_encoded(encoded, &*self.backing, &state, sent.as_mut())?;
        present.last_number = command.number;
        present.chain = chain;
        present.sent = sent.unwrap_or(present.sent);
        if root.is_some() {
            self.rotated.store(command.number, Ordering::SeqCst);
        }
        if let Some(backlog) = &self.backlog {
            backlog.applied(command.number, root.as_ref().map(|root| root.id));
        }
        if published.log > 0 {
            present.log_size += published.log;
            if self.backlog.is_some() {
                let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
                leaves.appended(command.number, present.log_size);
            }
        }
        for page in published.pages {
            self.cache.insert(page.id, page);
        }
        for page in published.gone {
            self.cache.remove(&page);
        }
        if !published.scopes.is_empty() {
            // Pages of recordings stay until they are evicted: once the index lets go of the veil nothing opens them.
            let falls = |page: &Page| published.scopes.iter().any(|scope| page.under.within(*scope));
            self.cache.retain(|_, page| page.level == Level::Recordings || !falls(page));
        }
        for change in published.names {
            present.index.apply(change);
        }
        if let Some(root) = root {
            present.root = root;
        }
        for (count, change) in [(&self.doomed, published.doomed), (&self.copies, published.copies)] {
            // Added as what it is modulo 2^64: less by so many where it is negative.
            count.fetch_add(change as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The state that the writer's commands are checked against: the cache, else the rows.
struct Checked<'a> {
    shared: &'a Shared,
    present: &'a Present,
}

impl State for Checked<'_> {
    fn last_number(&self) -> u64 {
        self.present.last_number
    }

    fn chain(&self) -> Chain {
        self.present.chain
    }

    fn root(&self) -> RootId {
        self.present.root.id
    }

    fn version(&self, page: PageId) -> Result<Option<u64>, ReadError> {
        match self.shared.cache.get(&page) {
            Some(page) => Ok(Some(page.version)),
            None => command::stored_version(&*self.shared.backing, page),
        }
    }
}
