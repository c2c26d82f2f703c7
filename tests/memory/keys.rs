//! Keys that copies of the stores and a slot lead to, and what follows from them.

use super::image::{Kind, Needles};
use quietus::{
    crypto::{
        envelope::Kind as Sealed,
        label::{Label, derive},
    },
    forensics::{Findings, Options, closure::Role, investigate},
};
use ring::{digest, hmac};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

/// Bytes of an envelope's header; of a slice's, as far as its key follows from it, and its commitment.
const ENVELOPE_HEADER: usize = 48;
const KEYED: usize = 40;
const COMMITTED: usize = 72;

/// Copies a folder while it is written to: a file that goes meanwhile is not in the copy.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("reads") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            let _ = fs::copy(entry.path(), to);
        }
    }
}

/// 32 bytes each, by what they are.
#[derive(Default)]
pub struct Keys(BTreeMap<[u8; 32], Kind>);

impl Keys {
    /// What copies of the stores give to somebody who has a slot.
    pub fn reached(copies: &[&Path], slot: &Path) -> Self {
        let below = |folder: &str| copies.iter().map(|copy| copy.join(folder)).collect::<Vec<PathBuf>>();
        let options = Options {
            keys: [below("keys"), below("journal")].concat(),
            slots: vec![slot.to_owned()],
            ..Options::default()
        };
        let findings = investigate(&options).expect("everything is understood");
        assert!(findings.closure.roots > 0, "the slot opens nothing");
        let mut keys = Self::default();
        for (page, key) in &findings.closure.page_keys {
            keys.put(if *page == [0; 16] { Kind::Root } else { Kind::PageKey }, *key);
        }
        for known in findings.closure.secrets() {
            let kind = match known.role {
                Role::Account | Role::Period => Kind::Stable,
                Role::Audio => Kind::Audio,
                Role::Facts => Kind::Facts,
            };
            keys.put(kind, known.secret);
        }
        keys.derived(&findings);
        below("s3").iter().for_each(|folder| keys.slices(folder));
        keys
    }

    fn put(&mut self, kind: Kind, key: [u8; 32]) {
        self.0.entry(key).or_insert(kind);
    }

    /// Keys of what opened: envelopes and journal frames.
    fn derived(&mut self, findings: &Findings) {
        let (carved, closure) = (&findings.carved, &findings.closure);
        for sealed in carved.sealed.iter().filter(|sealed| closure.opened.contains(&sealed.salt)) {
            let bytes = carved.envelope(sealed).expect("reads");
            let secrets: Vec<[u8; 32]> = match sealed.kind {
                Sealed::Top | Sealed::Page | Sealed::Append => {
                    let id = if sealed.kind == Sealed::Top { [0; 16] } else { sealed.id };
                    closure.page_keys.iter().filter(|(page, _)| *page == id).map(|(_, key)| *key).collect()
                }
                _ => closure.secrets_of(&sealed.id).iter().map(|known| known.secret).collect(),
            };
            for secret in secrets {
                self.put(Kind::EnvelopeKey, *derive(&secret, Label::Envelope, &[&bytes[..ENVELOPE_HEADER]]));
            }
        }
        for frame in &carved.frames {
            for known in closure.secrets_of(&frame.row).iter().filter(|known| known.role == Role::Audio) {
                self.put(Kind::FrameKey, *derive(&known.secret, Label::JournalFrame, &[&frame.row, &frame.salt]));
            }
        }
    }

    /// Keys of the slices in a folder of buckets.
    fn slices(&mut self, folder: &Path) {
        let secrets: Vec<[u8; 32]> =
            self.0.iter().filter(|(_, kind)| **kind == Kind::Audio).map(|(secret, _)| *secret).collect();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).expect("reads") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let object = fs::read(path).expect("reads");
                if !object.starts_with(b"QTSL") {
                    continue;
                }
                let (header, commitment) = (&object[..KEYED], &object[KEYED..COMMITTED]);
                for secret in &secrets {
                    if derive::<32>(secret, Label::SliceCommitment, &[header])[..] == *commitment {
                        self.put(Kind::SliceKey, *derive(secret, Label::SliceKey, &[header]));
                    }
                }
            }
        }
    }

    /// Those that are not among others.
    pub fn without(mut self, others: &Keys) -> Self {
        self.0.retain(|key, _| !others.0.contains_key(key));
        self
    }

    /// Secrets of recordings, and stable ones.
    pub fn secrets(&self) -> usize {
        let secret = |kind: &&Kind| matches!(kind, Kind::Stable | Kind::Audio | Kind::Facts);
        self.0.values().filter(secret).count()
    }

    /// The keys, what HKDF extracts from those that others are derived from, and the schedules of those that seal.
    pub fn into_needles(self, needles: &mut Needles) {
        for (key, kind) in &self.0 {
            needles.key(*kind, key);
            match kind {
                Kind::EnvelopeKey | Kind::SliceKey | Kind::FrameKey => {
                    // The first two round keys are the key.
                    schedule(key)[2..].iter().for_each(|round| needles.key(Kind::Schedule, round));
                }
                _ => extracted(key).iter().for_each(|form| needles.key(Kind::Extracted, form)),
            }
        }
    }
}

/// How many of each.
impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: BTreeSet<Kind> = self.0.values().copied().collect();
        for kind in kinds {
            write!(f, "{kind:?} {}; ", self.0.values().filter(|other| **other == kind).count())?;
        }
        Ok(())
    }
}

/// What of HKDF is as good as the secret: the inner hash of the extraction, the key it extracts, and the two states of SHA-256
/// that HMAC makes of that one, in the order of bytes of a processor that is little-endian.
pub fn extracted(secret: &[u8; 32]) -> [[u8; 32]; 4] {
    let none = hmac::Key::new(hmac::HMAC_SHA256, &[]);
    let key = hmac::sign(&none, secret);
    let inner = digest::digest(&digest::SHA256, &[&[0x36; 64][..], secret].concat());
    let state = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key.as_ref()).for_each(|(byte, key)| *byte ^= key);
        let mut bytes = [0; 32];
        bytes.chunks_exact_mut(4).zip(compressed(&block)).for_each(|(bytes, word)| {
            bytes.copy_from_slice(&word.to_le_bytes());
        });
        bytes
    };
    let whole = |bytes: &[u8]| bytes.try_into().expect("32 bytes");
    [whole(inner.as_ref()), whole(key.as_ref()), state(0x36), state(0x5c)]
}

/// The state of SHA-256 behind its first block (FIPS 180-4, section 6.2.2).
fn compressed(block: &[u8; 64]) -> [u32; 8] {
    let primes: Vec<u128> = (2..312_u128).filter(|n| (2..*n).all(|by| n % by != 0)).collect();
    // The first 32 bits behind the point of a root.
    let root = |of: u128, power: u32| {
        let (mut low, mut high) = (0_u128, 1 << 36);
        while high - low > 1 {
            let middle = (low + high) / 2;
            *(if middle.pow(power) <= of << (32 * power) { &mut low } else { &mut high }) = middle;
        }
        low as u32
    };
    let mut words: Vec<u32> =
        block.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().expect("four bytes"))).collect();
    for at in 16..64 {
        let (a, b) = (words[at - 15], words[at - 2]);
        let a = a.rotate_right(7) ^ a.rotate_right(18) ^ a >> 3;
        let b = b.rotate_right(17) ^ b.rotate_right(19) ^ b >> 10;
        words.push(words[at - 16].wrapping_add(a).wrapping_add(words[at - 7]).wrapping_add(b));
    }
    let begin: [u32; 8] = std::array::from_fn(|at| root(primes[at], 2));
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = begin;
    for (word, prime) in words.iter().zip(&primes) {
        let high = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let low = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let first = [high, e & f ^ !e & g, root(*prime, 3), *word].into_iter().fold(h, u32::wrapping_add);
        let second = low.wrapping_add(a & b ^ a & c ^ b & c);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(first), c, b, a, first.wrapping_add(second));
    }
    let end = [a, b, c, d, e, f, g, h];
    std::array::from_fn(|at| begin[at].wrapping_add(end[at]))
}

/// The key schedule of AES-256 (FIPS 197, section 5.2), in the order in which processors with instructions for it take it.
pub fn schedule(key: &[u8; 32]) -> [[u8; 16]; 15] {
    let mut words = [[0; 4]; 60];
    for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
        word.copy_from_slice(bytes);
    }
    let mut constant = 1;
    for at in 8..60 {
        let mut word: [u8; 4] = words[at - 1];
        if at % 8 == 0 {
            word.rotate_left(1);
        }
        if at % 4 == 0 {
            word = word.map(substituted);
        }
        if at % 8 == 0 {
            word[0] ^= constant;
            constant = doubled(constant);
        }
        for (byte, before) in word.iter_mut().zip(words[at - 8]) {
            *byte ^= before;
        }
        words[at] = word;
    }
    let mut rounds = [[0; 16]; 15];
    for (round, words) in rounds.iter_mut().zip(words.chunks_exact(4)) {
        round.copy_from_slice(words.as_flattened());
    }
    rounds
}

fn doubled(byte: u8) -> u8 {
    byte << 1 ^ if byte & 0x80 == 0 { 0 } else { 0x1b }
}

fn product(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        (a, b) = (doubled(a), b >> 1);
    }
    product
}

/// The S-box: the inverse, which is the 254th power, and the affine step.
fn substituted(byte: u8) -> u8 {
    let inverse = (0..254).fold(1, |power, _| product(power, byte));
    let bits = (1..5).fold(inverse, |bits, turn| bits ^ inverse.rotate_left(turn));
    bits ^ 0x63
}

#[test]
fn the_schedule_is_that_of_the_standard() {
    // FIPS 197, appendix A.3.
    let key: Vec<u8> = data_encoding::HEXLOWER
        .decode(b"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
        .expect("hexadecimal");
    let rounds = schedule(&key.try_into().expect("32 bytes"));
    assert_eq!(data_encoding::HEXLOWER.encode(&rounds[2]), "9ba354118e6925afa51a8b5f2067fcde");
    assert_eq!(data_encoding::HEXLOWER.encode(&rounds[14]), "fe4890d1e6188d0b046df344706c631e");
}

#[test]
fn the_state_is_that_of_the_standard() {
    // FIPS 180-4's example of one block: "abc".
    let mut block = [0; 64];
    block[..4].copy_from_slice(b"abc\x80");
    block[63] = 24;
    let state: Vec<u8> = compressed(&block).iter().flat_map(|word| word.to_be_bytes()).collect();
    assert_eq!(state, digest::digest(&digest::SHA256, b"abc").as_ref());
}
