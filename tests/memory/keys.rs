//! Keys that copies of the stores and a slot lead to, and what follows from them.

use super::image::{Kind, Needles};
use quietus::{
    crypto::{
        envelope::Kind as Sealed,
        label::{Label, derive},
    },
    forensics::{Findings, Options, closure::Role, investigate},
};
use ring::hmac;
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
        let none = hmac::Key::new(hmac::HMAC_SHA256, &[]);
        for (key, kind) in &self.0 {
            needles.key(*kind, key);
            match kind {
                Kind::EnvelopeKey | Kind::SliceKey | Kind::FrameKey => {
                    // The first two round keys are the key.
                    schedule(key)[2..].iter().for_each(|round| needles.key(Kind::Schedule, round));
                }
                _ => needles.key(Kind::Extracted, hmac::sign(&none, key).as_ref()),
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
