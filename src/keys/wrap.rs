//! Leaves of a recording that several subscribers are bound to: each of them holds a part of what opens it.
//!
//! The secrets of both leaves lie in the owner's page, each in an envelope under
//! `derive(stable secrets of owner and parties in ascending order of handle, "quietus/1 parties", row id)`. That key is
//! never written anywhere. So whoever wants such a leaf needs a version of the owner's page with the envelope *and* the
//! stable secret of everybody who is bound.
//!
//! # Why erasing any one of them erases the recording (I9, I10), by cases
//! Let R be a recording of owner O, bound to the parties P1 … Pn, wrapped.
//! - *A party Pi is erased.* Its stable secret lay in entries of its tenant's pages alone. The erasure rotates every page on
//!   the path of Pi, so no key that lives opens any version that held the entry (the argument in [`super`]). The key of
//!   R's envelopes cannot be derived without it; that O's page, and the envelopes in it, still open does not help. The cost is
//!   that of Pi's own path: O's page is not touched.
//! - *O is erased, or R is.* Their path rotates: no live key opens any version of the page with the envelopes, though every
//!   stable secret may still be there.
//! - *R is bound later, or to others.* Versions of O's page held the secrets plain, or wrapped for fewer or others. The change
//!   erases the entry as it was: O's path rotates, and the new entry holds the same secrets, wrapped anew. From then on the
//!   cases above hold for every version that still opens.
//! - *R's audio alone is erased.* O's path rotates, and the new entry holds the other envelope only.
//! - *What R's secrets sealed* (slices, rows, journal frames) opens under those secrets alone and falls with them. What was
//!   made from R (its children) is bound as R is, always: the planner sees to it.
//! - *Copies in memory*: the cache holds the envelopes; the key is derived for each reading and wiped.
//!
//! So a wrapped secret is sealed, at any time, under two things of which neither outlives an erasure that concerns it. What
//! is left in O's page is dead: it is dropped when O or R is erased, and reads as erased until then.
//!
//! In each party's subtree there is an entry with R's row and objects and no secret, so that the sweeper, who walks from
//! what fell and has no keys, finds R's ciphertext when a party falls. Removing such an entry takes out no secret; it is no
//! erasure, and the page keeps its key.

use super::{
    ReadError,
    page::Link,
    tree::{self, NoPath, Source},
};
use crate::{
    crypto::{
        envelope::{self, Envelope, Kind},
        epoch::TAG_LEN,
        label::{Label, derive},
        secret::{SECRET_LEN, Secret},
        stack,
    },
    domain::id::{RowId, SubscriberHandle, TenantHandle},
};
use zeroize::Zeroizing;

/// Bytes of the clear part: row id, and which leaf.
const CLEAR: usize = RowId::LEN + 1;
/// Bytes of a wrapped secret.
pub const LEN: usize = envelope::HEADER_LEN + CLEAR + SECRET_LEN + TAG_LEN;

/// A wrapped secret: an envelope.
pub type Wrapped = [u8; LEN];

/// Which leaf a wrapped secret is of: bound into it, so that one cannot stand for the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Part {
    /// The audio.
    Audio = 1,
    /// The facts.
    Facts = 2,
}

/// What wraps the leaves of one recording. Lives for one reading or one change.
pub struct Bond {
    row: RowId,
    secret: Secret,
}

impl Bond {
    /// From the stable secrets of everybody who is bound, the owner included; none when one of them does not live.
    pub fn of(
        source: &impl Source,
        top: &Link,
        tenant: TenantHandle,
        (owner, parties): (SubscriberHandle, &[SubscriberHandle]),
        row: RowId,
    ) -> Result<Option<Self>, ReadError> {
        let mut bound: Vec<_> = parties.iter().copied().chain([owner]).collect();
        bound.sort_unstable();
        // Reserved in full, so that no half-written copy is left behind by a growing buffer.
        let mut secrets = Zeroizing::new(Vec::with_capacity(bound.len() * SECRET_LEN));
        for subscriber in bound {
            let found = tree::subscriber(source, top, tenant, subscriber, &mut NoPath)?;
            let Some(account) = found.as_deref().and_then(tree::account) else { return Ok(None) };
            secrets.extend_from_slice(account.secret.expose());
        }
        let secret = stack::wiped(|| Secret::from_bytes(&derive(&secrets, Label::Parties, &[&row.0])));
        Ok(Some(Self { row, secret }))
    }

    /// Wraps a leaf's secret.
    pub fn wrap(&self, part: Part, secret: &Secret) -> Wrapped {
        let sealed = envelope::seal(Kind::Wrapped, &self.secret, &self.clear(part), secret.expose());
        sealed.try_into().expect("the parts of this envelope have constant lengths")
    }

    /// Unwraps one; none when it was wrapped for others, or is of another leaf.
    pub fn unwrap(&self, part: Part, wrapped: &Wrapped) -> Option<Secret> {
        let envelope = Envelope::parse(wrapped).ok()?;
        if envelope.kind != Kind::Wrapped || envelope.clear != self.clear(part) {
            return None;
        }
        let plain = envelope.open(&self.secret).ok()?;
        plain.as_slice().try_into().ok().map(Secret::from_bytes)
    }

    fn clear(&self, part: Part) -> [u8; CLEAR] {
        let mut clear = [part as u8; CLEAR];
        clear[..RowId::LEN].copy_from_slice(&self.row.0);
        clear
    }
}
