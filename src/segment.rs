//! The sealed slice: one object in S3. A recording is a sequence of slices, and `docs/format.md` section 1 is the layout.
//!
//! - [`seal`]: plaintext gathers where it will be sealed, and is sealed in one go in an epoch of its own.
//! - [`open`]: a reader without I/O. It says which bytes to fetch and gives plaintext only after authenticating it.
//! - here: lengths, what the slice list says of a slice, and how the defects are told apart.
//!
//! Nothing here knows where slices are kept, or under which name.
//!
//! # What is detected
//!
//! | somebody … | noticed by |
//! |---|---|
//! | flips a bit of a segment, or moves, repeats or drops one | the segment's tag: number and last flag are in the nonce |
//! | cuts an object at a segment's end, or appends to it | its length, which the slice list holds; without a list, the last flag in the nonce |
//! | puts a segment of another slice in its place | the tag: another epoch is another key, and the whole header is associated data |
//! | puts another slice of the same recording in its place | the salt, which the slice list holds; the ordinal inside the sealed part |
//! | puts a slice of another recording in its place | the salt; without a list, the commitment |
//! | drops the last slice, or marks another one as last | [`check_list`]: only Finish sets *last* |
//! | makes one object that opens under two keys | the commitment: HKDF output that a second secret does not share |

pub mod open;
pub mod seal;

pub use open::{Cut, SliceReader};
pub use seal::{SealedSlice, SliceBuffer, seal_slice};

use crate::crypto::epoch::{SALT_LEN, Salt, TAG_LEN};
use std::ops::Range;

/// The first four bytes of an object.
pub const MAGIC: [u8; 4] = *b"QTSL";
/// The one version there is.
pub const VERSION: u8 = 1;
/// Most plaintext in one slice.
pub const MAX_SLICE: usize = 8 << 20;
/// Plaintext of every segment but the last.
pub const SEGMENT: usize = 65_536;
/// The same with its tag: what a segment takes in the object.
pub const SEALED_SEGMENT: usize = SEGMENT + TAG_LEN;
/// Bytes before the first segment.
pub const HEADER_LEN: usize = 96;

/// Header bytes that lead to key and commitment: magic, version, zeros, salt.
const KEYED: usize = 8 + SALT_LEN;
/// Header bytes before the sealed part; its associated data.
const CLEAR: usize = KEYED + 32;
/// Plaintext of the sealed part.
const SEALED_PART: usize = 8;
/// The only flag: this slice ends the recording.
const FLAG_LAST: u8 = 1;

const _: () = assert!(CLEAR + SEALED_PART + TAG_LEN == HEADER_LEN && MAX_SLICE.is_multiple_of(SEGMENT));

/// What the slice list, which is sealed under the recording's audio secret, says of one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedSlice {
    /// Its place in the recording, from 0.
    pub ordinal: u32,
    /// Whether Finish sealed it.
    pub last: bool,
    /// Salt of its epoch.
    pub salt: Salt,
    /// Bytes of plaintext.
    pub length: u64,
}

/// Why an object, or a list of them, is not what was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// The object does not begin as a slice.
    #[error("the object is not a slice")]
    Magic,
    /// A version that this program does not know, or reserved bytes that are not zero.
    #[error("the slice's version is unknown")]
    Version,
    /// The salt is not the one in the slice list: another slice, or another sealing of this one.
    #[error("the slice is not the one in the slice list")]
    SaltNotListed,
    /// The commitment does not follow from this secret.
    #[error("the slice was sealed under another secret")]
    WrongKey,
    /// The sealed part of the header does not authenticate, or says what this version does not know.
    #[error("the slice's header was altered")]
    HeaderAltered,
    /// The slice belongs at another place of the recording.
    #[error("the slice belongs at another place of the recording")]
    Ordinal,
    /// The slice says that it is the last and the list does not, or the reverse.
    #[error("the slice and the slice list disagree on which slice is the last")]
    LastFlag,
    /// Fewer bytes than the slice has.
    #[error("the slice is cut short")]
    Truncated,
    /// More bytes than the slice has.
    #[error("there are bytes behind the slice's end")]
    TrailingBytes,
    /// A length that no slice has.
    #[error("no slice has this length")]
    Length,
    /// A segment does not authenticate.
    #[error("segment {0} fails authentication")]
    Segment(u32),
    /// The list skips or repeats a slice.
    #[error("slice {0} is missing from the slice list")]
    MissingSlice(u32),
    /// The list of a complete recording ends without a last slice.
    #[error("the last slice is missing from the slice list")]
    MissingLastSlice,
    /// The list goes on behind a last slice.
    #[error("the slice list goes on behind the last slice")]
    BehindLastSlice,
}

/// Segments in a slice of so much plaintext: at least one.
pub fn segments(plain: u64) -> u64 {
    plain.div_ceil(SEGMENT as u64).max(1)
}

/// Bytes of the object that holds `plain` bytes.
pub fn object_len(plain: u64) -> u64 {
    segments(plain).saturating_mul(TAG_LEN as u64).saturating_add(plain).saturating_add(HEADER_LEN as u64)
}

/// Bytes of plaintext in an object of this length.
pub fn plain_len(object: u64) -> Result<u64, SliceError> {
    let sealed = object.checked_sub(HEADER_LEN as u64).ok_or(SliceError::Truncated)?;
    if sealed < TAG_LEN as u64 {
        return Err(SliceError::Truncated);
    }
    let plain = sealed - sealed.div_ceil(SEALED_SEGMENT as u64) * TAG_LEN as u64;
    // Not every length is one: a last segment of a tag alone, or of less, exists only in an empty slice.
    if plain <= MAX_SLICE as u64 && object_len(plain) == object { Ok(plain) } else { Err(SliceError::Length) }
}

/// The bytes of an object that hold a range of its plaintext: whole segments. Empty for an empty range; clamped to the
/// slice's length. Needs no header, so that header and audio can be fetched at once.
pub fn object_range(plain_len: u64, plain: Range<u64>) -> Range<u64> {
    let end = plain.end.min(plain_len);
    if plain.start >= end {
        return HEADER_LEN as u64..HEADER_LEN as u64;
    }
    let first = plain.start / SEGMENT as u64;
    let behind = end.div_ceil(SEGMENT as u64);
    let at = |segment: u64| HEADER_LEN as u64 + segment * SEALED_SEGMENT as u64;
    at(first)..at(behind).min(object_len(plain_len))
}

/// Checks that a slice list has every slice once and in order, that nothing but its end is *last*, and that a complete
/// recording has such an end. Gives the bytes of the recording.
pub fn check_list(slices: &[ExpectedSlice], complete: bool) -> Result<u64, SliceError> {
    let mut total = 0_u64;
    let mut ended = false;
    for (place, slice) in (0_u32..).zip(slices) {
        if ended {
            return Err(SliceError::BehindLastSlice);
        }
        if slice.ordinal != place {
            return Err(SliceError::MissingSlice(place));
        }
        if slice.length > MAX_SLICE as u64 {
            return Err(SliceError::Length);
        }
        ended = slice.last;
        total = total.saturating_add(slice.length);
    }
    if complete && !ended { Err(SliceError::MissingLastSlice) } else { Ok(total) }
}

/// Nonce of the header's sealed part.
fn header_nonce() -> [u8; 12] {
    nonce(0, 2)
}

/// Nonce of a segment.
fn segment_nonce(number: u32, last: bool) -> [u8; 12] {
    nonce(number, u8::from(last))
}

fn nonce(number: u32, purpose: u8) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[7..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = purpose;
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(ordinal: u32, last: bool) -> ExpectedSlice {
        ExpectedSlice { ordinal, last, salt: [0; 32], length: 10 }
    }

    #[test]
    fn lengths_at_the_boundaries() {
        let full = SEALED_SEGMENT as u64;
        for (plain, object) in [
            (0, 96 + 16),
            (1, 96 + 17),
            (65_535, 96 + full - 1),
            (65_536, 96 + full),
            (65_537, 96 + full + 17),
            (MAX_SLICE as u64, 96 + 128 * full),
        ] {
            assert_eq!(object_len(plain), object);
            assert_eq!(plain_len(object), Ok(plain));
        }
        assert_eq!(plain_len(96 + full + 16), Err(SliceError::Length), "an empty segment behind a full one");
        assert_eq!(plain_len(96 + full + 1), Err(SliceError::Length));
        assert_eq!(plain_len(object_len(MAX_SLICE as u64 + 1)), Err(SliceError::Length));
        assert_eq!(plain_len(111), Err(SliceError::Truncated));
        assert_eq!(plain_len(0), Err(SliceError::Truncated));
        assert!(plain_len(u64::MAX).is_err());
        assert_eq!(object_len(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_list_has_every_slice_once_and_one_end() {
        assert_eq!(check_list(&[listed(0, false), listed(1, true)], true), Ok(20));
        assert_eq!(check_list(&[listed(0, false)], false), Ok(10));
        assert_eq!(check_list(&[], false), Ok(0));
        assert_eq!(check_list(&[listed(0, false)], true), Err(SliceError::MissingLastSlice));
        assert_eq!(check_list(&[], true), Err(SliceError::MissingLastSlice));
        assert_eq!(check_list(&[listed(1, true)], true), Err(SliceError::MissingSlice(0)));
        assert_eq!(check_list(&[listed(0, false), listed(0, true)], true), Err(SliceError::MissingSlice(1)));
        assert_eq!(check_list(&[listed(0, true), listed(1, true)], true), Err(SliceError::BehindLastSlice));
    }

    #[test]
    fn ranges_are_whole_segments() {
        let len = 3 * SEGMENT as u64 + 5;
        let at = |segment: u64| 96 + segment * SEALED_SEGMENT as u64;
        assert_eq!(object_range(len, 0..1), at(0)..at(1));
        assert_eq!(object_range(len, 65_535..65_537), at(0)..at(2));
        assert_eq!(object_range(len, 65_536..u64::MAX), at(1)..object_len(len));
        assert_eq!(object_range(len, 7..7), 96..96);
        assert_eq!(object_range(len, len..len + 9), 96..96);
    }
}
