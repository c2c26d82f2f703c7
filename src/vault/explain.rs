//! Why something goes when it goes, and what a policy would do: for people who ask. Nothing here changes anything. That a
//! recording is there and when it ended shows in its explanation, so who asks for one looks at facts ([`super::catalogue`]).
//!
//! An explanation is of the verdict by the rules and states of now, with what an entry says beyond it (an older floor) and
//! what stands in the way. A dry run reads every entry of its tenant, a page at a time.

use super::{
    Actor, Error, Inner, PolicySource, Vault,
    audit::About,
    retention::{Kept, Rules},
};
use crate::{
    domain::{
        basis::Footing,
        id::{RecordingId, SubscriberHandle, TenantHandle},
        retention::{Category, Floor, Part, Verdict, spoken},
        time::{Minute, Timestamp},
    },
    keys::{Parts, RecordingEntry, RecordingPath},
};
use std::{collections::BTreeMap, sync::Arc};

/// Entries read at one time.
const PAGE: usize = 512;

/// Why the parts of a recording go when they go.
pub struct Explanation {
    /// Name of the policy.
    pub policy: String,
    /// Audio, then facts.
    pub parts: Vec<PartExplanation>,
}

/// The same of one part.
pub struct PartExplanation {
    /// Which.
    pub part: Part,
    /// False once erased.
    pub present: bool,
    /// When it goes by itself; none while it waits for something to happen.
    pub goes: Option<Timestamp>,
    /// The promise.
    pub not_after: Option<Timestamp>,
    /// No erasure before.
    pub floor: Option<Floor>,
    /// Line of the governing rule.
    pub line: u32,
    /// What else stands in the way.
    pub blocked_by: Option<String>,
    /// All of it in one sentence.
    pub says: String,
}

/// What a policy would do to one kind and part of what is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DryRunRow {
    /// Which kind.
    pub category: Category,
    /// Which part.
    pub part: Part,
    /// How many are stored.
    pub stored: u64,
    /// Would go at the next run.
    pub due_at_once: u64,
    /// Would go earlier than now planned.
    pub due_earlier: u64,
    /// Would go later.
    pub due_later: u64,
    /// Would wait for something to happen.
    pub waiting: u64,
    /// A floor would keep it beyond its promise, or keeps it already.
    pub kept_by_floor: u64,
    /// No rule would govern it.
    pub ungoverned: u64,
    /// When the first of them would go.
    pub first: Option<Timestamp>,
}

impl Vault {
    /// When and why the parts of a recording go. `ticket`: see [`super::catalogue`].
    ///
    /// # Errors
    /// `Unknown`, `Erased`; `Invalid` where staff name no ticket.
    pub async fn explain(&self, actor: &Actor, id: RecordingId, ticket: &str) -> Result<Explanation, Error> {
        let inner = &self.0;
        let at = inner.locate(&actor.scope, id)?.path;
        inner.looks(actor, About::Facts(at), ticket).await?;
        let entry = inner.keys.entry(at)?.ok_or(Error::Erased)?;
        let rules = inner.rules(at.tenant)?;
        let kept = Kept::of(&entry, inner.life(at.tenant, at.subscriber)?, inner.clock.now())?;
        let parts = Part::ALL.map(|part| inner.explain_part(&rules, kept, at, &entry, part));
        Ok(Explanation { policy: rules.policy.name().to_owned(), parts: parts.into_iter().collect::<Result<_, _>>()? })
    }

    /// What a policy would do to what a tenant has stored.
    ///
    /// # Errors
    /// `Unknown`; `Invalid` names line and field.
    pub async fn dry_run_policy(&self, tenant: &str, source: &PolicySource) -> Result<Vec<DryRunRow>, Error> {
        let inner = self.0.clone();
        let policy = Arc::new(source.read()?.policy);
        let tenant = inner.find_tenant(tenant)?;
        let (settings, _) = inner.settings(tenant)?;
        let rules = Rules { policy, settings };
        super::blocking(move || inner.dry_run(tenant, &rules)).await?
    }
}

/// The present part of an entry's due minute and floor.
fn stored(entry: &RecordingEntry, part: Part) -> (bool, Minute, Minute) {
    let keeping = entry.keeping;
    match part {
        Part::Audio => (entry.audio_present, keeping.audio_due, keeping.audio_floor),
        Part::Facts => (entry.facts_present, keeping.facts_due, keeping.facts_floor),
    }
}

impl Inner {
    fn explain_part(
        &self,
        rules: &Rules,
        kept: Kept,
        at: RecordingPath,
        entry: &RecordingEntry,
        part: Part,
    ) -> Result<PartExplanation, Error> {
        let (present, _, stored_floor) = stored(entry, part);
        let verdict = rules.verdict(kept, part);
        let Some(verdict) = verdict.filter(|_| present) else {
            let why =
                if present { "is governed by no rule of its tenant's policy, and stays" } else { "has been erased" };
            return Ok(PartExplanation {
                part,
                present,
                goes: None,
                not_after: None,
                floor: None,
                line: 0,
                blocked_by: None,
                says: format!("the {} {why}", part.word()),
            });
        };
        let mut says = format!("the {} {}", part.word(), verdict.says);
        // Of an earlier policy.
        let older = (stored_floor.start() > floor_of(&verdict)).then(|| Floor {
            until: stored_floor.start(),
            ground: rules.settings.ground_text(entry.keeping.ground).to_owned(),
        });
        if let Some(older) = &older {
            says.push_str(&format!(
                "; a floor from when it was stored keeps it until {}: {}",
                spoken(older.until),
                older.ground
            ));
        }
        let parts = Parts { audio: part == Part::Audio, facts: part == Part::Facts };
        let blocked_by = self.blocked(at, entry, parts)?.filter(|blocked| !blocked.is_floor());
        let blocked_by = blocked_by.map(|blocked| blocked.into_error().to_string());
        if let Some(blocked) = &blocked_by {
            says.push_str(&format!("; it stays beyond that while it is {blocked}"));
        }
        // Whatever the policy's time is, it goes at once, or when its floors have ended.
        let withdrawn = is_withdrawn(entry);
        if withdrawn {
            says.push_str("; the consent that it rests on was withdrawn, so it goes as soon as nothing keeps it");
        }
        let aim = if withdrawn { Some(kept.ended_or_seen().max(floor_of(&verdict))) } else { verdict.aim };
        let not_after = rules.promise(&verdict, stored_floor);
        let floor = older.or(verdict.floor);
        Ok(PartExplanation {
            part,
            present,
            goes: aim.map(|aim| aim.max(stored_floor.start())),
            not_after,
            floor,
            line: verdict.line,
            blocked_by,
            says,
        })
    }

    /// Whether other rules make anything due at once that is not due by those of now.
    pub(crate) async fn makes_due(self: &Arc<Self>, tenant: TenantHandle, other: Rules) -> Result<bool, Error> {
        let inner = self.clone();
        let look = move || {
            let due = |rules: &Rules| -> Result<u64, Error> {
                Ok(inner.dry_run(tenant, rules)?.iter().map(|row| row.due_at_once).sum())
            };
            Ok::<bool, Error>(due(&other)? > due(&inner.rules(tenant)?)?)
        };
        super::blocking(look).await?
    }

    fn dry_run(&self, tenant: TenantHandle, rules: &Rules) -> Result<Vec<DryRunRow>, Error> {
        let mut rows: BTreeMap<(Category, Part), DryRunRow> = BTreeMap::new();
        for (subscriber, _) in self.keys.subscribers(tenant) {
            self.dry_run_subscriber(tenant, subscriber, rules, &mut rows)?;
        }
        Ok(rows.into_values().collect())
    }

    fn dry_run_subscriber(
        &self,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        rules: &Rules,
        rows: &mut BTreeMap<(Category, Part), DryRunRow>,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let life = self.life(tenant, subscriber)?;
        let mut after = None;
        loop {
            let page = self.keys.entries(tenant, subscriber, after, PAGE)?;
            // What goes for another reason goes by no policy.
            for (_, entry) in page.iter().filter(|(_, entry)| !is_withdrawn(entry)) {
                let kept = Kept::of(entry, life, now)?;
                for part in Part::ALL {
                    if stored(entry, part).0 {
                        let row =
                            rows.entry((kept.category, part)).or_insert_with(|| DryRunRow::empty(kept.category, part));
                        row.count(entry, rules.verdict(kept, part), now);
                    }
                }
            }
            after = match page.last() {
                Some((last, _)) if page.len() == PAGE => Some(*last),
                _ => return Ok(()),
            };
        }
    }
}

fn is_withdrawn(entry: &RecordingEntry) -> bool {
    Footing::from_number(entry.keeping.basis) == Some(Footing::Withdrawn)
}

fn floor_of(verdict: &Verdict) -> Timestamp {
    verdict.floor.as_ref().map_or(Timestamp(0), |floor| Minute::at_or_after(floor.until).start())
}

impl DryRunRow {
    fn empty(category: Category, part: Part) -> Self {
        Self {
            category,
            part,
            stored: 0,
            due_at_once: 0,
            due_earlier: 0,
            due_later: 0,
            waiting: 0,
            kept_by_floor: 0,
            ungoverned: 0,
            first: None,
        }
    }

    fn count(&mut self, entry: &RecordingEntry, verdict: Option<Verdict>, now: Timestamp) {
        let (_, due, floor) = stored(entry, self.part);
        self.stored += 1;
        let Some(verdict) = verdict else {
            self.ungoverned += 1;
            return;
        };
        let until = floor.start().max(floor_of(&verdict));
        self.kept_by_floor += u64::from(until > now);
        let Some(aim) = verdict.aim else {
            self.waiting += 1;
            // What would have gone by itself and now waits, goes later.
            self.due_later += u64::from(due != Minute::NEVER);
            return;
        };
        let goes = Minute::at_or_after(aim.max(until));
        self.due_at_once += u64::from(goes <= Minute::begun(now));
        self.due_earlier += u64::from(goes < due);
        self.due_later += u64::from(goes > due);
        self.first = self.first.into_iter().chain([goes.start()]).min();
    }
}
