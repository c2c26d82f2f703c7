//! After a start: recordings that a stop or a crash left open, and journal frames that wait.
//!
//! Every recording that takes audio has an `Open` row under its client-id period; the row goes in the command that
//! completes the recording or marks it partial. So the rows tell, without a scan of the tree, who was inside. Each gets a
//! track without a caller: if its journal holds Finish, the rest is put at once; otherwise the track waits for the caller
//! as long as any other does, then marks the recording partial. A caller that returns cuts the track and takes over.
//!
//! Frames of a recording with no row and no leaf belong to something that was erased or completed: forgotten.

use super::{Error, Inner, audio, track::Track, values};
use crate::{
    crypto::envelope::Kind,
    domain::id::{PeriodHandle, RecordingHandle, RowId, SubscriberHandle},
    journal::{FrameKind, Recovered},
    keys::{Mutation, Purpose, RecordingPath},
    proto::stored,
};
use prost::Message as _;
use std::{collections::HashSet, sync::Arc, time::Duration};

/// Pause before a recording whose track failed is looked at again.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// State of a recording that takes audio.
const OPEN: u32 = 1;

/// Starts a track for every recording that was left open.
pub(crate) fn take_up(inner: &Arc<Inner>, recovered: Recovered) -> Result<(), Error> {
    let mut open = HashSet::new();
    for (tenant, _) in inner.keys.tenants() {
        for period in inner.keys.periods(tenant) {
            if period.purpose != Purpose::ClientIds {
                continue;
            }
            let Some(holder) = inner.keys.period(tenant, period.handle)? else { continue };
            let rows = values::read_all::<stored::OpenEntry>(&inner.keys, holder.row, Kind::Open, &holder.secret)?;
            for (suffix, entry) in rows {
                let (Some(row), Some(subscriber), Some(recording)) = (
                    RowId::from_slice(&suffix),
                    SubscriberHandle::from_slice(&entry.subscriber),
                    RecordingHandle::from_slice(&entry.handle),
                ) else {
                    return Err(Error::Corrupt("an open recording's row".to_owned()));
                };
                let path = RecordingPath { tenant, subscriber, recording };
                if adopt(inner, path, (period.handle, period.row))? {
                    open.insert(row);
                }
            }
        }
    }
    for row in recovered.calls.keys().filter(|row| !open.contains(row)) {
        inner.journal.forget(*row);
    }
    Ok(())
}

/// After a pause, looks after a recording whose track was cut or failed: goes on with it, or, where it was erased, has the
/// journal let go of it.
pub(crate) async fn adopt_later(inner: Arc<Inner>, path: RecordingPath, row: RowId, period: PeriodHandle) {
    let mut pause = PAUSE;
    loop {
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        match look_after(&inner, path, row, period).await {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, %row, "a recording cannot be taken up yet"),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn look_after(inner: &Arc<Inner>, path: RecordingPath, row: RowId, period: PeriodHandle) -> Result<(), Error> {
    // The track's last command, and the erasure that cut it, may wait for the writer; this waits behind them.
    inner.keys.commit(Mutation::new(Vec::new())).await?;
    if inner.keys.audio_leaf(path)?.is_none_or(|leaf| leaf.audio.is_none()) {
        inner.journal.forget(row);
    } else if let Some(holder) = inner.keys.period(path.tenant, period)? {
        adopt(inner, path, (period, holder.row))?;
    }
    Ok(())
}

/// Starts a track without a caller. False when the audio was erased. Somebody who feeds the recording is left alone.
fn adopt(inner: &Arc<Inner>, path: RecordingPath, period: (PeriodHandle, RowId)) -> Result<bool, Error> {
    let Some(guard) = inner.sessions.enter_ingest(path) else {
        // Whoever corrects the facts is soon gone, and looks after nothing.
        return if inner.sessions.is_fed(path) { Ok(true) } else { Err(Error::Busy) };
    };
    // The client id's row is needed only by a caller, and there is none.
    let client_row = values::name(period.1, Kind::Client);
    let Some(track) = Track::take_up(inner, guard, period, client_row)? else { return Ok(false) };
    if track.audio_row.state == OPEN {
        inner.tasks.spawn(track.run_orphan());
    }
    Ok(true)
}

/// What the journal says of Finish, where the audio before it is all there.
pub(crate) fn finish_frame(inner: &Inner, track: &Track) -> Result<Option<stored::FinishFrame>, Error> {
    let audio = track.audio_secret()?;
    let frames = inner.journal.frames(track.row);
    let Some(frame) = frames.iter().rev().find(|frame| frame.kind == FrameKind::Finish) else { return Ok(None) };
    let plain =
        inner.journal.read(audio, frame).map_err(|error| Error::Corrupt(format!("a journal frame: {error}")))?;
    let stated = stored::FinishFrame::decode(plain.as_slice())
        .map_err(|_| Error::Corrupt("a Finish frame does not decode".to_owned()))?;
    let kept = audio::end_of(&inner.pieces(track.row, audio)?);
    Ok((kept == stated.length).then_some(stated))
}
