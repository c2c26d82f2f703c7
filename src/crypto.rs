//! Secrets and what is done with them. One provider (`ring`), one suite: HKDF-SHA256 and AES-256-GCM.
//!
//! - [`secret`]: 32 random bytes that are wiped when dropped and cannot be printed, cloned or serialized.
//! - [`share`]: a secret shared among several holders.
//! - [`label`]: the one table of key-derivation labels.
//! - [`epoch`]: a sealing epoch, the only way to a sealing key. Its salt is drawn in this process and never read back
//!   for sealing, so that no restart, resume, clone or restore can make a key and a nonce meet twice.
//! - [`stack`]: what a computation with a secret leaves on the stack is overwritten.
//! - [`envelope`]: the self-describing sealed value in which everything but audio is kept.

pub mod envelope;
pub mod epoch;
pub mod label;
pub mod secret;
pub mod share;
pub mod stack;

/// Fills a buffer from the system's generator.
///
/// # Panics
/// When the operating system cannot give randomness: there is nothing safe left to do then.
pub fn fill_random(buffer: &mut [u8]) {
    use ring::rand::SecureRandom as _;
    if ring::rand::SystemRandom::new().fill(buffer).is_err() {
        panic!("the operating system's random generator failed");
    }
}

/// `N` random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}
