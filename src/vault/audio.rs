//! Where the bytes of a recording lie, and reading them: its slices in S3 in their order, then what waits in the journal.
//!
//! The journal may hold bytes that are in a slice already (a crash came between the slice's row and the release), and bytes
//! behind a gap (power or a full disk took a frame that was never acknowledged, and left a later one). Pieces are therefore
//! laid by *position*: each takes up where the one before ends, and what lies below is passed over. A gap ends the
//! recording, until another stream fills it.
//!
//! # Whose bytes count
//!
//! A stream goes on where the ones before it end, and what is in its frames is acknowledged. So a frame takes the place of
//! whatever was written before it and reaches behind its beginning: that lay behind a gap, and was acknowledged to nobody.
//! Finish ends the recording in the same way, until somebody goes on behind it.
//!
//! The last slice ends it for good: it was sealed from everything that counts, and whatever the journal holds besides does
//! not. It holds that until it is told, which waits for the backup.

use super::{Error, Inner, values};
use crate::{
    crypto::{envelope::Kind, secret::Secret},
    domain::id::{ObjectId, RowId},
    journal::{FrameKind, FrameRef},
    object::StoreError,
    proto::stored,
    segment::{ExpectedSlice, HEADER_LEN, SliceReader},
};
use std::ops::Range;
use zeroize::Zeroizing;

/// One row of the slice list.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub object: ObjectId,
    /// Region that took the first copy.
    pub region: String,
    pub expected: ExpectedSlice,
}

/// A run of a recording's bytes.
pub(crate) struct Piece {
    /// Its place in the recording.
    pub at: Range<u64>,
    pub source: Source,
}

pub(crate) enum Source {
    Slice(Listed),
    /// A frame and how many of its first bytes are passed over.
    Frame(FrameRef, u64),
}

impl Inner {
    /// The slice list of a recording, in order.
    pub(crate) fn slices(&self, row: RowId, audio: &Secret) -> Result<Vec<Listed>, Error> {
        let rows = values::read_all::<stored::Slice>(&self.keys, row, Kind::Slice, audio)?;
        let mut slices = Vec::with_capacity(rows.len());
        for (suffix, slice) in rows {
            let wrong = || Error::Corrupt("a row of the slice list".to_owned());
            let ordinal = u32::from_be_bytes(suffix.try_into().map_err(|_| wrong())?);
            if ordinal as usize != slices.len() {
                return Err(Error::Corrupt("the slice list has a gap".to_owned()));
            }
            slices.push(Listed {
                object: ObjectId::from_slice(&slice.object_id).ok_or_else(wrong)?,
                region: slice.region,
                expected: ExpectedSlice {
                    ordinal,
                    last: slice.last,
                    salt: slice.salt.as_slice().try_into().map_err(|_| wrong())?,
                    length: slice.length,
                },
            });
        }
        Ok(slices)
    }

    /// Everything of a recording that is kept, from its first byte on.
    pub(crate) fn pieces(&self, row: RowId, audio: &Secret) -> Result<Vec<Piece>, Error> {
        // Frames first: what goes into a slice between the two looks is then seen twice, and never not at all.
        let frames = self.journal.frames(row);
        let slices = self.slices(row, audio)?;
        let complete = slices.last().is_some_and(|listed| listed.expected.last);
        let mut end = 0;
        let mut pieces: Vec<Piece> = slices
            .into_iter()
            .map(|listed| {
                let at = end..end + listed.expected.length;
                end = at.end;
                Piece { at, source: Source::Slice(listed) }
            })
            .collect();
        if !complete {
            pieces.extend(lay_frames(end, &frames));
        }
        Ok(pieces)
    }

    /// Reads a range of a piece of a recording that may still run: a frame that went into a slice since it was looked up
    /// is read from there.
    pub(crate) async fn read_kept(
        &self,
        row: RowId,
        audio: &Secret,
        piece: &Piece,
        range: Range<u64>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let gone = match self.read_piece(audio, piece, range.clone()).await {
            Err(error) if matches!(piece.source, Source::Frame(..)) => error,
            outcome => return outcome,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity((range.end - range.start) as usize));
        for piece in self.pieces(row, audio)? {
            let part = piece.at.start.max(range.start)..piece.at.end.min(range.end);
            if part.is_empty() {
                continue;
            }
            if matches!(piece.source, Source::Frame(..)) {
                return Err(gone);
            }
            bytes.extend_from_slice(&self.read_piece(audio, &piece, part).await?);
        }
        if bytes.len() as u64 == range.end - range.start { Ok(bytes) } else { Err(gone) }
    }

    /// Reads a range of one piece, given in bytes of the recording.
    pub(crate) async fn read_piece(
        &self,
        audio: &Secret,
        piece: &Piece,
        range: Range<u64>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        match &piece.source {
            Source::Slice(listed) => {
                let mut reader = SliceFetcher::new(listed.clone());
                reader.read(self, audio, range.start - piece.at.start..range.end - piece.at.start).await
            }
            Source::Frame(frame, skip) => self.read_frame(audio, frame, *skip, piece.at.start, range),
        }
    }

    fn read_frame(
        &self,
        audio: &Secret,
        frame: &FrameRef,
        skip: u64,
        piece_start: u64,
        range: Range<u64>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let plain =
            self.journal.read(audio, frame).map_err(|error| Error::Corrupt(format!("a journal frame: {error}")))?;
        let (from, to) = (range.start - piece_start + skip, range.end - piece_start + skip);
        plain
            .get(from as usize..to as usize)
            .map(|bytes| Zeroizing::new(bytes.to_vec()))
            .ok_or_else(|| Error::Corrupt("a journal frame is shorter than its header says".to_owned()))
    }
}

/// Lays journal frames, in the order in which they were written, behind what is stored.
fn lay_frames(stored: u64, frames: &[FrameRef]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut end = stored;
    for frame in frames {
        if frame.offset > end {
            continue;
        }
        end = frame.offset.max(stored);
        while pieces.pop_if(|piece| piece.at.start >= end).is_some() {}
        if let Some(before) = pieces.last_mut() {
            before.at.end = end;
        }
        if frame.kind == FrameKind::Audio && end < frame.end() {
            pieces.push(Piece { at: end..frame.end(), source: Source::Frame(*frame, end - frame.offset) });
            end = frame.end();
        }
    }
    pieces
}

/// Behind the last byte of the pieces.
pub(crate) fn end_of(pieces: &[Piece]) -> u64 {
    pieces.last().map_or(0, |piece| piece.at.end)
}

/// Fetches ranges of one slice; keeps the checked header between them.
pub(crate) struct SliceFetcher {
    listed: Listed,
    reader: Option<SliceReader>,
}

impl SliceFetcher {
    pub(crate) fn new(listed: Listed) -> Self {
        Self { listed, reader: None }
    }

    /// Reads a range of the slice's plaintext: from the region that took the first copy, else from any other.
    pub(crate) async fn read(
        &mut self,
        inner: &Inner,
        audio: &Secret,
        plain: Range<u64>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut regions = inner.objects.regions();
        // Stable: the first copy's region comes first, the others keep their order.
        regions.sort_by_key(|region| *region != self.listed.region);
        let mut failure = None;
        for region in regions {
            match self.read_from(inner, audio, &region, plain.clone()).await {
                Ok(bytes) => return Ok(bytes),
                // The first region's reason is the telling one: a region without a copy says "not found".
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| Error::Storage("no region is configured".to_owned())))
    }

    async fn read_from(
        &mut self,
        inner: &Inner,
        audio: &Secret,
        region: &str,
        plain: Range<u64>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let expected = &self.listed.expected;
        let mut object = crate::segment::object_range(expected.length, plain.clone());
        // The header comes in the same GET where the first segment is wanted anyway.
        let header_inside = self.reader.is_none() && object.start == HEADER_LEN as u64;
        if header_inside {
            object.start = 0;
        } else if self.reader.is_none() {
            let header = self.get(inner, region, 0..HEADER_LEN as u64).await?;
            self.reader = Some(self.checked(audio, &header)?);
        }
        let bytes = self.get(inner, region, object).await?;
        let mut body = Zeroizing::new(bytes.to_vec());
        if header_inside {
            let header = body.get(..HEADER_LEN).ok_or_else(|| Error::Corrupt("a slice is cut short".to_owned()))?;
            self.reader = Some(self.checked(audio, header)?);
            body.drain(..HEADER_LEN);
        }
        let reader = self.reader.as_ref().ok_or_else(|| Error::Internal("a slice without a header".to_owned()))?;
        let cut = reader.cut(plain);
        let opened = reader.open(cut.first_segment, &mut body).map_err(|error| Error::Corrupt(error.to_string()));
        match opened.map(|opened| opened.get(cut.inner).map(|bytes| Zeroizing::new(bytes.to_vec()))) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Error::Corrupt("a slice is shorter than its list says".to_owned())),
            Err(error) => {
                self.reader = None;
                Err(error)
            }
        }
    }

    async fn get(&self, inner: &Inner, region: &str, range: Range<u64>) -> Result<bytes::Bytes, Error> {
        inner.objects.get(region, self.listed.object, range).await.map_err(|error| match error {
            StoreError::NotFound => Error::Corrupt("an object that the slice list names is not in storage".to_owned()),
            other => other.into(),
        })
    }

    fn checked(&self, audio: &Secret, header: &[u8]) -> Result<SliceReader, Error> {
        SliceReader::new(audio, header, &self.listed.expected).map_err(|error| Error::Corrupt(error.to_string()))
    }
}
