//! Which policy a tenant has, and what it says about a recording: the [`Keeping`] in its entry.
//!
//! A policy is a text under the tenant's secret, read through a cache. The settings count how often rules or states
//! changed (`policy_revision`); [`super::redue`] brings what is stored up to that count.
//!
//! # When the clock starts
//!
//! A call ends when its switch says so, within bounds: not after the moment at which we received the end, and not before
//! the call began plus the audio that it has, as far as that lies before the receipt. So a switch with a wrong clock, or a
//! forged end, brings nothing forward by more than the call's own stated start, which Open bounds; and nothing is kept
//! longer for an end that lies ahead. What arrives late from a backlog is due by its call's end, not by its arrival: a
//! promise is about the call. A recording whose sender vanished ended when it was last heard of; taken up again, it runs
//! again.
//!
//! # Who may write a Keeping
//!
//! There is one lock, `Inner::keeping`. Whoever reads an entry, works its keeping out anew and writes it back holds it alone; an
//! ingest, which is the only one to touch its own entry, holds it shared from reading the rules until its command is
//! durable. So no writer puts back what another has changed, and once a pass has had the lock alone, nothing computed by
//! older rules is still on its way.
//!
//! # Floors
//!
//! A floor counts from the end of the call. While it runs its entry has one from its start, which is no later; the end raises it.
//! A floor in an entry is never lowered: a later policy can only raise it. Where two differ by part, the entry names both
//! grounds in one text; where an older floor outlasts a newer one for one part only, the ground is that of the later.

use super::{
    Actor, Error, Inner, Kind, TenantState, Vault,
    audit::{About, Detail, Event},
    tenants::Settings,
    tenants::invalid,
    values,
};
use crate::{
    crypto::{envelope, secret::Secret},
    domain::{
        audit::{Action, Outcome},
        basis::{Basis, Footing},
        id::{RowId, SubscriberHandle, TenantHandle},
        retention::{
            AccountState, CallEnd, Category, Jurisdiction, Outline, Parameters, Part, Policy, PolicyError, Subject,
            SubscriberState, Verdict, presets,
        },
        time::{Minute, Timestamp},
    },
    keys::{Change, Keeping, Owner, RecordingEntry, RecordingPath},
    proto::stored,
};
use quick_cache::sync::Cache;
use std::sync::Arc;

/// Policies that are kept parsed.
const CACHED: usize = 1024;

/// Which policy is meant.
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// The name of a preset, or the text of a policy.
    pub policy: String,
    /// Its parameter `keep`.
    pub keep: Option<String>,
}

impl From<&str> for PolicySource {
    fn from(policy: &str) -> Self {
        Self { policy: policy.to_owned(), keep: None }
    }
}

/// A policy that ships, as it is listed.
pub type PresetLine = Outline;

/// A policy as it is shown.
pub struct PolicyPage {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub summary: String,
    /// TOML.
    pub text: String,
}

/// The policy of a tenant.
pub struct PolicyInForce {
    /// The tenant's name.
    pub tenant: String,
    /// The policy's name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The parameter it was given.
    pub keep: Option<String>,
    /// What is stored is still being made due by it.
    pub being_applied: bool,
}

/// A policy that was read and is good.
pub(crate) struct Chosen {
    pub policy: Policy,
    row: stored::TenantPolicy,
}

impl PolicySource {
    /// Reads it.
    pub(crate) fn read(&self) -> Result<Chosen, Error> {
        // A name has neither; a text of a policy has both.
        let text = if self.policy.contains(['\n', '=']) {
            self.policy.as_str()
        } else {
            let none =
                || invalid("policy", format!("name a preset ({}), or send the text of a policy", presets::names()));
            presets::find(&self.policy).ok_or_else(none)?.text
        };
        let parameters = parameters(self.keep.as_deref())?;
        let policy = Policy::parse(text, parameters).map_err(|error| {
            let field = if error.field == "parameters.keep" { "keep" } else { "policy" };
            invalid(field, error.to_string())
        })?;
        let row = stored::TenantPolicy { text: text.to_owned(), keep: self.keep.clone().unwrap_or_default() };
        Ok(Chosen { policy, row })
    }
}

fn parameters(keep: Option<&str>) -> Result<Parameters, Error> {
    let keep = keep.map(str::parse).transpose();
    Ok(Parameters { keep: keep.map_err(|why: crate::domain::retention::NotALength| invalid("keep", why.to_string()))? })
}

impl TryFrom<stored::TenantPolicy> for Chosen {
    type Error = Error;

    fn try_from(row: stored::TenantPolicy) -> Result<Self, Error> {
        let keep = (!row.keep.is_empty()).then_some(row.keep);
        PolicySource { policy: row.text, keep }.read()
    }
}

impl Chosen {
    /// The change that gives it to a tenant.
    pub fn change(&self, tenant: TenantHandle, row: RowId, secret: &Secret) -> Change {
        let name = values::name(row, envelope::Kind::TenantPolicy);
        let envelope = values::seal(&self.row, secret, &name);
        Change::PutValue { owner: Owner::Tenant(tenant), name, envelope }
    }

    /// Refuses to take the place of a policy that governs more: what is stored would stay for ever.
    fn replaces(&self, before: &Policy) -> Result<(), Error> {
        let Some((category, part)) = self.policy.lacks_of(before) else { return Ok(()) };
        let remedy = format!(
            "has no rule for the {} of a {}, which policy {} governs and the tenant may have stored; add one",
            part.word(),
            category.word(),
            before.name()
        );
        Err(invalid("policy", remedy))
    }

    /// Has a tenant's settings name it and every ground that one of its floors may have.
    pub fn enter(&self, settings: &mut Settings) -> Result<(), Error> {
        self.policy.name().clone_into(&mut settings.policy);
        for ground in self.policy.grounds() {
            let many = || invalid("policy", "too many grounds of floors, with those of earlier policies".to_owned());
            settings.ground(&ground).ok_or_else(many)?;
        }
        settings.rules_changed();
        Ok(())
    }
}

/// Parsed policies, by tenant and revision.
pub(crate) struct Policies(Cache<(TenantHandle, u64), Arc<Policy>>);

impl Default for Policies {
    fn default() -> Self {
        Self(Cache::new(CACHED))
    }
}

impl Policies {
    /// Drops those of a tenant.
    pub fn forget(&self, tenant: TenantHandle) {
        self.0.retain(|(of, _), _| *of != tenant);
    }
}

/// What there is to know about a tenant when it is asked how long something is kept.
pub(crate) struct Rules {
    pub policy: Arc<Policy>,
    pub settings: Settings,
}

/// No rule governs this part of this recording.
pub(crate) struct Ungoverned(pub Part);

/// A recording as rules see it.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    pub category: Category,
    pub end: CallEnd,
    pub jurisdiction: Option<Jurisdiction>,
    pub subscriber: SubscriberState,
}

impl Kept {
    /// An entry as it is; one that runs, runs now.
    pub fn of(entry: &RecordingEntry, subscriber: SubscriberState, now: Timestamp) -> Result<Self, Error> {
        Ok(Self {
            category: category(entry.kind)?,
            end: match entry.keeping.ended {
                Minute::NONE => CallEnd::Running { at: now },
                ended => CallEnd::Ended { at: ended.start() },
            },
            jurisdiction: Jurisdiction::from_bytes(entry.keeping.jurisdiction),
            subscriber,
        })
    }

    /// When the call ended or, while it runs, was seen.
    pub fn ended_or_seen(&self) -> Timestamp {
        match self.end {
            CallEnd::Running { at } | CallEnd::Ended { at } => at,
        }
    }
}

fn category(kind: u8) -> Result<Category, Error> {
    Category::from_number(kind).ok_or_else(|| Error::Corrupt("a recording of no known kind".to_owned()))
}

impl Rules {
    /// What the policy says about one part.
    pub fn verdict(&self, kept: Kept, part: Part) -> Option<Verdict> {
        let account = match self.settings.state {
            TenantState::Open => AccountState::Open,
            TenantState::Closed { at } | TenantState::Purging { at } => AccountState::Closed { at },
        };
        self.policy.verdict(&Subject {
            category: kept.category,
            part,
            jurisdiction: kept.jurisdiction,
            end: kept.end,
            account,
            subscriber: kept.subscriber,
        })
    }

    /// The keeping of a recording by these rules. Floors of `before` stay; so does all that rules say nothing about.
    pub fn keeping(&self, kept: Kept, before: Keeping) -> Result<Keeping, Ungoverned> {
        let audio = self.verdict(kept, Part::Audio).ok_or(Ungoverned(Part::Audio))?;
        let facts = self.verdict(kept, Part::Facts).ok_or(Ungoverned(Part::Facts))?;
        let running = matches!(kept.end, CallEnd::Running { .. });
        let floor = |verdict: &Verdict, before: Minute| {
            // Of a call that runs it counts from the start until the end is known, and not from this look at it: it could
            // not come down again.
            if running && before != Minute::NONE {
                return before;
            }
            let until = verdict.floor.as_ref().map_or(Minute::NONE, |floor| Minute::at_or_after(floor.until));
            until.max(before)
        };
        // What rested on a consent that was withdrawn waits for nothing but its floors.
        let withdrawn = Footing::from_number(before.basis) == Some(Footing::Withdrawn);
        let due = |verdict: &Verdict, floor: Minute| {
            let aim = if withdrawn { Some(kept.ended_or_seen()) } else { verdict.aim };
            aim.map_or(Minute::NEVER, |aim| Minute::at_or_after(aim).max(floor))
        };
        let (audio_floor, facts_floor) = (floor(&audio, before.audio_floor), floor(&facts, before.facts_floor));
        // An older floor that outlasts all of the present ones keeps its ground.
        let latest_before = before.audio_floor.max(before.facts_floor);
        let raised = audio_floor.max(facts_floor) > latest_before;
        let named = Policy::joined_ground(audio.floor.as_ref(), facts.floor.as_ref());
        let ground = match named {
            Some(named) if raised || before.ground == 0 => self.settings.ground_number(&named),
            _ => before.ground,
        };
        Ok(Keeping {
            ended: match kept.end {
                CallEnd::Running { .. } => Minute::NONE,
                CallEnd::Ended { at } => Minute::at_or_after(at),
            },
            audio_due: due(&audio, audio_floor),
            facts_due: due(&facts, facts_floor),
            audio_floor,
            facts_floor,
            ground,
            ..before
        })
    }

    /// The promise, moved by the floor that the entry has: an earlier policy's may last longer than those of this one.
    pub fn promise(&self, verdict: &Verdict, floor: Minute) -> Option<Timestamp> {
        verdict.not_after.map(|promise| promise.max(self.policy.margin().after(floor.start())))
    }

    fn refusal(&self, category: Category, Ungoverned(part): Ungoverned) -> Error {
        Error::Refused {
            why: format!(
                "policy {} of this tenant has no rule for the {} of a {}; give the tenant one that has",
                self.policy.name(),
                part.word(),
                category.word()
            ),
        }
    }
}

/// When a call ended, for the policy; see the module's doc.
fn ended(start: Timestamp, stated: Timestamp, seconds: Option<f64>, received: Timestamp) -> Timestamp {
    // A float's cast saturates and takes NaN for zero.
    let audio = (seconds.unwrap_or(0.0) * 1000.0) as i64;
    let earliest = start.plus_ms(audio.max(0)).min(received).max(start.min(received));
    stated.min(received).max(earliest)
}

impl Inner {
    /// A tenant's policy.
    pub(crate) fn policy(&self, tenant: TenantHandle) -> Result<Arc<Policy>, Error> {
        Ok(self.rules(tenant)?.policy)
    }

    /// A tenant's policy, and the settings it goes by.
    pub(crate) fn rules(&self, tenant: TenantHandle) -> Result<Rules, Error> {
        let (settings, holder) = self.settings(tenant)?;
        let key = (tenant, settings.policy_revision);
        if let Some(policy) = self.policies.0.get(&key) {
            return Ok(Rules { policy, settings });
        }
        let row = values::read::<stored::TenantPolicy>(&self.keys, holder.row, &holder.secret)?
            .ok_or_else(|| Error::Corrupt("a tenant's policy is missing".to_owned()))?;
        let keep = (!row.keep.is_empty()).then_some(row.keep.as_str());
        // It was good when it was set; a later version of this program may see more faults in it.
        let unread = |error: PolicyError| Error::Internal(format!("a tenant's policy does not read any more: {error}"));
        let policy = Arc::new(Policy::parse(&row.text, parameters(keep)?).map_err(unread)?);
        self.policies.0.insert(key, policy.clone());
        Ok(Rules { policy, settings })
    }

    /// Whether a subscriber is in use, for the policy.
    pub(crate) fn life(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Result<SubscriberState, Error> {
        let state = self.subscriber_state(tenant, subscriber)?;
        Ok(match state.filter(|state| state.deactivated_ms != 0) {
            Some(state) => SubscriberState::Deactivated { at: Timestamp(state.deactivated_ms) },
            None => SubscriberState::Active,
        })
    }

    /// Refuses what no rule of its tenant's policy governs, before anything is written for it.
    ///
    /// # Errors
    /// `Refused` names the policy and what it lacks.
    pub(crate) fn governed(
        &self,
        tenant: TenantHandle,
        kind: Kind,
        jurisdiction: Option<Jurisdiction>,
    ) -> Result<(), Error> {
        let rules = self.rules(tenant)?;
        let end = CallEnd::Running { at: self.clock.now() };
        let category = category(kind as u8)?;
        let kept = Kept { category, end, jurisdiction, subscriber: SubscriberState::Active };
        let keeping = rules.keeping(kept, Keeping::default());
        keeping.map(drop).map_err(|none| rules.refusal(category, none))
    }

    /// The keeping of a recording whose call began at `start`. The caller holds `keeping` shared until its command is durable.
    ///
    /// # Errors
    /// `Refused` where no rule governs what is to be taken in.
    pub(crate) fn keeping_at_open(
        &self,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        kind: Kind,
        jurisdiction: Option<Jurisdiction>,
        basis: Option<Basis>,
        start: Timestamp,
    ) -> Result<Keeping, Error> {
        let rules = self.rules(tenant)?;
        let category = category(kind as u8)?;
        let kept = Kept {
            category,
            end: CallEnd::Running { at: start },
            jurisdiction,
            subscriber: self.life(tenant, subscriber)?,
        };
        let stated = Keeping {
            jurisdiction: jurisdiction.map(Jurisdiction::to_bytes).unwrap_or_default(),
            basis: basis.map_or(0, |basis| Footing::Stands(basis).number()),
            ..Keeping::default()
        };
        rules.keeping(kept, stated).map_err(|none| rules.refusal(category, none))
    }

    /// The change for a recording that ended: when it began, when the switch says that it ended, and how long its audio
    /// is. The caller holds `keeping` shared.
    pub(crate) fn keep_ended(
        &self,
        at: RecordingPath,
        start: Option<Timestamp>,
        stated: Timestamp,
        seconds: Option<f64>,
    ) -> Result<Change, Error> {
        let received = self.clock.now();
        // Where the facts are gone already, nothing bounds what is stated but the receipt.
        let end = start.map_or(received, |start| ended(start, stated, seconds, received));
        self.keep(at, CallEnd::Ended { at: end })
    }

    /// The change for a recording that runs again. The caller holds `keeping` shared.
    pub(crate) fn keep_running(&self, at: RecordingPath) -> Result<Change, Error> {
        self.keep(at, CallEnd::Running { at: self.clock.now() })
    }

    fn keep(&self, at: RecordingPath, end: CallEnd) -> Result<Change, Error> {
        let entry = self.keys.entry(at)?.ok_or(Error::Erased)?;
        let rules = self.rules(at.tenant)?;
        let kept = Kept { end, ..Kept::of(&entry, self.life(at.tenant, at.subscriber)?, self.clock.now())? };
        let keeping = rules.keeping(kept, entry.keeping).map_err(|none| rules.refusal(kept.category, none))?;
        Ok(Change::SetKeeping { at, keeping })
    }
}

impl Vault {
    /// The policies that ship.
    ///
    /// # Errors
    /// None: they are read by a test.
    pub fn presets(&self) -> Result<Vec<PresetLine>, Error> {
        let read = presets::ALL.iter().map(presets::Preset::outline).collect::<Result<_, _>>();
        read.map_err(|error: PolicyError| Error::Internal(error.to_string()))
    }

    /// The page of one of them.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn preset(&self, name: &str) -> Result<PolicyPage, Error> {
        let preset = presets::find(name).ok_or(Error::Unknown { what: "preset" })?;
        let outline = preset.outline().map_err(|error| Error::Internal(error.to_string()))?;
        Ok(PolicyPage { name: outline.name, summary: outline.summary, text: preset.text.to_owned() })
    }

    /// Reads a policy and writes it as it was understood.
    ///
    /// # Errors
    /// `Invalid` names line and field.
    pub fn check_policy(&self, source: &PolicySource) -> Result<PolicyPage, Error> {
        let policy = source.read()?.policy;
        let (name, summary) = (policy.name().to_owned(), policy.summary().to_owned());
        Ok(PolicyPage { name, summary, text: policy.to_string() })
    }

    /// A tenant's policy.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn policy(&self, tenant: &str) -> Result<PolicyInForce, Error> {
        let handle = self.0.find_tenant(tenant)?;
        let (settings, holder) = self.0.settings(handle)?;
        let row = values::read::<stored::TenantPolicy>(&self.0.keys, holder.row, &holder.secret)?
            .ok_or_else(|| Error::Corrupt("a tenant's policy is missing".to_owned()))?;
        Ok(PolicyInForce {
            tenant: tenant.to_owned(),
            being_applied: settings.due_revision < settings.policy_revision,
            name: settings.policy,
            text: row.text,
            keep: (!row.keep.is_empty()).then_some(row.keep),
        })
    }

    /// Gives a tenant another policy. What is stored is brought up to it in the background. One that makes anything due at
    /// once, or that asks less of a purge, erases by another name: the tenant's name must be repeated, and what the policy
    /// of before says of a purge holds ([`super::transition`]).
    ///
    /// # Errors
    /// `Invalid` names line and field, also of a policy that leaves without a rule what the one before governed, and where the
    /// name must be repeated; `Parked` while it waits for approval or cools off.
    pub async fn set_policy(
        &self,
        actor: &Actor,
        tenant: &str,
        source: &PolicySource,
        confirm: &str,
    ) -> Result<PolicyInForce, Error> {
        let inner = &self.0;
        inner.running()?;
        let chosen = source.read()?;
        let handle = inner.find_tenant(tenant)?;
        let before = inner.policy(handle)?;
        chosen.replaces(&before)?;
        let weaker = chosen.policy.purge().asks_less_than(&before.purge());
        let settings = inner.settings(handle)?.0;
        let rules = Rules { policy: Arc::new(chosen.policy.clone()), settings };
        if weaker || inner.makes_due(handle, rules).await? {
            self.guarded_policy(actor, tenant, confirm, chosen.row).await?;
        } else if inner.policy_waits(handle)? {
            // The one that waits was judged against the present one, and takes its place.
            let why = "a policy of this tenant waits already; approve or withdraw that first";
            return Err(Error::Refused { why: why.to_owned() });
        } else {
            inner.set_policy_now(actor, handle, &chosen, Vec::new()).await?;
        }
        self.policy(tenant)
    }
}

impl Inner {
    /// Gives a tenant another policy, whatever that makes due. `and` goes into the same command.
    pub(crate) async fn set_policy_now(
        &self,
        actor: &Actor,
        handle: TenantHandle,
        chosen: &Chosen,
        and: Vec<Change>,
    ) -> Result<(), Error> {
        let holder = self.tenant_holder(handle)?;
        let set = Event {
            action: Action::PolicySet,
            about: About::Tenant(handle),
            grant: None,
            outcome: Outcome::Done,
            detail: Detail { notes: vec![("policy", chosen.policy.name().to_owned())], ..Detail::default() },
        };
        let mut changes = self.audit(actor, set).await?;
        changes.extend(and);
        changes.push(chosen.change(handle, holder.row, &holder.secret));
        self.change_settings(handle, |settings| {
            chosen.replaces(&*self.policy(handle)?)?;
            chosen.enter(settings)?;
            Ok(changes)
        })
        .await?;
        self.due_wake.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn a_call_ends_within_its_bounds() {
        let at = |minute: i64| Timestamp(minute * MINUTE);
        // (start, stated, seconds of audio, received) and the end that counts.
        let cases = [
            ("as stated", (100, 110, Some(300.0), 120), 110),
            ("not after its receipt", (100, 500, None, 120), 120),
            ("not before it began", (100, 3, None, 120), 100),
            ("not before its audio was over", (100, 101, Some(600.0), 120), 110),
            ("audio that claims to last longer than there was time", (100, 101, Some(1e18), 120), 120),
            ("a start ahead of our clock", (124, 130, Some(60.0), 120), 120),
            ("no number of seconds", (100, 110, Some(f64::NAN), 120), 110),
            ("less than no seconds", (100, 110, Some(-1e9), 120), 110),
        ];
        for (why, (start, stated, seconds, received), expected) in cases {
            assert_eq!(ended(at(start), at(stated), seconds, at(received)), at(expected), "{why}");
        }
    }

    #[test]
    fn a_source_is_a_name_or_a_text() {
        let read = |policy: &str, keep: Option<&str>| {
            let source = PolicySource { policy: policy.to_owned(), keep: keep.map(ToOwned::to_owned) };
            source.read().map(|chosen| chosen.policy.name().to_owned())
        };
        let field = |result: Result<String, Error>| match result {
            Err(Error::Invalid { field, remedy }) => (field, remedy),
            other => panic!("{other:?}"),
        };
        assert_eq!(read("circleloop", None).expect("ships"), "circleloop");
        let (wrong, remedy) = field(read("uk-standard", None));
        assert!(wrong == "policy" && remedy.contains("uk-mifid"), "{remedy}");
        assert_eq!(field(read("vclerk", None)).0, "keep");
        assert_eq!(field(read("vclerk", Some("soon"))).0, "keep");
        assert_eq!(read("vclerk", Some("90d")).expect("good"), "vclerk");
        let (wrong, remedy) = field(read("name = \"x\"\nparties = \"nobody\"\n", None));
        assert!(wrong == "policy" && remedy.contains("line 2"), "{remedy}");
    }
}
