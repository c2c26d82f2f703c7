//! One journal frame: its bytes, how it is sealed and opened. Pure but for the sealing key it is given.
//!
//! The byte table is in `docs/format.md`, section 5; a test here holds the code to it.

use super::ReadError;
use crate::crypto::{
    epoch::{NONCE_LEN, OpeningKey, SALT_LEN, Salt, SealingKey, TAG_LEN},
    label::Label,
    secret::Secret,
};
use crate::domain::id::RowId;
use zeroize::Zeroizing;

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"QTJF";
/// Bytes before the sealed part.
pub const HEADER_LEN: usize = 76;
/// Bytes of the checksum behind it.
pub const CRC_LEN: usize = 4;
/// Most plaintext in one frame.
pub const MAX_PLAINTEXT: usize = 1 << 20;

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Audio from `offset` on.
    Audio = 1,
    /// What the caller stated at Finish.
    Finish = 2,
}

/// Where a frame lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) struct Position {
    pub segment: u32,
    /// Fits: a segment has at most 1 GiB and one frame.
    pub offset: u32,
}

/// Names one frame on disk; 64 bytes in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct FrameRef {
    pub(super) salt: Salt,
    pub(super) sequence: u64,
    /// Offset of its first byte in the recording.
    pub offset: u64,
    /// Bytes of plaintext.
    pub len: u32,
    pub(super) at: Position,
    /// What it holds.
    pub kind: FrameKind,
}

impl FrameRef {
    /// Offset in the recording just behind its last byte.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }

    pub(super) fn disk_len(&self) -> usize {
        disk_len(self.len as usize)
    }
}

/// Bytes on disk of a frame with so much plaintext.
pub(super) const fn disk_len(plaintext: usize) -> usize {
    HEADER_LEN + plaintext + TAG_LEN + CRC_LEN
}

fn nonce(sequence: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&sequence.to_be_bytes());
    nonce
}

/// The bytes of a frame. The plaintext's copy in them is sealed in place.
pub(super) fn seal(key: &SealingKey, row: RowId, frame: &FrameRef, plaintext: &[u8]) -> Vec<u8> {
    // The capacity is exact, so that no copy of the plaintext is left behind by growing.
    let mut bytes = Vec::with_capacity(disk_len(plaintext.len()));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[1, frame.kind as u8, 0, 0]);
    bytes.extend_from_slice(&row.0);
    bytes.extend_from_slice(&frame.salt);
    bytes.extend_from_slice(&frame.sequence.to_be_bytes());
    bytes.extend_from_slice(&frame.offset.to_be_bytes());
    bytes.extend_from_slice(&((plaintext.len() + TAG_LEN) as u32).to_be_bytes());
    bytes.extend_from_slice(plaintext);
    let (header, body) = bytes.split_at_mut(HEADER_LEN);
    let tag = key.seal(nonce(frame.sequence), header, body);
    bytes.extend_from_slice(&tag);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// A frame found at the start of some bytes: whole, its checksum right. Not opened.
pub(super) struct Found {
    pub row: RowId,
    pub reference: FrameRef,
}

/// Parses the frame at `at` in a segment's bytes, if there is a whole one.
pub(super) fn parse(segment: &[u8], at: usize, number: u32) -> Option<Found> {
    let rest = segment.get(at..)?;
    let header: &[u8; HEADER_LEN] = rest.first_chunk()?;
    let kind = match header[5] {
        1 => FrameKind::Audio,
        2 => FrameKind::Finish,
        _ => return None,
    };
    if header[..4] != MAGIC || header[4] != 1 || header[6..8] != [0, 0] {
        return None;
    }
    let len = (be_u32(header, 72)? as usize).checked_sub(TAG_LEN).filter(|len| *len <= MAX_PLAINTEXT)?;
    let whole = rest.get(..disk_len(len))?;
    let (summed, crc) = whole.split_at(whole.len() - CRC_LEN);
    if crc32c::crc32c(summed) != be_u32(crc, 0)? {
        return None;
    }
    let reference = FrameRef {
        salt: header[24..24 + SALT_LEN].try_into().ok()?,
        sequence: be_u64(header, 56)?,
        offset: be_u64(header, 64)?,
        len: u32::try_from(len).ok()?,
        at: Position { segment: number, offset: u32::try_from(at).ok()? },
        kind,
    };
    Some(Found { row: RowId::from_slice(&header[8..24])?, reference })
}

/// Opens the bytes that were read from where `expected` lies.
pub(super) fn open(
    audio: &Secret,
    expected: &FrameRef,
    mut bytes: Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let found = parse(&bytes, 0, expected.at.segment).ok_or(ReadError::Damaged)?;
    if (FrameRef { at: expected.at, ..found.reference }) != *expected {
        return Err(ReadError::Damaged);
    }
    let key = OpeningKey::derive(audio, Label::JournalFrame, &[&found.row.0, &expected.salt]);
    let end = bytes.len() - CRC_LEN;
    let (header, sealed) = bytes[..end].split_at_mut(HEADER_LEN);
    let len = key.open(nonce(expected.sequence), header, sealed).map_err(|_| ReadError::Damaged)?.len();
    bytes.copy_within(HEADER_LEN..HEADER_LEN + len, 0);
    // Wiped before it is cut off: the tail would otherwise keep a copy of the end of the plaintext.
    bytes[len..].fill(0);
    bytes.truncate(len);
    Ok(bytes)
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::epoch::FreshSalt;

    fn sealed(secret: &Secret, row: RowId, sequence: u64, plaintext: &[u8]) -> (FrameRef, Vec<u8>) {
        let fresh = FreshSalt::draw();
        let salt = *fresh.bytes();
        let key = fresh.sealing_key(secret, Label::JournalFrame, &[&row.0, &salt]);
        let at = Position { segment: 7, offset: 0 };
        let frame =
            FrameRef { salt, sequence, offset: 0x0102, len: plaintext.len() as u32, at, kind: FrameKind::Audio };
        (frame, seal(&key, row, &frame, plaintext))
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let (secret, row) = (Secret::random(), RowId([9; 16]));
        let (frame, bytes) = sealed(&secret, row, 5, b"speech");
        assert_eq!(bytes.len(), 76 + 6 + 16 + 4);
        assert_eq!(bytes[..8], *b"QTJF\x01\x01\0\0");
        assert_eq!(bytes[8..24], [9; 16]);
        assert_eq!(bytes[24..56], frame.salt);
        assert_eq!(bytes[56..64], 5u64.to_be_bytes());
        assert_eq!(bytes[64..72], 0x0102u64.to_be_bytes());
        assert_eq!(bytes[72..76], 22u32.to_be_bytes());
        assert_eq!(bytes[98..], crc32c::crc32c(&bytes[..98]).to_be_bytes());
        // Opened with ring alone, from the table in the document.
        let mut context = row.0.to_vec();
        context.extend_from_slice(&frame.salt);
        let key = crate::crypto::label::derive::<32>(secret.expose(), Label::JournalFrame, &[&context]);
        let key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, key.as_slice()).expect("key");
        let mut body = bytes[76..98].to_vec();
        let nonce = ring::aead::Nonce::assume_unique_for_key(*b"\0\0\0\0\0\0\0\0\0\0\0\x05");
        let plain = ring::aead::LessSafeKey::new(key)
            .open_in_place(nonce, ring::aead::Aad::from(&bytes[..76]), &mut body)
            .expect("opens");
        assert_eq!(plain, b"speech");
    }

    #[test]
    fn a_reference_takes_64_bytes() {
        assert_eq!(size_of::<FrameRef>(), 64);
    }

    #[test]
    fn a_frame_opens_under_its_own_secret_only() {
        let (secret, row) = (Secret::random(), RowId([9; 16]));
        let (frame, bytes) = sealed(&secret, row, 0, b"speech");
        assert_eq!(open(&secret, &frame, Zeroizing::new(bytes.clone())).expect("opens").as_slice(), b"speech");
        assert!(matches!(open(&Secret::random(), &frame, Zeroizing::new(bytes)), Err(ReadError::Damaged)));
    }

    #[test]
    fn every_flipped_bit_is_noticed_even_with_the_checksum_mended() {
        let (secret, row) = (Secret::random(), RowId([9; 16]));
        let (frame, bytes) = sealed(&secret, row, 3, b"speech");
        for bit in 0..(bytes.len() - CRC_LEN) * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&broken, 0, 7).is_none(), "bit {bit} passes the checksum");
            let end = broken.len() - CRC_LEN;
            let crc = crc32c::crc32c(&broken[..end]);
            broken[end..].copy_from_slice(&crc.to_be_bytes());
            assert!(open(&secret, &frame, Zeroizing::new(broken)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_frame_of_the_same_call_in_its_place_is_noticed() {
        let (secret, row) = (Secret::random(), RowId([9; 16]));
        let (frame, _) = sealed(&secret, row, 3, b"speech");
        let (_, other) = sealed(&secret, row, 3, b"speech");
        assert!(matches!(open(&secret, &frame, Zeroizing::new(other)), Err(ReadError::Damaged)));
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(mut bytes: Vec<u8>, at in 0usize..300) {
            let _ = parse(&bytes, at, 1);
            let mut with_magic = b"QTJF\x01\x01\0\0".to_vec();
            with_magic.append(&mut bytes);
            let _ = parse(&with_magic, 0, 1);
        }
    }
}
