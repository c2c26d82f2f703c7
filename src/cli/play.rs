//! `quietus play`: a recording's audio to a file or to standard output, or a URL for an audio player.
//!
//! A file appears under its name only when it is whole: what broke off never looks like a recording. What is there and is no
//! file, a device or a pipe, is written into: a file in its place would be none that anybody asked for.

use super::{
    args::Play,
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
};
use crate::proto::v1::{
    self, PlayRequest, PlayResponse, TicketRequest, play_request::Range, play_response::Event,
    playback_service_client::PlaybackServiceClient,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs::OpenOptions,
    io::{IsTerminal as _, Write},
    path::{Path, PathBuf},
};
use tonic::Streaming;

/// Runs the command.
pub async fn run(link: Link, what: Play, output: Output) -> Result<(), Failure> {
    let id = names::resolve(&what.id)?;
    if what.url {
        return url(link, id, output).await;
    }
    if output.json && what.output.is_none() {
        return Err(Failure::usage("--json needs -o FILE, since the audio would go to standard output"));
    }
    if what.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::usage("the audio would go to the terminal; say -o FILE"));
    }
    let request = PlayRequest { id: id.clone(), range: range(&what)?, download: what.download };
    let mut stream = PlaybackServiceClient::new(link).play(request).await?.into_inner();
    let info = match event(&mut stream).await? {
        Some(Event::Info(info)) => info,
        _ => return Err(Failure::failed("the gateway did not say what it plays")),
    };
    let Some(path) = &what.output else {
        return copy(&mut stream, &info, &mut std::io::stdout().lock(), &ProgressBar::hidden()).await;
    };
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        write(&mut stream, &info, path, OpenOptions::new().write(true)).await?;
    } else {
        let beside = beside(path);
        let written = write(&mut stream, &info, &beside, OpenOptions::new().write(true).create_new(true)).await;
        if let Err(failure) = written.and_then(|()| Ok(std::fs::rename(&beside, path)?)) {
            // It may not have come into being.
            let _ = std::fs::remove_file(&beside);
            return Err(failure);
        }
    }
    let json = serde_json::json!({
        "id": id, "file": path, "media_type": info.media_type, "bytes": info.length, "start": info.start,
        "total_bytes": info.total_length, "complete": info.complete,
        "gaps": info.gaps.iter().map(gap_json).collect::<Vec<_>>(),
    });
    output.one(json, || {
        let written = format!("{} bytes of {} written to {}", info.length, info.media_type, path.display());
        std::iter::once(written).chain(info.gaps.iter().map(gap_text)).collect::<Vec<_>>().join("\n")
    })
}

fn gap_json(gap: &v1::Gap) -> serde_json::Value {
    serde_json::json!({
        "offset": gap.offset, "seconds": gap.seconds, "length_ms": gap.length_ms, "reason": gap.reason,
    })
}

fn gap_text(gap: &v1::Gap) -> String {
    let at = gap.seconds.map_or_else(|| format!("byte {}", gap.offset), |seconds| format!("{seconds:.3} s"));
    let lasted = gap.length_ms.map_or_else(|| "lasts".to_owned(), |ms| format!("{:.3} s", ms as f64 / 1000.0));
    format!("paused at {at}: {lasted} ({})", gap.reason)
}

/// A URL for an audio player. It goes to standard output alone, since whoever has it can listen.
async fn url(link: Link, id: String, output: Output) -> Result<(), Failure> {
    let ticket = PlaybackServiceClient::new(link).ticket(TicketRequest { id }).await?.into_inner();
    let json = serde_json::json!({
        "url": ticket.url,
        "start_before": moment(ticket.start_before_ms),
        "session_seconds": ticket.session_seconds,
    });
    output.one(json, || ticket.url.clone())
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

async fn write(
    stream: &mut Streaming<PlayResponse>,
    info: &v1::PlayInfo,
    path: &Path,
    how: &OpenOptions,
) -> Result<(), Failure> {
    let mut file =
        how.open(path).map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    let bar = ProgressBar::new(info.length);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}, {bytes_per_sec}") {
        bar.set_style(style);
    }
    copy(stream, info, &mut file, &bar).await?;
    bar.finish_and_clear();
    Ok(())
}

async fn copy(
    stream: &mut Streaming<PlayResponse>,
    info: &v1::PlayInfo,
    to: &mut impl Write,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut received = 0;
    while let Some(event) = event(stream).await? {
        let Event::Chunk(chunk) = event else { return Err(Failure::failed("the gateway answered out of turn")) };
        to.write_all(&chunk.content)?;
        received += chunk.content.len() as u64;
        bar.set_position(received);
    }
    to.flush()?;
    if received != info.length {
        return Err(Failure::try_again("the gateway sent less than it said; try again"));
    }
    Ok(())
}

async fn event(stream: &mut Streaming<PlayResponse>) -> Result<Option<Event>, Failure> {
    Ok(stream.message().await?.and_then(|answer| answer.event))
}

fn range(what: &Play) -> Result<Option<Range>, Failure> {
    if what.from.is_some() || what.to.is_some() {
        let (from_seconds, to_seconds) = (what.from.unwrap_or(0.0), what.to.unwrap_or(0.0));
        return Ok(Some(Range::Time(v1::TimeRange { from_seconds, to_seconds })));
    }
    let Some(bytes) = &what.bytes else { return Ok(None) };
    let parsed = bytes.split_once('-').and_then(|(first, last)| {
        let start: u64 = first.parse().ok()?;
        // On the wire the end is exclusive, and 0 is the end of the recording.
        let end = if last.is_empty() { 0 } else { last.parse::<u64>().ok()?.checked_add(1)? };
        (end == 0 || end > start).then_some(v1::ByteRange { start, end })
    });
    let range = parsed.ok_or_else(|| Failure::usage("--bytes is written FIRST-LAST, counted from 0"))?;
    Ok(Some(Range::Bytes(range)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_ranges_are_inclusive_as_in_http() {
        let parse = |bytes: &str| {
            range(&Play {
                id: String::new(),
                output: None,
                from: None,
                to: None,
                bytes: Some(bytes.into()),
                download: false,
                url: false,
            })
        };
        let bytes = |start, end| Ok(Some(Range::Bytes(v1::ByteRange { start, end })));
        assert_eq!(parse("0-0"), bytes(0, 1));
        assert_eq!(parse("5-9"), bytes(5, 10));
        assert_eq!(parse("5-"), bytes(5, 0));
        for wrong in ["", "5", "-5", "9-5", "a-b", "0-18446744073709551615"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
