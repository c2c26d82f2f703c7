//! Makes the slice vectors: a second implementation of `docs/format.md` section 1, on `ring` alone.
//!
//! It shares no line with the product, so that a vector is a second opinion; and only here can a slice be sealed with a
//! fixed salt. Secrets, salts and audio are constants: the same files come out every time.

use ring::{aead, digest, hkdf};
use serde_json::{Value, json};

/// One object with what the slice list says of it.
#[derive(Clone)]
pub struct Slice {
    pub object: Vec<u8>,
    pub ordinal: u32,
    pub last: bool,
    pub salt: [u8; 32],
    pub length: u64,
    plain: Vec<u8>,
}

/// One vector: a list, its objects, and what must come of them.
pub struct Case {
    pub name: &'static str,
    pub secret: [u8; 32],
    pub slices: Vec<Slice>,
    /// The reason why it is rejected; none for a good one.
    pub rejected: Option<&'static str>,
}

impl Case {
    /// This case's line in `cases.json`.
    pub fn to_json(&self) -> Value {
        let slices: Vec<Value> = self
            .slices
            .iter()
            .zip(self.files())
            .map(|(slice, file)| {
                json!({"file": file, "ordinal": slice.ordinal, "last": slice.last,
                       "salt": hex(&slice.salt), "length": slice.length})
            })
            .collect();
        let mut case = json!({"name": self.name, "audio_secret": hex(&self.secret), "slices": slices});
        match self.rejected {
            Some(reason) => case["rejected"] = json!(reason),
            None => {
                let plain: Vec<u8> = self.slices.iter().flat_map(|slice| slice.plain.clone()).collect();
                case["plaintext_sha256"] = json!(hex(digest::digest(&digest::SHA256, &plain).as_ref()));
            }
        }
        case
    }

    /// The file names of its objects.
    pub fn files(&self) -> Vec<String> {
        match self.slices.len() {
            1 => vec![format!("{}.qtsl", self.name)],
            several => (0..several).map(|at| format!("{}.{at}.qtsl", self.name)).collect(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(secret: &[u8; 32], label: &str, context: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[0; 32]).extract(secret);
    prk.expand(&[label.as_bytes(), &[0], context], Len(32)).and_then(|okm| okm.fill(&mut out)).expect("32 bytes");
    out
}

/// How a slice is sealed where it is not sealed as it should be.
struct Sealing {
    secret: [u8; 32],
    salt: [u8; 32],
    ordinal: u32,
    flags: u8,
    reserved: [u8; 3],
    /// Segments by plaintext and final flag.
    segments: Vec<(Vec<u8>, u8)>,
}

impl Sealing {
    fn object(&self) -> Vec<u8> {
        let seal = |nonce: [u8; 12], aad: &[u8], plain: &[u8]| {
            let key = derive(&self.secret, "quietus/1 slice key", &self.head());
            let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key).expect("32 bytes"));
            let mut out = plain.to_vec();
            key.seal_in_place_append_tag(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(aad), &mut out)
                .expect("a small message");
            out
        };
        let mut header = self.head();
        header.extend(derive(&self.secret, "quietus/1 slice commitment", &self.head()));
        let mut part = self.ordinal.to_be_bytes().to_vec();
        part.push(self.flags);
        part.extend(self.reserved);
        let sealed_part = seal([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], &header, &part);
        header.extend(sealed_part);
        let mut object = header.clone();
        for (number, (plain, last)) in (0_u32..).zip(&self.segments) {
            let mut nonce = [0; 12];
            nonce[7..11].copy_from_slice(&number.to_be_bytes());
            nonce[11] = *last;
            object.extend(seal(nonce, &header, plain));
        }
        object
    }

    fn head(&self) -> Vec<u8> {
        [b"QTSL\x01\0\0\0".as_slice(), &self.salt].concat()
    }
}

/// Audio that no two slices share.
fn audio(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect()
}

fn segments(plain: &[u8]) -> Vec<(Vec<u8>, u8)> {
    let mut segments: Vec<(Vec<u8>, u8)> = plain.chunks(65_536).map(|chunk| (chunk.to_vec(), 0)).collect();
    if segments.is_empty() {
        segments.push((Vec::new(), 0));
    }
    segments.last_mut().expect("at least one").1 = 1;
    segments
}

const SECRET: [u8; 32] = [0x11; 32];
const OTHER_SECRET: [u8; 32] = [0x22; 32];

/// A good slice; `seed` stands for its salt and its audio.
fn slice_under(secret: [u8; 32], seed: u8, ordinal: u32, last: bool, length: usize) -> Slice {
    let plain = audio(seed, length);
    let sealing = Sealing {
        secret,
        salt: [seed; 32],
        ordinal,
        flags: u8::from(last),
        reserved: [0; 3],
        segments: segments(&plain),
    };
    Slice { object: sealing.object(), ordinal, last, salt: sealing.salt, length: length as u64, plain }
}

fn slice(seed: u8, ordinal: u32, last: bool, length: usize) -> Slice {
    slice_under(SECRET, seed, ordinal, last, length)
}

fn only(length: usize) -> Slice {
    slice(0xa0, 0, true, length)
}

fn with(mut slice: Slice, change: impl FnOnce(&mut Slice)) -> Slice {
    change(&mut slice);
    slice
}

fn sealed_as(length: usize, change: impl FnOnce(&mut Sealing)) -> Slice {
    let plain = audio(0xa0, length);
    let mut sealing = Sealing {
        secret: SECRET,
        salt: [0xa0; 32],
        ordinal: 0,
        flags: 1,
        reserved: [0; 3],
        segments: segments(&plain),
    };
    change(&mut sealing);
    Slice { object: sealing.object(), ordinal: 0, last: true, salt: [0xa0; 32], length: length as u64, plain }
}

/// Every vector.
pub fn cases() -> Vec<Case> {
    let good = |name, slices| Case { name, secret: SECRET, slices, rejected: None };
    let bad = |name, reason, slices| Case { name, secret: SECRET, slices, rejected: Some(reason) };
    let full = 65_536 + 16;
    vec![
        good("good_empty", vec![only(0)]),
        good("good_one_byte", vec![only(1)]),
        good("good_one_full_segment", vec![only(65_536)]),
        good("good_two_segments", vec![only(65_537)]),
        good("good_two_slices", vec![slice(0xa0, 0, false, 100), slice(0xa1, 1, true, 50)]),
        good("good_empty_closing_slice", vec![slice(0xa0, 0, false, 100), slice(0xa1, 1, true, 0)]),
        bad("truncated_in_header", "truncated", vec![with(only(100), |s| s.object.truncate(90))]),
        bad("truncated_in_segment", "truncated", vec![with(only(100), |s| s.object.truncate(150))]),
        bad("truncated_at_segment_boundary", "truncated", vec![with(only(65_537), |s| s.object.truncate(96 + full))]),
        bad("truncated_before_first_segment", "truncated", vec![with(only(0), |s| s.object.truncate(96))]),
        bad("trailing_bytes", "trailing_bytes", vec![with(only(100), |s| s.object.push(0))]),
        bad(
            "trailing_empty_segment",
            "trailing_bytes",
            vec![sealed_as(65_536, |s| {
                s.segments[0].1 = 0;
                s.segments.push((Vec::new(), 1));
            })],
        ),
        bad("last_segment_not_marked", "segment 0", vec![sealed_as(100, |s| s.segments[0].1 = 0)]),
        bad("segments_reordered", "segment 0", vec![with(only(131_072), |s| s.object[96..].rotate_left(full))]),
        bad(
            "segment_spliced_from_other_slice",
            "segment 0",
            vec![with(only(100), |s| s.object[96..].copy_from_slice(&slice(0xa1, 0, true, 100).object[96..]))],
        ),
        bad("segment_bit_flipped", "segment 0", vec![with(only(100), |s| s.object[100] ^= 4)]),
        bad("segment_tag_flipped", "segment 0", vec![with(only(100), |s| s.object[96 + 100] ^= 1)]),
        bad("magic_wrong", "magic", vec![with(only(100), |s| s.object[3] = b'M')]),
        bad("version_unknown", "version", vec![with(only(100), |s| s.object[4] = 2)]),
        bad("reserved_bytes_not_zero", "version", vec![with(only(100), |s| s.object[7] = 1)]),
        bad("header_bit_flipped", "salt_not_listed", vec![with(only(100), |s| s.object[20] ^= 0x80)]),
        bad("commitment_flipped", "wrong_key", vec![with(only(100), |s| s.object[50] ^= 1)]),
        bad("sealed_part_flipped", "header_altered", vec![with(only(100), |s| s.object[76] ^= 1)]),
        bad("sealed_part_with_unknown_flag", "header_altered", vec![sealed_as(100, |s| s.flags = 3)]),
        bad("sealed_part_with_reserved_byte", "header_altered", vec![sealed_as(100, |s| s.reserved[1] = 1)]),
        Case { name: "wrong_key", secret: OTHER_SECRET, slices: vec![only(100)], rejected: Some("wrong_key") },
        bad(
            "slice_spliced_from_other_recording",
            "salt_not_listed",
            vec![with(only(100), |s| s.object = slice_under(OTHER_SECRET, 0xb0, 0, true, 100).object)],
        ),
        bad(
            "slice_under_other_secret_with_listed_salt",
            "wrong_key",
            vec![with(only(100), |s| s.object = slice_under(OTHER_SECRET, 0xa0, 0, true, 100).object)],
        ),
        bad(
            "slices_exchanged_within_recording",
            "salt_not_listed",
            vec![
                with(slice(0xa0, 0, false, 50), |s| s.object = slice(0xa1, 1, true, 50).object),
                with(slice(0xa1, 1, true, 50), |s| s.object = slice(0xa0, 0, false, 50).object),
            ],
        ),
        bad("ordinal_of_another_place", "ordinal", vec![with(slice(0xa0, 1, true, 100), |s| s.ordinal = 0)]),
        bad(
            "last_flag_not_listed",
            "last_flag",
            vec![with(slice(0xa0, 0, true, 100), |s| s.last = false), slice(0xa1, 1, true, 0)],
        ),
        bad("last_flag_missing", "last_flag", vec![with(slice(0xa0, 0, false, 100), |s| s.last = true)]),
        bad("missing_first_slice", "missing_slice 0", vec![slice(0xa1, 1, true, 50)]),
        bad("missing_middle_slice", "missing_slice 1", vec![slice(0xa0, 0, false, 50), slice(0xa2, 2, true, 50)]),
        bad("missing_last_slice", "missing_last_slice", vec![slice(0xa0, 0, false, 50)]),
        bad("slice_behind_the_last", "behind_last_slice", vec![slice(0xa0, 0, true, 50), slice(0xa1, 1, true, 50)]),
        bad("length_above_the_limit", "length", vec![with(only(100), |s| s.length = 8_388_609)]),
    ]
}
