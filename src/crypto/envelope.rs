//! The envelope: one self-describing sealed value. Pages, appended entries and values are kept in it.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic "QTEV"
//!      4      1  format version, 1
//!      5      1  kind (see Kind)
//!      6      2  zero
//!      8      4  clear length C, big-endian
//!     12      4  sealed length S, tag included, big-endian
//!     16     32  salt of the sealing epoch
//!     48      C  clear part: what the sweeper needs when the key is gone
//!   48+C      S  sealed part: AES-256-GCM, nonce 0
//! ```
//!
//! Key = HKDF(secret, "quietus/1 envelope" ‖ 0 ‖ header bytes 0..48). Associated data = header ‖ clear. One envelope
//! is one epoch, so its nonce is zero. The clear part starts with the name of the row it belongs in, and a reader checks
//! that. Reading a file for envelopes needs no index: that is what lets the forensics tool find old versions in logs and
//! tables.

use super::{
    epoch::{FreshSalt, NONCE_LEN, OpenFailed, OpeningKey, TAG_LEN},
    label::Label,
    secret::Secret,
    stack,
};
use zeroize::Zeroizing;

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"QTEV";
/// Bytes before the clear part.
pub const HEADER_LEN: usize = 48;
/// Bound on each part: far above any page, far below what could exhaust memory.
pub const MAX_PART: usize = 16 << 20;

/// What an envelope holds, and so under which secret it is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The top page, under the root.
    Top = 1,
    /// Any other page, under its page key, which lies in its parent.
    Page = 2,
    /// An entry appended to a page, under the same page key.
    Append = 3,
    /// Facts of a recording, under its `facts` secret.
    Facts = 4,
    /// Audio row of a recording, under its `audio` secret.
    Audio = 5,
    /// One slice's row, under the `audio` secret.
    Slice = 6,
    /// A tenant's settings, under its stable secret.
    TenantSettings = 8,
    /// Who a client id became, under a secret derived from the period key and the client id.
    Client = 9,
    /// A recording that takes audio, under the client-id period key.
    Open = 10,
    /// Counters of an open day, under the counter period key.
    OpenCounters = 11,
    /// Counters of a closed day, under the tenant's stable secret.
    ClosedCounters = 12,
    /// A tenant's policy, under its stable secret.
    TenantPolicy = 13,
    /// An API key of a tenant, salted and hashed, under its stable secret.
    ApiKey = 14,
    /// A switch that may record for a tenant, under its stable secret.
    Switch = 15,
    /// What state a subscriber is in, under its stable secret.
    SubscriberState = 16,
    /// A permission to listen, under the secret of what it is scoped to.
    Permission = 17,
    /// An erasure that waits, under the secret of what it is about, or of the hold that it waits for.
    Parked = 18,
    /// A hold, under a period secret of its own.
    Hold = 19,
    /// An item of a tenant's inbox, under the secret of an inbox period.
    InboxItem = 20,
    /// Sums that are not anonymous yet, under the secret of a cell period.
    Cell = 21,
    /// Sums that are, under the stable secret of the group's tenant.
    PublishedCell = 22,
    /// Where the audit log speaks of something, under that thing's secret.
    LogRef = 23,
    /// Who acted, when and under which grant: inside a leaf of the audit log, under an evidence period.
    AuditEvidence = 24,
    /// What it was done to: inside a leaf of the audit log, under that thing's secret.
    AuditSubject = 25,
    /// Why a call may be recorded, under the `audio` secret.
    Basis = 26,
    /// Where a recording was paused, under the `audio` secret.
    Timeline = 27,
    /// A change of a tenant's state that waits, under its stable secret.
    Transition = 28,
    /// A leaf's secret inside a page, under what follows from the secrets of everybody it is bound to.
    Wrapped = 29,
    /// The name of an erased subscriber is refused, under the tenant's stable secret.
    Block = 30,
    /// Where a tenant is told of its inbox, under its stable secret.
    Webhook = 31,
    /// A share of a root for a slot that was away, under what follows from an older share of that slot.
    WaitingShare = 32,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Kind; 31] = [
        Kind::Top,
        Kind::Page,
        Kind::Append,
        Kind::Facts,
        Kind::Audio,
        Kind::Slice,
        Kind::TenantSettings,
        Kind::Client,
        Kind::Open,
        Kind::OpenCounters,
        Kind::ClosedCounters,
        Kind::TenantPolicy,
        Kind::ApiKey,
        Kind::Switch,
        Kind::SubscriberState,
        Kind::Permission,
        Kind::Parked,
        Kind::Hold,
        Kind::InboxItem,
        Kind::Cell,
        Kind::PublishedCell,
        Kind::LogRef,
        Kind::AuditEvidence,
        Kind::AuditSubject,
        Kind::Basis,
        Kind::Timeline,
        Kind::Transition,
        Kind::Wrapped,
        Kind::Block,
        Kind::Webhook,
        Kind::WaitingShare,
    ];

    /// From the byte in a header.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why bytes are not an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than its header or than the header says.
    #[error("the envelope is cut short")]
    Short,
    /// The first bytes are others.
    #[error("these bytes are not an envelope")]
    Magic,
    /// A version or kind that this program does not know, or reserved bytes that are not zero.
    #[error("the envelope's version or kind is unknown")]
    Unknown,
    /// A length above [`MAX_PART`], or bytes behind the end.
    #[error("the envelope's lengths are wrong")]
    Length,
}

/// An envelope's parts, borrowed; nothing has been opened yet.
pub struct Envelope<'a> {
    /// What it holds.
    pub kind: Kind,
    header: &'a [u8],
    /// The clear part.
    pub clear: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Parses one envelope that fills `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (envelope, rest) = Self::parse_prefix(bytes)?;
        if rest.is_empty() { Ok(envelope) } else { Err(Malformed::Length) }
    }

    /// Parses an envelope at the start of `bytes`; gives what follows it.
    pub fn parse_prefix(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let (header, rest) = bytes.split_at_checked(HEADER_LEN).ok_or(Malformed::Short)?;
        if header[..4] != MAGIC {
            return Err(Malformed::Magic);
        }
        let kind = Kind::from_byte(header[5]).ok_or(Malformed::Unknown)?;
        if header[4] != 1 || header[6..8] != [0, 0] {
            return Err(Malformed::Unknown);
        }
        let clear_len = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let sealed_len = u32::from_be_bytes([header[12], header[13], header[14], header[15]]) as usize;
        if clear_len > MAX_PART || !(TAG_LEN..=MAX_PART).contains(&sealed_len) {
            return Err(Malformed::Length);
        }
        let (clear, rest) = rest.split_at_checked(clear_len).ok_or(Malformed::Short)?;
        let (sealed, rest) = rest.split_at_checked(sealed_len).ok_or(Malformed::Short)?;
        Ok((Self { kind, header, clear, sealed }, rest))
    }

    /// Opens the sealed part.
    pub fn open(&self, secret: &Secret) -> Result<Zeroizing<Vec<u8>>, OpenFailed> {
        // Of deriving and of opening at once.
        stack::wiped(|| {
            let key = OpeningKey::derive(secret, Label::Envelope, &[self.header]);
            let mut buffer = Zeroizing::new(self.sealed.to_vec());
            let len = key.open([0; NONCE_LEN], &aad(self.header, self.clear), &mut buffer)?.len();
            buffer.truncate(len);
            Ok(buffer)
        })
    }
}

/// Seals one envelope in an epoch of its own.
///
/// # Panics
/// When a part is over [`MAX_PART`]: callers bound what they seal.
pub fn seal(kind: Kind, secret: &Secret, clear: &[u8], plaintext: &[u8]) -> Vec<u8> {
    assert!(clear.len() <= MAX_PART && plaintext.len() + TAG_LEN <= MAX_PART, "an envelope's part is too large");
    let salt = FreshSalt::draw();
    let mut out = Vec::with_capacity(HEADER_LEN + clear.len() + plaintext.len() + TAG_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[1, kind as u8, 0, 0]);
    out.extend_from_slice(&(clear.len() as u32).to_be_bytes());
    out.extend_from_slice(&((plaintext.len() + TAG_LEN) as u32).to_be_bytes());
    out.extend_from_slice(salt.bytes());
    let aad = aad(&out, clear);
    out.extend_from_slice(clear);
    out.extend_from_slice(plaintext);
    let body = out.len() - plaintext.len();
    // Of deriving and of sealing at once.
    let tag = stack::wiped(|| {
        let key = salt.sealing_key(secret, Label::Envelope, &[&out[..HEADER_LEN]]);
        key.seal([0; NONCE_LEN], &aad, &mut out[body..])
    });
    out.extend_from_slice(&tag);
    out
}

fn aad(header: &[u8], clear: &[u8]) -> Vec<u8> {
    [header, clear].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(bytes: &[u8], secret: &Secret) -> Result<Vec<u8>, OpenFailed> {
        Envelope::parse(bytes).expect("parses").open(secret).map(|plain| plain.to_vec())
    }

    #[test]
    fn what_is_sealed_opens_under_the_same_secret_only() {
        let secret = Secret::random();
        let bytes = seal(Kind::Facts, &secret, b"clear", b"plain");
        assert_eq!(opened(&bytes, &secret), Ok(b"plain".to_vec()));
        assert_eq!(opened(&bytes, &Secret::random()), Err(OpenFailed));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let secret = Secret::random();
        let bytes = seal(Kind::Page, &secret, b"clear", b"plain");
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            if let Ok(envelope) = Envelope::parse(&broken) {
                assert!(envelope.open(&secret).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn two_seals_of_the_same_never_look_alike() {
        let secret = Secret::random();
        let (a, b) = (seal(Kind::Page, &secret, b"", b"x"), seal(Kind::Page, &secret, b"", b"x"));
        assert_ne!(a[16..48], b[16..48]);
        assert_ne!(a[48..], b[48..]);
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Envelope::parse(&bytes);
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend(bytes);
            let _ = Envelope::parse_prefix(&with_magic);
        }
    }
}
