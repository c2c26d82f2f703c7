//! A veil over the secrets of one subscriber's recordings while they wait in the cache.
//!
//! An erasure must wipe what the cache holds of a subscriber before it is answered, and its cost must not grow with how
//! much that is. So cached secrets of recordings are masked under one secret per subscriber, which lives in memory only, and
//! wiping that one wipes them all; what is left of the masked pages is evicted when its turn comes.
//!
//! The mask is SHA-256(veil ‖ number), each number used for one secret: a random function of fixed-length input, which is all
//! that a mask needs. Nothing veiled ever leaves the memory, so it carries no tag.

use crate::crypto::{
    secret::{SECRET_LEN, Secret},
    stack,
};
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};
use zeroize::Zeroizing;

/// The veil of one subscriber.
pub struct Veil {
    /// None once wiped.
    key: RwLock<Option<Secret>>,
    next: AtomicU64,
}

impl Veil {
    /// A fresh one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { key: RwLock::new(Some(Secret::random())), next: AtomicU64::new(0) })
    }

    /// Makes everything under it unreadable.
    pub fn wipe(&self) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn mask(&self, number: u64, bytes: &mut [u8; SECRET_LEN]) -> Option<()> {
        let key = self.key.read().unwrap_or_else(PoisonError::into_inner);
        let mut input = Zeroizing::new([0; SECRET_LEN + 8]);
        input[..SECRET_LEN].copy_from_slice(key.as_ref()?.expose());
        input[SECRET_LEN..].copy_from_slice(&number.to_be_bytes());
        // A mask that stays on the stack would give the secret back from what is veiled, whatever became of the veil.
        stack::wiped(|| {
            let mask = ring::digest::digest(&ring::digest::SHA256, &input[..]);
            for (byte, mask) in bytes.iter_mut().zip(mask.as_ref()) {
                *byte ^= mask;
            }
        });
        Some(())
    }
}

/// A secret under a veil.
#[derive(Clone)]
pub struct Veiled {
    veil: Arc<Veil>,
    number: u64,
    /// Wiped on its own too: one recording may be forgotten while its subscriber's veil lives.
    masked: Zeroizing<[u8; SECRET_LEN]>,
}

impl Veiled {
    /// Puts a secret under a veil. Under one that was wiped nothing is ever read again.
    pub fn new(veil: &Arc<Veil>, secret: &[u8; SECRET_LEN]) -> Self {
        let number = veil.next.fetch_add(1, Ordering::Relaxed);
        // Masked where it lies: what is moved, and so may be copied, is what is veiled.
        let mut masked = Zeroizing::new([0; SECRET_LEN]);
        masked.copy_from_slice(secret);
        if veil.mask(number, &mut masked).is_none() {
            *masked = [0; SECRET_LEN];
        }
        Self { veil: veil.clone(), number, masked }
    }

    /// The secret; none once the veil is wiped.
    pub fn open(&self) -> Option<Secret> {
        let mut bytes = self.masked.clone();
        self.veil.mask(self.number, &mut bytes)?;
        Some(Secret::from_bytes(&bytes))
    }

    /// Writes the secret behind what is to be sealed; none once the veil is wiped.
    pub fn open_onto(&self, out: &mut Vec<u8>) -> Option<()> {
        out.extend_from_slice(&self.masked[..]);
        self.veil.mask(self.number, out.last_chunk_mut()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wiped_veil_gives_nothing_back() {
        let veil = Veil::new();
        let secrets = [Secret::random(), Secret::random()];
        let veiled = secrets.each_ref().map(|secret| Veiled::new(&veil, secret.expose()));
        for (secret, veiled) in secrets.iter().zip(&veiled) {
            assert!(veiled.open().is_some_and(|opened| opened.expose() == secret.expose()));
            assert_ne!(&*veiled.masked, secret.expose());
        }
        veil.wipe();
        assert!(veiled.iter().all(|veiled| veiled.open().is_none()));
        assert_eq!(*Veiled::new(&veil, secrets[0].expose()).masked, [0; SECRET_LEN]);
    }
}
