//! Object storage goes away and comes back.

use super::{
    TRANSPORTS,
    served::{REGIONS, World},
    wire::{self, Call, assert_plays, open, play, reason, sound, store},
};
use quietus::{
    cli::connect::Link,
    proto::v1::{Mode, Part, Residency, State},
};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_calls_go_on_without_storage_and_files_are_refused_until_it_is_back() {
    let world = World::new("[limits]\nsender_timeout_seconds = 1\n").await;
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::HomeOnly).await;
    world.proxies[0].cut();

    let (speech, file) = (sound(1, 500_000), sound(2, 400_000));
    let mut live = Call::begin(link(), open("acme", Mode::Live)).await.expect("opened");
    assert!(live.rest(&speech, 0).await && live.finish_with(&speech).await);
    live.until(|mark| mark.finish_journaled && mark.journaled == 500_000).await.expect("the switch may hang up");
    assert_eq!(live.mark.stored, 0);
    // Heard from the journal meanwhile.
    let (info, heard) = play(link(), &live.id(), None).await.expect("plays");
    assert!(heard == speech && !info.complete);

    let first = open("acme", Mode::Spooled);
    let mut spooled = Call::begin(link(), first.clone()).await.expect("opened");
    assert!(spooled.rest(&file, 0).await && spooled.finish_with(&file).await);
    let away = spooled.until_refused().await;
    assert_eq!((reason(&away).as_str(), away.code()), ("TRY_AGAIN", tonic::Code::Unavailable));
    // Its sender stays away for a while: it is not left open for ever.
    let abandoned = spooled.id();
    let began = Instant::now();
    while wire::show(link(), &abandoned).await.expect("shown").facts.expect("facts").state() != State::Partial {
        assert!(began.elapsed() < wire::WITHIN, "never partial");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    world.proxies[0].mend();
    let finished = live.until_finished().await.expect("finished");
    assert_eq!((finished.length, finished.mismatch), (500_000, false));
    assert_plays(link(), &live.id(), &speech).await;
    let id = store(link(), first, &file).await;
    assert_eq!(id, abandoned);
    assert_plays(link(), &id, &file).await;
    wire::settled(link()).await;
    assert_eq!(world.objects("eu-west-2").len(), 2, "a put that failed leaves nothing");
    assert_eq!(wire::status(link()).await.recordings_open, 0);
}

async fn until_complete(link: Link, id: &str, length: u64) {
    let began = Instant::now();
    loop {
        let facts = wire::show(link.clone(), id).await.expect("shown").facts.expect("facts");
        if facts.state() == State::Complete {
            return assert_eq!((facts.length, facts.mismatch), (length, false));
        }
        assert!(began.elapsed() < wire::WITHIN, "never complete");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_call_that_waits_for_storage_survives_a_kill_and_a_stop() {
    let world = World::new("").await;
    let mut gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    let speech = sound(5, 9 << 20);
    for kill in [true, false] {
        world.proxies[0].cut();
        let link = gateway.link("switch", TRANSPORTS[usize::from(kill)]);
        let mut live = Call::begin(link, open("acme", Mode::Live)).await.expect("opened");
        assert!(live.rest(&speech, 0).await && live.finish_with(&speech).await);
        live.until(|mark| mark.finish_journaled).await.expect("journaled");
        let id = live.id();
        if kill {
            gateway.kill();
        } else {
            let began = Instant::now();
            assert!(tokio::task::block_in_place(|| gateway.stop()).success());
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        }
        // It starts without storage, too, and finishes without the switch.
        gateway = world.start();
        let (_, heard) = play(gateway.link("admin", TRANSPORTS[0]), &id, None).await.expect("plays from the journal");
        assert!(heard == speech);
        world.proxies[0].mend();
        until_complete(gateway.link("admin", TRANSPORTS[0]), &id, 9 << 20).await;
        assert_plays(gateway.link("admin", TRANSPORTS[0]), &id, &speech).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finish_that_was_journaled_counts_though_a_retry_of_the_sender_dies() {
    let world = World::new("[limits]\nsender_timeout_seconds = 1\n").await;
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::HomeOnly).await;
    world.proxies[0].cut();
    let (speech, first) = (sound(6, 300_000), open("acme", Mode::Live));
    let mut live = Call::begin(link(), first.clone()).await.expect("opened");
    assert!(live.rest(&speech, 0).await && live.finish_with(&speech).await);
    live.until(|mark| mark.finish_journaled).await.expect("journaled");
    let retry = Call::begin(gateway.link("admin", TRANSPORTS[1]), first).await.expect("opened");
    assert_eq!((retry.id(), retry.opened.resume_offset), (live.id(), 300_000));
    assert_eq!(reason(&live.until_refused().await), "TAKEN_OVER");
    drop(retry);
    world.proxies[0].mend();
    until_complete(link(), &live.id(), 300_000).await;
    assert_plays(link(), &live.id(), &speech).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_journal_refuses_new_calls_and_not_the_running_ones() {
    let world = World::new("[journal]\nlimit_mib = 64\nsegment_mib = 4\n").await;
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::HomeOnly).await;
    world.proxies[0].cut();
    let speech = sound(7, 66 << 20);
    let mut running = Call::begin(link(), open("acme", Mode::Live)).await.expect("opened");
    assert!(running.rest(&speech, 0).await);
    running.until(|mark| mark.journaled == 66 << 20).await.expect("journaled beyond the limit");
    for transport in TRANSPORTS {
        let refused = Call::begin(gateway.link("admin", transport), open("acme", Mode::Live)).await.err();
        assert_eq!(reason(&refused.expect("refused")), "TRY_AGAIN");
    }
    let now = wire::status(link()).await;
    assert!(now.journal_bytes >= now.journal_limit_bytes && now.journal_limit_bytes == 64 << 20);
    assert!(running.finish_with(&speech).await);
    running.until(|mark| mark.finish_journaled).await.expect("the running one ends well");
    world.proxies[0].mend();
    assert!(!running.until_finished().await.expect("finished").mismatch);
    assert_plays(link(), &running.id(), &speech).await;
    Call::begin(link(), open("acme", Mode::Live)).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_go_to_both_regions_and_either_one_is_enough() {
    let world = World::new("").await;
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::Both).await;
    let content = sound(1, (8 << 20) + 70_000);
    let id = store(link(), open("acme", Mode::Spooled), &content).await;
    wire::settled(link()).await;
    let names = |region: &str| {
        let mut names = world.objects(region);
        names.sort();
        names
    };
    assert_eq!(names(REGIONS[0]).len(), 2);
    assert_eq!(names(REGIONS[0]), names(REGIONS[1]));

    // Home is away: the other region takes it, and home gets its copy when it is back.
    world.proxies[0].cut();
    assert_plays(link(), &id, &content).await;
    let away = store(link(), open("acme", Mode::Spooled), &content).await;
    assert_eq!((names(REGIONS[0]).len(), names(REGIONS[1]).len()), (2, 4));
    assert!(wire::status(link()).await.replications_pending >= 2);
    world.proxies[0].mend();
    wire::settled(link()).await;
    assert_eq!(names(REGIONS[0]), names(REGIONS[1]));
    let rows = wire::statistics(link(), "acme").await;
    let regions: Vec<&str> = rows.iter().map(|row| row.region.as_str()).collect();
    assert_eq!(regions, ["eu-west-1", "eu-west-2"], "counted where the first copy went");

    // Deleted or damaged behind our back at home.
    for (index, name) in names(REGIONS[0]).into_iter().enumerate() {
        let file = world.bucket(REGIONS[0]).join(name);
        if index % 2 == 0 {
            std::fs::remove_file(file).expect("removed");
        } else {
            let mut bytes = std::fs::read(&file).expect("read");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(file, bytes).expect("written");
        }
    }
    assert_plays(link(), &id, &content).await;
    assert_plays(link(), &away, &content).await;
    // Erasing while one region is away: unreadable at once, removed there when it is back.
    world.proxies[1].cut();
    wire::erase(link(), wire::whole_tenant("acme")).await.expect("erased");
    assert!(wire::status(link()).await.sweeps_pending > 0);
    world.proxies[1].mend();
    wire::settled(link()).await;
    assert_eq!((names(REGIONS[0]).len(), names(REGIONS[1]).len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_that_hangs_holds_up_neither_calls_nor_erasures_nor_a_stop() {
    let world = World::new("[limits]\ndrain_seconds = 5\n").await;
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::HomeOnly).await;
    let speech = sound(8, 400_000);
    let erased = store(link(), open("acme", Mode::Spooled), &speech).await;
    world.proxies[0].stall();
    // Far below what a request to S3 may take.
    let soon = Duration::from_secs(8);
    let mut live = Call::begin(link(), open("acme", Mode::Live)).await.expect("opened");
    let journaled = async {
        assert!(live.rest(&speech, 0).await && live.finish_with(&speech).await);
        live.until(|mark| mark.finish_journaled).await.expect("journaled");
    };
    tokio::time::timeout(soon, journaled).await.expect("a call does not wait for storage");
    let mut spooled = Call::begin(link(), open("acme", Mode::Spooled)).await.expect("opened");
    assert!(spooled.rest(&speech, 0).await && spooled.finish_with(&speech).await);
    let erasing = wire::erase(link(), wire::recording(&erased, Part::Unspecified));
    tokio::time::timeout(soon, erasing).await.expect("an erasure does not wait for storage").expect("erased");
    wire::assert_erased(link(), &erased).await;
    // The put of this one is under way.
    let erasing = wire::erase(link(), wire::recording(&spooled.id(), Part::Unspecified));
    tokio::time::timeout(soon, erasing).await.expect("nor when a put hangs").expect("erased");
    assert_eq!(reason(&spooled.until_refused().await), "ERASED");
    let id = live.id();
    let began = Instant::now();
    assert!(tokio::task::block_in_place(|| gateway.stop()).success());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());

    world.proxies[0].mend();
    let gateway = world.start();
    until_complete(gateway.link("admin", TRANSPORTS[0]), &id, 400_000).await;
    assert_plays(gateway.link("admin", TRANSPORTS[0]), &id, &speech).await;
    wire::settled(gateway.link("admin", TRANSPORTS[0])).await;
    assert_eq!(world.objects(REGIONS[0]).len(), 1);
}
