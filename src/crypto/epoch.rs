//! A sealing epoch: a random salt, the key that follows from it, and the nonces that were used.
//!
//! *Sealing* starts from [`FreshSalt::draw`] and from nothing else: the salt is drawn here, lives in this process, and
//! there is no constructor that takes one. *Opening* takes the salt that was read from disk or S3. So a crash, a resume,
//! a disk clone or a restore always seals under a key that never sealed before (a memory snapshot that is resumed twice
//! is the exception, and is documented as such).

use super::{
    label::{Label, derive},
    random,
    secret::Secret,
    stack,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes in an epoch's salt.
pub const SALT_LEN: usize = 32;
/// Bytes that AES-256-GCM adds.
pub const TAG_LEN: usize = 16;
/// Bytes in a nonce.
pub const NONCE_LEN: usize = 12;

/// The salt of an epoch, drawn at random.
pub type Salt = [u8; SALT_LEN];

/// The bytes do not open under this key, nonce and associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed bytes do not open under this key")]
pub struct OpenFailed;

/// A fresh salt. Only what seals with it at once takes one.
#[must_use]
pub struct FreshSalt(Salt);

impl FreshSalt {
    /// Draws one.
    pub fn draw() -> Self {
        Self(random())
    }

    /// The salt's bytes, to be written in clear beside what is sealed.
    pub fn bytes(&self) -> &Salt {
        &self.0
    }

    /// Ends the drawing: the key of this epoch, with which the caller seals. The context must contain the salt, so that
    /// the key follows from it; every format's header does.
    pub fn sealing_key(self, secret: &Secret, label: Label, context: &[&[u8]]) -> SealingKey {
        debug_assert!(context.iter().any(|part| part.windows(SALT_LEN).any(|window| window == self.0)));
        stack::wiped(|| {
            let key = derive(secret.expose(), label, context);
            SealingKey {
                gcm: gcm(&key),
                #[cfg(test)]
                name: ledger::name(&key),
            }
        })
    }
}

/// A key that seals, of one epoch. Cannot be built from a salt that was read. Its schedule is boxed: see [`stack`].
pub struct SealingKey {
    gcm: Box<LessSafeKey>,
    #[cfg(test)]
    name: ledger::KeyName,
}

impl SealingKey {
    /// Seals in place and gives the tag. A nonce is used once in an epoch: the caller's counter sees to it.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], plaintext: &mut [u8]) -> [u8; TAG_LEN] {
        #[cfg(test)]
        ledger::seals(self.name, nonce);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = stack::wiped(|| self.gcm.seal_in_place_separate_tag(nonce, Aad::from(aad), plaintext))
            .expect("AES-GCM seals up to 64 GiB; every caller's size is bounded far below");
        tag.as_ref().try_into().expect("an AES-GCM tag has 16 bytes")
    }
}

/// A key that opens, from a salt that was read. Its schedule is boxed: see [`stack`].
pub struct OpeningKey(Box<LessSafeKey>);

impl OpeningKey {
    /// The key that a header (salt included in the context) leads to.
    pub fn derive(secret: &Secret, label: Label, context: &[&[u8]]) -> Self {
        stack::wiped(|| Self(gcm(&derive(secret.expose(), label, context))))
    }

    /// Opens in place; the plaintext is the slice that comes back. On failure the buffer's content is void.
    pub fn open<'a>(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenFailed> {
        self.open_shifted(nonce, aad, sealed, 0)
    }

    /// Opens what begins `shift` bytes into the buffer; the plaintext comes to lie at the buffer's front, without a copy of
    /// its own. On failure the buffer's content is void.
    pub fn open_shifted<'a>(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        buffer: &'a mut [u8],
        shift: usize,
    ) -> Result<&'a mut [u8], OpenFailed> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        stack::wiped(|| self.0.open_within(nonce, Aad::from(aad), buffer, shift..)).map_err(|_| OpenFailed)
    }
}

/// In every unit test of this crate: no pair of key and nonce seals twice.
#[cfg(test)]
pub(crate) mod ledger {
    use super::NONCE_LEN;
    use ring::digest::{SHA256, digest};
    use std::{
        collections::HashSet,
        sync::{LazyLock, Mutex, PoisonError},
    };

    /// A digest of the key: enough to tell keys apart.
    pub type KeyName = [u8; 16];

    type Pairs = HashSet<(KeyName, [u8; NONCE_LEN])>;

    static PAIRS: LazyLock<Mutex<Pairs>> = LazyLock::new(Mutex::default);

    pub fn name(key: &[u8; 32]) -> KeyName {
        let mut name = KeyName::default();
        name.copy_from_slice(&digest(&SHA256, key).as_ref()[..16]);
        name
    }

    /// Writes a pair down.
    pub fn seals(key: KeyName, nonce: [u8; NONCE_LEN]) {
        let fresh = PAIRS.lock().unwrap_or_else(PoisonError::into_inner).insert((key, nonce));
        assert!(fresh, "a key and a nonce met twice");
    }

    /// Pairs that were written down so far.
    pub fn pairs() -> usize {
        PAIRS.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn gcm(key: &[u8; 32]) -> Box<LessSafeKey> {
    Box::new(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key has 32 bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a key and a nonce met twice")]
    fn the_ledger_notices_a_nonce_that_is_used_again() {
        let salt = FreshSalt::draw();
        let context = *salt.bytes();
        let key = salt.sealing_key(&Secret::random(), Label::Envelope, &[&context]);
        key.seal([7; NONCE_LEN], b"", &mut [0; 4]);
        key.seal([7; NONCE_LEN], b"", &mut [1; 4]);
    }

    #[test]
    fn the_ledger_counts_what_seals() {
        let before = ledger::pairs();
        super::super::envelope::seal(super::super::envelope::Kind::Facts, &Secret::random(), b"", b"x");
        assert!(ledger::pairs() > before);
    }
}
