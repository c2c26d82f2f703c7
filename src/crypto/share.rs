//! Shamir's secret sharing of one [`Secret`]: any `k` shares give it, fewer tell nothing.
//!
//! Each byte of the secret is the constant term of a polynomial of degree `k - 1` over GF(2⁸) (the field of AES, polynomial
//! 0x11b) whose other coefficients are drawn anew for each sharing. Share number `i`, from 1 to 255, is their values at `i`:
//! 32 bytes, as long as the secret. With `k = 1` a share is the secret itself.
//!
//! The arithmetic is that of `vsss-rs`: no tables (so no trace of a share in the processor's cache), coefficients uniform over
//! the whole field (a library that leaves out zero tells, after enough sharings with too few shares each, which bytes
//! are impossible), and what it draws from is ours, so that there is one source of randomness. What is kept are points on a
//! curve over a documented field, not a format of the library: `docs/format.md` says all that a reader needs, and any
//! other library of the same arithmetic could take its place. Buffers it hands back are wiped here; what it frees inside is
//! wiped by the program's allocator.

use super::{
    fill_random,
    secret::{SECRET_LEN, Secret},
};
use vsss_rs::Gf256;
use zeroize::Zeroizing;

/// Draws a fresh sharing: the shares with these numbers.
///
/// # Panics
/// When a number is 0, or `k` is 0 or above the highest number: the caller has checked its configuration.
pub fn split(secret: &Secret, k: u8, numbers: &[u8]) -> Vec<(u8, Secret)> {
    let highest = numbers.iter().copied().max().unwrap_or(1);
    assert!(k > 0 && numbers.iter().all(|number| *number > 0) && k <= highest, "shares are numbered from 1 to 255");
    if k == 1 {
        return numbers.iter().map(|number| (*number, secret.duplicate())).collect();
    }
    let limit = usize::from(highest);
    let shares = Gf256::split_bytes(usize::from(k), limit, secret.expose(), System)
        .expect("a threshold from 2 to the number of shares, and a secret of 32 bytes");
    let shares: Vec<_> = shares.into_iter().map(Zeroizing::new).collect();
    let numbered = numbers.iter().map(|number| {
        let share = shares.iter().find(|share| share[0] == *number).expect("the shares are numbered from 1");
        (*number, secret_of(&share[1..]))
    });
    numbered.collect()
}

/// The secret that these shares give: the right one where they are `k` or more of one sharing, else some other.
/// None where there is no share, a number is 0, or one is there twice.
pub fn combine(shares: &[(u8, &Secret)]) -> Option<Secret> {
    value_at(0, shares)
}

/// The share with this number, from `k` or more others of its sharing.
pub fn another(number: u8, shares: &[(u8, &Secret)]) -> Option<Secret> {
    match shares.iter().find(|(own, _)| *own == number) {
        Some((_, share)) => Some(share.duplicate()),
        None => value_at(number, shares),
    }
}

/// The polynomials' value at `at`, which none of the shares is at. In a field of characteristic 2, `x ↦ x + at` is its own
/// inverse, so this is the constant term of the polynomial through the same values at numbers moved by `at`.
fn value_at(at: u8, shares: &[(u8, &Secret)]) -> Option<Secret> {
    match shares {
        [] | [(0, _)] => None,
        [(_, only)] => Some(only.duplicate()),
        _ => {
            let points = shares.iter().map(|(number, share)| {
                let mut point = Vec::with_capacity(1 + SECRET_LEN);
                point.push(number ^ at);
                point.extend_from_slice(share.expose());
                point
            });
            let points = Zeroizing::new(points.collect::<Vec<_>>());
            let value = Zeroizing::new(Gf256::combine_bytes(&*points).ok()?);
            Some(secret_of(&value))
        }
    }
}

fn secret_of(bytes: &[u8]) -> Secret {
    Secret::from_bytes(bytes.try_into().expect("a share is as long as what is shared"))
}

/// The system's generator, as the library wants it.
struct System;

impl rand_core::TryRng for System {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_ne_bytes(super::random()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from_ne_bytes(super::random()))
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Self::Error> {
        fill_random(buffer);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for System {}

#[cfg(test)]
mod tests {
    use super::*;

    fn borrowed(shares: &[(u8, Secret)]) -> Vec<(u8, &Secret)> {
        shares.iter().map(|(number, share)| (*number, share)).collect()
    }

    #[test]
    fn any_k_shares_give_the_secret_and_fewer_do_not() {
        for (k, numbers) in [(1, vec![1]), (2, vec![1, 2, 3]), (2, vec![2, 5, 7]), (3, vec![1, 2, 3, 4, 250])] {
            let secret = Secret::random();
            let shares = split(&secret, k, &numbers);
            for picked in 1_u32..1 << shares.len() {
                let some: Vec<_> = borrowed(&shares)
                    .into_iter()
                    .enumerate()
                    .filter_map(|(at, share)| (picked >> at & 1 == 1).then_some(share))
                    .collect();
                let enough = some.len() >= usize::from(k);
                assert_eq!(combine(&some).expect("shares").expose() == secret.expose(), enough, "{k} {picked:b}");
                if enough {
                    for (number, share) in &shares {
                        assert_eq!(another(*number, &some).expect("shares").expose(), share.expose());
                    }
                }
            }
        }
    }

    #[test]
    fn each_sharing_is_drawn_anew() {
        let secret = Secret::random();
        let (first, second) = (split(&secret, 2, &[1, 2, 3]), split(&secret, 2, &[1, 2, 3]));
        assert!(first.iter().zip(&second).all(|((_, first), (_, second))| first.expose() != second.expose()));
        // A mixture of two sharings gives something else.
        let mixed = [(1, &first[0].1), (2, &second[1].1)];
        assert_ne!(combine(&mixed).expect("shares").expose(), secret.expose());
    }

    #[test]
    fn the_curve_is_the_documented_one() {
        // Values by hand in the field of AES: f(x) = 0x53 + 0xca·x at 1, 2 and 3 (0xca·2 = 0x8f, 0xca·3 = 0x45).
        let share = |byte: u8| Secret::from_bytes(&[byte; SECRET_LEN]);
        let points = [(1, share(0x53 ^ 0xca)), (2, share(0x53 ^ 0x8f)), (3, share(0x53 ^ 0x45))];
        assert_eq!(combine(&borrowed(&points[..2])).expect("shares").expose(), &[0x53; SECRET_LEN]);
        assert_eq!(combine(&borrowed(&points[1..])).expect("shares").expose(), &[0x53; SECRET_LEN]);
    }

    #[test]
    fn what_cannot_be_shares_gives_nothing() {
        let share = Secret::random();
        assert!(combine(&[]).is_none() && combine(&[(0, &share)]).is_none());
        assert!(combine(&[(1, &share), (1, &share)]).is_none() && combine(&[(0, &share), (1, &share)]).is_none());
    }
}
