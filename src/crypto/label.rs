//! The one table of key-derivation labels. A label is used for one purpose and never reused for another.

use super::stack;

/// What a derived key is for. The text goes into HKDF's `info`, first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Label {
    /// Envelope key: an envelope of any kind (the kind byte in its header is bound too).
    Envelope,
    /// Slice key: AES-256-GCM over the segments of one slice in S3.
    SliceKey,
    /// Slice commitment: 32 bytes that tell a wrong key before anything is opened.
    SliceCommitment,
    /// Journal frame key of one sealing epoch.
    JournalFrame,
    /// Root id: names a root without telling it.
    RootId,
    /// Masks the subscriber's handle inside a recording id; under the tenant's stable secret.
    RecordingIdMask,
    /// Check of a recording id; under the tenant's stable secret.
    RecordingIdCheck,
    /// Row name of a client id; under a client-id period key.
    ClientRow,
    /// Secret of a client id's row, from the period key and the client id.
    ClientSecret,
    /// Row name of a blocked name; under the tenant's stable secret.
    BlockRow,
    /// Row name of what waits for a hold; under the hold's period key.
    ParkedRow,
    /// What wraps the leaves of a recording that several subscribers are bound to; from the stable secrets of them all.
    Parties,
    /// What opens a share that waits for a slot; from an older share of that slot.
    WaitingShare,
}

impl Label {
    /// Every label, for the docs' table and its test.
    pub const ALL: [Label; 13] = [
        Label::Envelope,
        Label::SliceKey,
        Label::SliceCommitment,
        Label::JournalFrame,
        Label::RootId,
        Label::RecordingIdMask,
        Label::RecordingIdCheck,
        Label::ClientRow,
        Label::ClientSecret,
        Label::BlockRow,
        Label::ParkedRow,
        Label::Parties,
        Label::WaitingShare,
    ];

    /// The bytes that go into HKDF's `info`.
    pub const fn text(self) -> &'static str {
        match self {
            Label::Envelope => "quietus/1 envelope",
            Label::SliceKey => "quietus/1 slice key",
            Label::SliceCommitment => "quietus/1 slice commitment",
            Label::JournalFrame => "quietus/1 journal frame",
            Label::RootId => "quietus/1 root id",
            Label::RecordingIdMask => "quietus/1 recording id mask",
            Label::RecordingIdCheck => "quietus/1 recording id check",
            Label::ClientRow => "quietus/1 client row",
            Label::ClientSecret => "quietus/1 client secret",
            Label::BlockRow => "quietus/1 block row",
            Label::ParkedRow => "quietus/1 parked row",
            Label::Parties => "quietus/1 parties",
            Label::WaitingShare => "quietus/1 waiting share",
        }
    }
}

/// `HKDF-SHA256(salt = none, ikm = secret, info = label ‖ 0x00 ‖ context…)`, `N` bytes (RFC 5869). The secret is one of 32
/// bytes, or several of them joined.
pub fn derive<const N: usize>(secret: &[u8], label: Label, context: &[&[u8]]) -> zeroize::Zeroizing<[u8; N]> {
    struct Len(usize);
    impl ring::hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut info: Vec<&[u8]> = Vec::with_capacity(context.len() + 2);
    info.push(label.text().as_bytes());
    info.push(&[0]);
    info.extend_from_slice(context);
    let mut out = zeroize::Zeroizing::new([0; N]);
    stack::wiped(|| {
        // RFC 5869: an absent salt is a string of hash-length zeros, which is what an empty HMAC key amounts to.
        let prk = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(secret);
        prk.expand(&info, Len(N)).and_then(|okm| okm.fill(out.as_mut_slice()))
    })
    .expect("HKDF-SHA256 gives up to 8160 bytes; N is a small constant");
    out
}
