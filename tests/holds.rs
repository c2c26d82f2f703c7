//! Holds: what is held stays, erasures and expiries wait and run by themselves, and placing races with erasing in two orders
//! only. Through the library, with a clock that the test moves; stores, slot and S3 are real.

#[path = "common/rehearsal.rs"]
mod rehearsal;

use quietus::{
    audit::{SigningKey, receipt::State, verify},
    domain::{
        audit::Action,
        id::{ReceiptId, RecordingId},
        pause::DiscardReason,
        time::Timestamp,
    },
    vault::{
        Actor, Error, HoldPlaced, HoldScope, InboxAbout, NewHold, Part, PolicySource, Promised, Ran, Restrict, Scope,
        TailOf, Target, VaultConfig,
    },
};
use rehearsal::{DAY_MS, World, admin};
use std::sync::Arc;

async fn place(world: &World, scope: HoldScope) -> Result<HoldPlaced, Error> {
    let new = NewHold {
        tenant: "acme".into(),
        scope,
        ground: "litigation".into(),
        authority: "county court, case 17".into(),
        review: world.now().plus_ms(90 * DAY_MS),
    };
    world.vault().place_hold(&admin("anna"), new).await
}

async fn world() -> World {
    let world = World::new(VaultConfig::default()).await;
    world.tenant("acme", "dev").await;
    world
}

/// Receipts from before and after a restart are under one key.
async fn signed_world() -> World {
    let key = Arc::new(SigningKey::of_this_run("uk+eu"));
    let world = World::new(VaultConfig { signing_key: Some(key), ..VaultConfig::default() }).await;
    world.tenant("acme", "dev").await;
    world
}

fn promised<T: std::fmt::Debug>(answer: Result<T, Error>) -> Promised {
    match answer {
        Err(Error::Parked { receipt: Some(promised), .. }) => promised,
        other => panic!("not parked with a receipt: {other:?}"),
    }
}

fn parked<T: std::fmt::Debug>(answer: Result<T, Error>) -> bool {
    match answer {
        Err(Error::Parked { .. }) => true,
        other => panic!("not parked: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_of_what_is_held_waits_and_runs_by_itself_when_the_last_hold_lifts() {
    let mut world = world().await;
    let kept = world.record("acme", "+441632960001").await;
    let other = world.record("acme", "+441632960002").await;
    let first = place(&world, HoldScope::Subscriber("+441632960001".into())).await.expect("placed");
    let second = place(&world, HoldScope::Recording(kept)).await.expect("placed");
    assert_eq!((first.found, second.found), (1, 1));

    assert!(parked(world.erase_recording(kept).await));
    // Asked twice, it waits once.
    assert!(parked(world.erase_recording(kept).await));
    assert!(world.plays(kept).await);
    assert!(world.erase_recording(other).await.expect("not held").destroyed);
    assert_eq!(world.vault().status().parked, 1);

    // A restart changes nothing.
    world.reopen().await;
    assert!(world.plays(kept).await);
    let waiting = world.vault().parked(&admin("anna"), Some("acme")).expect("listed");
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].recording, waiting[0].part), (Some(kept), Some(Part::Both)));
    assert_eq!(waiting[0].asked_by, "admin/anna");

    // It waits for the first that was found; lifted, it moves to the other.
    let (waits_for, rest) = if waiting[0].hold == first.hold.id {
        (first.hold.id, second.hold.id)
    } else {
        (second.hold.id, first.hold.id)
    };
    let ran = world.vault().lift_hold(&admin("bob"), waits_for).await.expect("lifted");
    assert_eq!(ran, Ran { moved: 1, ..Ran::default() });
    assert!(world.plays(kept).await);
    let ran = world.vault().lift_hold(&admin("bob"), rest).await.expect("lifted");
    assert_eq!(ran, Ran { erased: 1, receipts: vec![waiting[0].receipt.expect("promised")], ..Ran::default() });
    assert!(!world.plays(kept).await);
    assert_eq!(world.vault().status().parked, 0);
    assert!(world.vault().holds(&admin("anna"), None).expect("listed").is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_parked_has_the_receipt_that_was_promised_when_the_hold_lifts() {
    let mut world = signed_world().await;
    for sent in [Some([7; 32]), None] {
        let id = world.record("acme", "+441632960001").await;
        let first = place(&world, HoldScope::Recording(id)).await.expect("placed").hold.id;
        let target = |part| Target::Recording(id, part);
        let asked = promised(world.vault().erase(&admin("anna"), target(Part::Both), sent).await);
        assert_eq!(asked.opening.is_none(), sent.is_some(), "told where it is not what was sent");
        let opening = sent.or(asked.opening).expect("one of the two");
        assert!(matches!(world.vault().receipt(asked.id), Err(Error::Unknown { .. })), "nothing was erased");

        // Another hold comes, and is met first: the first one is put behind it by a review.
        let second = place(&world, HoldScope::Subscriber("+441632960001".into())).await.expect("placed").hold.id;
        let next = world.now().plus_ms(30 * DAY_MS);
        world.vault().review_hold(&admin("anna"), first, next).await.expect("reviewed");
        let again = promised(world.vault().erase(&admin("bob"), target(Part::Audio), Some([9; 32])).await);
        assert_eq!((again.id, again.opening), (asked.id, Some(opening)), "it waits once, as whoever asked first");
        assert_eq!(world.vault().status().parked, 1);
        world.reopen().await;

        let inbox = async || world.vault().inbox(&admin("anna"), "acme", 10, "").await.expect("read").0;
        assert!(inbox().await.is_empty());
        for hold in [first, second] {
            let ran = world.vault().lift_hold(&admin("anna"), hold).await.expect("lifted");
            assert_eq!(ran.receipts.is_empty(), hold == first, "it moves to the other hold");
            assert!(ran.receipts.iter().all(|receipt| *receipt == asked.id));
        }
        assert!(!world.plays(id).await);
        let text = world.vault().receipt(asked.id).expect("stated").text.expect("a file");
        let key = world.vault().verifier_key().parse().expect("a key");
        let scope = format!("recording {id}");
        let verified = verify::verify(&text, &key, Some((&opening, &scope))).expect("it holds");
        assert_eq!(verified.statement.state, State::Destroyed);
        assert!(verify::verify(&text, &key, Some((&[9; 32], &scope))).is_err(), "the control: another opening");
        // What nobody sent is told a second time.
        let items = inbox().await;
        let told = items.iter().map(|item| match &item.about {
            InboxAbout::Receipt(receipt, opening) => (*receipt, opening.clone()),
            InboxAbout::Permission(..) => panic!("nobody asked to hear"),
        });
        let expected = if sent.is_some() { Vec::new() } else { vec![(asked.id, opening.to_vec())] };
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_is_held_in_part_waits_as_a_whole() {
    let world = world().await;
    let held = world.record("acme", "+441632960001").await;
    let beside = world.record("acme", "+441632960001").await;
    let hold = place(&world, HoldScope::Recording(held)).await.expect("placed").hold.id;
    assert!(parked(world.erase_subscriber("acme", "+441632960001").await));
    assert!(world.plays(held).await && world.plays(beside).await);
    world.vault().lift_hold(&admin("anna"), hold).await.expect("lifted");
    assert!(!world.plays(held).await && !world.plays(beside).await);
    assert!(matches!(
        world.vault().subscriber(&admin("anna"), "acme", "+441632960001", "").await,
        Err(Error::Unknown { what: "subscriber" })
    ));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_opens_the_receipt_of_a_subscriber_that_waits_is_told_once_and_kept_nowhere() {
    let key = Arc::new(SigningKey::of_this_run("uk+eu"));
    let config = VaultConfig { signing_key: Some(key), ..VaultConfig::default() };
    let mut world = World::new(config).await;
    world.tenant("acme", "dev").await;
    let target = || Target::Subscriber { tenant: "acme".into(), subscriber: "+441632960001".into(), block: false };
    for sent in [Some([7; 32]), None] {
        let held = world.record("acme", "+441632960001").await;
        let hold = place(&world, HoldScope::Recording(held)).await.expect("placed").hold.id;
        let asked = promised(world.vault().erase(&admin("anna"), target(), sent).await);
        assert_eq!(asked.opening.is_none(), sent.is_some(), "told where it is not what was sent");
        let opening = sent.or(asked.opening).expect("one of the two");
        let same = promised(world.vault().erase(&admin("anna"), target(), Some(opening)).await);
        assert_eq!((same.id, same.opening), (asked.id, None), "whoever has it is told the receipt");
        match world.vault().erase(&admin("bob"), target(), Some([9; 32])).await {
            Err(Error::Parked { by, receipt: None, .. }) => assert!(by.contains(&asked.id.to_string()), "{by}"),
            other => panic!("somebody else was told what opens it, or nothing: {other:?}"),
        }
        world.reopen().await;
        let ran = world.vault().lift_hold(&admin("anna"), hold).await.expect("lifted");
        assert_eq!(ran.receipts, [asked.id]);
        let text = world.vault().receipt(asked.id).expect("known").text.expect("stated");
        let key = world.vault().verifier_key().parse().expect("a key");
        let scope = "subscriber acme/+441632960001";
        assert!(verify::verify(&text, &key, Some((&opening, scope))).is_ok(), "whoever asked can show it");
        assert!(verify::verify(&text, &key, Some((&[9; 32], scope))).is_err(), "the control: another opening");
        assert!(world.vault().inbox(&admin("anna"), "acme", 10, "").await.expect("read").0.is_empty());
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_on_a_number_finds_calls_by_party_and_date_stored_and_new() {
    let world = world().await;
    let number = HoldScope::Number {
        number: "0044 1632 960 999".into(),
        from: Some(world.now().plus_ms(-DAY_MS)),
        to: Some(world.now().plus_ms(10 * DAY_MS)),
    };
    let with = |parties: &'static [&'static str]| world.call("acme", "+441632960001", parties);
    let stored = world.send(with(&["+441632960001", "+44 (1632) 960-999"])).await.expect("recorded");
    let another = world.send(with(&["+441632960001", "+441632960998"])).await.expect("recorded");
    let faceless = world.send(with(&["+441632960999"])).await.expect("recorded");
    world.erase(Target::Recording(faceless, Part::Facts)).await.expect("facts go");
    let placed = place(&world, number).await.expect("placed");
    assert_eq!((placed.found, placed.without_facts), (1, 1));

    let later = world.send(with(&["sip:+441632960999@pbx"])).await.expect("recorded");
    let own = world.send(world.call("acme", "+441632960999", &[])).await.expect("recorded");
    world.wait(11 * DAY_MS).await;
    let beyond = world.send(with(&["+441632960999"])).await.expect("recorded");
    for (id, held) in [(stored, true), (another, false), (faceless, false), (later, true), (own, true), (beyond, false)]
    {
        // The facts are held with the audio, so that the hold still finds them.
        let facts = world.erase(Target::Recording(id, Part::Facts)).await;
        let audio = world.erase(Target::Recording(id, Part::Audio)).await;
        match held {
            true => assert!(parked(facts) && parked(audio), "{id}"),
            false => assert!(facts.is_ok() && audio.is_ok(), "{id}"),
        }
    }
    assert!(parked(world.erase_subscriber("acme", "+441632960999").await));
    world.vault().lift_hold(&admin("anna"), placed.hold.id).await.expect("lifted");
    for id in [stored, later, own] {
        assert!(!world.plays(id).await);
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_finds_nothing_where_nothing_is_left() {
    let world = world().await;
    let id = world.record("acme", "+441632960001").await;
    world.erase_recording(id).await.expect("erased");
    assert!(matches!(place(&world, HoldScope::Recording(id)).await, Err(Error::Erased)));
    world.erase_subscriber("acme", "+441632960001").await.expect("erased");
    let gone = place(&world, HoldScope::Subscriber("+441632960001".into())).await;
    assert!(matches!(gone, Err(Error::Unknown { what: "subscriber" })));
    assert_eq!(world.vault().status().holds, 0);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn placing_and_erasing_race_in_two_orders_only() {
    let world = world().await;
    let (mut held, mut gone) = (0, 0);
    for round in 0..60_u64 {
        let id = world.record("acme", "+441632960001").await;
        let scope = match round % 3 {
            0 => HoldScope::Recording(id),
            1 => HoldScope::Subscriber("+441632960001".into()),
            _ => HoldScope::Tenant,
        };
        let by_recording = matches!(scope, HoldScope::Recording(_));
        // Which of the two begins first changes from round to round.
        let pause = std::time::Duration::from_micros(round * 150 % 4000);
        let erase = async {
            if round % 2 == 0 {
                tokio::time::sleep(pause).await;
            }
            world.erase_recording(id).await
        };
        let place = async {
            if round % 2 == 1 {
                tokio::time::sleep(pause).await;
            }
            place(&world, scope).await
        };
        let (erased, placed) = tokio::join!(erase, place);
        match (erased, placed) {
            // Placed before: the data is there, and the erasure waits.
            (Err(Error::Parked { .. }), Ok(placed)) => {
                assert!(world.plays(id).await, "round {round}: held, and gone");
                assert!(placed.found >= 1, "round {round}");
                let ran = world.vault().lift_hold(&admin("anna"), placed.hold.id).await.expect("lifted");
                assert_eq!(ran.erased, 1, "round {round}");
                assert!(!world.plays(id).await, "round {round}");
                held += 1;
            }
            // Erased before: there is nothing to hold.
            (Ok(erased), placed) => {
                assert!(erased.destroyed && !world.plays(id).await, "round {round}");
                match placed {
                    Err(Error::Erased) => assert!(by_recording, "round {round}"),
                    Ok(placed) => {
                        assert!(!by_recording, "round {round}: holds a recording that is gone");
                        assert_eq!(placed.found, 0, "round {round}: found what is gone");
                        world.vault().lift_hold(&admin("anna"), placed.hold.id).await.expect("lifted");
                    }
                    Err(other) => panic!("round {round}: {other}"),
                }
                gone += 1;
            }
            (erased, placed) => panic!("round {round}: {erased:?}, {:?}", placed.map(|placed| placed.found)),
        }
    }
    println!("{held} rounds held, {gone} rounds gone");
    assert!(held > 0 && gone > 0, "the rounds reached one order only: {held} held, {gone} gone");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discard_of_what_is_held_waits_too() {
    let world = world().await;
    let open = world.call("acme", "+441632960001", &[]);
    let mut ingest = world.vault().record(open).await.expect("opened");
    let id: RecordingId = ingest.opened().id;
    ingest.data(0, bytes::Bytes::from_static(&[1; 500])).await.expect("taken");
    let hold = place(&world, HoldScope::Tenant).await.expect("placed").hold.id;
    assert!(parked(ingest.discard(&Actor::gateway(), DiscardReason::Mistake).await));
    assert!(world.vault().recording(&admin("anna"), id, "").await.is_ok(), "it is kept");
    assert_eq!(world.vault().lift_hold(&admin("anna"), hold).await.expect("lifted").erased, 1);
    assert!(matches!(world.vault().recording(&admin("anna"), id, "").await, Err(Error::Erased)));
    world.close().await;
}

/// A spooled recording of which a part is stored and more is on its way.
async fn half_stored(world: &World) -> quietus::vault::Ingest {
    let open = quietus::vault::Open { length_hint: None, ..world.call("acme", "+441632960001", &[]) };
    let mut ingest = world.vault().record(open).await.expect("opened");
    ingest.data(0, bytes::Bytes::from(vec![7; 20 << 20])).await.expect("taken");
    let mut progress = ingest.progress();
    progress.wait_for(|progress| progress.stored >= 8 << 20).await.expect("stored");
    ingest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_differs_is_kept_as_far_as_it_was_stored_and_held() {
    let world = world().await;
    let wrong = || quietus::vault::Finish { length: 1, sha256: None, end: None };
    let mut held = half_stored(&world).await;
    let id = held.opened().id;
    place(&world, HoldScope::Recording(id)).await.expect("placed");
    match held.finish(wrong()).await {
        Err(Error::Refused { why }) => assert!(why.contains("another client_id"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(world.vault().recording(&admin("anna"), id, "").await.is_ok(), "what was acknowledged is held");
    assert!(world.play(id).await.is_ok_and(|audio| audio.len() >= 8 << 20));
    let tail = |id| world.vault().tail(&quietus::vault::Scope::All, &quietus::vault::TailOf::Recording(id), None, 100);
    let discard = quietus::domain::audit::Action::RecordingDiscard;
    assert!(tail(id).expect("a log").iter().any(|entry| entry.action == discard), "and it is logged");

    // The control: where nothing stands, it goes.
    let mut free = half_stored(&world).await;
    let id = free.opened().id;
    assert!(matches!(free.finish(wrong()).await, Err(Error::Mismatch { field: "length", .. })));
    assert!(matches!(world.vault().recording(&admin("anna"), id, "").await, Err(Error::Erased)));
    // The stores go before their folder.
    drop((held, free));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_listens_is_cut_when_a_recording_is_discarded() {
    use tokio_stream::StreamExt as _;
    let world = world().await;
    let ingest = half_stored(&world).await;
    let customer = Actor { scope: quietus::vault::Scope::Tenants(vec!["acme".into()]), ..admin("anna") };
    let all = quietus::vault::PlayRange::Bytes { start: 0, end: None };
    let hearing = quietus::vault::Hearing { transport: "h2", download: false };
    let mut playback = world
        .vault()
        .play(&customer, quietus::vault::Proof::default(), ingest.opened().id, all, hearing)
        .await
        .expect("plays");
    assert!(playback.next().await.expect("a chunk").is_ok());
    ingest.discard(&admin("anna"), DiscardReason::Mistake).await.expect("discarded");
    let mut last = None;
    while let Some(chunk) = playback.next().await {
        last = Some(chunk.map(drop));
    }
    assert!(matches!(last, Some(Err(Error::Erased))), "goes on behind the answer: {last:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_who_ask_at_one_moment_are_promised_one_receipt() {
    let world = world().await;
    for round in 0..40 {
        let id = world.record("acme", "+441632960001").await;
        let hold = place(&world, HoldScope::Recording(id)).await.expect("placed").hold.id;
        let (anna, bob) = (admin("anna"), admin("bob"));
        let ask = |who, opening| world.vault().erase(who, Target::Recording(id, Part::Both), Some([opening; 32]));
        let (one, other) = tokio::join!(ask(&anna, 1), ask(&bob, 2));
        let promised = |answer| match answer {
            Err(Error::Parked { receipt: Some(receipt), .. }) => receipt.id,
            Err(other) => panic!("round {round}: {other}"),
            Ok(_) => panic!("round {round}: not held"),
        };
        let (one, other) = (promised(one), promised(other));
        assert_eq!(one, other, "round {round}: one of two promises will not be kept");
        world.vault().lift_hold(&anna, hold).await.expect("lifted");
        assert!(world.vault().receipt(one).expect("as promised").stated, "round {round}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_past_its_review_date_holds_and_is_overdue() {
    let world = world().await;
    let id = world.record("acme", "+441632960001").await;
    let hold = place(&world, HoldScope::Recording(id)).await.expect("placed").hold;
    assert_eq!((world.vault().status().holds, world.vault().status().holds_overdue), (1, 0));
    world.wait(91 * DAY_MS).await;
    assert_eq!(world.vault().status().holds_overdue, 1);
    assert!(parked(world.erase_recording(id).await));
    let next = world.now().plus_ms(30 * DAY_MS);
    let reviewed = world.vault().review_hold(&admin("bob"), hold.id, next).await.expect("reviewed");
    assert!(!reviewed.overdue && reviewed.review == next && reviewed.parked == 1);
    assert_eq!(world.vault().status().holds_overdue, 0);
    for wrong in [world.now(), world.now().plus_ms(-1), Timestamp(i64::MAX)] {
        let refused = world.vault().review_hold(&admin("bob"), hold.id, wrong).await;
        assert!(matches!(refused, Err(Error::Invalid { field: "review", .. })));
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hold_said_is_forgotten_when_it_is_lifted() {
    let world = world().await;
    world.record("acme", "+441632960001").await;
    let number = HoldScope::Number { number: "+441632960999".into(), from: None, to: None };
    let hold = place(&world, number).await.expect("placed").hold.id;
    let said = ["county court, case 17", "+441632960999"];
    let before = world.copy("before", true);
    assert_eq!(rehearsal::found(&world.attack(&[], &said)), said, "the control: while it stands it can be read");
    world.vault().lift_hold(&admin("anna"), hold).await.expect("lifted");
    std::fs::remove_dir_all(before.join("slot")).expect("the slot of before is gone");
    assert!(rehearsal::found(&world.attack(&[before], &said)).is_empty(), "old copies open what was lifted");
    world.close().await;
}

/// What the receipt that was promised says.
fn told(world: &World, promised: &Promised, scope: &str) -> State {
    let text = world.vault().receipt(promised.id).expect("stated").text.expect("a file");
    let key = world.vault().verifier_key().parse().expect("a key");
    let opening = promised.opening.expect("drawn");
    verify::verify(&text, &key, Some((&opening, scope))).expect("it holds").statement.state
}

/// How often the tenant's log refers to a receipt as that of an erasure.
fn erasures_logged(world: &World, receipt: ReceiptId) -> usize {
    let entries = world.vault().tail(&Scope::All, &TailOf::Tenant("acme".into()), None, 1000).expect("a log");
    let of = entries.iter().filter(|entry| entry.action == Action::EraseDone && entry.reference == Some(receipt.0));
    of.count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_waited_runs_once_whoever_goes_on_with_the_lifted_hold() {
    let world = signed_world().await;
    world.tenant("other", "dev").await;
    world.record("other", "+441632960009").await;
    let hold = {
        let first = world.record("acme", "+441632960001").await;
        assert!(world.plays(first).await);
        place(&world, HoldScope::Subscriber("+441632960001".into())).await.expect("placed").hold.id
    };
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let id = world.record("acme", "+441632960001").await;
        waiting.push((id, promised(world.erase_recording(id).await)));
    }
    let lifted = std::sync::atomic::AtomicBool::new(false);
    let going_on = async {
        while !lifted.load(std::sync::atomic::Ordering::Acquire) {
            world.vault().housekeep().await.expect("the daily work");
            let what = || Restrict::Subscriber { tenant: "other".into(), subscriber: "+441632960009".into() };
            world.vault().restrict(&admin("bob"), what(), true).await.expect("restricted");
            world.vault().restrict(&admin("bob"), what(), false).await.expect("unrestricted");
        }
    };
    let lift = async {
        world.vault().lift_hold(&admin("anna"), hold).await.expect("lifted");
        lifted.store(true, std::sync::atomic::Ordering::Release);
    };
    tokio::join!(lift, going_on, async {
        while !lifted.load(std::sync::atomic::Ordering::Acquire) {
            world.vault().housekeep().await.expect("the daily work");
        }
    });
    world.vault().housekeep().await.expect("the daily work");
    for (id, promised) in &waiting {
        assert_eq!(told(&world, promised, &format!("recording {id}")), State::Destroyed);
        assert_eq!(erasures_logged(&world, promised.id), 1);
        assert!(!world.plays(*id).await);
    }
    assert!(world.vault().holds(&admin("anna"), None).expect("listed").is_empty());
    world.close().await;
}

/// What is erased under it waits ten days longer than any hold.
const TEN_DAYS: &str = r#"
name = "floored"
margin = "48h"
parties = "owner"
[[keep]]
what = "both"
not_after = "6y after end"
[[floor]]
what = "both"
keep_at_least = "10d after end"
ground = "a duty"
"#;

/// Something waits under a hold that was lifted, because a floor came in between; now the floor is over, too.
async fn left_behind(world: &World, erased: Target) -> Promised {
    let hold = place(world, HoldScope::Subscriber("+441632960001".into())).await.expect("placed").hold.id;
    let promised = promised(world.erase(erased).await);
    world.vault().set_policy(&admin("anna"), "acme", &PolicySource::from(TEN_DAYS), "acme").await.expect("set");
    world.vault().expire().await.expect("brings what is stored up to it");
    let ran = world.vault().lift_hold(&admin("anna"), hold).await.expect("lifted");
    assert_eq!(ran, Ran { left: 1, ..Ran::default() });
    world.clock.advance_ms(11 * DAY_MS);
    promised
}

/// Nothing waits in the tenant any more, and nothing keeps others from their work.
async fn goes_on(world: &World) {
    world.vault().housekeep().await.expect("the daily work");
    assert!(world.vault().holds(&admin("anna"), None).expect("listed").is_empty());
    let what = || Restrict::Tenant("other".into());
    world.vault().restrict(&admin("bob"), what(), true).await.expect("restricted");
    world.vault().restrict(&admin("bob"), what(), false).await.expect("unrestricted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_in_another_way_while_it_waits_under_a_lifted_hold_has_the_receipt_that_was_promised() {
    let whole = || Target::Subscriber { tenant: "acme".into(), subscriber: "+441632960001".into(), block: false };
    for (of_recording, again_of_recording) in [(false, false), (true, false), (true, true)] {
        let world = signed_world().await;
        world.tenant("other", "dev").await;
        let id = world.record("acme", "+441632960001").await;
        let target = |recording| if recording { Target::Recording(id, Part::Both) } else { whole() };
        let promised = left_behind(&world, target(of_recording)).await;
        let again = world.erase(target(again_of_recording)).await.expect("nothing stands in the way");
        assert!(again.destroyed || world.vault().receipt(promised.id).is_ok(), "one of the two destroys it");
        goes_on(&world).await;
        let scope = if of_recording { format!("recording {id}") } else { "subscriber acme/+441632960001".to_owned() };
        let state = told(&world, &promised, &scope);
        assert_eq!(state == State::NothingLeft, again.destroyed, "destroyed once: {state:?}");
        assert_eq!(erasures_logged(&world, promised.id), 1);
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_takes_along_what_waits_under_a_lifted_hold() {
    let world = signed_world().await;
    world.tenant("other", "dev").await;
    let id = world.record("acme", "+441632960001").await;
    let promised = left_behind(&world, Target::Recording(id, Part::Both)).await;
    assert!(world.purge("acme").await.expect("nothing stands in the way").destroyed);
    goes_on(&world).await;
    assert_eq!(told(&world, &promised, &format!("recording {id}")), State::Destroyed);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_under_a_lifted_hold_moves_to_the_next_one_with_its_promise() {
    let world = signed_world().await;
    let id = world.record("acme", "+441632960001").await;
    // The daily work would go on with it: what comes first is the question whether it is held.
    let first = left_behind(&world, Target::Recording(id, Part::Both)).await;
    let next = place(&world, HoldScope::Recording(id)).await.expect("placed").hold.id;
    let again = promised(world.erase_recording(id).await);
    assert_eq!(again.id, first.id, "it waits once");
    assert_eq!(world.vault().status().parked, 1);
    let ran = world.vault().lift_hold(&admin("anna"), next).await.expect("lifted");
    assert_eq!(ran.receipts, [first.id]);
    assert_eq!(told(&world, &first, &format!("recording {id}")), State::Destroyed);
    world.close().await;
}
