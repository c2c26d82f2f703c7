//! Seal and open of slices against `ring` alone on segments of the same size, measured in the same run. Prints ratios and
//! asserts nothing: the machine is shared. The goal is 0.97.
//!
//! Both sides work in place on memory that is there, and derive or build their key inside the measured time. Rounds
//! alternate, and the median of each side's rounds is taken.

use quietus::{
    crypto::secret::Secret,
    segment::{ExpectedSlice, HEADER_LEN, MAX_SLICE, SEGMENT, SliceBuffer, SliceReader},
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const ROUNDS: usize = 41;
const TAG: usize = 16;

fn key(secret: &Secret) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret.expose()).expect("32 bytes"))
}

fn nonce(number: usize) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&(number as u64).to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Seals every segment with `ring` and a fresh key each time.
fn raw_seal(buffer: &mut [u8]) -> Secret {
    let secret = Secret::random();
    let key = key(&secret);
    for (number, segment) in buffer.chunks_mut(SEGMENT + TAG).enumerate() {
        let (plain, tag) = segment.split_at_mut(SEGMENT);
        let sealed = key.seal_in_place_separate_tag(nonce(number), Aad::from([7; HEADER_LEN]), plain).expect("bounded");
        tag.copy_from_slice(sealed.as_ref());
    }
    secret
}

fn raw_open(secret: &Secret, buffer: &mut [u8]) {
    let key = key(secret);
    for (number, segment) in buffer.chunks_mut(SEGMENT + TAG).enumerate() {
        black_box(key.open_in_place(nonce(number), Aad::from([7; HEADER_LEN]), segment).expect("opens"));
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn timed<T>(times: &mut Vec<Duration>, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let made = black_box(work());
    times.push(begun.elapsed());
    made
}

fn main() {
    let audio = vec![0x5a; MAX_SLICE];
    let secret = Secret::random();
    let mut raw = vec![0x5a; MAX_SLICE / SEGMENT * (SEGMENT + TAG)];
    let [mut seal, mut seal_floor, mut open, mut open_floor] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let mut buffer = SliceBuffer::with_room(MAX_SLICE);
        buffer.push(&audio);
        let sealed = timed(&mut seal, || buffer.seal(&secret, 0, true));
        let raw_secret = timed(&mut seal_floor, || raw_seal(&mut raw));

        let expected = ExpectedSlice { ordinal: 0, last: true, salt: sealed.salt, length: sealed.length };
        let mut object = sealed.object;
        timed(&mut open, || {
            let reader = SliceReader::new(&secret, &object, &expected).expect("a good header");
            black_box(reader.open(0, &mut object[HEADER_LEN..]).expect("opens").len())
        });
        timed(&mut open_floor, || raw_open(&raw_secret, &mut raw));
    }
    println!("{:<28}{:>12}{:>12}{:>8}", "one slice of 8 MiB", "GB/s", "ring GB/s", "ratio");
    for (name, ours, floor) in [("seal", seal, seal_floor), ("open", open, open_floor)] {
        let (ours, floor) = (median(ours), median(floor));
        let rate = |seconds: f64| MAX_SLICE as f64 / seconds / 1e9;
        println!("{name:<28}{:>12.2}{:>12.2}{:>8.3}", rate(ours), rate(floor), floor / ours);
    }
}
