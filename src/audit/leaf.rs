//! One leaf of the log: an entry in two sealed parts, or the statement of a receipt in clear.
//!
//! An entry's parts are envelopes whose clear part is a random id, drawn for this part: nothing ties the two but the leaf.
//! *Evidence* says who did what, when, and how it ended, under the tenant's evidence key of the quarter. *Subject* says
//! whom it was about, under the secret of that. Invariant I10 rests on the caller's choice of secrets; what is kept out of
//! the evidence is argued at [`Evidence::actor`].
//!
//! A statement is fit for publication: it names no one (`receipt`).

use super::{Hash, proof};
use crate::{
    crypto::{
        envelope::{self, Envelope, Kind},
        random,
        secret::Secret,
    },
    domain::{
        audit::{Action, Outcome},
        id::{RecordingId, SubscriberHandle},
        time::Timestamp,
    },
    proto::stored,
};
use prost::Message as _;
use std::ops::Range;
use zeroize::Zeroizing;

/// Most bytes in a leaf.
pub const MAX_LEAF: usize = 64 << 10;
/// Bytes in the random id of a part.
const PART_ID: usize = 16;

/// Who did what, and when.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    /// When.
    pub at: Timestamp,
    /// Who: `ROLE/NAME`. Of a subscriber the role alone: the evidence outlives subscribers, so that a name in it would
    /// outlive its erasure; the name follows from the subject part while it can.
    pub actor: String,
    /// For whom, where the one who acted was delegated.
    pub on_behalf_of: Option<String>,
    /// What.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// Random id of the grant or receipt that it refers to.
    pub reference: Option<[u8; 16]>,
    /// A word of a fixed list.
    pub reason: Option<String>,
}

/// About whom.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The subscriber.
    pub subscriber: Option<SubscriberHandle>,
    /// The recording.
    pub recording: Option<RecordingId>,
    /// The subscriber who acted, where it was one.
    pub acting: Option<SubscriberHandle>,
    /// What was heard.
    pub range: Option<Range<u64>>,
    /// Anything else, by name.
    pub details: Vec<(String, String)>,
}

/// A leaf, parsed; nothing has been opened yet.
pub enum Leaf {
    /// An entry.
    Entry(Entry),
    /// The statement of a receipt.
    Statement(String),
}

/// The sealed parts of an entry.
pub struct Entry {
    evidence: Vec<u8>,
    subject: Vec<u8>,
}

/// The bytes are no leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no leaf of the audit log")]
pub struct NotALeaf;

/// A part that does not open: its secret is gone, or was another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this part does not open under this secret")]
pub struct Closed;

/// Seals an entry. Each part is an epoch of its own.
pub fn seal(evidence: (&Evidence, &Secret), subject: (&Subject, &Secret)) -> Vec<u8> {
    let part = |kind, plain: Vec<u8>, secret: &Secret| {
        envelope::seal(kind, secret, &random::<PART_ID>(), &Zeroizing::new(plain))
    };
    stored::AuditLeaf {
        evidence: part(Kind::AuditEvidence, evidence.0.to_stored().encode_to_vec(), evidence.1),
        subject: part(Kind::AuditSubject, subject.0.to_stored().encode_to_vec(), subject.1),
        statement: String::new(),
    }
    .encode_to_vec()
}

/// The leaf of a receipt.
pub fn statement(text: &str) -> Vec<u8> {
    stored::AuditLeaf { statement: text.to_owned(), ..stored::AuditLeaf::default() }.encode_to_vec()
}

/// The leaf hash of RFC 6962.
pub fn hash(leaf: &[u8]) -> Hash {
    proof::leaf_hash(leaf)
}

impl Leaf {
    /// Reads the bytes of a leaf.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotALeaf> {
        if bytes.len() > MAX_LEAF {
            return Err(NotALeaf);
        }
        let leaf = stored::AuditLeaf::decode(bytes).map_err(|_| NotALeaf)?;
        if !leaf.statement.is_empty() {
            let alone = leaf.evidence.is_empty() && leaf.subject.is_empty();
            return if alone { Ok(Leaf::Statement(leaf.statement)) } else { Err(NotALeaf) };
        }
        for (part, kind) in [(&leaf.evidence, Kind::AuditEvidence), (&leaf.subject, Kind::AuditSubject)] {
            let envelope = Envelope::parse(part).map_err(|_| NotALeaf)?;
            if envelope.kind != kind || envelope.clear.len() != PART_ID {
                return Err(NotALeaf);
            }
        }
        Ok(Leaf::Entry(Entry { evidence: leaf.evidence, subject: leaf.subject }))
    }
}

impl Entry {
    /// Opens the evidence.
    pub fn evidence(&self, secret: &Secret) -> Result<Evidence, Closed> {
        Evidence::from_stored(open(&self.evidence, secret)?).ok_or(Closed)
    }

    /// Opens the subject.
    pub fn subject(&self, secret: &Secret) -> Result<Subject, Closed> {
        Subject::from_stored(open(&self.subject, secret)?).ok_or(Closed)
    }
}

fn open<M: prost::Message + Default>(part: &[u8], secret: &Secret) -> Result<M, Closed> {
    let plain = Envelope::parse(part).map_err(|_| Closed)?.open(secret).map_err(|_| Closed)?;
    M::decode(plain.as_slice()).map_err(|_| Closed)
}

impl Evidence {
    fn to_stored(&self) -> stored::AuditEvidence {
        stored::AuditEvidence {
            at_ms: self.at.0,
            actor: self.actor.clone(),
            on_behalf_of: self.on_behalf_of.clone().unwrap_or_default(),
            action: self.action.number(),
            outcome: self.outcome.number(),
            reference: self.reference.map(|id| id.to_vec()).unwrap_or_default(),
            reason: self.reason.clone().unwrap_or_default(),
        }
    }

    fn from_stored(stored: stored::AuditEvidence) -> Option<Self> {
        Some(Self {
            at: Timestamp(stored.at_ms),
            actor: stored.actor,
            on_behalf_of: (!stored.on_behalf_of.is_empty()).then_some(stored.on_behalf_of),
            action: Action::from_number(stored.action)?,
            outcome: Outcome::from_number(stored.outcome)?,
            reference: match stored.reference.as_slice() {
                [] => None,
                bytes => Some(bytes.try_into().ok()?),
            },
            reason: (!stored.reason.is_empty()).then_some(stored.reason),
        })
    }
}

impl Subject {
    fn to_stored(&self) -> stored::AuditSubject {
        let handle = |handle: Option<SubscriberHandle>| handle.map(|handle| handle.0.to_vec()).unwrap_or_default();
        let range = self.range.clone().unwrap_or_default();
        stored::AuditSubject {
            subscriber: handle(self.subscriber),
            recording_id: self.recording.map(|id| id.to_bytes().to_vec()).unwrap_or_default(),
            acting_subscriber: handle(self.acting),
            start: range.start,
            end: range.end,
            details: self
                .details
                .iter()
                .map(|(name, value)| stored::AuditDetail { name: name.clone(), value: value.clone() })
                .collect(),
        }
    }

    fn from_stored(stored: stored::AuditSubject) -> Option<Self> {
        let handle = |bytes: &[u8]| match bytes {
            [] => Some(None),
            bytes => SubscriberHandle::from_slice(bytes).map(Some),
        };
        Some(Self {
            subscriber: handle(&stored.subscriber)?,
            recording: match stored.recording_id.as_slice() {
                [] => None,
                bytes => Some(RecordingId::from_bytes(bytes)?),
            },
            acting: handle(&stored.acting_subscriber)?,
            range: (stored.end > stored.start).then_some(stored.start..stored.end),
            details: stored.details.into_iter().map(|detail| (detail.name, detail.value)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        Evidence {
            at: Timestamp(1_790_000_000_000),
            actor: "staff/sam".into(),
            on_behalf_of: Some("admin/anna".into()),
            action: Action::Play,
            outcome: Outcome::Done,
            reference: Some([7; 16]),
            reason: None,
        }
    }

    fn subject() -> Subject {
        Subject {
            subscriber: Some(SubscriberHandle([1; 8])),
            recording: RecordingId::from_bytes(&[2; 32]),
            acting: None,
            range: Some(3..9),
            details: vec![("transport".into(), "h3".into())],
        }
    }

    #[test]
    fn each_part_opens_under_its_own_secret_only() {
        let (under, about) = (Secret::random(), Secret::random());
        let bytes = seal((&evidence(), &under), (&subject(), &about));
        let Ok(Leaf::Entry(entry)) = Leaf::parse(&bytes) else { panic!("an entry") };
        assert!(entry.evidence(&under) == Ok(evidence()) && entry.subject(&about) == Ok(subject()));
        assert!(entry.evidence(&about).is_err() && entry.subject(&under).is_err());
    }

    #[test]
    fn nothing_in_clear_is_the_same_in_two_entries() {
        let (under, about) = (Secret::random(), Secret::random());
        let seal = || {
            let bytes = seal((&evidence(), &under), (&subject(), &about));
            stored::AuditLeaf::decode(bytes.as_slice()).expect("decodes")
        };
        let (one, two) = (seal(), seal());
        let clear = |part: &[u8]| Envelope::parse(part).expect("an envelope").clear.to_vec();
        let ids = [&one.evidence, &one.subject, &two.evidence, &two.subject].map(|part| clear(part));
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn a_statement_and_sealed_parts_are_never_in_one_leaf() {
        let text = "quietus receipt 1\n";
        assert!(matches!(Leaf::parse(&statement(text)), Ok(Leaf::Statement(read)) if read == text));
        let secret = Secret::random();
        let mut both = seal((&evidence(), &secret), (&subject(), &secret));
        both.extend(statement(text));
        assert!(Leaf::parse(&both).is_err());
        assert!(Leaf::parse(&[]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn hostile_leaves_never_panic(bytes: Vec<u8>, part: Vec<u8>) {
            let secret = Secret::random();
            let wrapped = stored::AuditLeaf { evidence: part.clone(), subject: part.clone(), statement: String::new() };
            // Sealed as they should be, with a plaintext that is none.
            let seal = |kind| envelope::seal(kind, &secret, &[0; PART_ID], &part);
            let sealed = stored::AuditLeaf {
                evidence: seal(Kind::AuditEvidence),
                subject: seal(Kind::AuditSubject),
                statement: String::new(),
            };
            for bytes in [bytes, wrapped.encode_to_vec(), sealed.encode_to_vec()] {
                if let Ok(Leaf::Entry(entry)) = Leaf::parse(&bytes) {
                    let _ = (entry.evidence(&secret), entry.subject(&secret));
                }
            }
        }
    }
}
