//! After an erasure the memory of the process holds nothing of what fell: real calls over both transports, a real process,
//! and every page of it read through `/proc/PID/mem`.
//!
//! What is looked for is not guessed. The forensics tool opens copies of the stores twice, with the slot from before the
//! erasure and with the slot from after it: every root, page key and secret that the first run reaches and the second one does
//! not is a key that was erased. From them follow the keys of envelopes, slices and journal frames, and the AES-256 schedules
//! of all of these. Beside keys: audio, in windows; names, numbers, labels.
//!
//! # Why it would notice
//! - The search finds each of these where they are planted.
//! - Before the erasure it finds in the gateway, by kind, what is in clear there while in use: roots, page keys and stable
//!   secrets (cached pages); the audio secret, the slice's key and its schedule and audio (a playback that runs); names. Secrets
//!   of recordings that nobody plays are veiled, so that they need not be there.
//! - After it, what survived is still found.
//!
//! The process is stopped while it is read, in the midst of other calls. Keys are looked for when the answer has come, with all connections still up;
//! names and audio once the connections that carried them have ended, because a running connection's buffers may hold them
//! (README.md says so); and everything again after other work.
//!
//! Reading the memory of a process that is not dumpable takes an administrator: elsewhere these tests fail and say so.

#[path = "common/gateway.rs"]
mod gateway;
#[path = "memory/image.rs"]
mod image;
#[path = "memory/keys.rs"]
mod keys;
#[path = "common/wire.rs"]
mod wire;

use gateway::Gateway;
use image::{Found, Image, Kind, Needles};
use keys::{Keys, copy};
use quietus::{
    cli::{args::Transport, connect::Link},
    proto::v1::{self, Mode, Outcome, Part, Residency, play_response},
};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::unix::{fs::chown, process::CommandExt as _},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::oneshot, task::JoinHandle};
use wire::{Call, assert_plays, open, sound, start_playing, store};

/// Longer than all windows and queues between the gateway and a listener who does not read.
const LONG: usize = 32 << 20;
const TENANT: &str = "acme-tenant-qzv";
/// Who store and listen while something is erased.
const SENDERS: usize = 6;

/// One subscriber of a round.
struct Person {
    name: String,
    party: String,
    call_id: String,
    label: String,
}

impl Person {
    fn of(round: &str) -> Self {
        let drawn = data_encoding::HEXLOWER.encode(&quietus::crypto::random::<6>());
        Self {
            name: format!("+4420{drawn}-name-{round}"),
            party: format!("+4479{drawn}-party-{round}"),
            call_id: format!("{drawn}-call-{round}"),
            label: format!("{drawn}-label-{round}"),
        }
    }

    fn open(&self, mode: Mode) -> v1::Open {
        let facts = v1::Facts {
            parties: vec![self.party.clone()],
            call_id: self.call_id.clone(),
            labels: [("topic".to_owned(), self.label.clone())].into(),
            ..Default::default()
        };
        v1::Open { subscriber: self.name.clone(), facts: Some(facts), ..open(TENANT, mode) }
    }

    /// What is said in words of its recordings; the name itself is the subscriber's.
    fn facts(&self) -> [&str; 3] {
        [&self.party, &self.call_id, &self.label]
    }
}

fn copies(gateway: &Gateway, to: &Path) {
    for folder in ["keys", "journal", "slot", "s3"] {
        copy(&gateway.data().join(folder), &to.join(folder));
    }
}

fn kinds(found: &Found) -> BTreeSet<Kind> {
    found.kinds().collect()
}

/// Waits until a search holds what it must, and gives it.
async fn until(gateway: &Gateway, needles: &Needles, holds: impl Fn(&Found) -> bool, what: &str) -> Found {
    let began = Instant::now();
    loop {
        let found = tokio::task::block_in_place(|| Image::of(gateway.pid()).search(needles));
        if holds(&found) {
            println!("{what}: after {:?}", began.elapsed());
            return found;
        }
        assert!(began.elapsed() < 2 * wire::WITHIN, "{what}: {found}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Calls of somebody who stays, stored and listened to one after the other.
struct Load {
    over: Arc<AtomicBool>,
    senders: Vec<JoinHandle<usize>>,
}

impl Load {
    /// Returns when every sender is in the midst of it.
    async fn begin(link: impl Fn() -> Link, person: &Person) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (mut senders, mut starts) = (Vec::new(), Vec::new());
        for number in 0..SENDERS {
            let (link, over, (started, start)) = (link(), over.clone(), oneshot::channel());
            let (mode, content) = ([Mode::Live, Mode::Spooled][number % 2], sound(41 + number as u64, 150_000));
            let (open, mut started) = (person.open(mode), Some(started));
            senders.push(tokio::spawn(async move {
                let mut calls = 0;
                while !over.load(Ordering::SeqCst) {
                    let id = store(link.clone(), open.clone(), &content).await;
                    assert_plays(link.clone(), &id, &content).await;
                    calls += 1;
                    if let Some(started) = started.take() {
                        started.send(()).expect("somebody waits for it");
                    }
                }
                calls
            }));
            starts.push(start);
        }
        for start in starts {
            start.await.expect("stores and listens");
        }
        Self { over, senders }
    }

    /// How many calls there were.
    async fn end(self) -> usize {
        self.over.store(true, Ordering::SeqCst);
        let mut calls = 0;
        for sender in self.senders {
            calls += sender.await.expect("stores and listens");
        }
        calls
    }
}

/// One erasure: of a recording that plays, or of a subscriber whose recordings were all in use.
async fn round(gateway: &Gateway, transport: Transport, whole: bool, kept: &(Person, String, Vec<u8>)) {
    let round = format!("{transport:?}-{whole}").to_lowercase();
    println!("== {round}");
    let link = || gateway.link("developer", transport);
    let gone = Person::of(&round);
    let (long, short) = (sound(11 + u64::from(whole), LONG), sound(21 + u64::from(whole), 60_000));
    let used = link();
    let (played, live) = (
        store(used.clone(), gone.open(Mode::Spooled), &long).await,
        store(used.clone(), gone.open(Mode::Live), &short).await,
    );
    // A call that is in the journal when it is erased.
    let mut call = Call::begin(used.clone(), gone.open(Mode::Live)).await.expect("opened");
    let spoken = sound(31 + u64::from(whole), 50_000);
    assert!(call.rest(&spoken, 0).await);
    call.until(|mark| mark.journaled == spoken.len() as u64).await.expect("journaled");
    assert_plays(used.clone(), &live, &short).await;
    for id in [&played, &live] {
        let facts = wire::show(used.clone(), id).await.expect("shown").facts.expect("facts");
        assert_eq!(facts.stated.expect("stated").call_id, gone.call_id);
    }
    wire::list(used.clone(), TENANT, 0).await;
    // What is asked for by name takes a connection of its own, which ends before names are looked for.
    let mut heard = start_playing(used.clone(), &played, None).await.expect("plays");
    let mut began = 0;
    while began < 3 {
        let answer = heard.message().await.expect("plays").expect("goes on");
        began += usize::from(matches!(answer.event, Some(play_response::Event::Chunk(_))));
    }

    let folder = tempfile::tempdir().expect("a folder");
    let (before, after) = (folder.path().join("before"), folder.path().join("after"));
    copies(gateway, &before);
    let known = Keys::reached(&[&before], &before.join("slot"));
    let mut needles = Needles::default();
    known.into_needles(&mut needles);
    let words = gone.facts().into_iter().chain([gone.name.as_str()]);
    words.for_each(|word| needles.word(Kind::Name, word));
    needles.audio(&long);
    needles.audio(&short);
    needles.audio(&spoken);
    let planted = Image::planted(&needles).search(&needles);
    assert_eq!(planted.count(), needles.count(), "the search is blind to some");
    let in_use =
        [Kind::Root, Kind::PageKey, Kind::Stable, Kind::Audio, Kind::SliceKey, Kind::Schedule, Kind::Sound, Kind::Name];
    let control = until(
        gateway,
        &needles,
        |found| in_use.iter().all(|kind| found.kinds().any(|found| found == *kind)),
        "control",
    )
    .await;
    println!("before: {control}");

    // The erasure, while others store and listen.
    let load = Load::begin(link, &kept.0).await;
    let by = link();
    if whole {
        let done = wire::erase(by.clone(), wire::subscriber(TENANT, &gone.name)).await.expect("erased");
        assert_eq!(done.outcome(), Outcome::Erased);
    } else {
        for id in [&played, &live, &call.id()] {
            let done = wire::erase(by.clone(), wire::recording(id, Part::Unspecified)).await.expect("erased");
            assert_eq!(done.outcome(), Outcome::Erased);
        }
    }
    let at_answer = tokio::task::block_in_place(|| Image::of(gateway.pid()));
    println!("calls beside: {}", load.end().await);
    copies(gateway, &after);
    let living = Keys::reached(&[&before, &after], &after.join("slot"));
    let known = Keys::reached(&[&before, &after], &before.join("slot"));
    let mut dead = Needles::default();
    let erased = known.without(&living);
    println!("erased keys: {erased}");
    // A recording has two secrets; its path up to the root is five pages or so.
    assert!(erased.secrets() >= 6 + usize::from(whole), "hardly anything was erased: {erased}");
    erased.into_needles(&mut dead);
    let seen = control.of(&dead);
    println!("of these before: {seen}");
    // The control, of exactly what was erased.
    let must = [Kind::Root, Kind::PageKey, Kind::Audio, Kind::SliceKey, Kind::Schedule];
    let must: BTreeSet<Kind> = must.into_iter().chain(whole.then_some(Kind::Stable)).collect();
    assert!(kinds(&seen).is_superset(&must), "the control found {seen}");
    let keys_left = tokio::task::block_in_place(|| at_answer.search(&dead));
    println!("keys at the answer: {keys_left}");
    assert_eq!(keys_left.count(), 0, "keys at the answer: {keys_left}");

    dead.audio(&long);
    dead.audio(&short);
    dead.audio(&spoken);
    gone.facts().into_iter().for_each(|word| dead.word(Kind::Name, word));
    if whole {
        dead.word(Kind::Name, &gone.name);
    }
    let buffered = tokio::task::block_in_place(|| at_answer.search(&dead));
    println!("at the answer, connections up: {buffered}");
    drop((heard, call, used, by, at_answer));
    until(gateway, &dead, |found| found.count() == 0, "nothing once connections have ended").await;

    // Other work goes on, in the same pools and caches, and what survived is there.
    let (person, id, content) = kept;
    assert_plays(link(), id, content).await;
    store(link(), person.open(Mode::Live), content).await;
    let later = tokio::task::block_in_place(|| Image::of(gateway.pid()));
    let left = later.search(&dead);
    assert_eq!(left.count(), 0, "later: {left}");
    let mut survivor = Needles::default();
    survivor.word(Kind::Name, &person.name);
    if !whole {
        survivor.word(Kind::Name, &gone.name);
    }
    assert_eq!(later.search(&survivor).count(), survivor.count());
    assert_eq!(wire::reason(&wire::show(link(), &played).await.expect_err("erased")), "ERASED");
}

async fn over(transport: Transport) {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let gateway = tokio::task::block_in_place(|| Gateway::start(&data));
    let link: Link = gateway.link("developer", transport);
    wire::tenant(link.clone(), TENANT, Residency::HomeOnly).await;
    let person = Person::of("kept");
    let content = sound(1, 200_000);
    let id = store(link, person.open(Mode::Spooled), &content).await;
    let kept = (person, id, content);
    for whole in [false, true] {
        round(&gateway, transport, whole, &kept).await;
    }
    // The tenant, with all that is left.
    let mut words = Needles::default();
    kept.0.facts().into_iter().chain([kept.0.name.as_str(), TENANT]).for_each(|word| words.word(Kind::Name, word));
    until(&gateway, &words, |found| found.count() >= 2, "the control: both names").await;
    let done = wire::erase(gateway.link("developer", transport), wire::whole_tenant(TENANT)).await.expect("erased");
    assert_eq!(done.outcome(), Outcome::Erased);
    until(&gateway, &words, |found| found.count() == 0, "nothing of the tenant").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_erased_is_in_memory_over_http2() {
    over(Transport::H2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_erased_is_in_memory_over_http3() {
    over(Transport::H3).await;
}

/// What the kernel says of a process, by its files below `/proc`.
fn said(pid: u32, file: &str, line: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("an administrator reads it");
    let found = text.lines().find_map(|found| found.strip_prefix(line));
    found.unwrap_or_else(|| panic!("{file} says nothing of {line}")).trim().to_owned()
}

/// Whether this test, and so what it starts, may lock memory without a bound.
fn may_lock() -> bool {
    let effective = u64::from_str_radix(&said(std::process::id(), "status", "CapEff:"), 16).expect("hexadecimal");
    let limits = said(std::process::id(), "limits", "Max locked memory");
    effective >> 14 & 1 == 1 || limits.split_whitespace().nth(1) == Some("unlimited")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_locked_and_in_no_core_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let gateway = tokio::task::block_in_place(|| Gateway::start(&data));
    wire::tenant(gateway.link("developer", Transport::H2), TENANT, Residency::HomeOnly).await;
    let cores = said(gateway.pid(), "limits", "Max core file size");
    assert_eq!(cores.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
    let filter = std::fs::read_to_string(format!("/proc/{}/coredump_filter", gateway.pid())).expect("reads");
    assert_eq!(filter.trim().trim_start_matches('0'), "", "{filter}");
    if may_lock() {
        let left_out = image::unlocked(gateway.pid());
        assert!(left_out.is_empty(), "not locked: {left_out:?}");
    } else {
        assert!(gateway.log().contains("memory is not locked"), "{}", gateway.log());
    }
}

/// Somebody without rights, where the test has all of them.
const NOBODY: u32 = 65_534;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_process_of_the_same_user_reads_memory() {
    let administrator = said(std::process::id(), "status", "Uid:").starts_with('0');
    let dir = tempfile::tempdir().expect("a folder");
    let (program, data) = (dir.path().join("quietus"), dir.path().join("data"));
    std::fs::copy(env!("CARGO_BIN_EXE_quietus"), &program).expect("copied");
    let of_nobody = |program: &OsStr| {
        let mut command = Command::new(program);
        if administrator {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    if administrator {
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("given away");
    }
    let mut command = of_nobody(program.as_os_str());
    command.args(["dev", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let gateway = tokio::task::block_in_place(|| Gateway::spawn(command, &data));
    let mut other = of_nobody("sleep".as_ref()).arg("600").spawn().expect("it starts");
    // What it takes to read this is what it takes to read memory.
    let read = |pid: u32| {
        let output = of_nobody("cat".as_ref()).arg(format!("/proc/{pid}/auxv")).output().expect("it starts");
        output.status.success() && !output.stdout.is_empty()
    };
    let control = read(other.id());
    other.kill().expect("killed");
    other.wait().expect("it ends");
    assert!(control, "the control: a process that is like any other");
    assert!(!read(gateway.pid()));
}
