//! Temporary.
use super::{Error, Inner};
use crate::{
    domain::{
        id::{SubscriberHandle, TenantHandle},
        time::Timestamp,
    },
    keys::{Change, Parts, RecordingEntry, RecordingPath},
    proto::stored,
};
use std::sync::Arc;

#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Recording(RecordingPath, Parts),
    Subscriber(TenantHandle, SubscriberHandle),
    Tenant(TenantHandle),
}

pub(crate) struct Placed;

pub(crate) enum Blocked {
    Restricted,
    Floor { until: Timestamp, ground: String },
    Hold(Arc<Placed>),
}

impl Blocked {
    pub fn is_floor(&self) -> bool {
        matches!(self, Blocked::Floor { .. })
    }

    pub fn into_error(self) -> Error {
        match self {
            Blocked::Restricted => Error::Restricted,
            Blocked::Floor { until, ground } => Error::Floor { until, ground },
            Blocked::Hold(_) => Error::Parked { by: "a hold".into(), until: None },
        }
    }
}

pub(crate) struct Standing;

pub(crate) struct Clearance(Vec<Wanted>);

impl Clearance {
    pub fn changes(&self) -> Vec<Change> {
        self.0
            .iter()
            .map(|wanted| match *wanted {
                Wanted::Recording(at, parts) => Change::EraseRecording { at, parts },
                Wanted::Subscriber(tenant, subscriber) => Change::EraseSubscriber(tenant, subscriber),
                Wanted::Tenant(tenant) => Change::EraseTenant(tenant),
            })
            .collect()
    }

    pub fn covers(&self, at: &RecordingPath) -> bool {
        self.0.iter().any(|wanted| matches!(wanted, Wanted::Recording(path, _) if path == at))
    }
}

pub(crate) struct Cleared {
    pub clearance: Option<Clearance>,
    pub blocked: Vec<(Wanted, Blocked)>,
    pub standing: Option<Standing>,
}

impl Inner {
    pub(crate) async fn clear(self: &Arc<Self>, wanted: Vec<Wanted>) -> Result<Cleared, Error> {
        let (mut free, mut blocked) = (Vec::new(), Vec::new());
        for wanted in wanted {
            let stands = match wanted {
                Wanted::Recording(at, parts) => match self.keys.entry(at)? {
                    Some(entry) => self.blocked(at, &entry, parts)?,
                    None => None,
                },
                _ => None,
            };
            match stands {
                Some(stands) => blocked.push((wanted, stands)),
                None => free.push(wanted),
            }
        }
        Ok(match free.is_empty() {
            true => Cleared { clearance: None, blocked, standing: Some(Standing) },
            false => Cleared { clearance: Some(Clearance(free)), blocked, standing: None },
        })
    }

    pub(crate) fn blocked(
        &self,
        at: RecordingPath,
        entry: &RecordingEntry,
        parts: Parts,
    ) -> Result<Option<Blocked>, Error> {
        let (settings, _) = self.settings(at.tenant)?;
        if settings.restricted {
            return Ok(Some(Blocked::Restricted));
        }
        let floor = match (parts.audio, parts.facts) {
            (true, true) => entry.keeping.audio_floor.max(entry.keeping.facts_floor),
            (true, false) => entry.keeping.audio_floor,
            _ => entry.keeping.facts_floor,
        };
        if floor.start() > self.clock.now() {
            let ground = settings.ground_text(entry.keeping.ground).to_owned();
            return Ok(Some(Blocked::Floor { until: floor.start(), ground }));
        }
        Ok(None)
    }

    pub(crate) async fn park_expiry(
        &self,
        _: &Standing,
        _: &Placed,
        _: RecordingPath,
        _: &RecordingEntry,
        _: Parts,
    ) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn subscriber_state(
        &self,
        _: TenantHandle,
        _: SubscriberHandle,
    ) -> Result<Option<stored::SubscriberState>, Error> {
        Ok(None)
    }
}
