//! What a switch states about why it may record, and whether that is enough.
//!
//! - *Jurisdiction and basis* lie in the recording's entry, as two bytes: rules go by them without opening anything, and they
//!   are shown with the facts and when these are gone. They name nobody.
//! - *Announcement and evidence* name people, so they lie under the audio secret (kind 26), in the command of the create. They
//!   go with what they justify. Whoever may hear the recording may see them, through the same gate
//!   ([`super::permission`]), and each look is in the log before anything is shown. `Get` and `List` never show them:
//!   these do not open an audio secret.
//!
//! The policy says for each jurisdiction what must be stated. What falls short is refused before anything is written for it.
//! What was made from a recording takes jurisdiction and basis from there, and the policy does not ask again.
//!
//! A retry with the same client id finds the recording as it was opened: what it states now is checked for its form and
//! otherwise not looked at.

use super::{
    Actor, Error, Inner, Open, StatedBasis, Vault,
    audit::{About, Event},
    opening::text,
    recording_id,
    tenants::invalid,
    values,
};
use crate::{
    crypto::{envelope::Kind, secret::Secret},
    domain::{
        audit::Action,
        basis::{Announcement, Basis, Evidence, Footing, How, Stated, is_language_tag},
        id::{RecordingHandle, RecordingId, RowId, TenantHandle},
        retention::Jurisdiction,
        time::Timestamp,
    },
    keys::{Change, Holder, MAX_CHILDREN, MAX_PARTIES, Owner, RecordingPath},
    proto::stored,
};

/// Most evidence of one recording.
const MAX_EVIDENCE: usize = 64;
/// Furthest an announcement may lie from the start of its recording.
const MAX_OFFSET_MS: i64 = 86_400_000;

/// What was stated of a recording, as it is shown.
pub struct BasisShown {
    /// Under whose law.
    pub jurisdiction: Option<Jurisdiction>,
    /// What it rests on.
    pub footing: Option<Footing>,
    /// What was played.
    pub announcement: Option<Announcement>,
    /// Who agreed or was told.
    pub evidence: Vec<Evidence>,
}

/// What a new recording rests on, found to be enough.
pub(crate) struct Rests {
    pub jurisdiction: Option<Jurisdiction>,
    pub basis: Option<Basis>,
    pub parent: Option<RecordingHandle>,
}

impl Vault {
    /// Announcement and evidence of a recording.
    ///
    /// # Errors
    /// `Unknown`, `Erased`; `NotPermitted` for whoever may not hear it.
    pub async fn basis(&self, actor: &Actor, id: RecordingId) -> Result<BasisShown, Error> {
        let inner = &self.0;
        inner.running()?;
        let at = inner.locate(&actor.scope, id)?.path;
        // As a playback: whoever is inside when the recording is erased is waited for.
        let guard = inner.sessions.enter_playback(at);
        let grant = match inner.admit(actor, &guard) {
            Ok(grant) => grant,
            Err(error) => {
                // Nobody looks: an erasure need not wait for what is written now.
                drop(guard);
                return Err(inner.refused(actor, at, Action::BasisShow, None, error).await);
            }
        };
        let event = Event { grant: grant.id().map(|id| id.0), ..Event::new(Action::BasisShow, About::Audio(at)) };
        inner.log_first(actor, event).await?;
        let entry = inner.keys.entry(at)?.ok_or(Error::Erased)?;
        let leaf = inner.keys.audio_leaf(at)?.ok_or(Error::Erased)?;
        let audio = leaf.audio.ok_or(Error::Erased)?;
        let (announcement, evidence) = match values::read::<stored::Basis>(&inner.keys, leaf.row, &audio)? {
            Some(row) => shown(row)?,
            None => (None, Vec::new()),
        };
        drop(audio);
        if guard.is_cut() {
            return Err(guard.cut().await.into());
        }
        Ok(BasisShown {
            jurisdiction: Jurisdiction::from_bytes(entry.keeping.jurisdiction),
            footing: Footing::from_number(entry.keeping.basis),
            announcement,
            evidence,
        })
    }
}

/// Bounds on what a stream states about its basis.
pub(super) fn check(open: &Open, latest: Timestamp) -> Result<(), Error> {
    if let Some(announcement) = &open.basis.announcement {
        text("announcement.prompt", &announcement.prompt, 256, 1)?;
        if !announcement.language.is_empty() && !is_language_tag(&announcement.language) {
            return Err(invalid("announcement.language", "send a BCP 47 tag, such as `de-AT`, or none".to_owned()));
        }
        if !(-MAX_OFFSET_MS..=MAX_OFFSET_MS).contains(&announcement.offset_ms) {
            return Err(invalid(
                "announcement.offset_ms",
                "lies over a day from the start of the recording".to_owned(),
            ));
        }
    }
    if open.basis.evidence.len() > MAX_EVIDENCE {
        return Err(invalid("evidence", format!("send evidence of at most {MAX_EVIDENCE} parties")));
    }
    for evidence in &open.basis.evidence {
        text("evidence.party", &evidence.party, 256, 1)?;
        text("evidence.reference", &evidence.reference, 256, 0)?;
        if evidence.at.0 <= 0 || evidence.at > latest {
            return Err(invalid("evidence.at_ms", "say when they agreed or were told; not in the future".to_owned()));
        }
    }
    check_parties("bound", &open.ties.bound)?;
    if open.ties.parent.is_some() && !open.ties.bound.is_empty() {
        return Err(invalid("bound", "what was made from a recording is bound as that one is; send none".to_owned()));
    }
    Ok(())
}

/// Bounds on names of who is to be bound.
pub(super) fn check_parties(field: &'static str, parties: &[String]) -> Result<(), Error> {
    if parties.len() > MAX_PARTIES {
        return Err(invalid(field, format!("bind at most {MAX_PARTIES} other subscribers")));
    }
    parties.iter().try_for_each(|party| text(field, party, 256, 1))
}

impl Inner {
    /// What a recording that is opened rests on. Asked while the gate is held, so that no consent is withdrawn meanwhile.
    ///
    /// # Errors
    /// `Refused` names the rule and what it wants, or that consent was withdrawn; `Unknown`, `Erased` and `Invalid` for a
    /// parent that cannot be one.
    pub(super) fn rests(&self, tenant: TenantHandle, holder: &Holder, open: &Open) -> Result<Rests, Error> {
        let StatedBasis { jurisdiction, basis, .. } = open.basis;
        let rests = match open.ties.parent {
            Some(parent) => self.rests_as(tenant, holder, open, parent)?,
            None => {
                self.is_stated(tenant, open)?;
                Rests { jurisdiction, basis, parent: None }
            }
        };
        if rests.basis == Some(Basis::Consent) {
            let names = std::iter::once(&open.subscriber).chain(&open.ties.bound);
            self.consent_of_names(tenant, names.map(String::as_str))?;
        }
        Ok(rests)
    }

    /// What something that was made from a recording rests on.
    fn rests_as(
        &self,
        tenant: TenantHandle,
        holder: &Holder,
        open: &Open,
        parent: RecordingId,
    ) -> Result<Rests, Error> {
        let unknown = Error::Unknown { what: "recording" };
        let owner = self.keys.find_subscriber(tenant, &open.subscriber);
        let Some(subscriber) = recording_id::resolve(&holder.secret, parent).filter(|found| Some(*found) == owner)
        else {
            return Err(unknown);
        };
        let at = RecordingPath { tenant, subscriber, recording: parent.handle };
        let entry = self.keys.entry(at)?.filter(|entry| entry.audio_present).ok_or(Error::Erased)?;
        if entry.parent.is_some() {
            return Err(invalid("parent", "was made from a recording itself; name that one".to_owned()));
        }
        if entry.children.len() >= MAX_CHILDREN {
            return Err(invalid("parent", format!("has {MAX_CHILDREN} recordings made from it, and takes no more")));
        }
        let jurisdiction = Jurisdiction::from_bytes(entry.keeping.jurisdiction);
        if open.basis.jurisdiction.is_some_and(|stated| Some(stated) != jurisdiction) {
            return Err(invalid("jurisdiction", "is that of the recording it was made from; send none".to_owned()));
        }
        let basis = match Footing::from_number(entry.keeping.basis) {
            Some(Footing::Withdrawn) => return Err(withdrawn()),
            Some(Footing::Stands(basis)) => Some(basis),
            None => None,
        };
        if open.basis.basis.is_some_and(|stated| Some(stated) != basis) {
            return Err(invalid("facts.basis", "is that of the recording it was made from; send none".to_owned()));
        }
        Ok(Rests { jurisdiction, basis, parent: Some(parent.handle) })
    }

    /// Refuses what falls short of the policy's rule for its jurisdiction.
    fn is_stated(&self, tenant: TenantHandle, open: &Open) -> Result<(), Error> {
        let policy = self.policy(tenant)?;
        let rule = policy.basis(open.basis.jurisdiction);
        let parties = std::iter::once(&open.subscriber).chain(&open.facts.parties).chain(&open.ties.bound);
        let stated = Stated {
            basis: open.basis.basis,
            announced: open.basis.announcement.is_some(),
            evidence: open.basis.evidence.iter().map(|evidence| evidence.party.as_str()).collect(),
            parties: parties.map(String::as_str).collect(),
        };
        let Some(missing) = stated.lacks(&rule) else { return Ok(()) };
        let place = match open.basis.jurisdiction {
            Some(jurisdiction) => format!("in {jurisdiction}"),
            None => "without a jurisdiction".to_owned(),
        };
        Err(Error::Refused {
            why: format!("policy {} of this tenant wants of a recording {place}: {missing}", policy.name()),
        })
    }
}

/// As a caller hears of it.
pub(super) fn withdrawn() -> Error {
    Error::Refused {
        why:
            "consent was withdrawn by the subscriber or somebody who is bound; nothing is recorded on that basis until \
              consent is given again"
                .to_owned(),
    }
}

/// The row that holds announcement and evidence; none where neither was stated.
pub(super) fn row_change(at: RecordingPath, row: RowId, audio: &Secret, stated: StatedBasis) -> Option<Change> {
    let StatedBasis { announcement, evidence, .. } = stated;
    if announcement.is_none() && evidence.is_empty() {
        return None;
    }
    let kept = stored::Basis {
        announcement: announcement.map(|it| stored::Announcement {
            prompt: it.prompt,
            language: it.language,
            offset_ms: it.offset_ms,
        }),
        evidence: evidence
            .into_iter()
            .map(|it| stored::Evidence { party: it.party, how: it.how as u32, at_ms: it.at.0, reference: it.reference })
            .collect(),
    };
    let name = values::name(row, Kind::Basis);
    let envelope = values::seal(&kept, audio, &name);
    Some(Change::PutValue { owner: Owner::Audio(at), name, envelope })
}

fn shown(kept: stored::Basis) -> Result<(Option<Announcement>, Vec<Evidence>), Error> {
    let announcement =
        kept.announcement.map(|it| Announcement { prompt: it.prompt, language: it.language, offset_ms: it.offset_ms });
    let evidence = kept.evidence.into_iter().map(|it| {
        let how = u8::try_from(it.how).ok().and_then(How::from_number);
        let how = how.ok_or_else(|| Error::Corrupt("a basis row".to_owned()))?;
        Ok(Evidence { party: it.party, how, at: Timestamp(it.at_ms), reference: it.reference })
    });
    Ok((announcement, evidence.collect::<Result<_, Error>>()?))
}
