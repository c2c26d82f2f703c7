//! A recording goes in, spooled and live, and comes out bit for bit, whole and in ranges; a sender that comes back goes on.

use super::{
    TRANSPORTS,
    served::World,
    wire::{self, Call, assert_plays, open, play, sound, store},
};
use quietus::proto::v1::{self, Mode, Residency, State};

/// Plaintext of one slice, and of one segment.
const SLICE: usize = 8 << 20;
const SEGMENT: usize = 64 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_of_many_slices_play_bit_for_bit_and_in_ranges() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    for transport in TRANSPORTS {
        for mode in [Mode::Spooled, Mode::Live] {
            let link = || gateway.link("admin", transport);
            let content = sound(mode as u64, 2 * SLICE + 3 * SEGMENT + 17);
            let id = store(gateway.link("switch", transport), open("acme", mode), &content).await;
            assert_plays(link(), &id, &content).await;
            let total = content.len();
            for border in [2 * SEGMENT, SLICE - SEGMENT, SLICE, 2 * SLICE, total] {
                for (start, end) in [
                    (border - 1, border + 1),
                    (border, border + SEGMENT),
                    (border - SEGMENT, border),
                    (border - SEGMENT - 1, border + 1),
                ] {
                    let end = end.min(total);
                    if start >= end {
                        continue;
                    }
                    let (info, heard) = play(link(), &id, wire::bytes(start as u64, end as u64)).await.expect("plays");
                    assert!(heard == content[start..end], "{transport:?} {mode:?} {start}..{end}");
                    assert_eq!((info.start, info.total_length), (start as u64, total as u64));
                }
            }
            let (_, tail) = play(link(), &id, wire::bytes((SLICE + 5) as u64, 0)).await.expect("plays");
            assert!(tail == content[SLICE + 5..]);
            let beyond = play(link(), &id, wire::bytes(total as u64, 0)).await.expect_err("outside");
            assert_eq!(wire::reason(&beyond), "OUT_OF_RANGE");

            let shown = wire::show(link(), &id).await.expect("shown").facts.expect("facts");
            assert_eq!((shown.state(), shown.length), (State::Complete, total as u64));
            assert_eq!(shown.duration_seconds, Some(total as f64 / 8000.0));
        }
    }
    assert_eq!(world.objects("eu-west-2").len(), 4 * 3, "three slices a recording, and nothing beside them");
    assert_eq!(world.objects("eu-west-1").len(), 0, "home only");
    assert!(gateway.stop().success());
}

/// 8 kHz, 16 bits, mono.
fn wav(samples: &[u8]) -> Vec<u8> {
    let mut file = b"RIFF".to_vec();
    file.extend_from_slice(&(36 + samples.len() as u32).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend_from_slice(&8000_u32.to_le_bytes());
    file.extend_from_slice(&16000_u32.to_le_bytes());
    file.extend_from_slice(b"\x02\0\x10\0data");
    file.extend_from_slice(&(samples.len() as u32).to_le_bytes());
    file.extend_from_slice(samples);
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_ranges_of_wav_and_raw_g711_are_the_right_samples() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    for transport in TRANSPORTS {
        let link = || gateway.link("admin", transport);
        let samples = sound(1, 10 * 16_000);
        let as_wav = v1::Open { media_type: "audio/wav".into(), ..open("acme", Mode::Spooled) };
        let id = store(link(), as_wav, &wav(&samples)).await;
        let (info, heard) = play(link(), &id, wire::seconds(2.5, 4.0)).await.expect("plays");
        assert!(heard == wav(&samples[40_000..64_000]), "a playable file of the 1.5 seconds");
        assert_eq!(info.media_type, "audio/wav");
        assert_eq!(wire::show(link(), &id).await.expect("shown").facts.expect("facts").duration_seconds, Some(10.0));

        let id = store(link(), open("acme", Mode::Live), &samples).await;
        let (_, heard) = play(link(), &id, wire::seconds(1.25, 3.0)).await.expect("plays");
        assert!(heard == samples[10_000..24_000]);
        let (_, heard) = play(link(), &id, wire::seconds(19.0, 0.0)).await.expect("plays");
        assert!(heard == samples[152_000..]);
        let beyond = play(link(), &id, wire::seconds(20.0, 0.0)).await.expect_err("outside");
        assert_eq!(wire::reason(&beyond), "OUT_OF_RANGE");

        let opaque = v1::Open { media_type: "audio/ogg; codecs=opus".into(), ..open("acme", Mode::Spooled) };
        let id = store(link(), opaque, &samples).await;
        let no_rate = play(link(), &id, wire::seconds(1.0, 2.0)).await.expect_err("no rate");
        assert_eq!((wire::reason(&no_rate).as_str(), wire::field(&no_rate).as_str()), ("INVALID", "range"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_comes_back_goes_on_and_never_makes_a_second_recording() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    let mut made = 0;
    for transport in TRANSPORTS {
        let link = || gateway.link("switch", transport);
        // Live: what was journaled is kept.
        let content = sound(7, 300_000);
        let first = open("acme", Mode::Live);
        let mut call = Call::begin(link(), first.clone()).await.expect("opened");
        assert!(call.data(0, &content[..100_000]).await);
        call.until(|mark| mark.journaled == 100_000).await.expect("journaled");
        let id = call.id();
        drop(call);
        let mut call = Call::begin(link(), first.clone()).await.expect("again");
        assert_eq!((call.id(), call.opened.resume_offset), (id.clone(), 100_000));
        // What is kept already may be sent again; a gap is refused and takes nothing away.
        assert!(call.rest(&content[..200_000], 50_000).await);
        call.until(|mark| mark.journaled == 200_000).await.expect("journaled");
        assert!(call.data(200_001, &content[200_001..]).await);
        let gap = call.until_refused().await;
        assert_eq!((wire::reason(&gap).as_str(), wire::field(&gap).as_str()), ("INVALID", "data.offset"));
        let mut call = Call::begin(link(), first.clone()).await.expect("once more");
        assert_eq!(call.opened.resume_offset, 200_000);
        assert!(call.rest(&content, 200_000).await && call.finish_with(&content).await);
        let finished = call.until_finished().await.expect("finished");
        assert_eq!((finished.length, finished.mismatch), (300_000, false));
        // The answer was lost: the retry hears it again.
        let mut call = Call::begin(link(), first).await.expect("finished before");
        assert!(call.opened.already_finished);
        assert_eq!(call.until_finished().await.expect("finished").recording_id, id);
        assert_plays(gateway.link("admin", transport), &id, &content).await;

        // Spooled: what lies in slices is kept, and the digest is checked over the whole all the same.
        let content = sound(8, SLICE + 900_000);
        let first = v1::Open { length_hint: content.len() as u64, ..open("acme", Mode::Spooled) };
        let mut call = Call::begin(link(), first.clone()).await.expect("opened");
        let id = call.id();
        assert!(call.rest(&content, 0).await);
        call.until(|mark| mark.stored == SLICE as u64).await.expect("stored");
        drop(call);
        let mut call = Call::begin(link(), first.clone()).await.expect("again");
        assert_eq!((call.id(), call.opened.resume_offset), (id.clone(), SLICE as u64));
        assert!(call.rest(&content, SLICE).await && call.finish_with(&content).await);
        assert!(!call.until_finished().await.expect("finished").mismatch);
        assert_plays(gateway.link("admin", transport), &id, &content).await;
        made += 2;
        assert_eq!(wire::list(link(), "acme", 1).await.len(), made, "one recording for each client id");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_race_with_one_client_id_make_one_recording() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    for (round, mode) in [Mode::Live, Mode::Spooled, Mode::Live].into_iter().enumerate() {
        let content = sound(round as u64, 150_000);
        let first = open("acme", mode);
        let mut racers = tokio::task::JoinSet::new();
        for racer in 0..6 {
            let (link, first) = (gateway.link("switch", TRANSPORTS[racer % 2]), first.clone());
            let content = content.clone();
            racers.spawn(async move {
                // Whoever is taken over tries again after a pause, as a sender does.
                let mut last = None;
                for attempt in 0..40_u64 {
                    let pause = attempt * (40 + u64::from(quietus::crypto::random::<1>()[0]));
                    tokio::time::sleep(std::time::Duration::from_millis(pause / 4)).await;
                    let mut call = match Call::begin(link.clone(), first.clone()).await {
                        Ok(call) => call,
                        Err(status) => {
                            last = Some(status);
                            continue;
                        }
                    };
                    let from = call.opened.resume_offset as usize;
                    let done = call.opened.already_finished
                        || (call.rest(&content, from).await && call.finish_with(&content).await);
                    if !done {
                        continue;
                    }
                    match call.until_finished().await {
                        Ok(finished) => {
                            assert!(!finished.mismatch, "racer {racer}");
                            return finished.recording_id;
                        }
                        Err(status) => last = Some(status),
                    }
                }
                panic!("racer {racer} never finished: {last:?}");
            });
        }
        let ids = racers.join_all().await;
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_plays(gateway.link("admin", TRANSPORTS[0]), &ids[0], &content).await;
        assert_eq!(wire::list(gateway.link("admin", TRANSPORTS[0]), "acme", 0).await.len(), round + 1);
    }
    assert!(!gateway.log().contains("panicked") && !gateway.log().contains("ERROR"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_call_is_heard_whole_while_it_goes_into_slices() {
    let world = World::new("[journal]\nmax_unstored_seconds = 1\n").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    let content = sound(3, 3_000_000);
    let mut call = Call::begin(gateway.link("switch", TRANSPORTS[0]), open("acme", Mode::Live)).await.expect("opened");
    let id = call.id();
    let mut incomplete = 0;
    for (index, piece) in content.chunks(100_000).enumerate() {
        assert!(call.data(index * 100_000, piece).await);
        let reached = (index * 100_000 + piece.len()) as u64;
        call.until(|mark| mark.journaled >= reached).await.expect("journaled");
        let (info, heard) = play(gateway.link("admin", TRANSPORTS[index % 2]), &id, None).await.expect("plays");
        assert!(heard.len() as u64 >= reached && heard == content[..heard.len()], "{} of {reached}", heard.len());
        incomplete += usize::from(!info.complete);
        tokio::time::sleep(std::time::Duration::from_millis(70)).await;
    }
    assert_eq!(incomplete, content.len() / 100_000);
    call.finish_with(&content).await;
    assert!(!call.until_finished().await.expect("finished").mismatch);
    assert_plays(gateway.link("admin", TRANSPORTS[0]), &id, &content).await;
    assert!(world.objects("eu-west-2").len() > 2, "it went into slices while it ran");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_never_returns_leaves_a_partial_recording_that_may_go_on_later() {
    let world = World::new("[limits]\nsender_timeout_seconds = 1\n").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    let link = || gateway.link("admin", TRANSPORTS[0]);
    let content = sound(4, 250_000);
    let first = open("acme", Mode::Live);
    let mut call = Call::begin(link(), first.clone()).await.expect("opened");
    assert!(call.rest(&content[..120_000], 0).await);
    call.until(|mark| mark.journaled == 120_000).await.expect("journaled");
    let id = call.id();
    drop(call);
    let began = std::time::Instant::now();
    loop {
        let facts = wire::show(link(), &id).await.expect("shown").facts.expect("facts");
        if facts.state() == State::Partial {
            assert_eq!(facts.length, 120_000);
            break;
        }
        assert!(began.elapsed() < wire::WITHIN, "never partial");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_plays(link(), &id, &content[..120_000]).await;
    assert_eq!(world.objects("eu-west-2").len(), 1);
    let mut call = Call::begin(link(), first).await.expect("goes on");
    assert_eq!((call.id(), call.opened.resume_offset), (id.clone(), 120_000));
    assert!(call.rest(&content, 120_000).await && call.finish_with(&content).await);
    assert!(!call.until_finished().await.expect("finished").mismatch);
    let facts = wire::show(link(), &id).await.expect("shown").facts.expect("facts");
    assert_eq!((facts.state(), facts.length), (State::Complete, 250_000));
    assert_plays(link(), &id, &content).await;
}
