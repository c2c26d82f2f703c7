//! Wire messages to the vault's types and back. Pure: what comes from outside is checked here, and a refusal names the
//! field but never repeats its value.

mod audit;

pub use audit::*;

use super::error::Problem;
use crate::{
    domain::{
        basis::{Announcement, Evidence, Footing, NotAHow},
        id::RecordingId,
        pause::{DiscardReason, PauseReason},
        time::Timestamp,
    },
    proto::v1,
    vault::{
        self, BasisShown, Correction, Facts, Finish, Gap, Kind, Mode, NewTenant, Open, Part, Paused, PlayInfo,
        PlayRange, PolicySource, Progress, Recording, Residency, State, StatedBasis, StatedFacts, StatedTies,
        StatisticsRow, Status, Target, Tenant, TenantState,
    },
};
use std::str::FromStr;

pub mod policy;

/// Bounds the parts of the facts, each on its own; a message as a whole is bounded by the transport.
const MAX_TEXT: usize = 4096;
const MAX_PARTS: usize = 64;
const NOT_AN_ID: &str = "a recording id has 52 letters and digits";

/// Reads an id.
pub fn recording_id(text: &str) -> Result<RecordingId, Problem> {
    text.parse().map_err(|_| Problem::invalid("id", NOT_AN_ID))
}

/// Reads a moment; 0 is none.
pub fn moment(ms: i64) -> Option<Timestamp> {
    (ms != 0).then_some(Timestamp(ms))
}

fn text(field: &'static str, value: String) -> Result<String, Problem> {
    if value.len() > MAX_TEXT {
        return Err(Problem::invalid(field, format!("at most {MAX_TEXT} bytes")));
    }
    Ok(value)
}

/// Reads the first message of a recording.
pub fn open(open: v1::Open) -> Result<Open, Problem> {
    let kind = match open.kind() {
        v1::Kind::Call => Kind::Call,
        v1::Kind::Voicemail => Kind::Voicemail,
        v1::Kind::Transcript => Kind::Transcript,
        v1::Kind::Video => Kind::Video,
        v1::Kind::Message => Kind::Message,
        v1::Kind::Media => Kind::Media,
        v1::Kind::Connection => Kind::Connection,
        v1::Kind::Unspecified => return Err(Problem::invalid("kind", "say what is recorded")),
    };
    let mode = match open.mode() {
        v1::Mode::Spooled => Mode::Spooled,
        v1::Mode::Live => Mode::Live,
        v1::Mode::Unspecified => return Err(Problem::invalid("mode", "say spooled or live")),
    };
    let basis = stated_basis(&open)?;
    Ok(Open {
        kind,
        mode,
        tenant: open.tenant,
        subscriber: open.subscriber,
        media_type: open.media_type,
        client_id: open.client_id.to_vec(),
        start: moment(open.start_ms),
        length_hint: (open.length_hint != 0).then_some(open.length_hint),
        basis,
        ties: StatedTies {
            bound: open.bound,
            parent: match open.parent.as_str() {
                "" => None,
                id => Some(id.parse().map_err(|_| Problem::invalid("parent", NOT_AN_ID))?),
            },
        },
        facts: stated(open.facts.unwrap_or_default())?,
    })
}

fn word<T: FromStr<Err: std::fmt::Display>>(field: &'static str, text: &str) -> Result<Option<T>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|why: T::Err| Problem::invalid(field, why.to_string()))
}

fn stated_basis(open: &v1::Open) -> Result<StatedBasis, Problem> {
    if open.evidence.len() > MAX_PARTS {
        return Err(Problem::invalid("evidence", format!("at most {MAX_PARTS}")));
    }
    if open.bound.len() > MAX_PARTS {
        return Err(Problem::invalid("bound", format!("at most {MAX_PARTS}")));
    }
    let evidence = open.evidence.iter().map(|it| {
        let how = word("evidence.how", &it.how)?;
        Ok(Evidence {
            party: it.party.clone(),
            how: how.ok_or_else(|| Problem::invalid("evidence.how", NotAHow.to_string()))?,
            at: Timestamp(it.at_ms),
            reference: it.reference.clone(),
        })
    });
    Ok(StatedBasis {
        jurisdiction: word("jurisdiction", &open.jurisdiction)?,
        basis: word("facts.basis", open.facts.as_ref().map_or("", |facts| &facts.basis))?,
        announcement: open.announcement.as_ref().map(|it| Announcement {
            prompt: it.prompt.clone(),
            language: it.language.clone(),
            offset_ms: it.offset_ms,
        }),
        evidence: evidence.collect::<Result<_, Problem>>()?,
    })
}

/// Reads a correction of facts.
pub fn correction(request: v1::CorrectRequest) -> Result<Correction, Problem> {
    let parties = request.parties.map(|it| it.parties);
    let labels = request.labels.map(|it| it.labels);
    if parties.is_none() && labels.is_none() && request.call_id.is_none() && request.purpose.is_none() {
        return Err(Problem::invalid("parties", "say what is to be corrected: parties, call_id, labels or purpose"));
    }
    let of = stated(v1::Facts {
        parties: parties.clone().unwrap_or_default(),
        labels: labels.clone().unwrap_or_default(),
        ..v1::Facts::default()
    })?;
    Ok(Correction {
        parties: parties.map(|_| of.parties),
        labels: labels.map(|_| of.labels),
        call_id: request.call_id.map(|value| text("facts.call_id", value)).transpose()?,
        purpose: request.purpose.map(|value| text("facts.purpose", value)).transpose()?,
    })
}

/// Writes what was stated about the basis of a recording.
pub fn basis(shown: BasisShown) -> v1::GetBasisResponse {
    let evidence = shown.evidence.into_iter().map(|it| v1::Evidence {
        party: it.party,
        how: it.how.word().into(),
        at_ms: it.at.0,
        reference: it.reference,
    });
    v1::GetBasisResponse {
        jurisdiction: shown.jurisdiction.map(|it| it.to_string()).unwrap_or_default(),
        basis: basis_word(shown.footing),
        announcement: shown.announcement.map(|it| v1::Announcement {
            prompt: it.prompt,
            language: it.language,
            offset_ms: it.offset_ms,
        }),
        evidence: evidence.collect(),
    }
}

fn basis_word(footing: Option<Footing>) -> String {
    footing.map_or_else(String::new, |footing| footing.basis().word().to_owned())
}

fn stated(facts: v1::Facts) -> Result<StatedFacts, Problem> {
    if facts.parties.len() > MAX_PARTS {
        return Err(Problem::invalid("facts.parties", format!("at most {MAX_PARTS}")));
    }
    if facts.labels.len() > MAX_PARTS {
        return Err(Problem::invalid("facts.labels", format!("at most {MAX_PARTS}")));
    }
    let parties = facts.parties.into_iter().map(|party| text("facts.parties", party)).collect::<Result<_, _>>()?;
    let labels = facts
        .labels
        .into_iter()
        .map(|(name, value)| Ok((text("facts.labels", name)?, text("facts.labels", value)?)))
        .collect::<Result<_, Problem>>()?;
    Ok(StatedFacts {
        parties,
        labels,
        call_id: text("facts.call_id", facts.call_id)?,
        purpose: text("facts.purpose", facts.purpose)?,
    })
}

/// Reads the last message of a recording.
pub fn finish(finish: &v1::Finish) -> Result<Finish, Problem> {
    let sha256 = match finish.sha256.len() {
        0 => None,
        32 => finish.sha256.as_ref().try_into().ok(),
        _ => return Err(Problem::invalid("sha256", "32 bytes, or none")),
    };
    Ok(Finish { length: finish.length, sha256, end: moment(finish.end_ms) })
}

/// Reads why and when a recording is paused.
pub fn pause(pause: &v1::Pause) -> Result<(PauseReason, Option<Timestamp>), Problem> {
    let reason = PauseReason::from_word(&pause.reason);
    let reason = reason.ok_or_else(|| Problem::invalid("pause.reason", format!("one of {}", PauseReason::words())))?;
    Ok((reason, moment(pause.at_ms)))
}

/// Reads why a recording is thrown away.
pub fn discard(discard: &v1::Discard) -> Result<DiscardReason, Problem> {
    let reason = DiscardReason::from_word(&discard.reason);
    reason.ok_or_else(|| Problem::invalid("discard.reason", format!("one of {}", DiscardReason::words())))
}

/// Writes that a recording is paused.
pub fn paused(paused: Paused) -> v1::Paused {
    v1::Paused { offset: paused.offset, reason: paused.reason.word().into(), since_ms: paused.since.0 }
}

/// Writes a watermark.
pub fn watermark(progress: &Progress) -> v1::Watermark {
    v1::Watermark {
        journaled: progress.journaled,
        stored: progress.stored,
        key: custody(progress.backed_up),
        finish_journaled: progress.finish_journaled,
    }
}

/// Writes where the key lies that `stored` rests on.
fn custody(backed_up: bool) -> i32 {
    if backed_up { v1::KeyCustody::BackedUp.into() } else { v1::KeyCustody::ThisNode.into() }
}

/// Reads the range of a playback.
pub fn play_range(range: Option<v1::play_request::Range>) -> Result<PlayRange, Problem> {
    use v1::play_request::Range;
    Ok(match range {
        None => PlayRange::Bytes { start: 0, end: None },
        Some(Range::Bytes(range)) => {
            let end = (range.end != 0).then_some(range.end);
            if end.is_some_and(|end| end < range.start) {
                return Err(Problem::invalid("range", "the end must not lie before the start"));
            }
            PlayRange::Bytes { start: range.start, end }
        }
        Some(Range::Time(range)) => {
            let to = (range.to_seconds != 0.0).then_some(range.to_seconds);
            let sound = |seconds: f64| seconds.is_finite() && seconds >= 0.0;
            if !sound(range.from_seconds) || !to.is_none_or(|to| sound(to) && to >= range.from_seconds) {
                return Err(Problem::invalid("range", "seconds from 0 on, the end not before the start"));
            }
            PlayRange::Time { from: range.from_seconds, to }
        }
    })
}

/// Writes what a playback will deliver.
pub fn play_info(info: &PlayInfo) -> v1::PlayInfo {
    v1::PlayInfo {
        media_type: info.media_type.clone(),
        total_length: info.total_length,
        length: info.length,
        start: info.start,
        complete: info.complete,
        gaps: info.gaps.iter().map(gap).collect(),
    }
}

fn gap(gap: &Gap) -> v1::Gap {
    v1::Gap { offset: gap.offset, seconds: gap.seconds, length_ms: gap.length_ms, reason: gap.reason.word().into() }
}

/// Writes a recording.
pub fn recording(recording: Recording) -> v1::Recording {
    v1::Recording {
        id: recording.id.to_string(),
        tenant: recording.tenant,
        subscriber: recording.subscriber,
        facts: recording.facts.map(|facts| recording_facts(facts, recording.footing)),
        audio_present: recording.audio_present,
        jurisdiction: recording.jurisdiction.map(|it| it.to_string()).unwrap_or_default(),
        basis: basis_word(recording.footing),
        consent_withdrawn: recording.footing == Some(Footing::Withdrawn),
    }
}

fn recording_facts(facts: Facts, footing: Option<Footing>) -> v1::RecordingFacts {
    v1::RecordingFacts {
        kind: kind(facts.kind).into(),
        stated: Some(v1::Facts {
            parties: facts.stated.parties,
            call_id: facts.stated.call_id,
            labels: facts.stated.labels.into_iter().collect(),
            purpose: facts.stated.purpose,
            basis: basis_word(footing),
        }),
        start_ms: facts.start.0,
        end_ms: facts.end.map_or(0, |end| end.0),
        length: facts.length,
        duration_seconds: facts.duration_seconds,
        state: match facts.state {
            State::Open => v1::State::Open,
            State::Partial => v1::State::Partial,
            State::Complete => v1::State::Complete,
        }
        .into(),
        mismatch: facts.mismatch,
        paused_seconds: facts.paused_seconds,
    }
}

fn kind(kind: Kind) -> v1::Kind {
    match kind {
        Kind::Call => v1::Kind::Call,
        Kind::Voicemail => v1::Kind::Voicemail,
        Kind::Transcript => v1::Kind::Transcript,
        Kind::Video => v1::Kind::Video,
        Kind::Message => v1::Kind::Message,
        Kind::Media => v1::Kind::Media,
        Kind::Connection => v1::Kind::Connection,
    }
}

/// Reads what to erase. A tenant must be named twice.
pub fn target(request: v1::EraseRequest) -> Result<Target, Problem> {
    use v1::erase_request::Scope;
    Ok(match request.scope {
        None => return Err(Problem::invalid("scope", "say what to erase")),
        Some(Scope::Recording(scope)) => {
            let part = match v1::Part::try_from(scope.part) {
                Ok(v1::Part::Unspecified) => Part::Both,
                Ok(v1::Part::Audio) => Part::Audio,
                Ok(v1::Part::Facts) => Part::Facts,
                // A part that this gateway does not know must not be read as everything.
                Err(_) => return Err(Problem::invalid("part", "audio, facts, or unspecified for both")),
            };
            Target::Recording(recording_id(&scope.id)?, part)
        }
        Some(Scope::Subscriber(scope)) => Target::Subscriber {
            block: match v1::Future::try_from(scope.future) {
                Ok(v1::Future::Continue) => false,
                Ok(v1::Future::Block) => true,
                Err(_) => return Err(Problem::invalid("future", "continue or block")),
            },
            tenant: scope.tenant,
            subscriber: scope.subscriber,
        },
        Some(Scope::Tenant(scope)) if scope.confirm == scope.tenant => Target::Tenant { tenant: scope.tenant },
        Some(Scope::Tenant(_)) => return Err(Problem::invalid("confirm", "repeat the tenant's name")),
    })
}

/// Writes what an erasure would meet.
pub fn preview(preview: vault::Preview) -> v1::EraseResponse {
    v1::EraseResponse {
        outcome: v1::Outcome::DryRun.into(),
        waits_for: preview.waits_for.clone(),
        copies_that_left: "not recorded by this version".into(),
        standing: Some(standing(preview)),
        ..v1::EraseResponse::default()
    }
}

/// Writes what lies in a scope and what stands there.
pub fn standing(preview: vault::Preview) -> v1::Standing {
    v1::Standing {
        recordings: preview.recordings,
        with_audio: preview.audio,
        with_facts: preview.facts,
        restricted: preview.restricted,
        bound: preview.bound,
        holds: preview
            .holds
            .into_iter()
            .map(|(id, ground, review, recordings)| v1::StandingHold {
                id: id.to_string(),
                ground,
                review_ms: review.0,
                recordings,
            })
            .collect(),
        floors: preview
            .floors
            .into_iter()
            .map(|(ground, until, recordings)| v1::StandingFloor { ground, until_ms: until.0, recordings })
            .collect(),
    }
}

/// Reads a new tenant.
pub fn new_tenant(request: v1::CreateTenantRequest) -> Result<NewTenant, Problem> {
    let residency = match request.residency() {
        v1::Residency::HomeOnly => Residency::HomeOnly,
        v1::Residency::Both => Residency::Both,
        v1::Residency::Unspecified => return Err(Problem::invalid("residency", "say home-only or both")),
    };
    let policy = PolicySource { policy: request.policy, keep: (!request.keep.is_empty()).then_some(request.keep) };
    Ok(NewTenant { residency, name: request.name, home: request.home, policy })
}

/// Writes a tenant.
pub fn tenant(tenant: Tenant) -> v1::Tenant {
    v1::Tenant {
        name: tenant.name,
        home: tenant.home,
        residency: match tenant.residency {
            Residency::HomeOnly => v1::Residency::HomeOnly,
            Residency::Both => v1::Residency::Both,
        }
        .into(),
        policy: tenant.policy,
        created_ms: tenant.created.0,
        subscribers: tenant.subscribers,
        state: match tenant.state {
            TenantState::Open => v1::TenantState::Open,
            TenantState::Closed { .. } => v1::TenantState::Closed,
            TenantState::Purging { .. } => v1::TenantState::Purging,
        }
        .into(),
        closed_ms: match tenant.state {
            TenantState::Open => 0,
            TenantState::Closed { at } | TenantState::Purging { at } => at.0,
        },
        restricted: tenant.restricted,
        transition: tenant.transition.map(transition),
    }
}

fn transition(waits: vault::Transition) -> v1::Transition {
    v1::Transition {
        action: match waits.action {
            vault::TransitionAction::Close => v1::transition::Action::Close,
            vault::TransitionAction::Purge => v1::transition::Action::Purge,
            vault::TransitionAction::SetPolicy => v1::transition::Action::SetPolicy,
        }
        .into(),
        asked_by: waits.asked_by,
        asked_ms: waits.asked.0,
        approved_by: waits.approved_by.unwrap_or_default(),
        runs_ms: waits.runs.map_or(0, |runs| runs.0),
        receipt_id: waits.receipt.map_or_else(String::new, |id| id.to_string()),
    }
}

/// Writes a sum over tenants that are gone.
pub fn anonymous_row(row: vault::AnonymousRow) -> v1::AnonymousRow {
    v1::AnonymousRow {
        month: format!("{:04}-{:02}", row.month / 100, row.month % 100),
        kind: kind_word(row.kind).into(),
        region: row.region,
        tenants: row.tenants,
        recordings: row.recordings,
        seconds: row.seconds,
        bytes: row.bytes,
    }
}

/// Writes a row of the statistics.
pub fn statistics_row(row: StatisticsRow) -> v1::StatisticsRow {
    v1::StatisticsRow {
        day: row.day.to_string(),
        kind: kind_word(row.kind).into(),
        region: row.region,
        recordings: row.recordings,
        seconds: row.seconds,
        bytes: row.bytes,
    }
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Call => "call",
        Kind::Voicemail => "voicemail",
        Kind::Transcript => "transcript",
        Kind::Video => "video",
        Kind::Message => "message",
        Kind::Media => "media",
        Kind::Connection => "connection",
    }
}

/// Writes what waits.
pub fn status(status: Status) -> v1::Status {
    let slots = status.slots.slots.iter().map(|slot| v1::SlotStatus {
        number: slot.number.unwrap_or(0).into(),
        matches: slot.matches(),
        state: slot.brief(),
        forgets: slot.forgets.map_or_else(String::new, |forgets| forgets.to_string()),
        short: slot.is_short(),
    });
    let ms = |moment: Option<Timestamp>| moment.map_or(0, |moment| moment.0);
    v1::Status {
        sweeps_pending: status.sweeps_pending,
        replications_pending: status.replications_pending,
        recordings_open: status.recordings_open,
        journal_bytes: status.journal_bytes,
        journal_limit_bytes: status.journal_limit_bytes,
        generation: status.generation,
        slot_forgets: status.slot_forgets,
        holds: status.holds,
        holds_overdue: status.holds_overdue,
        parked: status.parked,
        transitions: status.transitions,
        expired: status.expiry.expired,
        expired_late: status.expiry.expired_late,
        retention_late_recordings: status.expiry.late_recordings,
        retention_late_seconds: status.expiry.late_seconds,
        clock_disagrees: status.expiry.clock_disagrees,
        failing_tenants: status.expiry.failing_tenants,
        receipts_overdue: status.receipts_overdue,
        backup: status.backup.is_some(),
        backup_behind: status.backup.map_or(0, |backup| backup.behind),
        backup_away: status.backup.is_some_and(|backup| backup.away),
        erasures_sealed: status.erasures_sealed,
        slot_threshold: status.slots.k.into(),
        slot_losses_survivable: status.slots.losses_survivable as u32,
        slots: slots.collect(),
        slots_sharing: status.slots.of as u32,
        destroyed_before: status.slots.destroyed_before,
        backup_behind_since_ms: ms(status.backup.and_then(|backup| backup.behind_since)),
        backup_base_ms: ms(status.backup.and_then(|backup| backup.base)),
        erasures_waiting_since_ms: ms(status.erasures_waiting_since),
    }
}

/// Writes the last message of a recording.
pub fn finished(id: &str, finished: vault::Finished) -> v1::Finished {
    v1::Finished {
        recording_id: id.into(),
        length: finished.length,
        state: v1::State::Complete.into(),
        key: custody(finished.backed_up),
        mismatch: finished.mismatch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reason::Reason;

    fn valid_open() -> v1::Open {
        v1::Open {
            tenant: "acme".into(),
            subscriber: "+441".into(),
            kind: v1::Kind::Call.into(),
            mode: v1::Mode::Live.into(),
            media_type: "audio/wav".into(),
            client_id: vec![7; 16].into(),
            ..Default::default()
        }
    }

    fn field_of<T>(result: Result<T, Problem>) -> Option<&'static str> {
        result.err().filter(|problem| problem.reason == Reason::Invalid).and_then(|problem| problem.field)
    }

    #[test]
    fn zero_means_now_and_unknown() {
        let read = open(valid_open()).expect("valid");
        assert!(read.start.is_none() && read.length_hint.is_none());
        let read = open(v1::Open { start_ms: -5, length_hint: 9, ..valid_open() }).expect("valid");
        assert_eq!((read.start, read.length_hint), (Some(Timestamp(-5)), Some(9)));
    }

    #[test]
    fn a_kind_or_mode_from_the_future_is_refused_not_guessed() {
        assert_eq!(field_of(open(v1::Open { kind: 99, ..valid_open() })), Some("kind"));
        assert_eq!(field_of(open(v1::Open { mode: 99, ..valid_open() })), Some("mode"));
    }

    #[test]
    fn reasons_are_words_of_a_list() {
        let paused = |reason: &str| pause(&v1::Pause { reason: reason.into(), at_ms: 0 });
        assert_eq!(paused("payment-card"), Ok((PauseReason::PaymentCard, None)));
        assert_eq!(paused("").map(|(reason, _)| reason), Ok(PauseReason::Other));
        assert_eq!(field_of(paused("her card")), Some("pause.reason"));
        let discarded = |reason: &str| discard(&v1::Discard { reason: reason.into() });
        assert_eq!(discarded("no-consent"), Ok(DiscardReason::NoConsent));
        let wrong = discarded("Mrs X rang").expect_err("no word of the list");
        assert!(wrong.message.contains("no-consent") && !wrong.message.contains("Mrs"), "{}", wrong.message);
    }

    #[test]
    fn facts_are_bounded_part_by_part() {
        let with = |facts| open(v1::Open { facts: Some(facts), ..valid_open() });
        let many = v1::Facts { parties: vec![String::new(); 65], ..Default::default() };
        assert_eq!(field_of(with(many)), Some("facts.parties"));
        let long = v1::Facts { call_id: "x".repeat(4097), ..Default::default() };
        assert_eq!(field_of(with(long)), Some("facts.call_id"));
    }

    #[test]
    fn a_digest_has_32_bytes_or_none() {
        let with = |bytes: usize| finish(&v1::Finish { length: 1, sha256: vec![1; bytes].into(), end_ms: 0 });
        assert_eq!(with(0).expect("none").sha256, None);
        assert_eq!(with(32).expect("one").sha256, Some([1; 32]));
        assert_eq!(field_of(with(31)), Some("sha256"));
    }

    #[test]
    fn a_part_from_the_future_is_not_read_as_everything() {
        let id = "0".repeat(52);
        let scope = v1::erase_request::Scope::Recording(v1::EraseRecording { id, part: 99 });
        assert_eq!(field_of(target(v1::EraseRequest { scope: Some(scope), ..Default::default() })), Some("part"));
    }

    #[test]
    fn a_tenant_must_be_named_twice() {
        let ask = |confirm: &str| {
            let scope = v1::EraseTenant { tenant: "acme".into(), confirm: confirm.into() };
            target(v1::EraseRequest { scope: Some(v1::erase_request::Scope::Tenant(scope)), ..Default::default() })
        };
        assert_eq!(field_of(ask("")), Some("confirm"));
        assert!(ask("acme").is_ok());
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        use v1::play_request::Range;
        let bytes = |start, end| play_range(Some(Range::Bytes(v1::ByteRange { start, end })));
        let time = |from_seconds, to_seconds| play_range(Some(Range::Time(v1::TimeRange { from_seconds, to_seconds })));
        assert_eq!(bytes(5, 0), Ok(PlayRange::Bytes { start: 5, end: None }));
        assert_eq!(field_of(bytes(5, 4)), Some("range"));
        assert_eq!(time(1.0, 0.0), Ok(PlayRange::Time { from: 1.0, to: None }));
        for (from, to) in [(-1.0, 0.0), (f64::NAN, 0.0), (0.0, f64::INFINITY), (2.0, 1.0)] {
            assert_eq!(field_of(time(from, to)), Some("range"), "{from} {to}");
        }
    }
}
