//! The process is killed where it stands, again and again, under load: from outside at any moment, and by the library of
//! `common/recorder.c` at the steps of rotations, slot commits, sweeps, starts and of the journal, and at any other call that
//! touches its files. What it acknowledged is there afterwards, bit for
//! bit; what it forgot stays forgotten; nothing is there twice, and nothing is left lying about.

use super::{
    TRANSPORTS,
    gateway::Gateway,
    recorder,
    served::{REGIONS, World},
    wire::{self, Call, assert_plays, open, play, sound},
};
use quietus::{
    cli::connect::Link,
    crypto::random,
    proto::v1::{self, Mode, Residency, State},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long it is killed for: `QUIETUS_CRASH=full` goes on for longer.
fn killed_for() -> Duration {
    Duration::from_secs(if recorder::is_full() { 600 } else { 50 })
}

const SENDERS: u64 = 7;

/// What the senders know.
#[derive(Default)]
struct Known {
    /// Where the gateway is now.
    links: Mutex<Vec<Link>>,
    over: AtomicBool,
    seeds: AtomicU64,
    complete: Mutex<Vec<(String, Vec<u8>)>>,
    /// Id, what was being sent, how much of it was acknowledged.
    abandoned: Mutex<Vec<(String, Vec<u8>, u64)>>,
    erased: Mutex<Vec<String>>,
    resumed: AtomicU64,
}

impl Known {
    fn meet(&self, gateway: &Gateway) {
        *self.links.lock().expect("links") = TRANSPORTS.map(|transport| gateway.link("admin", transport)).to_vec();
    }

    fn link(&self, transport: u64) -> Link {
        self.links.lock().expect("links")[transport as usize % 2].clone()
    }
}

fn below(limit: u64) -> u64 {
    u64::from_le_bytes(random()) % limit
}

/// Starts a gateway that is to die at a call, or one that is not where it died before it served. Says whether it did.
fn start_to_end(world: &World, number: usize) -> (Gateway, bool) {
    let act = match recorder::STEPS.get(number % (2 * recorder::STEPS.len())) {
        Some(step) => format!("kill:{step}:{}", 1 + below(8)),
        None => format!("kill:*:*:{}", 1 + below(600)),
    };
    let environment = [
        ("LD_PRELOAD", recorder::library().display().to_string()),
        ("QUIETUS_RECORD_ROOT", world.data().display().to_string()),
        ("QUIETUS_RECORD_ACT", act),
    ];
    match world.try_start(&environment) {
        Ok(gateway) => (gateway, false),
        Err(_) => (world.start(), true),
    }
}

/// Whether a sender is to try again: the gateway was away or going.
fn is_passing(status: &tonic::Status) -> bool {
    // A connection that broke has no reason of ours.
    matches!(wire::reason(status).as_str(), "" | "TRY_AGAIN" | "TAKEN_OVER")
}

/// One recording after the other, each until it is finished, or left for good half-way.
async fn send(known: Arc<Known>, sender: u64) {
    while !known.over.load(Ordering::Relaxed) {
        let seed = known.seeds.fetch_add(1, Ordering::Relaxed);
        let live = sender.is_multiple_of(2);
        let length = match below(12) {
            0 => (8 << 20) + below(1 << 20),
            1..4 => 1 + below(1000),
            _ => 1 + below(1 << 20),
        };
        let content = sound(seed, length as usize);
        let gives_up = (below(5) == 0).then(|| below(length + 1));
        let first = v1::Open {
            subscriber: format!("sub-{}", below(5)),
            ..open("acme", if live { Mode::Live } else { Mode::Spooled })
        };
        one(&known, sender, live, first, &content, gives_up).await;
    }
}

async fn one(known: &Known, sender: u64, live: bool, first: v1::Open, content: &[u8], gives_up: Option<u64>) {
    let mut acknowledged = 0;
    let mut id: Option<String> = None;
    loop {
        let mut call = match Call::begin(known.link(sender), first.clone()).await {
            Ok(call) => call,
            Err(status) => {
                assert!(is_passing(&status), "{status:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let opened = call.opened.clone();
        if let Some(before) = id.replace(call.id()) {
            assert_eq!(before, call.id(), "a client id became a second recording");
            known.resumed.fetch_add(1, Ordering::Relaxed);
        }
        let resume = opened.resume_offset;
        assert!(resume >= acknowledged, "acknowledged {acknowledged}, kept {resume}, live {live}");
        assert!(resume <= content.len() as u64);
        let outcome = async {
            if !opened.already_finished {
                let piece = if live { 16_000 } else { 200_000 };
                for (index, bytes) in content[resume as usize..].chunks(piece).enumerate() {
                    let at = resume as usize + index * piece;
                    if gives_up.is_some_and(|end| at as u64 >= end) {
                        // Hears what is acknowledged until now, and hangs up.
                        if live && at > resume as usize {
                            call.until(|mark| mark.journaled >= at as u64).await?;
                        }
                        return Ok(false);
                    }
                    if !call.data(at, bytes).await {
                        break;
                    }
                    if live && index % 8 == 7 {
                        call.until(|mark| mark.journaled >= (at + bytes.len()) as u64).await?;
                    }
                }
                call.finish_with(content).await;
            }
            let finished = call.until_finished().await?;
            assert_eq!((finished.length, finished.mismatch), (content.len() as u64, false), "live {live}");
            Ok::<bool, tonic::Status>(true)
        }
        .await;
        acknowledged = acknowledged.max(resume).max(call.mark.stored);
        if live {
            acknowledged = acknowledged.max(call.mark.journaled);
        }
        match outcome {
            Ok(true) => return known.complete.lock().expect("list").push((call.id(), content.to_vec())),
            Ok(false) => {
                return known.abandoned.lock().expect("list").push((call.id(), content.to_vec(), acknowledged));
            }
            Err(status) => assert!(is_passing(&status), "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Erases a finished recording now and then, each until that is acknowledged.
async fn forget(known: Arc<Known>) {
    while !known.over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(below(900))).await;
        let chosen = {
            let mut complete = known.complete.lock().expect("list");
            let length = complete.len() as u64;
            (length > 20).then(|| complete.swap_remove(below(length) as usize).0)
        };
        let Some(id) = chosen else { continue };
        loop {
            match wire::erase(known.link(0), wire::recording(&id, v1::Part::Unspecified)).await {
                Ok(_) => break,
                Err(status) => assert!(is_passing(&status), "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        known.erased.lock().expect("list").push(id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_kill() {
    let settings = "[limits]\nsender_timeout_seconds = 2\n[journal]\nmax_unstored_seconds = 1\nsegment_mib = 1\n";
    let world = World::new(settings).await;
    let mut gateway = world.start();
    let known = Arc::new(Known::default());
    known.meet(&gateway);
    wire::tenant(known.link(0), "acme", Residency::Both).await;
    let mut tasks = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        tasks.spawn(send(known.clone(), sender));
    }
    tasks.spawn(forget(known.clone()));

    let (began, mut kills, mut at_a_call, mut starts) = (Instant::now(), 0, 0, 0);
    while began.elapsed() < killed_for() {
        // From outside, or where it was started to die; a call that never comes is waited for no longer than this.
        let patience = Duration::from_millis(100 + below(1500));
        at_a_call += usize::from(tokio::task::block_in_place(|| gateway.end_within(patience)));
        kills += 1;
        if let Some(failed) = tasks.try_join_next() {
            panic!("a sender ended early: {failed:?}");
        }
        let died;
        (gateway, died) = start_to_end(&world, starts);
        starts += 1;
        kills += usize::from(died);
        at_a_call += usize::from(died);
        known.meet(&gateway);
    }
    // The last one is not to die any more.
    gateway.kill();
    let gateway = world.start();
    known.meet(&gateway);
    known.over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|failed| panic!("{failed}; {}", gateway.log()));
    }

    let link = || gateway.link("admin", TRANSPORTS[0]);
    let (complete, abandoned, erased) = (
        std::mem::take(&mut *known.complete.lock().expect("list")),
        std::mem::take(&mut *known.abandoned.lock().expect("list")),
        std::mem::take(&mut *known.erased.lock().expect("list")),
    );
    println!(
        "{kills} kills, {at_a_call} of them at a chosen call, {} resumed, {} complete, {} abandoned, {} erased",
        known.resumed.load(Ordering::Relaxed),
        complete.len(),
        abandoned.len(),
        erased.len()
    );
    assert!(kills > 5 && at_a_call > 2 && known.resumed.load(Ordering::Relaxed) > 0, "nothing was put to the test");
    for (id, content) in &complete {
        assert_plays(link(), id, content).await;
    }
    for id in &erased {
        wire::assert_erased(link(), id).await;
    }
    for (id, content, acknowledged) in &abandoned {
        let began = Instant::now();
        loop {
            let facts = wire::show(link(), id).await.expect("shown").facts.expect("facts");
            if facts.state() == State::Partial {
                break;
            }
            assert!(began.elapsed() < wire::WITHIN, "{id} never became partial: {facts:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (info, heard) = play(link(), id, None).await.expect("plays");
        assert!(heard.len() as u64 >= *acknowledged, "{} of {acknowledged}", heard.len());
        assert!(heard == content[..heard.len()] && !info.complete);
    }
    let listed = wire::list(link(), "acme", 7).await;
    assert_eq!(listed.len(), complete.len() + abandoned.len(), "one recording for each client id");
    let counted: u64 = wire::statistics(link(), "acme").await.iter().map(|row| row.recordings).sum();
    assert_eq!(counted, (complete.len() + erased.len()) as u64, "each finished recording counts once");
    wire::settled(link()).await;
    let names = |region: &str| {
        let mut names = world.objects(region);
        names.sort();
        names
    };
    assert_eq!(names(REGIONS[0]), names(REGIONS[1]), "copies of everything");

    // When all is erased, no object may be left: each one that was ever put is named somewhere. Killed while it sweeps.
    wire::erase(link(), wire::whole_tenant("acme")).await.expect("erased");
    gateway.kill();
    let gateway = world.start();
    wire::settled(gateway.link("admin", TRANSPORTS[0])).await;
    assert_eq!((names(REGIONS[0]).len(), names(REGIONS[1]).len()), (0, 0));
    let log = gateway.log();
    assert!(!log.contains("panicked") && !log.contains(" ERROR "), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeping_goes_on_after_a_kill_half_way() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    let many = 600;
    let mut stores = tokio::task::JoinSet::new();
    for lane in 0..8 {
        let link = gateway.link("admin", TRANSPORTS[0]);
        stores.spawn(async move {
            for index in 0..many / 8 {
                wire::store(link.clone(), open("acme", Mode::Spooled), &sound(lane * 1000 + index, 500)).await;
            }
        });
    }
    stores.join_all().await;
    assert_eq!(world.objects(REGIONS[0]).len() as u64, many);
    wire::erase(gateway.link("admin", TRANSPORTS[0]), wire::subscriber("acme", "sub-1")).await.expect("erased");
    let began = Instant::now();
    while world.objects(REGIONS[0]).len() as u64 > many - 20 {
        assert!(began.elapsed() < wire::WITHIN, "the sweeper does not begin");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    gateway.kill();
    assert!(!world.objects(REGIONS[0]).is_empty(), "it was killed too late to show anything");
    let gateway = world.start();
    wire::settled(gateway.link("admin", TRANSPORTS[0])).await;
    assert_eq!(world.objects(REGIONS[0]).len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_in_time_and_loses_nothing() {
    let world = World::new("[limits]\ndrain_seconds = 5\n").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    let content = sound(1, 400_000);
    let mut calls = Vec::new();
    for index in 0..6 {
        let first = open("acme", if index % 3 == 0 { Mode::Spooled } else { Mode::Live });
        let link = gateway.link("admin", TRANSPORTS[index % 2]);
        let mut call = Call::begin(link, first.clone()).await.expect("opened");
        assert!(call.rest(&content[..200_000], 0).await);
        if index % 3 != 0 {
            call.until(|mark| mark.journaled == 200_000).await.expect("journaled");
        }
        calls.push((first, call));
    }
    let began = Instant::now();
    let stopped = tokio::task::spawn_blocking(move || gateway.stop());
    for (_, call) in &mut calls {
        let status = call.until_refused().await;
        assert!(is_passing(&status), "{status:?}");
    }
    assert!(stopped.await.expect("stopped").success());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let gateway = world.start();
    for (index, (first, before)) in calls.into_iter().enumerate() {
        let mut call = Call::begin(gateway.link("admin", TRANSPORTS[0]), first).await.expect("goes on");
        assert_eq!(call.id(), before.id());
        assert_eq!(call.opened.resume_offset, if index % 3 == 0 { 0 } else { 200_000 });
        assert!(call.rest(&content, call.opened.resume_offset as usize).await && call.finish_with(&content).await);
        assert!(!call.until_finished().await.expect("finished").mismatch);
        assert_plays(gateway.link("admin", TRANSPORTS[0]), &call.id(), &content).await;
    }
}
