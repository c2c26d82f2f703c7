//! [`Secret`]: 32 random bytes that open something.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes in a secret.
pub const SECRET_LEN: usize = 32;

/// A key-derivation secret. Wiped when dropped; neither `Debug`, `Clone` nor `Serialize`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret(Box<[u8; SECRET_LEN]>);

impl Secret {
    /// Draws a fresh one.
    pub fn random() -> Self {
        let mut secret = Self(Box::new([0; SECRET_LEN]));
        super::fill_random(secret.0.as_mut_slice());
        secret
    }

    /// Takes over bytes that were opened from a sealed value. The caller wipes its copy.
    pub fn from_bytes(bytes: &[u8; SECRET_LEN]) -> Self {
        // Filled where it lies: a value that is moved into a box leaves a copy on the stack.
        let mut secret = Self(Box::new([0; SECRET_LEN]));
        secret.0.copy_from_slice(bytes);
        secret
    }

    /// The bytes, for deriving keys and for sealing the secret under another.
    pub fn expose(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    /// A second copy, deliberately: every one of them must be wiped before an erasure is answered.
    pub fn duplicate(&self) -> Self {
        Self::from_bytes(&self.0)
    }
}
