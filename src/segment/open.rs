//! Opening a slice, without I/O: the caller fetches what [`SliceReader::cut`] names.
//!
//! A reader exists only for a header that was checked: magic and version, the salt against the slice list, the
//! commitment against the secret, the sealed part under the key, ordinal and last flag against the list. Plaintext comes
//! only from segments that authenticated, and from none of a fetch in which one did not.

use super::{
    CLEAR, ExpectedSlice, FLAG_LAST, HEADER_LEN, KEYED, MAGIC, SEALED_PART, SEGMENT, SliceError, VERSION, header_nonce,
    object_len, object_range, plain_len, segment_nonce, segments,
};
use crate::crypto::{
    epoch::{OpeningKey, Salt, TAG_LEN},
    label::{Label, derive},
    secret::Secret,
};
use std::ops::Range;
use zeroize::Zeroize as _;

/// A slice whose header is checked.
pub struct SliceReader {
    key: OpeningKey,
    header: [u8; HEADER_LEN],
    slice: ExpectedSlice,
}

/// What to fetch for a range of plaintext, and where that range lies in what [`SliceReader::open`] makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of the object.
    pub object: Range<u64>,
    /// Number of the first segment in them.
    pub first_segment: u32,
    /// The range asked for, within the opened bytes.
    pub inner: Range<usize>,
}

impl SliceReader {
    /// Checks the first [`HEADER_LEN`] bytes of an object against the secret and the slice list.
    pub fn new(audio: &Secret, header: &[u8], expected: &ExpectedSlice) -> Result<Self, SliceError> {
        let header = clear_header(header)?;
        if header[8..KEYED] != expected.salt {
            return Err(SliceError::SaltNotListed);
        }
        let reader = Self::checked(audio, header, expected.length)?;
        if reader.slice.ordinal != expected.ordinal {
            return Err(SliceError::Ordinal);
        }
        if reader.slice.last != expected.last {
            return Err(SliceError::LastFlag);
        }
        Ok(reader)
    }

    /// For somebody who has the secret and no slice list: place, last flag and length are taken from the object. A slice
    /// of the same recording in another's place is then told by its ordinal alone.
    pub fn unlisted(audio: &Secret, header: &[u8], object_len: u64) -> Result<Self, SliceError> {
        Self::checked(audio, clear_header(header)?, plain_len(object_len)?)
    }

    /// What the header (and, if there was one, the list) says of this slice.
    pub fn slice(&self) -> &ExpectedSlice {
        &self.slice
    }

    /// Compares the length of the object in storage with that of this slice.
    pub fn check_object_len(&self, object: u64) -> Result<(), SliceError> {
        match object.cmp(&object_len(self.slice.length)) {
            std::cmp::Ordering::Less => Err(SliceError::Truncated),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(SliceError::TrailingBytes),
        }
    }

    /// See [`object_range`].
    pub fn object_range(&self, plain: Range<u64>) -> Range<u64> {
        object_range(self.slice.length, plain)
    }

    /// What to fetch for a range of this slice's plaintext; clamped to its length.
    pub fn cut(&self, plain: Range<u64>) -> Cut {
        let end = plain.end.min(self.slice.length);
        if plain.start >= end {
            return Cut { object: self.object_range(0..0), first_segment: 0, inner: 0..0 };
        }
        let start = plain.start;
        let first = start / SEGMENT as u64;
        // Lengths are bounded by MAX_SLICE (see `checked`), so both fit.
        let inner = (start - first * SEGMENT as u64) as usize..(end - first * SEGMENT as u64) as usize;
        Cut { object: self.object_range(start..end), first_segment: first as u32, inner }
    }

    /// Opens whole segments in place, beginning with number `first_segment`. The plaintext is what comes back; the rest of
    /// the buffer is zero. On failure the whole buffer is.
    pub fn open<'a>(&self, first_segment: u32, sealed: &'a mut [u8]) -> Result<&'a mut [u8], SliceError> {
        match self.open_segments(first_segment, sealed) {
            Ok(plain) => {
                let (plain, rest) = sealed.split_at_mut(plain);
                rest.zeroize();
                Ok(plain)
            }
            Err(error) => {
                sealed.zeroize();
                Err(error)
            }
        }
    }

    /// Gives the number of plaintext bytes, which lie at the front.
    fn open_segments(&self, first_segment: u32, sealed: &mut [u8]) -> Result<usize, SliceError> {
        let last = segments(self.slice.length) - 1;
        let mut number = u64::from(first_segment);
        let (mut from, mut to) = (0, 0);
        while from < sealed.len() {
            if number > last {
                return Err(SliceError::TrailingBytes);
            }
            let length = if number < last { SEGMENT } else { (self.slice.length - last * SEGMENT as u64) as usize };
            // From where the plaintext will lie to the end of the sealed segment.
            let span = sealed.get_mut(to..from + length + TAG_LEN).ok_or(SliceError::Truncated)?;
            let nonce = segment_nonce(number as u32, number == last);
            let opened = self.key.open_shifted(nonce, &self.header, span, from - to);
            opened.map_err(|_| SliceError::Segment(number as u32))?;
            from += length + TAG_LEN;
            to += length;
            number += 1;
        }
        Ok(to)
    }

    fn checked(audio: &Secret, mut header: [u8; HEADER_LEN], length: u64) -> Result<Self, SliceError> {
        if length > super::MAX_SLICE as u64 {
            return Err(SliceError::Length);
        }
        let commitment = derive::<32>(audio.expose(), Label::SliceCommitment, &[&header[..KEYED]]);
        // Commitments are public, and one that was guessed byte by byte from the timing would still open no segment.
        if *commitment.as_slice() != header[KEYED..CLEAR] {
            return Err(SliceError::WrongKey);
        }
        let key = OpeningKey::derive(audio, Label::SliceKey, &[&header[..KEYED]]);
        let whole = header;
        let (clear, sealed_part) = header.split_at_mut(CLEAR);
        let part = key.open(header_nonce(), clear, sealed_part).map_err(|_| SliceError::HeaderAltered)?;
        let part: [u8; SEALED_PART] = (&*part).try_into().map_err(|_| SliceError::HeaderAltered)?;
        let [a, b, c, d, flags, 0, 0, 0] = part else {
            return Err(SliceError::HeaderAltered);
        };
        if flags & !FLAG_LAST != 0 {
            return Err(SliceError::HeaderAltered);
        }
        let salt: Salt = whole[8..KEYED].try_into().map_err(|_| SliceError::Truncated)?;
        let ordinal = u32::from_be_bytes([a, b, c, d]);
        Ok(Self { key, header: whole, slice: ExpectedSlice { ordinal, last: flags & FLAG_LAST != 0, salt, length } })
    }
}

/// What can be said of a header without any key.
fn clear_header(header: &[u8]) -> Result<[u8; HEADER_LEN], SliceError> {
    let header: [u8; HEADER_LEN] =
        header.get(..HEADER_LEN).and_then(|header| header.try_into().ok()).ok_or(SliceError::Truncated)?;
    if header[..4] != MAGIC {
        return Err(SliceError::Magic);
    }
    if header[4] != VERSION || header[5..8] != [0; 3] {
        return Err(SliceError::Version);
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{MAX_SLICE, SliceBuffer, seal_slice},
        *,
    };
    use proptest::prelude::*;

    fn audio(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    fn seal(secret: &Secret, plain: &[u8]) -> (Vec<u8>, ExpectedSlice) {
        let sealed = seal_slice(secret, 3, true, plain);
        assert_eq!(sealed.object.len() as u64, object_len(plain.len() as u64));
        (sealed.object, ExpectedSlice { ordinal: 3, last: true, salt: sealed.salt, length: plain.len() as u64 })
    }

    fn open_whole(secret: &Secret, object: &[u8], expected: &ExpectedSlice) -> Result<Vec<u8>, SliceError> {
        let reader = SliceReader::new(secret, object, expected)?;
        reader.check_object_len(object.len() as u64)?;
        let mut body = object[HEADER_LEN..].to_vec();
        reader.open(0, &mut body).map(|plain| plain.to_vec())
    }

    #[test]
    fn every_boundary_length_reads_back() {
        let secret = Secret::random();
        for length in [0, 1, 15, 16, 65_535, 65_536, 65_537, 131_071, 131_072, 131_073, MAX_SLICE - 1, MAX_SLICE] {
            let plain = audio(length);
            let (object, expected) = seal(&secret, &plain);
            assert!(open_whole(&secret, &object, &expected) == Ok(plain), "length {length}");
        }
    }

    #[test]
    fn a_buffer_takes_what_fits_and_no_more() {
        let secret = Secret::random();
        let plain = audio(MAX_SLICE + 10);
        let mut buffer = SliceBuffer::new();
        assert_eq!(buffer.push(&[]), 0);
        assert_eq!(buffer.push(&plain[..70_000]), 70_000);
        assert_eq!(buffer.push(&plain[70_000..]), MAX_SLICE - 70_000);
        assert!(buffer.is_full() && buffer.push(&plain) == 0);
        assert!(buffer.memory() as u64 <= object_len(MAX_SLICE as u64));
        let sealed = buffer.seal(&secret, 0, false);
        let expected = ExpectedSlice { ordinal: 0, last: false, salt: sealed.salt, length: sealed.length };
        assert!(open_whole(&secret, &sealed.object, &expected) == Ok(plain[..MAX_SLICE].to_vec()));
    }

    #[test]
    fn sealing_twice_is_two_epochs() {
        let secret = Secret::random();
        let (a, b) = (seal(&secret, b"same"), seal(&secret, b"same"));
        assert_ne!(a.1.salt, b.1.salt);
        assert_ne!(a.0[HEADER_LEN..], b.0[HEADER_LEN..]);
    }

    #[test]
    fn every_flipped_bit_is_noticed_for_its_own_reason() {
        let secret = Secret::random();
        let (object, expected) = seal(&secret, b"some audio");
        for bit in 0..object.len() * 8 {
            let mut broken = object.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let reason = match bit / 8 {
                0..4 => SliceError::Magic,
                4..8 => SliceError::Version,
                8..40 => SliceError::SaltNotListed,
                40..72 => SliceError::WrongKey,
                72..96 => SliceError::HeaderAltered,
                _ => SliceError::Segment(0),
            };
            assert_eq!(open_whole(&secret, &broken, &expected), Err(reason), "bit {bit}");
        }
    }

    #[test]
    fn a_failed_fetch_gives_nothing_at_all() {
        let secret = Secret::random();
        let (object, expected) = seal(&secret, &audio(3 * SEGMENT));
        let reader = SliceReader::new(&secret, &object, &expected).expect("a good header");
        let mut body = object[HEADER_LEN..].to_vec();
        *body.last_mut().expect("not empty") ^= 1;
        assert_eq!(reader.open(0, &mut body), Err(SliceError::Segment(2)));
        assert!(body.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn opened_segments_leave_no_plaintext_behind_them() {
        let secret = Secret::random();
        let (object, expected) = seal(&secret, &[7; 2 * SEGMENT]);
        let reader = SliceReader::new(&secret, &object, &expected).expect("a good header");
        let mut body = object[HEADER_LEN..].to_vec();
        assert_eq!(reader.open(0, &mut body).map(|plain| plain.len()), Ok(2 * SEGMENT));
        assert!(body[2 * SEGMENT..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_fetch_that_ends_inside_a_segment_is_cut_short() {
        let secret = Secret::random();
        let (object, expected) = seal(&secret, &audio(2 * SEGMENT));
        let reader = SliceReader::new(&secret, &object, &expected).expect("a good header");
        let mut body = object[HEADER_LEN..object.len() - 1].to_vec();
        assert_eq!(reader.open(0, &mut body), Err(SliceError::Truncated));
        let mut behind = object[HEADER_LEN..].to_vec();
        assert_eq!(reader.open(1, &mut behind), Err(SliceError::Segment(1)), "the first segment in the second's place");
        let mut beyond = vec![0; 32];
        assert_eq!(reader.open(2, &mut beyond), Err(SliceError::TrailingBytes));
        assert_eq!(reader.open(u32::MAX, &mut beyond), Err(SliceError::TrailingBytes));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_range_of_any_slice_reads_back(
            length in 0..4 * SEGMENT + 9,
            from in 0..4 * SEGMENT + 20,
            span in 0..3 * SEGMENT,
            pieces in prop::collection::vec(1..90_000_usize, 1..8),
        ) {
            let secret = Secret::random();
            let plain = audio(length);
            let mut buffer = SliceBuffer::new();
            let mut rest = plain.as_slice();
            for piece in pieces.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*piece));
                prop_assert_eq!(buffer.push(now), now.len());
                rest = later;
            }
            let sealed = buffer.seal(&secret, 9, false);
            let expected = ExpectedSlice { ordinal: 9, last: false, salt: sealed.salt, length: length as u64 };
            let reader = SliceReader::new(&secret, &sealed.object, &expected).expect("a good header");
            let cut = reader.cut(from as u64..(from + span) as u64);
            let mut fetched = sealed.object[cut.object.start as usize..cut.object.end as usize].to_vec();
            let opened = reader.open(cut.first_segment, &mut fetched).expect("opens");
            let wanted = &plain[from.min(length)..(from + span).min(length)];
            prop_assert!(&opened[cut.inner] == wanted);
        }

        #[test]
        fn any_flipped_bit_of_a_long_slice_is_noticed(length in 0..2 * SEGMENT + 9, bit: prop::sample::Index) {
            let secret = Secret::random();
            let (mut object, expected) = seal(&secret, &audio(length));
            let bit = bit.index(object.len() * 8);
            object[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open_whole(&secret, &object, &expected).is_err());
        }

        #[test]
        fn any_other_length_is_noticed(length in 0..2 * SEGMENT + 9, cut: prop::sample::Index, tail in 1..100_usize) {
            let secret = Secret::random();
            let (object, expected) = seal(&secret, &audio(length));
            let short = &object[..cut.index(object.len())];
            prop_assert_eq!(open_whole(&secret, short, &expected), Err(SliceError::Truncated));
            let long = [object.as_slice(), &vec![0; tail]].concat();
            prop_assert_eq!(open_whole(&secret, &long, &expected), Err(SliceError::TrailingBytes));
        }

        #[test]
        fn hostile_headers_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), length: u64) {
            let secret = Secret::random();
            let expected = ExpectedSlice { ordinal: 0, last: true, salt: [0; 32], length };
            let _ = SliceReader::new(&secret, &bytes, &expected).is_err();
            if bytes.len() >= 5 {
                bytes[..5].copy_from_slice(b"QTSL\x01");
            }
            let _ = SliceReader::unlisted(&secret, &bytes, length).is_err();
        }
    }
}
