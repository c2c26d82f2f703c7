//! What an erasure would meet: shown before it is asked for (`--dry-run`), and of a tenant at any time. Nothing is changed,
//! and no audio secret is read.

use super::{
    Actor, Error, Inner, Part, Target, Vault,
    clearance::{Tally, Wanted},
    holds::Held,
};
use crate::{
    domain::{
        id::{HoldId, TenantHandle},
        retention::Approval,
        time::Timestamp,
    },
    keys::Parts,
};

/// What lies in a scope, and what stands in the way of erasing it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Recordings of which anything is left.
    pub recordings: u64,
    /// With audio.
    pub audio: u64,
    /// With facts.
    pub facts: u64,
    /// Kept, and not used: they refuse the erasure.
    pub restricted: u64,
    /// Recordings of others that would go with it.
    pub bound: u64,
    /// Holds that stand, each with its ground, its review date, and how many recordings of the scope it covers.
    pub holds: Vec<(HoldId, String, Timestamp, u64)>,
    /// Floors by ground, each with its latest date and how many recordings have it.
    pub floors: Vec<(String, Timestamp, u64)>,
    /// What it would wait for besides: an approval, a cooling-off time.
    pub waits_for: Vec<String>,
}

impl From<Tally> for Preview {
    fn from(tally: Tally) -> Self {
        let holds = tally.holds.into_iter();
        Self {
            recordings: tally.recordings,
            audio: tally.audio,
            facts: tally.facts,
            restricted: tally.restricted,
            bound: tally.bound,
            holds: holds.map(|(hold, count)| (hold.id, hold.ground.clone(), hold.review, count)).collect(),
            floors: tally.floors.into_iter().map(|(ground, (until, count))| (ground, until, count)).collect(),
            waits_for: Vec::new(),
        }
    }
}

impl Vault {
    /// What an erasure would meet.
    ///
    /// # Errors
    /// `Unknown` for a name or id that leads nowhere.
    pub async fn preview(&self, actor: &Actor, target: &Target) -> Result<Preview, Error> {
        let inner = self.0.clone();
        let wanted = match target {
            Target::Recording(id, part) => {
                let parts = Parts {
                    audio: matches!(part, Part::Both | Part::Audio),
                    facts: matches!(part, Part::Both | Part::Facts),
                };
                Wanted::Recording(inner.locate(&actor.scope, *id)?.path, parts)
            }
            Target::Subscriber { tenant, subscriber, .. } => {
                let (tenant, subscriber) = inner.find_subscriber_in(&actor.scope, tenant, subscriber)?;
                Wanted::Subscriber(tenant, subscriber)
            }
            Target::Tenant { tenant } => Wanted::Tenant(inner.find_in(&actor.scope, tenant)?),
        };
        inner.make_sure([wanted.tenant()]).await;
        let look = move || inner.preview(wanted);
        tokio::task::spawn_blocking(look).await.map_err(|failed| Error::Internal(failed.to_string()))?
    }
}

impl Inner {
    fn preview(&self, wanted: Wanted) -> Result<Preview, Error> {
        let tenant = wanted.tenant();
        let mut look = self.look(tenant)?;
        let mut tally = Tally::default();
        match wanted {
            Wanted::Recording(at, parts) => look.one(at, parts, &mut tally)?,
            Wanted::Subscriber(_, subscriber) => tally = look.tally(Some(subscriber))?,
            Wanted::Tenant(_) => tally = look.tally(None)?,
        }
        let mut preview = Preview::from(tally);
        let covering = std::mem::take(&mut preview.holds);
        for hold in self.holds.standing(tenant) {
            let count = covering.iter().find(|(other, ..)| *other == hold.id).map(|(.., count)| *count);
            let stands = match (wanted, &hold.held) {
                // Whatever it covers now, it would fall with its tenant, or with what it is on.
                (Wanted::Tenant(_), _) => true,
                (Wanted::Subscriber(_, subscriber), Held::Subscriber(held)) => subscriber == *held,
                _ => count.is_some(),
            };
            if stands {
                preview.holds.push((hold.id, hold.ground.clone(), hold.review, count.unwrap_or(0)));
            }
        }
        if let Wanted::Tenant(tenant) = wanted {
            preview.waits_for = self.purge_waits_for(tenant)?;
        }
        Ok(preview)
    }

    fn purge_waits_for(&self, tenant: TenantHandle) -> Result<Vec<String>, Error> {
        let rule = self.policy(tenant)?.purge();
        let mut waits = Vec::new();
        if rule.approval == Approval::SecondPerson {
            waits.push("the approval of a second person".to_owned());
        }
        let now = self.clock.now();
        if rule.cooling_off.after(now) > now {
            waits.push(format!("a cooling-off time of {}", rule.cooling_off));
        }
        Ok(waits)
    }
}
