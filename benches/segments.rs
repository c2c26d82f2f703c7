//! Sealing and opening slices, against `ring`'s AES-256-GCM over the same buffers in pieces of the same size.
//!
//! Four comparisons, each with as much memory traffic on the floor's side as the format forces upon ours: sealing in place
//! what was gathered; gathering into a fresh buffer and sealing; opening in place a whole slice so that plaintext lies in one
//! piece (the floor opens each segment where it lies); and a small slice, where deriving keys and the header weigh most.

mod common;

use common::{Row, busy_seconds, by_turns};
use quietus::{
    crypto::secret::Secret,
    segment::{
        ExpectedSlice, HEADER_LEN, MAX_SLICE, SEALED_SEGMENT, SEGMENT, SealedSlice, SliceBuffer, SliceReader,
        seal_slice,
    },
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;

const ROUNDS: usize = 21;
/// Slices in a round.
const SLICES: usize = 8;
/// A call of a minute in G.711.
const CALL: usize = 480_000;
const SMALL: usize = 4096;

fn main() {
    let secret = Secret::random();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret.expose()).expect("32 bytes"));
    let audio: Vec<u8> = (0..MAX_SLICE as u32).map(|i| (i * 31) as u8).collect();

    let rows = [
        seal_gathered(&secret, &key, &audio),
        seal_from(&secret, &key, &audio, SLICES, "gather and seal, 8 MiB slice"),
        seal_from(&secret, &key, &audio[..CALL], SLICES * 16, "gather and seal, a minute of G.711"),
        seal_from(&secret, &key, &audio[..SMALL], SLICES * 1024, "gather and seal, 4 KiB: keys and header weigh most"),
        open(&secret, &key, &audio, SLICES, "open, 8 MiB slice"),
        open(&secret, &key, &audio[..CALL], SLICES * 16, "open, a minute of G.711"),
    ];
    common::print("Segments: `cargo bench --bench segments`", &rows);
}

/// Sealing alone: the buffers are gathered before the clock starts.
fn seal_gathered(secret: &Secret, key: &LessSafeKey, audio: &[u8]) -> Row {
    let gathered = || {
        let mut buffer = SliceBuffer::with_room(audio.len());
        buffer.push(audio);
        buffer
    };
    let ours = || {
        let buffers: Vec<SliceBuffer> = (0..SLICES).map(|_| gathered()).collect();
        let mut sealed = Vec::with_capacity(SLICES);
        let taken =
            busy_seconds(|| sealed.extend(buffers.into_iter().map(|buffer| buffer.seal(secret, 0, true).object)));
        black_box(sealed);
        gigabytes(audio.len() * SLICES) / taken
    };
    let floor = || {
        let mut buffers: Vec<Vec<u8>> = (0..SLICES).map(|_| audio.to_vec()).collect();
        let taken = busy_seconds(|| buffers.iter_mut().for_each(|buffer| seal_raw(key, buffer)));
        black_box(buffers);
        gigabytes(audio.len() * SLICES) / taken
    };
    Row::new("seal what was gathered, 8 MiB slice", "GB/s", "≥ 0.97", by_turns(ROUNDS, ours, floor))
}

/// From borrowed audio to an object; the floor copies into a fresh buffer too.
fn seal_from(secret: &Secret, key: &LessSafeKey, audio: &[u8], slices: usize, what: &str) -> Row {
    let ours = || {
        let taken =
            busy_seconds(|| (0..slices).for_each(|_| drop(black_box(seal_slice(secret, 0, true, audio).object))));
        gigabytes(audio.len() * slices) / taken
    };
    let floor = || {
        let copy_and_seal = |_| {
            let mut buffer = audio.to_vec();
            seal_raw(key, &mut buffer);
            drop(black_box(buffer));
        };
        gigabytes(audio.len() * slices) / busy_seconds(|| (0..slices).for_each(copy_and_seal))
    };
    Row::new(what, "GB/s", "≥ 0.97", by_turns(ROUNDS, ours, floor))
}

/// Opening fetched objects; copying them to where they are opened is before the clock starts.
fn open(secret: &Secret, key: &LessSafeKey, audio: &[u8], slices: usize, what: &str) -> Row {
    let SealedSlice { object, salt, length } = seal_slice(secret, 0, true, audio);
    let expected = ExpectedSlice { ordinal: 0, last: true, salt, length };
    let ours = || {
        let mut fetched: Vec<Vec<u8>> = (0..slices).map(|_| object.clone()).collect();
        let taken = busy_seconds(|| {
            for object in &mut fetched {
                let (header, body) = object.split_at_mut(HEADER_LEN);
                let reader = SliceReader::new(secret, header, &expected).expect("our own slice");
                black_box(reader.open(0, body).expect("our own slice"));
            }
        });
        gigabytes(audio.len() * slices) / taken
    };
    let raw: Vec<u8> =
        audio.chunks(SEGMENT).zip(0_u32..).flat_map(|(piece, number)| sealed_raw(key, piece, number)).collect();
    let floor = || {
        let mut fetched: Vec<Vec<u8>> = (0..slices).map(|_| raw.clone()).collect();
        let taken = busy_seconds(|| {
            for object in &mut fetched {
                for (segment, number) in object.chunks_mut(SEALED_SEGMENT).zip(0..) {
                    black_box(key.open_in_place(nonce(number), Aad::empty(), segment).expect("our own bytes"));
                }
            }
        });
        gigabytes(audio.len() * slices) / taken
    };
    Row::new(what, "GB/s", "≥ 0.97", by_turns(ROUNDS, ours, floor))
}

fn seal_raw(key: &LessSafeKey, audio: &mut [u8]) {
    for (segment, number) in audio.chunks_mut(SEGMENT).zip(0..) {
        let tag = key.seal_in_place_separate_tag(nonce(number), Aad::empty(), segment);
        let _ = black_box(tag.expect("far below the cipher's bound"));
    }
}

fn sealed_raw(key: &LessSafeKey, piece: &[u8], number: u32) -> Vec<u8> {
    let mut bytes = piece.to_vec();
    key.seal_in_place_append_tag(nonce(number), Aad::empty(), &mut bytes).expect("far below the cipher's bound");
    bytes
}

/// Reused with every buffer: these bytes are nobody's.
fn nonce(number: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn gigabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e9
}
