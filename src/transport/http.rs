//! HTTP beside gRPC: the audio of a recording for an `<audio>` element, health, metrics.
//!
//! `GET /v1/recordings/{id}/audio` takes one byte range (RFC 9110): 206 for a range, 416 outside of the recording, 200
//! without one, for several ranges at once, and for a conditional range (there is no validator to hold it against). An
//! `<audio>` element cannot send an `authorization` header, so the token may stand in `?access_token=`; no URI is ever
//! logged. The media type was chosen by whoever recorded, so the answer is sandboxed and never sniffed: a recording
//! cannot run as a page in the gateway's origin. Nothing may be cached: what is erased must not play from a cache.
//!
//! A range counted from the end needs the length first, which costs a second entry in the audit log.
//!
//! `?download=1` asks for a copy to keep: an attachment, for which staff need a permission that says so. A page of another
//! origin cannot read any of this: no answer carries a CORS header.
//!
//! `GET /v1/tickets/{token}` is the same for somebody who shows a ticket and no identity.

use super::{
    Gateway, Peer,
    auth::{Action, Denied, Identity},
    error::Problem,
};
use crate::{
    domain::{id::RecordingId, time::Timestamp},
    transport::convert,
    vault::{Actor, Error, Hearing, PlayInfo, PlayRange, Playback, Proof},
};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request::Parts};
use std::net::IpAddr;
use tokio_stream::StreamExt as _;

/// Metric names, each with its unit.
mod metric {
    pub const SWEEPS: &str = "quietus_sweeps_pending_count";
    pub const OVERDUE: &str = "quietus_receipts_overdue_count";
    pub const REPLICATIONS: &str = "quietus_replications_pending_count";
    pub const OPEN: &str = "quietus_recordings_open_count";
    pub const JOURNAL: &str = "quietus_journal_bytes";
    pub const JOURNAL_LIMIT: &str = "quietus_journal_limit_bytes";
    pub const GENERATION: &str = "quietus_root_generation_count";
    pub const HOLDS: &str = "quietus_holds_count";
    pub const HOLDS_OVERDUE: &str = "quietus_holds_overdue_count";
    pub const PARKED: &str = "quietus_erasures_parked_count";
    pub const TRANSITIONS: &str = "quietus_transitions_waiting_count";
    pub const LATE_RECORDINGS: &str = "quietus_retention_late_recordings";
    pub const LATE_SECONDS: &str = "quietus_retention_late_seconds";
    pub const EXPIRED: &str = "quietus_retention_expired_recordings";
    pub const EXPIRED_LATE: &str = "quietus_retention_expired_late_recordings";
    pub const CLOCK: &str = "quietus_clock_disagrees";
    pub const BACKUP_BEHIND: &str = "quietus_backup_behind_commands";
    pub const BACKUP_BEHIND_SECONDS: &str = "quietus_backup_behind_seconds";
    pub const BACKUP_BASE: &str = "quietus_backup_base_timestamp_seconds";
    pub const BACKUP_AWAY: &str = "quietus_backup_away";
    pub const WAITING: &str = "quietus_erasures_waiting_seconds";
    pub const SEALED: &str = "quietus_erasures_sealed";
    pub const SLOTS_SHORT: &str = "quietus_slots_short_count";
    pub const LOSSES: &str = "quietus_slot_losses_survivable_count";
    pub const FAILING: &str = "quietus_retention_failing_tenants";
}

/// The routes.
pub fn routes(gateway: Gateway) -> Router {
    Router::new()
        .route("/v1/recordings/{id}/audio", get(audio))
        .route("/v1/tickets/{token}", get(ticket))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(gateway)
}

async fn ready(State(gateway): State<Gateway>) -> Response {
    if *gateway.ready.borrow() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn metrics(State(gateway): State<Gateway>, request: Parts) -> Result<Response, Problem> {
    let (identity, _) = caller(&request.extensions)?;
    identity.authorize(Action::Metrics, None)?;
    let status = gateway.vault.status();
    let backup = status.backup.unwrap_or_default();
    let short = status.slots.slots.iter().filter(|slot| slot.is_short()).count();
    let now = gateway.vault.now();
    let since = |moment: Option<Timestamp>| moment.map_or(0, |moment| seconds(now.0.saturating_sub(moment.0)));
    let gauges = [
        (metric::SWEEPS, "Erased scopes whose ciphertext is still being removed.", status.sweeps_pending),
        (metric::OVERDUE, "Erasures whose ciphertext should be gone by now.", status.receipts_overdue),
        (metric::REPLICATIONS, "Copies to a second region that wait.", status.replications_pending),
        (metric::OPEN, "Recordings that take audio now.", status.recordings_open),
        (metric::JOURNAL, "Bytes in the journal.", status.journal_bytes),
        (metric::JOURNAL_LIMIT, "Bytes at which new live calls are refused.", status.journal_limit_bytes),
        (metric::GENERATION, "Generation of the present root.", status.generation),
        (metric::HOLDS, "Holds.", status.holds),
        (metric::HOLDS_OVERDUE, "Holds past their review date.", status.holds_overdue),
        (metric::PARKED, "Erasures and expiries that wait for a hold.", status.parked),
        (metric::TRANSITIONS, "Closes and purges that wait.", status.transitions),
        (metric::LATE_RECORDINGS, "Recordings that are kept beyond their promise.", status.expiry.late_recordings),
        (metric::LATE_SECONDS, "By how many seconds the latest of them.", status.expiry.late_seconds),
        (metric::EXPIRED, "Recordings that expired since the start.", status.expiry.expired),
        (metric::EXPIRED_LATE, "Recordings that expired after their promise.", status.expiry.expired_late),
        (metric::CLOCK, "1: no second clock agrees with ours; nothing expires.", status.expiry.clock_disagrees.into()),
        (metric::BACKUP_BEHIND, "Commands that the backup lacks.", backup.behind),
        (
            metric::BACKUP_BEHIND_SECONDS,
            "Age of the oldest command that the backup lacks; 0: it has all.",
            since(backup.behind_since),
        ),
        (
            metric::BACKUP_BASE,
            "When the base of the backup was begun, in seconds since 1970; 0: not known yet.",
            backup.base.map_or(0, |base| seconds(base.0)),
        ),
        (metric::BACKUP_AWAY, "1: the backup's object storage is away.", backup.away.into()),
        (
            metric::SEALED,
            "1: something erased is not destroyed before the backup has it, or before enough slots are back.",
            status.erasures_sealed.into(),
        ),
        (
            metric::WAITING,
            "Age of the oldest erasure that is queued, under way, or sealed and not destroyed; 0: none waits.",
            since(status.erasures_waiting_since),
        ),
        (metric::SLOTS_SHORT, "Slots that do not hold their share of the root.", short as u64),
        (
            metric::LOSSES,
            "How many more slots may be lost without losing every recording.",
            status.slots.losses_survivable as u64,
        ),
        (metric::FAILING, "Tenants of which nothing expires because of a fault.", status.expiry.failing_tenants),
    ];
    let text: String = gauges
        .iter()
        .map(|(name, help, value)| format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"))
        .collect();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Whole seconds; a clock that was set back counts as none.
fn seconds(ms: i64) -> u64 {
    u64::try_from(ms / 1000).unwrap_or(0)
}

async fn audio(State(gateway): State<Gateway>, Path(id): Path<String>, request: Parts) -> Result<Response, Problem> {
    let (identity, transport) = caller(&request.extensions)?;
    identity.authorize(Action::Play, None)?;
    let id = convert::recording_id(&id)?;
    let download = wants_download(&request.uri);
    let (actor, hearing) = (identity.actor(), Hearing { transport, download });
    let mut response = answer(&gateway, &request, Shown::Identity(actor, identity.proof(), id, hearing)).await?;
    if download {
        let disposition = HeaderValue::from_static("attachment; filename=\"recording\"");
        response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// A ticket stands for the listener who asked for it; whoever sends it proves nothing else. See the vault's tickets.
async fn ticket(
    State(gateway): State<Gateway>,
    Path(token): Path<String>,
    request: Parts,
) -> Result<Response, Problem> {
    let from = request.extensions.get::<Peer>().ok_or(Denied::Nobody)?.address.ip();
    answer(&gateway, &request, Shown::Ticket(token, from)).await
}

/// What lets somebody hear a recording.
enum Shown {
    Identity(Actor, Proof, RecordingId, Hearing),
    Ticket(String, IpAddr),
}

impl Shown {
    async fn play(&self, gateway: &Gateway, range: PlayRange) -> Result<Playback, Error> {
        match self {
            Self::Identity(actor, proof, id, hearing) => {
                gateway.vault.play(actor, proof.clone(), *id, range, *hearing).await
            }
            Self::Ticket(token, from) => gateway.vault.play_ticket(token, *from, range).await,
        }
    }
}

/// Answers with the range that is asked for.
async fn answer(gateway: &Gateway, request: &Parts, shown: Shown) -> Result<Response, Problem> {
    let head = request.method == Method::HEAD;
    let wanted = if head { None } else { Wanted::of(&request.headers) };
    let range = match wanted {
        // HEAD needs the length and the type, and hears nothing.
        None if head => PlayRange::Bytes { start: 0, end: Some(0) },
        None => PlayRange::Bytes { start: 0, end: None },
        Some(Wanted::Span { start, last }) => PlayRange::Bytes { start, end: last.map(|last| last.saturating_add(1)) },
        Some(Wanted::Tail(length)) => {
            let total = shown.play(gateway, PlayRange::Bytes { start: 0, end: Some(0) }).await?.info().total_length;
            PlayRange::Bytes { start: total.saturating_sub(length), end: None }
        }
    };
    let playback = match shown.play(gateway, range).await {
        Err(Error::OutOfRange { total }) if wanted.is_some() => return Ok(outside(total)),
        playback => playback?,
    };
    let info = playback.info().clone();
    if wanted.is_some() && info.length == 0 {
        return Ok(outside(info.total_length));
    }
    let mut response = if head { Body::empty() } else { stream(playback) }.into_response();
    describe(&mut response, &info, wanted.is_some(), head);
    Ok(response)
}

/// The one range that we serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    Span { start: u64, last: Option<u64> },
    Tail(u64),
}

impl Wanted {
    /// None: the whole. A header that makes no sense counts as absent, as RFC 9110 section 14.2 has it.
    fn of(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key(header::IF_RANGE) {
            return None;
        }
        let (unit, set) = headers.get(header::RANGE)?.to_str().ok()?.split_once('=')?;
        let (start, last) = set.trim().split_once('-')?;
        // `u64::from_str` takes a sign, the grammar does not.
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !unit.eq_ignore_ascii_case("bytes") || !digits(start) || !digits(last) {
            return None;
        }
        match (start, last) {
            ("", last) => Some(Self::Tail(last.parse().ok()?)),
            (start, "") => Some(Self::Span { start: start.parse().ok()?, last: None }),
            (start, last) => {
                let (start, last) = (start.parse().ok()?, last.parse().ok()?);
                (start <= last).then_some(Self::Span { start, last: Some(last) })
            }
        }
    }
}

fn outside(total: u64) -> Response {
    let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{total}")) {
        headers.insert(header::CONTENT_RANGE, value);
    }
    response
}

fn describe(response: &mut Response, info: &PlayInfo, partial: bool, head: bool) {
    let headers = response.headers_mut();
    let media_type =
        HeaderValue::from_str(&info.media_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CONTENT_LENGTH, if head { info.total_length } else { info.length }.into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if partial {
        let last = info.start.saturating_add(info.length).saturating_sub(1);
        if let Ok(value) = HeaderValue::try_from(format!("bytes {}-{last}/{}", info.start, info.total_length)) {
            headers.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
}

/// A failure on the way breaks the stream off: short of its stated length, no client takes it for the whole.
fn stream(playback: Playback) -> Body {
    let failed = |error| std::io::Error::other(Problem::from(error).message);
    Body::from_stream(playback.map(move |chunk| chunk.map_err(failed)))
}

/// Which of these paths tell nothing to whom nobody knows.
pub(super) fn needs_identity(path: &str) -> bool {
    path.starts_with("/v1/recordings/") || path == "/metrics"
}

fn caller(extensions: &Extensions) -> Result<(Identity, &'static str), Problem> {
    let peer = extensions.get::<Peer>().ok_or(Denied::Nobody)?;
    let identity = extensions.get::<Identity>().ok_or(Denied::Nobody)?;
    Ok((identity.clone(), peer.transport))
}

/// Whether a copy is to be kept.
fn wants_download(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "download=1"))
}

/// Tokens are base64url, so nothing in them is ever escaped.
pub(super) fn access_token(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("access_token="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(range: &str) -> Option<Wanted> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().expect("a header"));
        Wanted::of(&headers)
    }

    #[test]
    fn one_range_is_read_and_everything_else_is_the_whole() {
        assert_eq!(wanted("bytes=0-"), Some(Wanted::Span { start: 0, last: None }));
        assert_eq!(wanted("bytes=5-9"), Some(Wanted::Span { start: 5, last: Some(9) }));
        assert_eq!(wanted("Bytes= 5-9"), Some(Wanted::Span { start: 5, last: Some(9) }));
        assert_eq!(wanted("bytes=-500"), Some(Wanted::Tail(500)));
        for nonsense in [
            "bytes=9-5",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes",
            "bytes=0-99999999999999999999",
        ] {
            assert_eq!(wanted(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_conditional_range_is_the_whole_since_there_is_no_validator() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"etag\""));
        assert_eq!(Wanted::of(&headers), None);
    }

    #[test]
    fn an_answer_is_sandboxed_not_cached_and_tells_its_range() {
        let info = PlayInfo {
            media_type: "text/html".into(),
            total_length: 100,
            length: 10,
            start: 20,
            complete: true,
            gaps: Vec::new(),
        };
        let mut response = Body::empty().into_response();
        describe(&mut response, &info, true, false);
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        let value = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(value(header::CONTENT_RANGE), Some("bytes 20-29/100"));
        assert_eq!(value(header::CONTENT_LENGTH), Some("10"));
        assert_eq!(value(header::CACHE_CONTROL), Some("no-store"));
        assert_eq!(value(header::CONTENT_SECURITY_POLICY), Some("default-src 'none'; sandbox"));
    }

    #[test]
    fn a_ticket_and_nothing_else_of_audio_needs_no_identity() {
        assert!(needs_identity("/v1/recordings/x/audio") && needs_identity("/metrics"));
        assert!(!needs_identity("/v1/tickets/x"));
        assert!(wants_download(&Uri::from_static("/x?access_token=a&download=1")));
        assert!(!wants_download(&Uri::from_static("/x?xdownload=1")));
    }

    #[test]
    fn the_token_of_an_audio_element_stands_in_the_query() {
        let token = |uri: &'static str| access_token(&Uri::from_static(uri)).map(str::to_owned);
        assert_eq!(token("/x?a=b&access_token=abc-_"), Some("abc-_".into()));
        assert_eq!(token("/x?xaccess_token=abc"), None);
        assert_eq!(token("/x"), None);
    }
}
