//! Sealing a slice in place.
//!
//! A [`SliceBuffer`] is laid out as the object will be, with room for the header and every tag, so that audio is copied
//! once, where it will be sealed, and the memory of a call under way is the memory of its object. It draws its epoch when
//! it is sealed and not before: what was gathered can be sealed once, into one object, and a retry sends that object
//! again. There is no way to seal with a salt that was read.
//!
//! Until then it holds plaintext, so it wipes itself when it grows and when it is dropped.

use super::{
    CLEAR, FLAG_LAST, HEADER_LEN, KEYED, MAGIC, MAX_SLICE, SEALED_PART, SEALED_SEGMENT, SEGMENT, VERSION, header_nonce,
    object_len, segment_nonce,
};
use crate::crypto::{
    epoch::{FreshSalt, Salt, TAG_LEN},
    label::{Label, derive},
    secret::Secret,
};
use zeroize::Zeroizing;

/// An object ready to be put, and the salt that the slice list keeps of it.
pub struct SealedSlice {
    /// The whole object.
    pub object: Vec<u8>,
    /// Salt of its epoch.
    pub salt: Salt,
    /// Bytes of plaintext.
    pub length: u64,
}

/// Gathers up to [`MAX_SLICE`] bytes of audio and seals them in place.
pub struct SliceBuffer {
    /// The object's layout; everything behind `HEADER_LEN` is plaintext and, between segments, zeros.
    bytes: Zeroizing<Vec<u8>>,
    length: usize,
}

impl Default for SliceBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl SliceBuffer {
    /// An empty one; takes no memory until bytes come.
    pub fn new() -> Self {
        Self { bytes: Zeroizing::new(Vec::new()), length: 0 }
    }

    /// One with room for so many bytes of audio, so that it need not grow on the way there.
    pub fn with_room(length: usize) -> Self {
        let mut buffer = Self::new();
        buffer.reserve(object_size(length.min(MAX_SLICE)));
        buffer
    }

    /// Bytes of audio in it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it holds no audio.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether it takes no more.
    pub fn is_full(&self) -> bool {
        self.length == MAX_SLICE
    }

    /// Memory it holds, for the budget.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes as much of `audio` as fits, and says how much that was.
    pub fn push(&mut self, audio: &[u8]) -> usize {
        let taken = audio.len().min(MAX_SLICE - self.length);
        let mut rest = &audio[..taken];
        self.reserve(object_size(self.length + taken));
        while !rest.is_empty() {
            let within = self.length % SEGMENT;
            // Room for the header, or for the tag of the segment that is full now that another one begins.
            match (self.length, within) {
                (0, _) => self.bytes.resize(HEADER_LEN, 0),
                (_, 0) => self.bytes.extend_from_slice(&[0; TAG_LEN]),
                _ => {}
            }
            let (now, later) = rest.split_at(rest.len().min(SEGMENT - within));
            self.bytes.extend_from_slice(now);
            self.length += now.len();
            rest = later;
        }
        taken
    }

    /// Seals what was gathered as the recording's slice number `ordinal`. Only Finish says `last`.
    pub fn seal(mut self, audio: &Secret, ordinal: u32, last: bool) -> SealedSlice {
        self.reserve(object_size(self.length));
        if self.length == 0 {
            self.bytes.resize(HEADER_LEN, 0);
        }
        self.bytes.extend_from_slice(&[0; TAG_LEN]);

        let fresh = FreshSalt::draw();
        let salt = *fresh.bytes();
        let (header, body) = self.bytes.split_at_mut(HEADER_LEN);
        header[..4].copy_from_slice(&MAGIC);
        header[4] = VERSION;
        header[8..KEYED].copy_from_slice(&salt);
        let commitment = derive::<32>(audio.expose(), Label::SliceCommitment, &[&header[..KEYED]]);
        header[KEYED..CLEAR].copy_from_slice(commitment.as_slice());
        let key = fresh.sealing_key(audio, Label::SliceKey, &[&header[..KEYED]]);

        let (clear, sealed_part) = header.split_at_mut(CLEAR);
        let (part, part_tag) = sealed_part.split_at_mut(SEALED_PART);
        part[..4].copy_from_slice(&ordinal.to_be_bytes());
        part[4] = if last { FLAG_LAST } else { 0 };
        part_tag.copy_from_slice(&key.seal(header_nonce(), clear, part));

        let end = body.chunks(SEALED_SEGMENT).len() - 1;
        for (number, segment) in body.chunks_mut(SEALED_SEGMENT).enumerate() {
            let (plain, tag) = segment.split_at_mut(segment.len() - TAG_LEN);
            // At most MAX_SLICE / SEGMENT segments, so the number fits.
            tag.copy_from_slice(&key.seal(segment_nonce(number as u32, number == end), header, plain));
        }
        SealedSlice { object: std::mem::take(&mut *self.bytes), salt, length: self.length as u64 }
    }

    /// Makes room for an object of so many bytes. A `Vec` that grows by itself would leave plaintext in freed memory.
    fn reserve(&mut self, object: usize) {
        if object <= self.bytes.capacity() {
            return;
        }
        let room = object.max(self.bytes.capacity() * 2).min(object_size(MAX_SLICE));
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(&self.bytes);
        self.bytes = larger;
    }
}

/// [`object_len`] in memory's terms; only called with lengths up to [`MAX_SLICE`].
fn object_size(length: usize) -> usize {
    object_len(length as u64) as usize
}

/// Seals `plaintext` as one slice.
///
/// # Panics
/// When there is more than [`MAX_SLICE`] of it: callers cut their audio into slices.
pub fn seal_slice(audio: &Secret, ordinal: u32, last: bool, plaintext: &[u8]) -> SealedSlice {
    assert!(plaintext.len() <= MAX_SLICE, "a slice holds at most {MAX_SLICE} bytes");
    let mut buffer = SliceBuffer::with_room(plaintext.len());
    buffer.push(plaintext);
    buffer.seal(audio, ordinal, last)
}
