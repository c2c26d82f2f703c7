//! Erasures, receipts and audit entries on the wire.

use super::{moment, recording_id};
use crate::{
    domain::id::ReceiptId,
    proto::v1,
    transport::error::Problem,
    vault::{AuditEntry, Erasure, Receipt, SubjectView, TailOf},
};
use data_encoding::HEXLOWER;

/// Entries or receipts in an answer that asks for no number.
const DEFAULT_LIMIT: usize = 100;

/// Reads how many are wanted; the vault bounds it.
pub fn limit(limit: u32) -> usize {
    if limit == 0 { DEFAULT_LIMIT } else { limit as usize }
}

/// Reads an opening; none where the client drew none.
pub fn opening(bytes: &[u8]) -> Result<Option<[u8; 32]>, Problem> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let drawn = bytes.try_into().map_err(|_| Problem::invalid("scope_opening", "send 32 random bytes, or none"))?;
    Ok(Some(drawn))
}

/// Reads the id of a receipt.
pub fn receipt_id(field: &'static str, text: &str) -> Result<ReceiptId, Problem> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok();
    let id = bytes.as_deref().and_then(ReceiptId::from_slice);
    id.ok_or_else(|| Problem::invalid(field, "a receipt id has 32 hexadecimal digits"))
}

/// Writes what an erasure did. The opening goes back only where it is not the one that was sent.
pub fn erasure(erasure: Erasure, sent: Option<[u8; 32]>) -> v1::EraseResponse {
    v1::EraseResponse {
        outcome: match (erasure.sealed, erasure.destroyed) {
            (true, _) => v1::Outcome::Sealed,
            (false, true) => v1::Outcome::Erased,
            (false, false) => v1::Outcome::AlreadyErased,
        }
        .into(),
        generation_from: erasure.generation_from,
        generation_to: erasure.generation_to,
        slot_forgets: erasure.slot_forgets,
        receipt_id: erasure.receipt.to_string(),
        receipt: erasure.receipt_file,
        scope_opening: match sent == Some(erasure.opening) {
            true => bytes::Bytes::new(),
            false => erasure.opening.to_vec().into(),
        },
        scope: erasure.scope,
        ..v1::EraseResponse::default()
    }
}

/// Writes a receipt.
pub fn receipt(receipt: Receipt) -> v1::Receipt {
    let state = match (receipt.stated, receipt.gone_by) {
        (false, _) => v1::ReceiptState::Sealed,
        (true, Some(_)) => v1::ReceiptState::Stated,
        (true, None) => v1::ReceiptState::Swept,
    };
    let id = |id: Option<ReceiptId>| id.map(|id| id.to_string()).unwrap_or_default();
    v1::Receipt {
        id: receipt.id.to_string(),
        state: state.into(),
        text: receipt.text.unwrap_or_default(),
        swept_by: id(receipt.swept_by),
        follows: id(receipt.follows),
        gone_by_ms: receipt.gone_by.map_or(0, |at| at.0),
        overdue: receipt.overdue,
        requested_ms: receipt.requested.0,
    }
}

/// Reads whose entries are asked for.
pub fn tail_of(request: v1::TailRequest) -> Result<TailOf, Problem> {
    let v1::TailRequest { tenant, subscriber, recording_id: id, .. } = request;
    match (tenant.is_empty(), subscriber.is_empty(), id.is_empty()) {
        (true, true, true) => Ok(TailOf::Group),
        (false, true, true) => Ok(TailOf::Tenant(tenant)),
        (false, false, true) => Ok(TailOf::Subscriber { tenant, subscriber }),
        (true, true, false) => Ok(TailOf::Recording(recording_id(&id)?)),
        (true, false, true) => Err(Problem::invalid("tenant", "name the subscriber's tenant")),
        (_, _, false) => Err(Problem::invalid("recording_id", "a recording names its tenant and subscriber itself")),
    }
}

/// Writes an entry.
pub fn audit_entry(entry: AuditEntry) -> v1::AuditEntry {
    let (state, subject) = match entry.subject {
        SubjectView::Erased => (v1::SubjectState::Erased, None),
        SubjectView::Sealed => (v1::SubjectState::Sealed, None),
        SubjectView::Open { subscriber, recording, acting, range, details } => {
            let range = range.unwrap_or_default();
            let subject = v1::AuditedSubject {
                subscriber: subscriber.unwrap_or_default(),
                recording_id: recording.map(|id| id.to_string()).unwrap_or_default(),
                acting_subscriber: acting.unwrap_or_default(),
                start: range.start,
                end: range.end,
                details: details.into_iter().collect(),
            };
            (v1::SubjectState::Open, Some(subject))
        }
    };
    v1::AuditEntry {
        index: entry.index,
        leaf: entry.leaf.into(),
        at_ms: moment(entry.at.0).map_or(0, |at| at.0),
        actor: entry.actor,
        on_behalf_of: entry.on_behalf_of.unwrap_or_default(),
        action: entry.action.word().to_owned(),
        outcome: entry.outcome.word().to_owned(),
        reference: entry.reference.map(|id| HEXLOWER.encode(&id)).unwrap_or_default(),
        reason: entry.reason.unwrap_or_default(),
        subject_state: state.into(),
        subject,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_has_32_bytes_or_is_left_out() {
        assert_eq!(opening(&[]).ok(), Some(None));
        assert_eq!(opening(&[7; 32]).ok(), Some(Some([7; 32])));
        assert_eq!(opening(&[7; 31]).err().and_then(|problem| problem.field), Some("scope_opening"));
    }

    #[test]
    fn whose_entries_are_asked_for_is_said_in_one_way() {
        let ask = |tenant: &str, subscriber: &str, id: &str| {
            tail_of(v1::TailRequest {
                tenant: tenant.into(),
                subscriber: subscriber.into(),
                recording_id: id.into(),
                after: None,
                limit: 0,
            })
        };
        let id = "0".repeat(52);
        assert!(matches!(ask("", "", ""), Ok(TailOf::Group)));
        assert!(matches!(ask("acme", "", ""), Ok(TailOf::Tenant(_))));
        assert!(matches!(ask("acme", "a", ""), Ok(TailOf::Subscriber { .. })));
        assert!(matches!(ask("", "", &id), Ok(TailOf::Recording(_))));
        assert!(ask("", "a", "").is_err() && ask("acme", "", &id).is_err() && ask("", "", "x").is_err());
    }

    proptest::proptest! {
        #[test]
        fn hostile_ids_never_panic(text: String, bytes: Vec<u8>) {
            let _ = receipt_id("id", &text);
            let _ = opening(&bytes);
        }
    }
}
