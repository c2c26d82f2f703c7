//! `quietus record`: stores files, several at a time.
//!
//! Each file is one recording with a random 128-bit client id. When the stream breaks or the gateway says *try again*,
//! the file is opened anew under the same client id and goes on from where the gateway says it is, so that no retry
//! makes a second recording and nothing that arrived is sent twice. A file is given up after a time without progress.
//! A file counts as done when the gateway says *finished*: everything lies sealed in object storage.
//!
//! A live call may be paused: the bytes of those seconds are not sent, and Pause and Resume stand in their place. A stream that
//! goes on exactly where a pause lies says both again, which changes nothing where they had arrived.
//!
//! Results come in the order of the files. One bad file does not stop the others; the first failure decides the exit
//! status.

use super::{
    args::{Kind, Record},
    connect::Link,
    failure::Failure,
    media, names,
    output::Output,
    pauses::{self, Cut},
};
use crate::{
    crypto,
    domain::{
        media::HEAD,
        pause::{DiscardReason, PauseReason},
        reason::Reason,
    },
    proto::v1::{
        self, RecordRequest, record_request, record_response, recording_service_client::RecordingServiceClient,
    },
};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use ring::digest;
use serde::Deserialize;
use std::{
    collections::HashMap,
    io::SeekFrom,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::{Semaphore, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Spooled files go in large pieces.
const SPOOLED_PIECE: usize = 256 << 10;
/// Live calls go as they are spoken: a tenth of a second of 8 kHz 16-bit sound.
const LIVE_PIECE: usize = 1600;
/// Pieces read ahead of the network.
const PIECES: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Runs the command.
pub async fn run(link: Link, what: Record, output: Output) -> Result<(), Failure> {
    let task = Arc::new(Task::new(link, &what)?);
    let mut total = 0;
    for file in &what.files {
        let metadata = std::fs::metadata(file).map_err(|error| unreadable(file, &error))?;
        total += metadata.len();
    }
    let bar = progress_bar(total);
    let room = Arc::new(Semaphore::new(what.jobs.into()));
    let mut uploads = Vec::new();
    for file in what.files {
        let (task, room, bar) = (task.clone(), room.clone(), bar.clone());
        uploads.push(tokio::spawn(async move {
            let _permit = room.acquire_owned().await;
            let result = task.upload(&file, &bar).await;
            (file, result)
        }));
    }

    let mut first = None;
    for upload in uploads {
        let (file, result) = upload.await.map_err(|error| Failure::failed(error.to_string()))?;
        match result {
            Ok(done) => {
                let json = serde_json::json!({
                    "id": done.id, "file": file, "bytes": done.bytes, "mismatch": done.mismatch,
                    "discarded": done.discarded,
                });
                bar.suspend(|| output.one(json, || done.id))?;
            }
            Err(failure) => {
                let failure = failure.about(file.display());
                bar.suspend(|| failure.report());
                first.get_or_insert(Failure { status: failure.status, message: String::new() });
            }
        }
    }
    bar.finish_and_clear();
    first.map_or(Ok(()), Err)
}

fn progress_bar(total: u64) -> ProgressBar {
    // It shows itself on a terminal only.
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} stored, {bytes_per_sec}, {eta} left");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read {}: {error}", file.display()))
}

/// What all files of one command have in common.
struct Task {
    link: Link,
    open: v1::Open,
    media_type: Option<String>,
    /// None: at its end, each call is over now.
    start: Option<jiff::Timestamp>,
    pauses: Vec<pauses::Stretch>,
    pause_reason: PauseReason,
    discard: Option<DiscardReason>,
    piece: usize,
    patience: Duration,
}

struct Done {
    id: String,
    bytes: u64,
    mismatch: bool,
    discarded: bool,
}

impl Task {
    fn new(link: Link, what: &Record) -> Result<Self, Failure> {
        let resolved = |names: &[String]| names.iter().map(|name| names::resolve(name)).collect::<Result<_, _>>();
        let facts = v1::Facts {
            parties: resolved(&what.parties)?,
            call_id: what.call_id.as_deref().map(names::resolve).transpose()?.unwrap_or_default(),
            labels: labels(&what.labels)?,
            purpose: what.purpose.clone().unwrap_or_default(),
            basis: what.basis.clone().unwrap_or_default(),
        };
        let open = v1::Open {
            tenant: names::resolve(&what.tenant)?,
            subscriber: names::resolve(&what.subscriber)?,
            kind: kind(what.kind).into(),
            mode: if what.live { v1::Mode::Live } else { v1::Mode::Spooled }.into(),
            facts: Some(facts),
            jurisdiction: what.jurisdiction.clone().unwrap_or_default(),
            announcement: what.announcement.as_ref().map(|prompt| v1::Announcement {
                prompt: prompt.clone(),
                language: what.announcement_language.clone().unwrap_or_default(),
                offset_ms: what.announcement_offset,
            }),
            evidence: what.evidence.as_deref().map(evidence).transpose()?.unwrap_or_default(),
            bound: resolved(&what.bound)?,
            parent: what.parent.as_deref().map(names::resolve).transpose()?.unwrap_or_default(),
            ..Default::default()
        };
        Ok(Self {
            link,
            open,
            media_type: what.media_type.clone(),
            start: what.start,
            pauses: what.pauses.clone(),
            pause_reason: what.pause_reason,
            discard: what.discard,
            piece: if what.live { LIVE_PIECE } else { SPOOLED_PIECE },
            patience: Duration::from_secs(what.patience),
        })
    }

    /// When the call of a file began. What was paused in it lies back by then, so that its gaps are as long as they were.
    fn start_ms(&self, media_type: &str, head: &[u8], length: u64) -> i64 {
        if let Some(start) = self.start {
            return start.as_millisecond();
        }
        let seconds = pauses::seconds(media_type, head, length).filter(|_| !self.pauses.is_empty());
        jiff::Timestamp::now().as_millisecond() - (seconds.unwrap_or_default() * 1000.0) as i64
    }

    /// One file, over as many streams as it takes.
    async fn upload(&self, file: &Path, bar: &ProgressBar) -> Result<Done, Failure> {
        let (length, head) = look_at(file).await.map_err(|error| unreadable(file, &error))?;
        let media_type = self.media_type.clone().unwrap_or_else(|| media::guess(file, &head).to_owned());
        let start_ms = self.start_ms(&media_type, &head, length);
        let cuts = pauses::cuts(&self.pauses, (&media_type, &head), length, start_ms)?;
        let left_out: u64 = cuts.iter().map(|cut| cut.bytes.end - cut.bytes.start).sum();
        let open = v1::Open {
            media_type,
            client_id: Bytes::copy_from_slice(&crypto::random::<16>()),
            start_ms,
            length_hint: length - left_out,
            ..self.open.clone()
        };
        let script = Script { piece: self.piece, cuts, reason: self.pause_reason, discard: self.discard };
        let progressed = Instant::now();
        let mut upload = Upload { task: self, file, open, script, bar, opened: None, stored: 0, shown: 0, progressed };
        let (mut pause, mut told) = (FIRST_PAUSE, false);
        loop {
            let before = upload.stored;
            let failure = match upload.stream().await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            // The recording was discarded, and the word of it lost.
            if self.discard.is_some()
                && failure.status == Reason::Erased.exit_status()
                && let Some(id) = upload.opened
            {
                return Ok(Done { id, bytes: 0, mismatch: false, discarded: true });
            }
            if !failure.is_passing() || upload.progressed.elapsed() > self.patience {
                return Err(failure);
            }
            if upload.stored > before {
                pause = FIRST_PAUSE;
            }
            if !told {
                told = true;
                let patience = self.patience.as_secs();
                bar.suspend(|| eprintln!("quietus: {}; goes on trying for {patience} s (--patience)", failure.message));
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}

/// Labels as they are typed.
pub fn labels(typed: &[String]) -> Result<HashMap<String, String>, Failure> {
    let labels = typed.iter().map(|label| {
        let (name, value) = label.split_once('=').ok_or_else(|| Failure::usage("a label is written NAME=VALUE"))?;
        Ok((name.to_owned(), names::resolve(value)?))
    });
    labels.collect()
}

/// Who agreed or was told, as it is written in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Evidence {
    party: String,
    how: String,
    at: jiff::Timestamp,
    #[serde(default)]
    reference: String,
}

fn evidence(argument: &str) -> Result<Vec<v1::Evidence>, Failure> {
    let read: Vec<Evidence> = serde_json::from_str(&names::resolve(argument)?).map_err(|error| {
        // The reader's message may repeat what was written; its place does not.
        Failure::usage(format!(
            "--evidence, line {}, column {}: write a JSON list of {{\"party\", \"how\", \"at\", \"reference\"}}",
            error.line(),
            error.column()
        ))
    })?;
    let written = read.into_iter().map(|it| v1::Evidence {
        party: it.party,
        how: it.how,
        at_ms: it.at.as_millisecond(),
        reference: it.reference,
    });
    Ok(written.collect())
}

/// Length and first bytes of a file.
async fn look_at(file: &Path) -> std::io::Result<(u64, Vec<u8>)> {
    let mut opened = File::open(file).await?;
    let mut head = Vec::new();
    (&mut opened).take(HEAD as u64).read_to_end(&mut head).await?;
    Ok((opened.metadata().await?.len(), head))
}

/// One file on its way.
struct Upload<'a> {
    task: &'a Task,
    file: &'a Path,
    open: v1::Open,
    script: Script,
    bar: &'a ProgressBar,
    /// The recording's id, from the first Opened on.
    opened: Option<String>,
    /// The gateway's watermark.
    stored: u64,
    /// What the bar counts of this file.
    shown: u64,
    progressed: Instant,
}

impl Upload<'_> {
    /// One stream, from Open to Finished.
    async fn stream(&mut self) -> Result<Done, Failure> {
        let (requests, stream) = mpsc::channel(PIECES);
        // The channel has room: this is its first message.
        let _ = requests.send(message(record_request::Event::Open(self.open.clone()))).await;
        let mut client = RecordingServiceClient::new(self.task.link.clone());
        let mut answers = client.record(ReceiverStream::new(stream)).await?.into_inner();
        let opened = match next(&mut answers).await? {
            record_response::Event::Opened(opened) => opened,
            _ => return Err(Failure::failed("the gateway did not answer Open")),
        };
        self.opened = Some(opened.recording_id.clone());

        let mut sending = None;
        if !opened.already_finished {
            let (file, script) = (self.file.to_owned(), self.script.clone());
            sending = Some(Sending(tokio::spawn(send(file, opened.resume_offset, script, requests))));
        }
        loop {
            match next(&mut answers).await {
                Ok(record_response::Event::Watermark(mark)) => {
                    self.reached(mark.stored.max(mark.journaled), mark.stored)
                }
                Ok(record_response::Event::Finished(finished)) => {
                    self.reached(finished.length, finished.length);
                    let v1::Finished { recording_id: id, length: bytes, mismatch, .. } = finished;
                    return Ok(Done { id, bytes, mismatch, discarded: false });
                }
                Ok(record_response::Event::Discarded(gone)) => {
                    return Ok(Done { id: gone.recording_id, bytes: 0, mismatch: false, discarded: true });
                }
                Ok(record_response::Event::Paused(_) | record_response::Event::Resumed(_)) => {}
                Ok(_) => return Err(Failure::failed("the gateway answered out of turn")),
                // A file that cannot be read ends the stream too: then that is the reason to tell.
                Err(failure) => return Err(Sending::reason(sending).await.unwrap_or(failure)),
            }
        }
    }

    fn reached(&mut self, acknowledged: u64, stored: u64) {
        if acknowledged > self.stored {
            self.stored = acknowledged;
            self.progressed = Instant::now();
        }
        // A refused recording starts again from nothing; the bar never goes back.
        if stored > self.shown {
            self.bar.inc(stored - self.shown);
            self.shown = stored;
        }
    }
}

/// The task that sends; it ends with the stream that it feeds.
struct Sending(tokio::task::JoinHandle<Result<(), Failure>>);

impl Sending {
    async fn reason(sending: Option<Self>) -> Option<Failure> {
        let mut sending = sending?;
        if !sending.0.is_finished() {
            return None;
        }
        (&mut sending.0).await.ok().and_then(Result::err)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is sent of a file.
#[derive(Clone)]
struct Script {
    piece: usize,
    cuts: Vec<Cut>,
    reason: PauseReason,
    /// In the place of Finish.
    discard: Option<DiscardReason>,
}

/// Sends a file from an offset of its recording on, then Finish with the length and digest of the whole recording.
async fn send(
    file: PathBuf,
    resume: u64,
    script: Script,
    requests: mpsc::Sender<RecordRequest>,
) -> Result<(), Failure> {
    let read = |error: std::io::Error| unreadable(&file, &error);
    let mut opened = File::open(&file).await.map_err(read)?;
    let mut digest = digest::Context::new(&digest::SHA256);
    // Where it is in the file, and in the recording.
    let (mut at, mut offset) = (0_u64, 0_u64);
    let mut cuts = script.cuts.iter().peekable();
    loop {
        if let Some(cut) = cuts.next_if(|cut| cut.bytes.start == at) {
            // Behind a later byte that the gateway has, it has the pause too.
            if offset >= resume {
                let pause = v1::Pause { reason: script.reason.word().into(), at_ms: cut.begins_ms };
                let resume = v1::Resume { at_ms: cut.ends_ms };
                for event in [record_request::Event::Pause(pause), record_request::Event::Resume(resume)] {
                    if requests.send(message(event)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            at = opened.seek(SeekFrom::Start(cut.bytes.end)).await.map_err(read)?;
            continue;
        }
        // What the gateway has is read for the digest only; a piece ends where the new begins, or where a pause does.
        let below = resume.saturating_sub(offset);
        let most = if below == 0 { script.piece as u64 } else { below.min(SPOOLED_PIECE as u64) };
        let size = most.min(cuts.peek().map_or(most, |cut| cut.bytes.start - at)) as usize;
        let mut content = vec![0; size];
        let length = fill(&mut opened, &mut content).await.map_err(read)?;
        content.truncate(length);
        if length == 0 {
            break;
        }
        digest.update(&content);
        if below == 0 {
            let data = v1::Data { offset, content: content.into() };
            if requests.send(message(record_request::Event::Data(data))).await.is_err() {
                return Ok(());
            }
        }
        offset += length as u64;
        at += length as u64;
    }
    if offset < resume {
        return Err(Failure::failed("the file became shorter while it was sent"));
    }
    let last = match script.discard {
        Some(reason) => record_request::Event::Discard(v1::Discard { reason: reason.word().into() }),
        None => {
            let sha256 = Bytes::copy_from_slice(digest.finish().as_ref());
            record_request::Event::Finish(v1::Finish { length: offset, sha256, end_ms: 0 })
        }
    };
    // Where the stream is gone already, its status says why.
    let _ = requests.send(message(last)).await;
    Ok(())
}

/// Reads until the buffer is full or the file ends.
async fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]).await? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

async fn next(answers: &mut Streaming<v1::RecordResponse>) -> Result<record_response::Event, Failure> {
    let answer = answers.message().await?.and_then(|answer| answer.event);
    answer.ok_or_else(|| Failure::try_again("the gateway ended the stream early; try again"))
}

fn message(event: record_request::Event) -> RecordRequest {
    RecordRequest { event: Some(event) }
}

fn kind(kind: Kind) -> v1::Kind {
    match kind {
        Kind::Call => v1::Kind::Call,
        Kind::Voicemail => v1::Kind::Voicemail,
        Kind::Transcript => v1::Kind::Transcript,
        Kind::Video => v1::Kind::Video,
        Kind::Message => v1::Kind::Message,
        Kind::Media => v1::Kind::Media,
        Kind::Connection => v1::Kind::Connection,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(piece: usize) -> Script {
        Script { piece, cuts: Vec::new(), reason: PauseReason::Other, discard: None }
    }

    async fn sent(content: &[u8], resume: u64, piece: usize) -> (Result<(), Failure>, Vec<u8>, Option<v1::Finish>) {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("file");
        std::fs::write(&path, content).expect("written");
        let (requests, mut stream) = mpsc::channel(1 << 16);
        let result = send(path, resume, script(piece), requests).await;
        let (mut data, mut finish) = (Vec::new(), None);
        while let Some(request) = stream.recv().await {
            match request.event {
                Some(record_request::Event::Data(piece)) => {
                    assert_eq!(piece.offset, resume + data.len() as u64);
                    data.extend_from_slice(&piece.content);
                }
                Some(record_request::Event::Finish(last)) => finish = Some(last),
                other => panic!("{other:?}"),
            }
        }
        (result, data, finish)
    }

    #[tokio::test]
    async fn a_resumed_file_sends_the_rest_and_states_the_whole() {
        let content: Vec<u8> = (0..700_000_u32).map(|i| i as u8).collect();
        let whole = digest::digest(&digest::SHA256, &content);
        for resume in [0, 1, 1600, 262_144, 300_001, 700_000] {
            for piece in [LIVE_PIECE, SPOOLED_PIECE] {
                let (result, data, finish) = sent(&content, resume, piece).await;
                assert_eq!(result, Ok(()));
                assert!(data == content[resume as usize..], "{resume}");
                let finish = finish.expect("finish");
                assert_eq!((finish.length, finish.sha256.as_ref()), (700_000, whole.as_ref()));
            }
        }
    }

    /// What goes over the line of a file of 10 000 bytes with two pauses, one word for each message.
    async fn told(resume: u64, discard: Option<DiscardReason>) -> Vec<String> {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("file");
        let content: Vec<u8> = (0..10_000_u32).map(|at| (at / 1000) as u8).collect();
        std::fs::write(&path, &content).expect("written");
        let cut = |bytes| Cut { bytes, begins_ms: 5, ends_ms: 9 };
        let script = Script { cuts: vec![cut(2000..3000), cut(9000..10_000)], discard, ..script(LIVE_PIECE) };
        let (requests, mut stream) = mpsc::channel(64);
        send(path, resume, script, requests).await.expect("sent");
        let mut told = Vec::new();
        while let Some(request) = stream.recv().await {
            told.push(match request.event.expect("an event") {
                record_request::Event::Data(data) => {
                    let cut_out = data.content.iter().any(|byte| matches!(byte, 2 | 9));
                    assert!(!cut_out, "what is paused is sent");
                    format!("{}+{}", data.offset, data.content.len())
                }
                record_request::Event::Pause(pause) => format!("pause {} {}", pause.reason, pause.at_ms),
                record_request::Event::Resume(resume) => format!("resume {}", resume.at_ms),
                record_request::Event::Finish(finish) => {
                    let kept = [&content[..2000], &content[3000..9000]].concat();
                    assert_eq!(finish.sha256.as_ref(), digest::digest(&digest::SHA256, &kept).as_ref());
                    format!("finish {}", finish.length)
                }
                record_request::Event::Discard(discard) => format!("discard {}", discard.reason),
                record_request::Event::Open(_) => "open".into(),
            });
        }
        told
    }

    #[tokio::test]
    async fn paused_seconds_are_not_sent_and_said_once_more_where_a_stream_broke() {
        let (begin, end) = ("pause other 5", "resume 9");
        let rest = ["2000+1600", "3600+1600", "5200+1600", "6800+1200"];
        let whole = ["0+1600", "1600+400", begin, end].into_iter().chain(rest).chain([begin, end, "finish 8000"]);
        assert_eq!(told(0, None).await, whole.collect::<Vec<_>>());
        // Exactly where the pause lies nobody knows whether it arrived; behind it, it did.
        let again = [begin, end].into_iter().chain(rest).chain([begin, end, "finish 8000"]);
        assert_eq!(told(2000, None).await, again.collect::<Vec<_>>());
        assert_eq!(told(6800, None).await, ["6800+1200", begin, end, "finish 8000"]);
        assert_eq!(told(8000, None).await, [begin, end, "finish 8000"]);
        let last = told(8000, Some(DiscardReason::NoConsent)).await.pop();
        assert_eq!(last.as_deref(), Some("discard no-consent"));
    }

    #[test]
    fn evidence_is_read_from_json_and_a_mistake_repeats_nothing() {
        let text = r#"[{"party": "+491", "how": "dtmf", "at": "2026-11-29T10:00:00Z", "reference": "r"},
                       {"party": "+492", "how": "spoken", "at": "2026-11-29T10:00:01Z"}]"#;
        let read = evidence(text).expect("read");
        assert_eq!((read.len(), read[0].at_ms, read[1].reference.as_str()), (2, 1_795_946_400_000, ""));
        for wrong in ["", "{}", r#"[{"party": "+491", "how": "dtmf"}]"#, r#"[{"+491": 1}]"#] {
            let failure = evidence(wrong).expect_err("refused");
            assert!(failure.status == 2 && !failure.message.contains("+491"), "{}", failure.message);
        }
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_not_finished() {
        let (result, data, finish) = sent(b"short", 9, LIVE_PIECE).await;
        assert!(result.is_err() && data.is_empty() && finish.is_none());
    }
}
