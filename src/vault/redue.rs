//! Brings what is stored up to changed rules: when a policy is set, an account closed, a subscriber deactivated, a consent
//! withdrawn ([`super::consent`]).
//!
//! Whatever changes a rule or a state counts `policy_revision` up in the same command ([`Settings::rules_changed`]). A pass
//! goes through the tenant's entries in pages, works each keeping out anew, and writes those that differ; at its end it
//! sets `due_revision` to the count it began with.
//!
//! - *A stop in the midst*: the counts still differ, and the next start begins the pass anew. It writes only what
//!   differs, so what was done is not done again.
//! - *A change in the midst*: the count has moved on, and another pass follows in the next run; one tenant that changes without
//!   a pause keeps nobody else's promises waiting.
//! - *An ingest in the midst*: it holds `keeping` shared from its look at the rules to its command.
//!   The pass has had the lock alone after the count became visible; so what it does not find was made by the new rules.
//! - *An erasure in the midst*: the page's command is refused as a whole; the page is read again, without what went.
//! - *A run of the runner in the midst*: it works each verdict out anew before it erases, so an entry that the pass has not
//!   reached is never early. It may be late by what the pass takes.
//!
//! Floors only rise ([`super::retention`]). What is parked under a hold becomes due again here, and parks again.
//!
//! [`Settings::rules_changed`]: super::tenants::Settings::rules_changed

use super::{
    Error, Inner,
    retention::{Kept, Rules, Ungoverned},
};
use crate::{
    domain::id::{RecordingHandle, SubscriberHandle, TenantHandle},
    keys::{Change, CommitError, Keeping, Mutation, RecordingEntry, RecordingPath},
};
use std::{collections::HashSet, sync::Arc};

/// Entries in one command.
const PAGE: usize = 256;
/// How often a page is read again because something on it was erased.
const ATTEMPTS: usize = 16;

impl Inner {
    /// Has everything of a tenant looked at anew, in the background: for whoever took something out of the way that the
    /// runner has met. Rules and states say so in their own command.
    pub(crate) async fn redue(&self, tenant: TenantHandle) -> Result<(), Error> {
        self.change_settings(tenant, |settings| {
            settings.rules_changed();
            Ok(Vec::new())
        })
        .await?;
        self.due_wake.notify_one();
        Ok(())
    }

    /// Makes the passes that are wanted.
    /// One in which something fails holds up no other: it is logged, and given back.
    pub(crate) async fn redue_wanted(self: &Arc<Self>) -> HashSet<TenantHandle> {
        let mut failing = HashSet::new();
        for (tenant, _) in self.public_tenants() {
            match self.pass(tenant, &mut usize::MAX.clone()).await {
                // Erased meanwhile.
                Ok(()) | Err(Error::Unknown { .. }) => {}
                Err(error) => {
                    tracing::error!(%error, "what a tenant has stored cannot be brought up to its policy");
                    failing.insert(tenant);
                }
            }
        }
        failing
    }

    /// Goes through a tenant, if that is wanted, and stops early when so many pages have been read.
    pub(crate) async fn pass(self: &Arc<Self>, tenant: TenantHandle, pages: &mut usize) -> Result<(), Error> {
        let (settings, _) = self.settings(tenant)?;
        let revision = settings.policy_revision;
        if settings.due_revision >= revision {
            return Ok(());
        }
        // Whoever looked at the rules of before has finished with them.
        drop(self.keeping.write().await);
        for (subscriber, _) in self.keys.subscribers(tenant) {
            let mut after = None;
            loop {
                if *pages == 0 || self.stopping.is_cancelled() {
                    return Ok(());
                }
                *pages -= 1;
                after = self.renew_page(tenant, subscriber, after).await?;
                if after.is_none() {
                    break;
                }
            }
        }
        self.change_settings(tenant, |settings| {
            settings.due_revision = settings.due_revision.max(revision);
            Ok(Vec::new())
        })
        .await?;
        Ok(())
    }

    /// Renews a page of entries; gives where the next begins.
    async fn renew_page(
        self: &Arc<Self>,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        after: Option<RecordingHandle>,
    ) -> Result<Option<RecordingHandle>, Error> {
        for _ in 0..ATTEMPTS {
            let _alone = self.keeping.write().await;
            let inner = self.clone();
            let read = move || inner.keys.entries(tenant, subscriber, after, PAGE);
            let page = super::blocking(read).await?.map_err(Error::from)?;
            let places: Vec<_> = page
                .iter()
                .map(|(recording, entry)| (RecordingPath { tenant, subscriber, recording: *recording }, entry))
                .collect();
            let next = if page.len() == PAGE { page.last().map(|(recording, _)| *recording) } else { None };
            match self.renew(&places).await {
                Ok(()) => return Ok(next),
                Err(Error::Erased) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Internal("a page of entries changed at each look".to_owned()))
    }

    /// Works keepings of one tenant out anew and writes those that differ. The caller holds the lock alone since it read
    /// the entries.
    ///
    /// # Errors
    /// `Erased` when one of them is gone: nothing was written.
    pub(crate) async fn renew(&self, entries: &[(RecordingPath, &RecordingEntry)]) -> Result<(), Error> {
        let mut changes = Vec::new();
        for (at, entry) in entries.iter().filter(|(_, entry)| entry.lives()) {
            let keeping = self.renewed(*at, entry)?;
            if keeping != entry.keeping {
                changes.push(Change::SetKeeping { at: *at, keeping });
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        match self.keys.commit(Mutation::new(changes)).await {
            Ok(_) => Ok(()),
            Err(CommitError::Gone) => Err(Error::Erased),
            Err(error) => Err(error.into()),
        }
    }

    /// An entry's keeping by the rules and states of now.
    pub(crate) fn renewed(&self, at: RecordingPath, entry: &RecordingEntry) -> Result<Keeping, Error> {
        self.renewed_by(&self.rules(at.tenant)?, at, entry)
    }

    /// The same by rules that were read already.
    pub(crate) fn renewed_by(
        &self,
        rules: &Rules,
        at: RecordingPath,
        entry: &RecordingEntry,
    ) -> Result<Keeping, Error> {
        let kept = Kept::of(entry, self.life(at.tenant, at.subscriber)?, self.clock.now())?;
        let before = self.on_its_footing(at, entry)?;
        Ok(rules.keeping(kept, before).unwrap_or_else(|Ungoverned(part)| {
            // A policy that leaves something without a rule is refused; what is kept stays as it was.
            tracing::error!(row = %entry.row, part = part.word(), "no rule governs what is stored");
            before
        }))
    }
}
