//! The generated clients, as tests use them: a recording fed by hand, playing, erasing, waiting for what must come.

#![allow(dead_code)]

use quietus::{
    cli::connect::Link,
    crypto::random,
    proto::{
        rpc,
        v1::{
            self, RecordRequest, RecordResponse, erase_request, erasure_service_client::ErasureServiceClient,
            play_request, play_response, playback_service_client::PlaybackServiceClient, record_request::Event,
            record_response, recording_service_client::RecordingServiceClient,
            tenant_service_client::TenantServiceClient,
        },
    },
};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Longest wait for anything that must come.
pub const WITHIN: Duration = Duration::from_secs(60);

/// A stream that is fed by hand.
pub struct Call {
    requests: mpsc::Sender<RecordRequest>,
    answers: Streaming<RecordResponse>,
    /// The answer to Open.
    pub opened: v1::Opened,
    /// The highest watermark heard.
    pub mark: v1::Watermark,
}

impl Call {
    pub async fn begin(link: Link, open: v1::Open) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(8);
        requests.send(RecordRequest { event: Some(Event::Open(open)) }).await.expect("room");
        let answers = RecordingServiceClient::new(link).record(ReceiverStream::new(stream)).await?.into_inner();
        let mut call = Self { requests, answers, opened: v1::Opened::default(), mark: v1::Watermark::default() };
        match call.next().await? {
            record_response::Event::Opened(opened) => call.opened = opened,
            other => panic!("{other:?}"),
        }
        Ok(call)
    }

    pub fn id(&self) -> String {
        self.opened.recording_id.clone()
    }

    /// False when the stream has ended.
    pub async fn say(&self, event: Event) -> bool {
        self.requests.send(RecordRequest { event: Some(event) }).await.is_ok()
    }

    /// Sends audio.
    pub async fn data(&self, offset: usize, content: &[u8]) -> bool {
        self.say(Event::Data(v1::Data { offset: offset as u64, content: content.to_vec().into() })).await
    }

    /// Sends everything from an offset on.
    pub async fn rest(&self, content: &[u8], from: usize) -> bool {
        for (index, piece) in content[from..].chunks(100_000).enumerate() {
            if !self.data(from + index * 100_000, piece).await {
                return false;
            }
        }
        true
    }

    pub async fn finish(&self, length: usize, sha256: Option<&[u8]>) -> bool {
        let sha256 = sha256.map(<[u8]>::to_vec).unwrap_or_default().into();
        let finish = v1::Finish { length: length as u64, sha256, end_ms: 0 };
        self.say(Event::Finish(finish)).await
    }

    /// States the truth.
    pub async fn finish_with(&self, content: &[u8]) -> bool {
        self.finish(content.len(), Some(&sha256(content))).await
    }

    pub async fn next(&mut self) -> Result<record_response::Event, Status> {
        let answer = tokio::time::timeout(WITHIN, self.answers.message()).await.expect("an answer in time")?;
        let event = answer.ok_or_else(|| Status::unavailable("the stream ended"))?.event.expect("an event");
        if let record_response::Event::Watermark(mark) = &event {
            assert!(mark.journaled >= self.mark.journaled && mark.stored >= self.mark.stored, "watermarks never fall");
            self.mark = *mark;
        }
        Ok(event)
    }

    /// Waits until a watermark says so.
    pub async fn until(&mut self, holds: impl Fn(&v1::Watermark) -> bool) -> Result<(), Status> {
        while !holds(&self.mark) {
            self.next().await?;
        }
        Ok(())
    }

    pub async fn until_finished(&mut self) -> Result<v1::Finished, Status> {
        loop {
            if let record_response::Event::Finished(finished) = self.next().await? {
                return Ok(finished);
            }
        }
    }

    /// The status that the stream ends with.
    pub async fn until_refused(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(record_response::Event::Watermark(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(status) => return status,
            }
        }
    }
}

/// An Open that is good, with a client id of its own.
pub fn open(tenant: &str, mode: v1::Mode) -> v1::Open {
    v1::Open {
        tenant: tenant.into(),
        subscriber: "sub-1".into(),
        kind: v1::Kind::Call.into(),
        mode: mode.into(),
        media_type: "audio/PCMA;rate=8000".into(),
        start_ms: quietus::domain::time::Clock::system().now().0,
        client_id: random::<16>().to_vec().into(),
        ..Default::default()
    }
}

/// Stores a recording, and gives its id.
pub async fn store(link: Link, open: v1::Open, content: &[u8]) -> String {
    let mut call = Call::begin(link, open).await.expect("opened");
    assert!(call.rest(content, call.opened.resume_offset as usize).await);
    call.finish_with(content).await;
    let finished = call.until_finished().await.expect("finished");
    assert_eq!((finished.length, finished.mismatch), (content.len() as u64, false));
    assert_ne!(finished.key(), v1::KeyCustody::Unspecified);
    call.id()
}

pub fn bytes(start: u64, end: u64) -> Option<play_request::Range> {
    Some(play_request::Range::Bytes(v1::ByteRange { start, end }))
}

pub fn seconds(from_seconds: f64, to_seconds: f64) -> Option<play_request::Range> {
    Some(play_request::Range::Time(v1::TimeRange { from_seconds, to_seconds }))
}

/// Plays to the end.
pub async fn play(link: Link, id: &str, range: Option<play_request::Range>) -> Result<(v1::PlayInfo, Vec<u8>), Status> {
    let mut stream = start_playing(link, id, range).await?;
    let (mut info, mut heard) = (None, Vec::new());
    while let Some(answer) = stream.message().await? {
        match answer.event.expect("an event") {
            play_response::Event::Info(first) => info = Some(first),
            play_response::Event::Chunk(chunk) => heard.extend_from_slice(&chunk.content),
        }
    }
    let info = info.expect("info comes first");
    assert_eq!(info.length, heard.len() as u64);
    Ok((info, heard))
}

pub async fn start_playing(
    link: Link,
    id: &str,
    range: Option<play_request::Range>,
) -> Result<Streaming<v1::PlayResponse>, Status> {
    let request = v1::PlayRequest { id: id.into(), range, ..Default::default() };
    Ok(PlaybackServiceClient::new(link).play(request).await?.into_inner())
}

/// Plays everything and compares it.
pub async fn assert_plays(link: Link, id: &str, content: &[u8]) {
    let (info, heard) = play(link, id, None).await.unwrap_or_else(|status| panic!("{id} plays: {status:?}"));
    assert_eq!(heard.len(), content.len(), "{id}");
    assert!(heard == content, "{id} is not what was sent");
    assert_eq!((info.total_length, info.start), (content.len() as u64, 0));
}

pub async fn assert_erased(link: Link, id: &str) {
    let status = play(link, id, None).await.expect_err("erased");
    assert_eq!(reason(&status), "ERASED", "{status:?}");
}

pub async fn tenant(link: Link, name: &str, residency: v1::Residency) {
    let request = v1::CreateTenantRequest {
        name: name.into(),
        home: "eu-west-2".into(),
        residency: residency.into(),
        policy: "dev".into(),
        keep: String::new(),
    };
    TenantServiceClient::new(link).create_tenant(request).await.expect("created");
}

pub fn recording(id: &str, part: v1::Part) -> erase_request::Scope {
    erase_request::Scope::Recording(v1::EraseRecording { id: id.into(), part: part.into() })
}

pub fn subscriber(tenant: &str, subscriber: &str) -> erase_request::Scope {
    let (tenant, subscriber) = (tenant.into(), subscriber.into());
    erase_request::Scope::Subscriber(v1::EraseSubscriber { tenant, subscriber, ..Default::default() })
}

pub fn whole_tenant(tenant: &str) -> erase_request::Scope {
    erase_request::Scope::Tenant(v1::EraseTenant { tenant: tenant.into(), confirm: tenant.into() })
}

pub async fn erase(link: Link, scope: erase_request::Scope) -> Result<v1::EraseResponse, Status> {
    let request = v1::EraseRequest { scope: Some(scope), ..Default::default() };
    Ok(ErasureServiceClient::new(link).erase(request).await?.into_inner())
}

pub async fn show(link: Link, id: &str) -> Result<v1::Recording, Status> {
    let request = v1::GetRecordingRequest { id: id.into(), ..Default::default() };
    Ok(RecordingServiceClient::new(link).get(request).await?.into_inner())
}

/// All recordings of a tenant, over as many pages as it takes.
pub async fn list(link: Link, tenant: &str, page_size: u32) -> Vec<v1::Recording> {
    let mut client = RecordingServiceClient::new(link);
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListRecordingsRequest { tenant: tenant.into(), page_size, page_token, ..Default::default() };
        let page = client.list(request).await.expect("a page").into_inner();
        all.extend(page.recordings);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

pub async fn statistics(link: Link, tenant: &str) -> Vec<v1::StatisticsRow> {
    let request = v1::GetStatisticsRequest { tenant: tenant.into() };
    TenantServiceClient::new(link).get_statistics(request).await.expect("counted").into_inner().rows
}

pub async fn status(link: Link) -> v1::Status {
    TenantServiceClient::new(link).get_status(v1::GetStatusRequest {}).await.expect("a status").into_inner()
}

/// Waits until the sweeper and the copier have nothing left to do: however long that takes, while it becomes less.
pub async fn settled(link: Link) {
    let (mut progress, mut least) = (Instant::now(), u64::MAX);
    loop {
        let now = status(link.clone()).await;
        let left = now.sweeps_pending + now.replications_pending;
        if left == 0 {
            return;
        }
        if left < least {
            (progress, least) = (Instant::now(), left);
        }
        assert!(progress.elapsed() < WITHIN, "still to do: {now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn reason(status: &Status) -> String {
    rpc::decode(status.details()).map(|info| info.reason).unwrap_or_default()
}

pub fn field(status: &Status) -> String {
    rpc::decode(status.details()).and_then(|info| info.metadata.get("field").cloned()).unwrap_or_default()
}

pub fn sha256(content: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, content).as_ref().to_vec()
}

/// Bytes that repeat nowhere within a recording, other ones for every seed.
pub fn sound(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut content = Vec::with_capacity(length + 8);
    while content.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(length);
    content
}
