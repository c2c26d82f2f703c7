//! The time line of a recording: where it was paused, for how long, and why. And what a sender orders while its recording runs
//! and what must not wait for S3: Pause, Resume, Discard.
//!
//! # What a pause promises
//!
//! Everything that the stream carried before Pause is taken, nothing that it carries behind is, until Resume. The front half
//! ([`super::Ingest`]) takes one message after the other, so it need only remember; it refuses audio before any of it
//! reaches a buffer, the digest or the journal. One row under the audio secret makes the pause outlive the stream: it is
//! written, with the entry in the audit log, in one synced command, and only then is Pause answered.
//!
//! The pause's place is a byte, and all bytes before it are kept by then: the row waits until they are (of a live call in
//! the journal; of a file in a slice, which is sealed for it). So a place on the time line is never behind the end of
//! what is kept, and a recording that is paused ends exactly there.
//!
//! # A stream that is lost, a process that dies
//!
//! - *Before the row is durable*: Pause was not answered. The recording runs, and ends with what was kept; the sender,
//!   which has no answer, opens again, hears that nothing is paused, and sends Pause again.
//! - *The row is durable, the answer is lost*, or the stream is lost at any time later: whoever opens the recording again reads
//!   the row, tells the sender, and refuses audio. A recording that nobody comes back for becomes partial like any other;
//!   its gap has no end then.
//! - *Resume*: the row says so before it is answered, and so before any audio behind it is taken. If it was lost, the recording
//!   is still paused, and the sender resumes again. If only its answer was lost, it runs; Resume again changes nothing.
//! - *Pause and Resume were both taken and neither answer arrived*: the sender that sends both again makes no second gap,
//!   because two pauses with no audio between are one: the row is keyed by its place.
//! - *Finish while paused*: the rows that complete the recording end the pause at the call's end, in their one command.
//!
//! A sender that is silent is not one that has vanished: a recording becomes partial only behind the end of its stream, so
//! a pause may last as long as the call.
//!
//! # What it does not do
//! Bytes count audio alone, so nothing else in a recording has to know of pauses. Moments are as the switch states them,
//! brought within what can be, and never a reason to refuse: a wrong clock must not have a card number recorded.

use super::{
    Actor, Error, Gap, Inner, Paused, Progress,
    audit::{About, Detail, Event},
    discard::Discarding,
    tenants::invalid,
    track::Ended,
    values,
};
use crate::{
    crypto::{envelope::Kind, secret::Secret},
    domain::{
        audit::{Action, Outcome},
        id::RowId,
        media::Layout,
        pause::PauseReason,
        time::Timestamp,
    },
    keys::{Change, Mutation, Owner, RecordingPath},
    proto::stored::{Pause, Timeline},
};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Most gaps in one recording.
pub(crate) const MAX_GAPS: usize = 256;

/// What a sender orders apart from its audio.
pub(crate) enum Command {
    /// Pause behind so many bytes, once they are kept.
    Pause {
        /// Where.
        offset: u64,
        /// Why.
        reason: PauseReason,
        /// When, as the switch states it.
        at: Option<Timestamp>,
        /// Who says so.
        actor: Actor,
        /// Answered once it is durable, or where it is refused.
        reply: oneshot::Sender<Result<Paused, Error>>,
    },
    /// Go on.
    Resume {
        /// When, as the switch states it.
        at: Option<Timestamp>,
        /// Who says so.
        actor: Actor,
        /// Answered once it is durable.
        reply: oneshot::Sender<()>,
    },
    /// Forget the recording.
    Discard(Discarding),
}

/// Keeps the time line of a recording that takes audio. A part of its track: cut with it, its secret wiped with the track's.
pub(crate) struct Timekeeper {
    pub inner: Arc<Inner>,
    pub path: RecordingPath,
    pub row: RowId,
    pub audio: Secret,
    /// When the call began, while the facts tell.
    pub start: Option<Timestamp>,
    pub timeline: Timeline,
}

impl Timekeeper {
    /// Does what is ordered, in its order. Ends by a Discard or an error; a queue whose sender has gone leaves the rest to
    /// the track.
    pub(crate) async fn run(
        &mut self,
        commands: &mut mpsc::Receiver<Box<Command>>,
        mut progress: watch::Receiver<Progress>,
    ) -> Result<Ended, Error> {
        while let Some(command) = commands.recv().await {
            // On the heap, and only while it takes: a call that is never paused needs no memory for it.
            if let Some(ended) = Box::pin(self.obey(*command, &mut progress)).await? {
                return Ok(ended);
            }
        }
        std::future::pending().await
    }

    async fn obey(
        &mut self,
        command: Command,
        progress: &mut watch::Receiver<Progress>,
    ) -> Result<Option<Ended>, Error> {
        let mut timeline = self.timeline.clone();
        match command {
            Command::Pause { offset, reason, at, actor, reply } => {
                progress
                    .wait_for(|progress| progress.journaled.max(progress.stored) >= offset)
                    .await
                    .map_err(|_| Error::Stopping)?;
                let at = moment(&timeline, self.start, at, self.inner.clock.now());
                let begun = begin(&mut timeline, offset, reason, at);
                if begun.is_ok() {
                    self.write(timeline, &actor, Action::RecordingPause, reason, offset).await?;
                }
                // A sender that has gone hears of it when it comes back.
                let _ = reply.send(begun);
            }
            Command::Resume { at, actor, reply } => {
                let at = moment(&timeline, self.start, at, self.inner.clock.now());
                if let (Some(paused), true) = (paused(&timeline)?, end(&mut timeline, at)) {
                    let (reason, offset) = (paused.reason, paused.offset);
                    self.write(timeline, &actor, Action::RecordingResume, reason, offset).await?;
                }
                let _ = reply.send(());
            }
            Command::Discard(how) => return Ok(Some(Ended::Discarded(how))),
        }
        Ok(None)
    }

    /// Writes the row and its entry in the log, durably.
    async fn write(
        &mut self,
        timeline: Timeline,
        actor: &Actor,
        action: Action,
        reason: PauseReason,
        offset: u64,
    ) -> Result<(), Error> {
        let notes = vec![("offset", offset.to_string())];
        let detail = Detail { reason: Some(reason.word()), notes, ..Detail::default() };
        let event = Event { action, about: About::Audio(self.path), grant: None, outcome: Outcome::Done, detail };
        let mut changes = self.inner.audit(actor, event).await?;
        changes.push(change(self.path, self.row, &self.audio, &timeline));
        self.inner.keys.commit(Mutation::new(changes)).await?;
        self.timeline = timeline;
        Ok(())
    }
}

/// The change that writes a time line.
pub(crate) fn change(path: RecordingPath, row: RowId, audio: &Secret, timeline: &Timeline) -> Change {
    let name = values::name(row, Kind::Timeline);
    let envelope = values::seal(timeline, audio, &name);
    Change::PutValue { owner: Owner::Audio(path), name, envelope }
}

/// When something happened: as the switch states it, but not in our future, and not before what came before.
fn moment(timeline: &Timeline, start: Option<Timestamp>, stated: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let before = timeline.pauses.last().map(|last| Timestamp(last.ended_ms.unwrap_or(last.began_ms))).or(start);
    let at = stated.unwrap_or(now).min(now);
    before.map_or(at, |before| at.max(before))
}

/// The pause that lasts.
pub(crate) fn paused(timeline: &Timeline) -> Result<Option<Paused>, Error> {
    let last = timeline.pauses.last().filter(|last| last.ended_ms.is_none());
    last.map(|last| Ok(Paused { offset: last.offset, since: Timestamp(last.began_ms), reason: reason(last)? }))
        .transpose()
}

fn reason(pause: &Pause) -> Result<PauseReason, Error> {
    PauseReason::from_number(pause.reason).ok_or_else(|| Error::Corrupt("a recording's time line".to_owned()))
}

/// Begins a pause. Where no audio came since the last one, that one goes on.
fn begin(timeline: &mut Timeline, offset: u64, reason: PauseReason, at: Timestamp) -> Result<Paused, Error> {
    let full = timeline.pauses.len() >= MAX_GAPS;
    match timeline.pauses.last_mut().filter(|last| last.offset == offset || last.ended_ms.is_none()) {
        Some(last) => last.ended_ms = None,
        None if full => {
            let remedy = format!("a recording has at most {MAX_GAPS} gaps; finish it, and go on with another one");
            return Err(invalid("pause", remedy));
        }
        None => {
            let (reason, began_ms) = (reason as u32, at.0);
            timeline.pauses.push(Pause { offset, reason, began_ms, ended_ms: None });
        }
    }
    paused(timeline)?.ok_or_else(|| Error::Internal("a pause that was begun does not last".to_owned()))
}

/// Ends the pause that lasts. False where none does.
pub(crate) fn end(timeline: &mut Timeline, at: Timestamp) -> bool {
    match timeline.pauses.last_mut().filter(|last| last.ended_ms.is_none()) {
        Some(last) => {
            last.ended_ms = Some(at.0.max(last.began_ms));
            true
        }
        None => false,
    }
}

/// All pauses that have ended, together.
pub(crate) fn paused_ms(timeline: &Timeline) -> u64 {
    timeline.pauses.iter().filter_map(length_ms).fold(0, u64::saturating_add)
}

fn length_ms(pause: &Pause) -> Option<u64> {
    pause.ended_ms.map(|ended| ended.saturating_sub(pause.began_ms).unsigned_abs())
}

/// The gaps as a listener is told of them, with the seconds of audio before each where the rate is known.
pub(crate) fn gaps(timeline: &Timeline, layout: Option<&Layout>) -> Result<Vec<Gap>, Error> {
    let gap = |pause: &Pause| {
        Ok(Gap {
            offset: pause.offset,
            seconds: layout.map(|layout| layout.duration(pause.offset)),
            length_ms: length_ms(pause),
            reason: reason(pause)?,
        })
    };
    timeline.pauses.iter().map(gap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::media;

    const CARD: PauseReason = PauseReason::PaymentCard;

    fn at(ms: i64) -> Timestamp {
        Timestamp(ms)
    }

    #[test]
    fn a_pause_lasts_until_it_is_ended() {
        let mut timeline = Timeline::default();
        assert!(!end(&mut timeline, at(5)), "nothing to end");
        let begun = begin(&mut timeline, 100, CARD, at(1000)).expect("begun");
        assert_eq!(begun, Paused { offset: 100, since: at(1000), reason: CARD });
        assert_eq!(
            begin(&mut timeline, 100, PauseReason::Other, at(2000)).expect("begun"),
            begun,
            "it is paused already"
        );
        assert_eq!((paused(&timeline).expect("reads"), paused_ms(&timeline)), (Some(begun), 0));
        assert!(end(&mut timeline, at(4000)) && !end(&mut timeline, at(9000)));
        assert_eq!((paused(&timeline).expect("reads"), paused_ms(&timeline)), (None, 3000));
    }

    #[test]
    fn pauses_without_audio_between_are_one_gap() {
        let mut timeline = Timeline::default();
        for round in 0..3 {
            begin(&mut timeline, 100, CARD, at(1000 + round)).expect("begun");
            end(&mut timeline, at(5000 + round));
        }
        begin(&mut timeline, 200, PauseReason::Privacy, at(6000)).expect("begun");
        let layout = media::layout("audio/PCMA", &[]).expect("a rate");
        let gap = |offset, seconds, length_ms, reason| Gap { offset, seconds, length_ms, reason };
        let expected = [gap(100, Some(0.0125), Some(4002), CARD), gap(200, Some(0.025), None, PauseReason::Privacy)];
        assert_eq!(gaps(&timeline, Some(&layout)).expect("reads"), expected);
        assert_eq!(gaps(&timeline, None).expect("reads")[0].seconds, None);
    }

    #[test]
    fn a_time_line_is_bounded_and_its_last_gap_can_go_on() {
        let mut timeline = Timeline::default();
        for offset in 0..MAX_GAPS as u64 {
            begin(&mut timeline, offset, CARD, at(0)).expect("room");
            end(&mut timeline, at(0));
        }
        let full = begin(&mut timeline, MAX_GAPS as u64, CARD, at(0)).expect_err("full");
        assert!(matches!(full, Error::Invalid { field: "pause", .. }), "{full}");
        assert_eq!(timeline.pauses.len(), MAX_GAPS);
        assert!(begin(&mut timeline, MAX_GAPS as u64 - 1, CARD, at(0)).is_ok());
    }

    #[test]
    fn a_wrong_clock_moves_a_gap_and_refuses_nothing() {
        let mut timeline = Timeline::default();
        let (start, now) = (Some(at(1000)), at(5000));
        // (stated, what counts) before any pause.
        for (stated, counts) in
            [(None, 5000), (Some(3000), 3000), (Some(9000), 5000), (Some(1), 1000), (Some(i64::MIN), 1000)]
        {
            assert_eq!(moment(&timeline, start, stated.map(Timestamp), now), at(counts), "{stated:?}");
        }
        assert_eq!(moment(&timeline, None, Some(at(-7)), now), at(-7));
        begin(&mut timeline, 1, CARD, at(4000)).expect("begun");
        assert_eq!(moment(&timeline, start, Some(at(3000)), now), at(4000), "not before it began");
        end(&mut timeline, at(4500));
        assert_eq!(moment(&timeline, start, Some(at(4200)), now), at(4500), "not before the last one ended");
        // A clock that was put back between the two.
        end(&mut timeline, at(0));
        begin(&mut timeline, 2, CARD, at(i64::MAX)).expect("begun");
        end(&mut timeline, at(i64::MIN));
        assert_eq!(paused_ms(&timeline), 500);
    }

    #[test]
    fn a_reason_from_the_future_is_damage_and_no_guess() {
        let pause = Pause { offset: 1, reason: 99, began_ms: 0, ended_ms: None };
        let timeline = Timeline { pauses: vec![pause] };
        assert!(matches!(paused(&timeline), Err(Error::Corrupt(_))));
        assert!(matches!(gaps(&timeline, None), Err(Error::Corrupt(_))));
    }
}
