//! A card number is read out: the switch pauses the recording, and what is said then is nowhere, whatever breaks meanwhile. What
//! was said before and after plays bit for bit, with the gap on the time line. And a call that is thrown away while it runs.

use super::{
    TRANSPORTS,
    gateway::Gateway,
    served::{REGIONS, World},
    traces::Traces,
    wire::{self, Call, assert_plays, open, play, sound},
};
use memchr::memmem;
use quietus::{
    domain::time::Clock,
    proto::v1::{self, Mode, Residency, State, record_request::Event, record_response},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::fs::FileExt as _,
    process::{Command, Output},
    time::Duration,
};

const CARD: &[u8] = b"CARD-pattern-asdfghjkl-0123456789-yxcvbnm";
/// Said before and after the pause.
const BEFORE: usize = 120_000;
const WHOLE: usize = 200_000;

fn pause(reason: &str, at_ms: i64) -> Event {
    Event::Pause(v1::Pause { reason: reason.into(), at_ms })
}

fn resume(at_ms: i64) -> Event {
    Event::Resume(v1::Resume { at_ms })
}

fn discard(reason: &str) -> Event {
    Event::Discard(v1::Discard { reason: reason.into() })
}

/// Says something, and waits for the answer that is no watermark.
async fn ask(call: &mut Call, event: Event) -> record_response::Event {
    assert!(call.say(event).await, "the stream has ended");
    loop {
        match call.next().await.expect("an answer") {
            record_response::Event::Watermark(_) => {}
            answer => return answer,
        }
    }
}

async fn paused(call: &mut Call, reason: &str, at_ms: i64) -> v1::Paused {
    match ask(call, pause(reason, at_ms)).await {
        record_response::Event::Paused(paused) => paused,
        other => panic!("{other:?}"),
    }
}

async fn resumed(call: &mut Call, at_ms: i64) -> u64 {
    match ask(call, resume(at_ms)).await {
        record_response::Event::Resumed(resumed) => resumed.offset,
        other => panic!("{other:?}"),
    }
}

/// How often something lies in the memory of a process. None where this one may not look.
fn in_memory(gateway: &Gateway, needle: &[u8]) -> Option<usize> {
    let process = format!("/proc/{}", gateway.pid());
    let memory = File::open(format!("{process}/mem")).ok()?;
    let mut found = 0;
    for line in std::fs::read_to_string(format!("{process}/maps")).ok()?.lines() {
        let mut fields = line.split(' ');
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        let ends = range.split_once('-');
        let bound = |text: &str| u64::from_str_radix(text, 16).expect("an address");
        let (start, end) = ends.map(|(start, end)| (bound(start), bound(end))).expect("a range");
        if rights.starts_with('r') {
            let mut bytes = vec![0; (end - start) as usize];
            // Some ranges are the kernel's and cannot be read.
            if memory.read_exact_at(&mut bytes, start).is_ok() {
                found += memmem::find_iter(&bytes, needle).count();
            }
        }
    }
    Some(found)
}

fn nowhere(world: &World, gateway: &Gateway) {
    let traces = Traces::of(&[("the card", CARD)]);
    let mut files = traces.search_folder(&world.data());
    files += REGIONS.iter().map(|region| traces.search_folder(&world.bucket(region))).sum::<usize>();
    assert!(files > 20, "hardly anything was searched");
    traces.search("the log", gateway.log().as_bytes());
}

/// Recordings whose time line opens for somebody who has everything, and how many sealed time lines do not open.
fn time_lines(world: &World) -> (BTreeSet<String>, usize) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quietus-forensics"));
    command.args(["--json", "--values", "--slot"]).arg(world.data().join("slot"));
    command
        .arg("--keys")
        .arg(world.data().join("keys"))
        .arg("--objects")
        .args(REGIONS.map(|region| world.bucket(region)));
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut readable, mut unreadable) = (BTreeSet::new(), 0);
    for line in String::from_utf8(output.stdout).expect("text").lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        match (line["value"] == "time line", line["state"] == "readable") {
            (true, true) => _ = readable.insert(line["recording"].as_str().expect("whose it is").to_owned()),
            (true, false) => unreadable += 1,
            (false, _) => {}
        }
    }
    (readable, unreadable)
}

/// Runs a client command as one of the profiles: `root` administers every tenant, `admin` hears what is acme's.
fn run(gateway: &Gateway, profile: &str, arguments: &[&str]) -> Output {
    let profile = gateway.client_file(&format!("{profile}.toml"));
    let output = gateway.run(&[arguments, &["--profile", profile.to_str().expect("UTF-8")]].concat());
    assert!(output.status.success(), "{output:?}");
    output
}

/// The entries of a tenant about pauses and Discards, oldest first: action, outcome, reason.
fn logged(gateway: &Gateway) -> Vec<(String, String, String)> {
    let output = run(gateway, "root", &["audit", "tail", "--tenant", "acme", "-n", "1000", "--json"]);
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
    let word = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    lines
        .map(|line| (word(&line, "action"), word(&line, "outcome"), word(&line, "reason")))
        .filter(|(action, ..)| matches!(action.as_str(), "recording.pause" | "recording.resume" | "recording.discard"))
        .collect()
}

fn entry(action: &str, outcome: &str, reason: &str) -> (String, String, String) {
    (format!("recording.{action}"), outcome.to_owned(), reason.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_while_a_call_is_paused_is_nowhere() {
    let world = World::new("").await;
    let mut gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    let (mut expected, mut ids) = (Vec::new(), Vec::new());
    for (transport, mode) in [(0, Mode::Live), (1, Mode::Live), (1, Mode::Spooled)] {
        let transport = TRANSPORTS[transport];
        let link = |gateway: &Gateway| gateway.link("switch", transport);
        let (content, card) = (sound(1, WHOLE), CARD.repeat(500));
        let start_ms = Clock::system().now().0 - 120_000;
        let first = v1::Open { start_ms, ..open("acme", mode) };
        let (from, to) = (start_ms + 15_000, start_ms + 45_000);

        let mut call = Call::begin(link(&gateway), first.clone()).await.expect("opened");
        assert_eq!((call.opened.paused.clone(), resumed(&mut call, to).await), (None, 0), "it runs");
        assert!(call.rest(&content[..BEFORE], 0).await);
        let answer = paused(&mut call, "payment-card", from).await;
        let wanted = v1::Paused { offset: BEFORE as u64, reason: "payment-card".into(), since_ms: from };
        assert_eq!(answer, wanted);
        assert_eq!(paused(&mut call, "privacy", 0).await, wanted, "it is paused already");
        // What is kept may come again, and nothing else.
        assert!(call.data(BEFORE - 100, &content[BEFORE - 100..BEFORE]).await);
        assert!(call.data(BEFORE, &card).await);
        let refused = call.until_refused().await;
        assert_eq!((wire::reason(&refused).as_str(), wire::field(&refused).as_str()), ("INVALID", "data"));
        assert!(refused.message().contains("Resume") && refused.message().contains(&BEFORE.to_string()), "{refused}");
        drop(call);
        // Its connection and buffers go when they go; then it is not in memory. What was said before is in the store, and sealed.
        let began = std::time::Instant::now();
        while in_memory(&gateway, CARD).is_some_and(|found| found > 0) {
            assert!(began.elapsed() < wire::WITHIN, "it stays in memory");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        nowhere(&world, &gateway);

        // Killed, and started: it is paused, and refuses.
        gateway.kill();
        gateway = world.start();
        let mut call = Call::begin(link(&gateway), first.clone()).await.expect("again");
        assert_eq!((call.opened.resume_offset, call.opened.paused.clone()), (BEFORE as u64, Some(wanted.clone())));
        assert!(call.data(BEFORE, &card).await);
        assert_eq!(wire::field(&call.until_refused().await), "data");
        // Stopped, and started.
        assert!(tokio::task::block_in_place(|| gateway.stop()).success());
        gateway = world.start();
        let mut call = Call::begin(link(&gateway), first.clone()).await.expect("again");
        assert_eq!(call.opened.paused.clone(), Some(wanted));
        // A listener sees that it lasts.
        let listener = gateway.link("admin", transport);
        let (info, _) = play(listener.clone(), &call.id(), None).await.expect("plays");
        assert_eq!((info.gaps.len(), info.gaps[0].length_ms), (1, None));

        assert_eq!(resumed(&mut call, to).await, BEFORE as u64);
        assert_eq!(resumed(&mut call, to + 9000).await, BEFORE as u64, "it runs already");
        // Killed before any audio came: it still runs.
        gateway.kill();
        gateway = world.start();
        let mut call = Call::begin(link(&gateway), first).await.expect("again");
        assert_eq!((call.opened.resume_offset, call.opened.paused.clone()), (BEFORE as u64, None));
        assert!(call.rest(&content, BEFORE).await && call.finish_with(&content).await);
        assert!(!call.until_finished().await.expect("finished").mismatch, "the digest is of what was kept");

        let (listener, id) = (gateway.link("admin", transport), call.id());
        assert_plays(listener.clone(), &id, &content).await;
        // Seconds are of the audio: 14 to 16 lie on both sides of the gap of half a minute.
        let (info, heard) = play(listener.clone(), &id, wire::seconds(14.0, 16.0)).await.expect("plays");
        assert!(heard == content[112_000..128_000]);
        let gap = v1::Gap {
            offset: BEFORE as u64,
            seconds: Some(15.0),
            length_ms: Some(30_000),
            reason: "payment-card".into(),
        };
        assert_eq!(info.gaps, [gap]);
        let facts = wire::show(listener, &id).await.expect("shown").facts.expect("facts");
        assert_eq!((facts.state(), facts.duration_seconds, facts.paused_seconds), (State::Complete, Some(25.0), 30.0));
        nowhere(&world, &gateway);
        expected.extend([entry("pause", "done", "payment-card"), entry("resume", "done", "payment-card")]);
        assert_eq!(logged(&gateway), expected, "what changed, and only that");
        ids.push(id);
    }
    // The search finds what is there: audio that is being taken lies in a buffer.
    let mut call =
        Call::begin(gateway.link("switch", TRANSPORTS[0]), open("acme", Mode::Spooled)).await.expect("opened");
    assert!(call.data(0, &CARD.repeat(500)).await);
    assert_eq!(resumed(&mut call, 0).await, 20_500, "it was taken");
    assert!(in_memory(&gateway, CARD).is_none_or(|found| found > 0), "the search is blind");
    drop(call);

    // The time line lies under the secret of the audio, and goes with it.
    let erased = wire::recording(&ids.remove(0), v1::Part::Audio);
    wire::erase(gateway.link("admin", TRANSPORTS[0]), erased).await.expect("erased");
    gateway.kill();
    let (readable, unreadable) = time_lines(&world);
    assert_eq!(readable, ids.into_iter().collect());
    assert!(unreadable > 0, "what was written before the erasure is still there, and sealed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_pause_nor_discard_waits_for_storage() {
    let world = World::new("[journal]\nmax_unstored_seconds = 1\n").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    let link = || gateway.link("switch", TRANSPORTS[0]);
    let content = sound(2, 50_000);
    let mut call = Call::begin(link(), open("acme", Mode::Live)).await.expect("opened");
    let first = open("acme", Mode::Live);
    let mut other = Call::begin(link(), first.clone()).await.expect("opened");
    world.proxies[0].cut();
    for call in [&mut call, &mut other] {
        assert!(call.rest(&content, 0).await);
        call.until(|mark| mark.journaled == content.len() as u64).await.expect("journaled");
    }
    let began = std::time::Instant::now();
    while gateway.log().matches("a live call waits in the journal").count() < 2 {
        assert!(began.elapsed() < wire::WITHIN, "no slice is being put");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(paused(&mut call, "privacy", 0).await.offset, content.len() as u64);
    assert_eq!(resumed(&mut call, 0).await, content.len() as u64);
    assert!(matches!(ask(&mut other, discard("mistake")).await, record_response::Event::Discarded(_)));
    let gone = Call::begin(link(), first).await.err().expect("gone");
    assert_eq!(wire::reason(&gone), "ERASED");
    // Of a file nothing is kept until it is stored; it is not called paused before.
    let mut file = Call::begin(link(), open("acme", Mode::Spooled)).await.expect("opened");
    assert!(file.rest(&content, 0).await && file.say(pause("privacy", 0)).await);
    assert_eq!(wire::reason(&file.until_refused().await), "TRY_AGAIN");
    world.proxies[0].mend();
    assert!(call.finish_with(&content).await);
    call.until_finished().await.expect("finished");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_pause_is_no_absence_and_ends_with_the_call() {
    let world = World::new("[limits]\nsender_timeout_seconds = 1\n").await;
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::HomeOnly).await;
    let content = sound(3, 80_000);
    let start_ms = Clock::system().now().0 - 60_000;
    let first = |mode| v1::Open { start_ms, ..open("acme", mode) };
    let shown = async |id: &str| wire::show(link(), id).await.expect("shown").facts.expect("facts");

    // One sender is silent on an open stream, one has gone: when the second is partial, the first has been silent for longer.
    let mut silent = Call::begin(link(), first(Mode::Live)).await.expect("opened");
    let (gone_first, seconds) = (first(Mode::Live), 10_000);
    let mut gone = Call::begin(link(), gone_first.clone()).await.expect("opened");
    for call in [&mut silent, &mut gone] {
        assert!(call.rest(&content, 0).await);
        paused(call, "customer-request", start_ms + seconds).await;
    }
    let id = gone.id();
    drop(gone);
    let began = std::time::Instant::now();
    while shown(&id).await.state() != State::Partial {
        assert!(began.elapsed() < wire::WITHIN, "never partial");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(shown(&silent.id()).await.state(), State::Open);
    let finish = v1::Finish { length: content.len() as u64, sha256: Default::default(), end_ms: start_ms + 30_000 };
    assert!(silent.say(Event::Finish(finish)).await);
    silent.until_finished().await.expect("finished");
    let (info, _) = play(link(), &silent.id(), None).await.expect("plays");
    assert_eq!(info.gaps.iter().map(|gap| gap.length_ms).collect::<Vec<_>>(), [Some(20_000)]);
    assert_eq!(shown(&silent.id()).await.paused_seconds, 20.0);

    // Who comes back to the partial one finds it paused, and the time away is in the gap.
    let mut call = Call::begin(link(), gone_first).await.expect("goes on");
    assert_eq!(call.opened.paused.as_ref().map(|paused| paused.offset), Some(80_000));
    resumed(&mut call, start_ms + 25_000).await;
    assert!(call.finish_with(&content).await);
    call.until_finished().await.expect("finished");
    assert_eq!(shown(&id).await.paused_seconds, 15.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_takes_what_came_before_it_and_one_word_of_the_list() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    for transport in TRANSPORTS {
        let link = || gateway.link("switch", transport);
        let content = sound(4, 1_000_000);
        let first = open("acme", Mode::Live);
        let mut call = Call::begin(link(), first.clone()).await.expect("opened");
        // Nothing is waited for in between.
        assert!(call.rest(&content, 0).await && call.say(pause("other", 0)).await);
        assert!(call.data(content.len(), CARD).await);
        let status = loop {
            match call.next().await {
                Ok(record_response::Event::Paused(paused)) => assert_eq!(paused.offset, content.len() as u64),
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        assert_eq!(wire::field(&status), "data");
        let mut call = Call::begin(link(), first.clone()).await.expect("again");
        assert_eq!(call.opened.resume_offset, content.len() as u64, "all of what came before");
        assert!(call.say(pause("a card of theirs", 0)).await);
        let wrong = call.until_refused().await;
        assert_eq!((wire::reason(&wrong).as_str(), wire::field(&wrong).as_str()), ("INVALID", "pause.reason"));
        assert!(wrong.message().contains("payment-card") && !wrong.message().contains("theirs"));
        let mut call = Call::begin(link(), first).await.expect("again");
        assert!(call.say(discard("they rang")).await);
        let wrong = call.until_refused().await;
        assert_eq!((wire::reason(&wrong).as_str(), wire::field(&wrong).as_str()), ("INVALID", "discard.reason"));
        // Nothing has changed by any of it.
        assert_plays(gateway.link("admin", transport), &call.id(), &content).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_thrown_away_is_gone_and_says_so_again() {
    let world = World::new("").await;
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::HomeOnly).await;
    let content = sound(5, 60_000);
    let begin = async |first: &v1::Open| Call::begin(link(), first.clone()).await;
    let first = open("acme", Mode::Live);
    let mut call = begin(&first).await.expect("opened");
    assert!(call.rest(&content, 0).await);
    paused(&mut call, "privacy", 0).await;
    let id = call.id();
    assert!(
        matches!(ask(&mut call, discard("no-consent")).await, record_response::Event::Discarded(gone) if gone.recording_id == id)
    );
    // The answer was lost: whoever asks again is told.
    for _ in 0..2 {
        assert_eq!(wire::reason(&begin(&first).await.err().expect("gone")), "ERASED");
    }
    wire::assert_erased(link(), &id).await;
    let discarded = vec![entry("pause", "done", "privacy"), entry("discard", "done", "no-consent")];
    assert_eq!(logged(&gateway), discarded);

    // What a hold keeps is kept, parked, and may go on.
    let held = open("acme", Mode::Live);
    let mut call = begin(&held).await.expect("opened");
    assert!(call.rest(&content, 0).await);
    let id = call.id();
    let hold = ["hold", "place", "--recording", &id, "--ground", "g", "--authority", "a"];
    let review = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(720)).to_string();
    run(&gateway, "root", &[&hold[..], &["--review", &review]].concat());
    for _ in 0..2 {
        assert!(call.say(discard("mistake")).await);
        assert_eq!(wire::reason(&call.until_refused().await), "PARKED");
        call = begin(&held).await.expect("it is still there");
    }
    assert!(call.rest(&content, call.opened.resume_offset as usize).await && call.finish_with(&content).await);
    call.until_finished().await.expect("finished");
    assert_plays(link(), &id, &content).await;
    let parked = [discarded, vec![entry("discard", "parked", "mistake"); 2]].concat();
    assert_eq!(logged(&gateway), parked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_recorded_with_pauses_by_command() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    let content = sound(6, 80_000);
    let file = world.aside("call.raw");
    std::fs::write(&file, &content).expect("written");
    let path = file.to_str().expect("UTF-8");
    let record = |more: &[&str]| {
        let common = ["record", "--tenant", "acme", "--subscriber", "sub-1", "--kind", "call", "--live", "--json"];
        let output = run(&gateway, "switch", &[&common[..], &["--media-type", "audio/PCMA"], more, &[path]].concat());
        serde_json::from_slice::<Value>(&output.stdout).expect("an object")
    };
    let done = record(&["--pause", "7..8.5", "--pause", "2..4"]);
    let kept = [&content[..16_000], &content[32_000..56_000], &content[68_000..]].concat();
    let id = done["id"].as_str().expect("an id");
    assert_eq!((done["bytes"].as_u64(), done["mismatch"].as_bool()), (Some(kept.len() as u64), Some(false)));
    assert_plays(gateway.link("admin", TRANSPORTS[0]), id, &kept).await;
    let as_admin = |arguments: &[&str]| run(&gateway, "admin", arguments).stdout;
    let shown: Value = serde_json::from_slice(&as_admin(&["show", id, "--json"])).expect("an object");
    assert_eq!((&shown["facts"]["paused_seconds"], &shown["facts"]["seconds"]), (&3.5.into(), &6.5.into()));
    let text = String::from_utf8(as_admin(&["show", id])).expect("text");
    assert!(text.contains("paused") && text.contains("3.500 seconds"), "{text}");

    let heard = world.aside("heard.raw");
    let played = as_admin(&["play", id, "-o", heard.to_str().expect("UTF-8"), "--json"]);
    let played: Value = serde_json::from_slice(&played).expect("an object");
    let gap = |offset: u64, seconds: f64, ms: u64| serde_json::json!({ "offset": offset, "seconds": seconds, "length_ms": ms, "reason": "payment-card" });
    assert_eq!(played["gaps"], Value::Array(vec![gap(16_000, 2.0, 2000), gap(40_000, 5.0, 1500)]));

    let done = record(&["--discard", "customer-request"]);
    assert_eq!(done["discarded"].as_bool(), Some(true));
    wire::assert_erased(gateway.link("admin", TRANSPORTS[0]), done["id"].as_str().expect("an id")).await;
}
