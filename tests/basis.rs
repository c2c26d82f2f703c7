//! On what basis something was recorded, and what follows from it: what a switch must state, withdrawal of consent, who is
//! bound, transcripts, correction. Through the library, with a clock that the test moves; stores, slot and S3 are real.

#[path = "common/rehearsal.rs"]
mod rehearsal;

use bytes::Bytes;
use quietus::{
    crypto::random,
    domain::{
        audit::Action,
        basis::{Announcement, Basis, Evidence, Footing, How},
        id::RecordingId,
        pause::DiscardReason,
    },
    forensics::{Options as Search, investigate},
    vault::{
        Actor, ActorRole, Correction, Error, HoldScope, InboxAbout, Kind, Mode, NewHold, NewTenant, Open, Part,
        PolicySource, Recording, Residency, Restrict, Scope, StatedBasis, StatedTies, TailOf, Target, VaultConfig,
        Withdrawal,
    },
};
use rehearsal::{DAY_MS, World, admin, found};
use std::path::Path;

const ADA: &str = "+441632960001";
const BOB: &str = "+441632960002";
const EVE: &str = "+441632960003";

/// A policy of 90 days, and what is added to it.
fn policy(parties: &str, more: &str) -> String {
    format!(
        "name = \"own\"\nsummary = \"for a test\"\nmargin = \"1h\"\nparties = \"{parties}\"\nsweep_deadline = \"30d\"\n{more}\n\
         [[keep]]\nwhat = \"both\"\nnot_after = \"90d after end\"\n"
    )
}

async fn world(policy: &str) -> World {
    let world = World::new(VaultConfig::default()).await;
    world.tenant("acme", policy).await;
    world
}

fn on(basis: Basis) -> StatedBasis {
    StatedBasis { basis: Some(basis), ..StatedBasis::default() }
}

fn evidence(world: &World, parties: &[&str]) -> Vec<Evidence> {
    let shown = parties.iter().map(|party| Evidence {
        party: (*party).into(),
        how: How::Dtmf,
        at: world.now(),
        reference: format!("consent-log of {party}"),
    });
    shown.collect()
}

async fn recorded(world: &World, subscriber: &str, basis: StatedBasis) -> RecordingId {
    world.send(Open { basis, ..world.call("acme", subscriber, &[]) }).await.expect("recorded")
}

/// A call between subscribers.
async fn between(world: &World, owner: &str, bound: &[&str]) -> RecordingId {
    world.send(tied(world, owner, bound)).await.expect("recorded")
}

fn tied(world: &World, owner: &str, bound: &[&str]) -> Open {
    let ties = StatedTies { bound: bound.iter().map(|name| (*name).into()).collect(), parent: None };
    Open { ties, ..world.call("acme", owner, &[]) }
}

fn made_from(world: &World, owner: &str, parent: RecordingId) -> Open {
    let ties = StatedTies { bound: Vec::new(), parent: Some(parent) };
    Open { kind: Kind::Transcript, ties, ..world.call("acme", owner, &[]) }
}

fn again(open: &Open) -> Open {
    Open {
        tenant: open.tenant.clone(),
        subscriber: open.subscriber.clone(),
        media_type: open.media_type.clone(),
        client_id: open.client_id.clone(),
        facts: open.facts.clone(),
        basis: open.basis.clone(),
        ties: open.ties.clone(),
        ..*open
    }
}

async fn shown(world: &World, id: RecordingId) -> Result<Recording, Error> {
    world.vault().recording(&customer(), id, "").await
}

fn customer() -> Actor {
    Actor { scope: Scope::Tenants(vec!["acme".into()]), ..admin("anna") }
}

async fn withdraw(world: &World, subscriber: &str) -> Withdrawal {
    world.vault().withdraw_consent(&customer(), "acme", subscriber).await.expect("withdrawn")
}

async fn hold(world: &World, scope: HoldScope) -> quietus::domain::id::HoldId {
    let new = NewHold {
        tenant: "acme".into(),
        scope,
        ground: "litigation".into(),
        authority: "counsel".into(),
        review: world.now().plus_ms(90 * DAY_MS),
    };
    world.vault().place_hold(&admin("anna"), new).await.expect("placed").hold.id
}

async fn restrict(world: &World, subscriber: &str, restricted: bool) {
    let what = Restrict::Subscriber { tenant: "acme".into(), subscriber: subscriber.into() };
    world.vault().restrict(&admin("anna"), what, restricted).await.expect("changed");
}

fn logged(world: &World, action: Action) -> usize {
    let entries = world.vault().tail(&Scope::All, &TailOf::Tenant("acme".into()), None, 1000).expect("read");
    entries.iter().filter(|entry| entry.action == action).count()
}

/// What an attacker reads who has a copy from before, and its slot besides.
fn with_its_slot(world: &World, copy: &Path, find: &[&str]) -> Vec<String> {
    let search = Search {
        keys: vec![copy.to_owned()],
        slots: vec![copy.join("slot")],
        objects: vec![world.path("s3")],
        find: find.iter().map(|text| (*text).to_owned()).collect(),
        exhaustive: false,
    };
    found(&investigate(&search).expect("it ran"))
}

/// The same without that slot, with the one of now.
fn without_its_slot(world: &World, copy: &Path, find: &[&str]) -> Vec<String> {
    found(&world.attack(&[copy.join("keys"), copy.join("journal")], find))
}

fn refused<T>(answer: Result<T, Error>, says: &str) {
    match answer {
        Err(Error::Refused { why }) => assert!(why.contains(says), "{why}"),
        Err(other) => panic!("not refused: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn germany_takes_a_call_with_evidence_of_everybody_on_it_and_no_other() {
    let world = World::new(VaultConfig::default()).await;
    let new = NewTenant {
        name: "acme".into(),
        home: "eu-west-2".into(),
        residency: Residency::HomeOnly,
        policy: PolicySource { policy: "germany".into(), keep: Some("90d".into()) },
    };
    world.vault().create_tenant(&admin("anna"), new).await.expect("created");
    let call = |basis: StatedBasis| Open {
        basis,
        ties: StatedTies { bound: vec![BOB.into()], parent: None },
        ..world.call("acme", ADA, &["+49 30 901820"])
    };
    let german = |basis, parties: &[&str]| StatedBasis {
        jurisdiction: Some("DE".parse().expect("a country")),
        basis,
        announcement: None,
        evidence: evidence(&world, parties),
    };
    let everybody = [ADA, "tel:+49-30-901820", "0044 1632 960002"];
    for (stated, says) in [
        (german(None, &everybody), "facts.basis"),
        (german(Some(Basis::Contract), &everybody), "consent"),
        (german(Some(Basis::Consent), &[]), "3 of 3"),
        (german(Some(Basis::Consent), &everybody[..2]), "1 of 3"),
        (german(Some(Basis::Consent), &everybody[1..]), "1 of 3"),
        (german(Some(Basis::Consent), &[ADA, BOB, "030 901820"]), "1 of 3"),
    ] {
        refused(world.vault().record(call(stated)).await.map(drop), says);
    }
    // Before anything was written: nobody was provisioned.
    for name in [ADA, BOB] {
        assert!(matches!(world.vault().subscriber(&customer(), "acme", name, "").await, Err(Error::Unknown { .. })));
    }
    let mut stated = german(Some(Basis::Consent), &everybody);
    let language = "de-AT".to_owned();
    stated.announcement = Some(Announcement { prompt: "this-call-is-recorded".into(), language, offset_ms: -1500 });
    let open = call(stated.clone());
    let retry = Open { basis: german(Some(Basis::Consent), &everybody[..1]), ..again(&open) };
    let id = world.send(open).await.expect("with evidence of everybody");
    let found = world.vault().record(retry).await.expect("a retry finds it").opened();
    assert!(found.id == id && found.already_finished);
    // A switch that forgets to say where it is does not get round it.
    refused(world.vault().record(call(StatedBasis::default())).await.map(drop), "facts.basis");

    let recording = shown(&world, id).await.expect("shown");
    assert_eq!(recording.jurisdiction.map(|it| it.to_string()).as_deref(), Some("DE"));
    assert_eq!(recording.footing, Some(Footing::Stands(Basis::Consent)));
    let basis = world.vault().basis(&customer(), id).await.expect("whoever may hear it");
    assert_eq!((basis.announcement, basis.evidence), (stated.announcement, stated.evidence));
    let staff = Actor { name: "staff/sam".into(), role: ActorRole::Staff, ..admin("sam") };
    assert!(matches!(world.vault().basis(&staff, id).await, Err(Error::NotPermitted { .. })));
    assert_eq!(logged(&world, Action::BasisShow), 2, "who looked, and who was turned away");
    // The facts go after a week; what it rests on is still known.
    world.wait(8 * DAY_MS).await;
    world.vault().expire().await.expect("ran");
    let recording = shown(&world, id).await.expect("shown");
    assert!(recording.facts.is_none() && recording.footing == Some(Footing::Stands(Basis::Consent)));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_and_announcement_go_with_the_audio() {
    let world = world("dev").await;
    let stated = StatedBasis {
        announcement: Some(Announcement { prompt: "prompt-qwx".into(), language: String::new(), offset_ms: 0 }),
        evidence: evidence(&world, &["party-qwy"]),
        ..on(Basis::Consent)
    };
    let id = recorded(&world, ADA, stated).await;
    let said = ["prompt-qwx", "party-qwy", "consent-log of party-qwy"];
    let before = world.copy("before", true);
    assert_eq!(found(&world.attack(&[], &said)), said, "the control");
    world.erase(Target::Recording(id, Part::Audio)).await.expect("erased");
    assert!(matches!(world.vault().basis(&customer(), id).await, Err(Error::Erased)));
    assert!(shown(&world, id).await.expect("shown").facts.is_some());
    assert_eq!(with_its_slot(&world, &before, &said), said, "the control");
    assert!(without_its_slot(&world, &before, &said).is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn withdrawal_stops_and_erases_what_rests_on_consent_and_nothing_else() {
    let world = world("dev").await;
    let mut gone = Vec::new();
    for _ in 0..5 {
        gone.push(recorded(&world, ADA, on(Basis::Consent)).await);
    }
    let mut stays = vec![recorded(&world, BOB, on(Basis::Consent)).await, world.record("acme", ADA).await];
    for basis in &Basis::ALL[1..] {
        stays.push(recorded(&world, ADA, on(*basis)).await);
    }
    let live = |subscriber, basis| Open { mode: Mode::Live, basis: on(basis), ..world.call("acme", subscriber, &[]) };
    let open = live(ADA, Basis::Consent);
    let retry = again(&open);
    let mut running = world.vault().record(open).await.expect("opened");
    running.data(0, Bytes::from_static(&[1; 500])).await.expect("taken");
    // One that rests on something else, one that is somebody else's, and one with her on the line.
    let mut others = Vec::new();
    for open in [live(ADA, Basis::Contract), live(BOB, Basis::Consent)] {
        others.push(world.vault().record(open).await.expect("opened"));
    }
    let ties = StatedTies { bound: vec![ADA.into()], parent: None };
    let with_her = world.vault().record(Open { ties, ..live(BOB, Basis::Consent) }).await.expect("opened");

    let generation = world.vault().status().generation;
    let done = withdraw(&world, ADA).await;
    assert_eq!((done.stopped, done.erased, done.left.recordings), (2, 6, 0));
    assert_eq!((done.receipts.len() as u64, world.vault().status().generation - generation), (1, 1), "one rotation");
    assert!(done.subscriber.consent_withdrawn.is_some());
    refused(Err::<(), _>(running.ended().await), "consent was withdrawn");
    refused(Err::<(), _>(with_her.ended().await), "consent was withdrawn");
    gone.push(running.opened().id);
    for id in &gone {
        assert!(!world.plays(*id).await && matches!(shown(&world, *id).await, Err(Error::Erased)));
    }
    for id in &stays {
        assert!(world.plays(*id).await);
    }
    // Bob's, under a policy that says `owner`: it was stopped and is his.
    assert!(shown(&world, with_her.opened().id).await.is_ok());
    for ingest in &mut others {
        ingest.data(0, Bytes::from_static(&[1; 500])).await.expect("they go on");
    }
    let again = world.vault().record(retry).await;
    assert!(matches!(again, Err(Error::Erased)), "a retry brings nothing back");
    refused(world.send(live(ADA, Basis::Consent)).await, "consent was withdrawn");
    let ties = StatedTies { bound: vec![ADA.into()], parent: None };
    refused(world.send(Open { ties, ..live(BOB, Basis::Consent) }).await, "consent was withdrawn");
    world.send(Open { mode: Mode::Spooled, ..live(ADA, Basis::LegalObligation) }).await.expect("on another basis");

    // What opens the receipt lies in the inbox, and shows that it is about this one.
    let receipt = world.vault().receipt(done.receipts[0]).expect("there").text.expect("stated");
    assert!(receipt.contains("about: withdrawal\n"));
    let (items, _) = world.vault().inbox(&customer(), "acme", 10, "").await.expect("read");
    let opening = items.iter().find_map(|item| match &item.about {
        InboxAbout::Receipt(id, opening) if *id == done.receipts[0] => Some(opening.clone()),
        _ => None,
    });
    let opening = opening.expect("an item").try_into().expect("32 bytes");
    let scope = format!("recording {} audio and facts", gone[0]);
    let commitment = data_encoding::HEXLOWER.encode(&quietus::audit::receipt::commitment(&opening, &scope));
    assert!(receipt.contains(&format!("scope: {commitment}\n")));

    // Asked again, there is nothing left to do.
    let second = withdraw(&world, ADA).await;
    assert_eq!((second.stopped, second.erased, second.receipts.len()), (0, 0, 0));
    assert_eq!(second.subscriber.consent_withdrawn, done.subscriber.consent_withdrawn);
    let subscriber = world.vault().give_consent(&customer(), "acme", ADA).await.expect("given");
    assert_eq!(subscriber.consent_withdrawn, None);
    assert!(world.plays(recorded(&world, ADA, on(Basis::Consent)).await).await);
    world.vault().give_consent(&customer(), "acme", ADA).await.expect("idempotent");
    assert_eq!((logged(&world, Action::ConsentWithdraw), logged(&world, Action::ConsentGive)), (1, 1));
    assert_eq!(logged(&world, Action::EraseDone), 1);
    // The store outlives its folder while anybody holds on to it.
    drop((running, with_her, others));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_although_consent_was_withdrawn_goes_when_nothing_keeps_it() {
    let floor =
        "[[floor]]\nwhat = \"audio\"\njurisdiction = \"GB\"\nkeep_at_least = \"30d after end\"\nground = \"a law\"";
    let mut world = world(&policy("owner", floor)).await;
    let british = StatedBasis { jurisdiction: Some("GB".parse().expect("a country")), ..on(Basis::Consent) };
    let floored = recorded(&world, ADA, british).await;
    let held = recorded(&world, ADA, on(Basis::Consent)).await;
    let restricted = recorded(&world, ADA, on(Basis::Consent)).await;
    let free = recorded(&world, ADA, on(Basis::Consent)).await;
    let by = hold(&world, HoldScope::Recording(held)).await;
    world.vault().restrict(&admin("anna"), Restrict::Recording(restricted), true).await.expect("restricted");

    // Whoever asks in person is not told of the hold.
    let scope = Scope::Own { tenant: "acme".into(), subscriber: ADA.into() };
    let role = ActorRole::Subscriber;
    let herself =
        Actor { name: "subscriber/ada".into(), on_behalf_of: None, role, scope, subscriber: Some(ADA.into()) };
    let own = world.vault().withdraw_consent(&herself, "acme", ADA).await.expect("withdrawn");
    assert_eq!((own.erased, own.left.recordings, own.left.holds.len()), (1, 3, 0));
    let done = withdraw(&world, ADA).await;
    assert_eq!((done.erased, done.left.recordings, done.left.restricted), (0, 3, 1));
    assert_eq!(done.left.holds.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [by]);
    assert_eq!(
        done.left.floors.iter().map(|(ground, _, count)| (ground.as_str(), *count)).collect::<Vec<_>>(),
        [("a law", 1)]
    );
    assert!(!world.plays(free).await && world.plays(held).await && world.plays(floored).await);
    let waiting = world.vault().parked(&admin("anna"), Some("acme")).expect("listed");
    assert_eq!((waiting.len(), waiting[0].recording, waiting[0].part), (1, Some(held), Some(Part::Both)));
    assert_eq!(shown(&world, floored).await.expect("shown").footing, Some(Footing::Withdrawn));

    // A start, and consent that is given again, save nothing of it.
    world.reopen().await;
    world.vault().give_consent(&customer(), "acme", ADA).await.expect("given");
    let fresh = recorded(&world, ADA, on(Basis::Consent)).await;
    world.vault().lift_hold(&admin("anna"), by).await.expect("lifted");
    assert!(!world.plays(held).await);
    world.vault().expire().await.expect("ran");
    assert!(world.plays(floored).await);
    let lifted = Restrict::Recording(restricted);
    world.vault().restrict(&admin("anna"), lifted, false).await.expect("lifted");
    world.vault().expire().await.expect("ran");
    assert!(!world.plays(restricted).await);
    world.wait(29 * DAY_MS).await;
    world.vault().expire().await.expect("ran");
    assert!(world.plays(floored).await, "before its floor has ended");
    world.wait(DAY_MS + 120_000).await;
    world.vault().expire().await.expect("ran");
    assert!(!world.plays(floored).await && world.plays(fresh).await);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_party_who_withdraws_takes_along_what_is_wrapped() {
    let world = world(&policy("any", "")).await;
    let ties = || StatedTies { bound: vec![BOB.into()], parent: None };
    let call = |basis| Open { basis: on(basis), ties: ties(), ..world.call("acme", ADA, &[]) };
    let both = world.send(call(Basis::Consent)).await.expect("recorded");
    let contract = world.send(call(Basis::Contract)).await.expect("recorded");
    let own = recorded(&world, ADA, on(Basis::Consent)).await;
    let done = withdraw(&world, BOB).await;
    assert_eq!(done.erased, 1);
    assert!(!world.plays(both).await && world.plays(contract).await && world.plays(own).await);
    refused(world.vault().bind_parties(&customer(), own, &[BOB.into()]).await, "consent was withdrawn");
    world.vault().bind_parties(&customer(), contract, &[EVE.into()]).await.expect("another basis");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn correction_leaves_no_old_fact_readable_in_any_copy() {
    let world = world("dev").await;
    let mut open = world.call("acme", ADA, &["wrong-party-qzx"]);
    open.facts.call_id = "wrong-call-qzy".into();
    open.facts.labels = [("agent".to_owned(), "wrong-label-qzw".to_owned())].into();
    open.facts.purpose = "quality".into();
    open.basis = on(Basis::Contract);
    let id = world.send(open).await.expect("recorded");
    let beside = world.send(world.call("acme", ADA, &["beside-qzv"])).await.expect("recorded");
    let as_stated = shown(&world, id).await.expect("shown").facts.expect("facts");
    let old = ["wrong-party-qzx", "wrong-call-qzy", "wrong-label-qzw"];
    let before = world.copy("before", true);
    world.wait(DAY_MS).await;

    let generation = world.vault().status().generation;
    let to = Correction {
        parties: Some(vec!["right-party-qzu".into()]),
        call_id: Some("right-call-qzt".into()),
        labels: Some([("agent".to_owned(), "right-label-qzs".to_owned())].into()),
        purpose: None,
    };
    world.vault().correct_facts(&customer(), id, to).await.expect("corrected");
    assert_eq!(world.vault().status().generation, generation + 1, "the old facts were destroyed");
    let facts = shown(&world, id).await.expect("shown").facts.expect("facts");
    assert_eq!(facts.stated.parties, ["right-party-qzu"]);
    assert_eq!((facts.stated.call_id.as_str(), facts.stated.purpose.as_str()), ("right-call-qzt", "quality"));
    assert_eq!((facts.start, facts.end, facts.length), (as_stated.start, as_stated.end, as_stated.length));
    assert_eq!(facts.duration_seconds, as_stated.duration_seconds);
    assert_eq!(shown(&world, id).await.expect("shown").footing, Some(Footing::Stands(Basis::Contract)));
    assert!(world.plays(id).await && world.plays(beside).await);
    assert_eq!(logged(&world, Action::FactsCorrect), 1);

    let all =
        ["wrong-party-qzx", "wrong-call-qzy", "wrong-label-qzw", "right-party-qzu", "right-label-qzs", "beside-qzv"];
    assert_eq!(without_its_slot(&world, &before, &all), all[3..], "the old facts, and only they, are gone");
    assert_eq!(with_its_slot(&world, &before, &old), old, "the control: with the slot put aside they can be read");
    // It can be corrected again, and what was not named stays.
    let to = Correction { parties: Some(Vec::new()), ..Correction::default() };
    world.vault().correct_facts(&customer(), id, to).await.expect("corrected");
    let facts = shown(&world, id).await.expect("shown").facts.expect("facts");
    assert!(facts.stated.parties.is_empty() && facts.stated.call_id == "right-call-qzt");
    let long = Correction { call_id: Some("x".repeat(257)), ..Correction::default() };
    let wrong = world.vault().correct_facts(&customer(), id, long).await;
    assert!(matches!(wrong, Err(Error::Invalid { field: "facts.call_id", .. })));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_that_something_keeps_or_that_are_being_written_are_not_corrected() {
    let floor =
        "[[floor]]\nwhat = \"facts\"\njurisdiction = \"GB\"\nkeep_at_least = \"30d after end\"\nground = \"a law\"";
    let world = world(&policy("owner", floor)).await;
    let correct = async |id| {
        let to = Correction { purpose: Some("another".into()), ..Correction::default() };
        world.vault().correct_facts(&customer(), id, to).await
    };
    let mut running = world.vault().record(world.call("acme", ADA, &[])).await.expect("opened");
    refused(correct(running.opened().id).await, "takes audio");
    running.data(0, Bytes::from_static(&[1; 500])).await.expect("it goes on");

    let british = StatedBasis { jurisdiction: Some("GB".parse().expect("a country")), ..StatedBasis::default() };
    let floored = recorded(&world, ADA, british).await;
    assert!(matches!(correct(floored).await, Err(Error::Floor { ground, .. }) if ground == "a law"));
    let number = HoldScope::Number { number: EVE.into(), from: None, to: None };
    let held = world.send(world.call("acme", ADA, &[EVE])).await.expect("recorded");
    let by = hold(&world, number).await;
    refused(correct(held).await, &format!("hold {by}"));
    assert!(world.vault().parked(&admin("anna"), Some("acme")).expect("listed").is_empty(), "nothing waits");
    world.vault().lift_hold(&admin("anna"), by).await.expect("lifted");
    correct(held).await.expect("nothing keeps it");
    restrict(&world, ADA, true).await;
    assert!(matches!(correct(held).await, Err(Error::Restricted)));
    restrict(&world, ADA, false).await;
    world.erase(Target::Recording(held, Part::Facts)).await.expect("erased");
    assert!(matches!(correct(held).await, Err(Error::Erased)));
    drop(running);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_bound_takes_the_recording_along_under_any_and_not_under_owner() {
    for rule in ["any", "owner"] {
        let world = world(&policy(rule, "")).await;
        let any = rule == "any";
        let at_open = between(&world, ADA, &[BOB]).await;
        let later = world.send(world.call("acme", ADA, &["later-qzp"])).await.expect("recorded");
        let alone = world.send(world.call("acme", ADA, &["alone-qzo"])).await.expect("recorded");
        let bobs = world.record("acme", BOB).await;
        let unbound = world.copy("unbound", true);
        let generation = world.vault().status().generation;
        world.vault().bind_parties(&customer(), later, &[BOB.into(), ADA.into()]).await.expect("bound");
        world.vault().bind_parties(&customer(), later, &[BOB.into()]).await.expect("idempotent");
        let rotations = world.vault().status().generation - generation;
        assert_eq!(rotations, u64::from(any), "under any the entry as it was is erased, once");
        assert_eq!(logged(&world, Action::PartiesBind), 1);
        let preview = Target::Subscriber { tenant: "acme".into(), subscriber: BOB.into(), block: false };
        let preview = world.vault().preview(&admin("anna"), &preview).await.expect("looked");
        assert_eq!((preview.recordings, preview.bound), if any { (3, 2) } else { (1, 0) });

        // Whoever feeds or hears one of them is cut with it.
        let mut running = world.vault().record(tied(&world, ADA, &[BOB])).await.expect("opened");
        running.data(0, Bytes::from_static(&[1; 500])).await.expect("taken");
        let generation = world.vault().status().generation;
        assert!(world.erase_subscriber("acme", BOB).await.expect("erased").destroyed);
        assert_eq!(world.vault().status().generation, generation + 1);
        let cut = running.data(500, Bytes::from_static(&[1; 500])).await;
        assert_eq!(matches!(cut, Err(Error::Erased)), any, "{cut:?}");
        if any {
            drop(running);
        } else {
            running.discard(&admin("anna"), DiscardReason::Other).await.expect("it went on");
        }
        assert_eq!((world.plays(at_open).await, world.plays(later).await), (!any, !any));
        assert!(world.plays(alone).await && !world.plays(bobs).await);
        // Bound later, it has no past in which it was not.
        let said = ["later-qzp", "alone-qzo"];
        assert_eq!(with_its_slot(&world, &unbound, &said), said, "the control");
        assert_eq!(without_its_slot(&world, &unbound, &said), said[usize::from(any)..]);
        world.swept().await;
        let objects = world.attack(&[], &[]).objects.0;
        assert_eq!(objects.len(), if any { 1 } else { 3 }, "swept with it: what is left is hers alone");
        if any {
            assert!(matches!(shown(&world, at_open).await, Err(Error::Erased)));
            // What is left of them is an entry; it goes by itself, and stands in nobody's way.
            world.wait(91 * DAY_MS).await;
            world.vault().expire().await.expect("ran");
            assert_eq!(world.vault().status().expiry.late_recordings, 0);
            assert!(world.erase_subscriber("acme", ADA).await.expect("erased").destroyed);
        }
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_floors_and_restrictions_of_whoever_is_bound_keep_the_recording() {
    let floor =
        "[[floor]]\nwhat = \"audio\"\njurisdiction = \"GB\"\nkeep_at_least = \"30d after end\"\nground = \"a law\"";
    for rule in ["any", "owner"] {
        let world = world(&policy(rule, floor)).await;
        let id = between(&world, ADA, &[BOB]).await;
        let by = hold(&world, HoldScope::Subscriber(BOB.into())).await;
        assert!(matches!(world.erase_recording(id).await, Err(Error::Parked { .. })));
        assert!(matches!(world.erase_subscriber("acme", ADA).await, Err(Error::Parked { .. })));
        assert!(world.plays(id).await);
        let other = between(&world, EVE, &[BOB]).await;
        restrict(&world, BOB, true).await;
        world.vault().lift_hold(&admin("anna"), by).await.expect("lifted");
        assert!(matches!(world.play(id).await, Err(Error::Restricted)));
        assert!(matches!(world.erase_recording(other).await, Err(Error::Restricted)));
        assert!(matches!(world.erase_subscriber("acme", EVE).await, Err(Error::Restricted)));
        restrict(&world, BOB, false).await;
        // What waited for the hold went on when the restriction was lifted.
        assert!(!world.plays(id).await && world.plays(other).await);
        let british = StatedBasis { jurisdiction: Some("GB".parse().expect("a country")), ..StatedBasis::default() };
        let floored = world.send(Open { basis: british, ..tied(&world, EVE, &[BOB]) }).await.expect("recorded");
        // Under `owner` nothing of hers goes with him.
        let erased = world.erase_subscriber("acme", BOB).await;
        match rule {
            "any" => assert!(matches!(erased, Err(Error::Floor { .. })), "{erased:?}"),
            _ => assert!(erased.expect("erased").destroyed),
        }
        assert!(world.plays(floored).await && world.plays(other).await);
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_tells_nobody_who_is_a_subscriber_and_brings_no_blocked_name_back() {
    let world = world(&policy("any", "")).await;
    let id = world.record("acme", ADA).await;
    world.record("acme", BOB).await;
    for name in [BOB, EVE] {
        world.vault().bind_parties(&customer(), id, &[name.into()]).await.expect("known or not");
    }
    let block = Target::Subscriber { tenant: "acme".into(), subscriber: "+441632960004".into(), block: true };
    world.record("acme", "+441632960004").await;
    world.erase(block).await.expect("erased");
    refused(world.vault().bind_parties(&customer(), id, &["+441632960004".into()]).await, "blocked");
    refused(world.send(tied(&world, ADA, &["+441632960004"])).await, "blocked");
    let many: Vec<String> = (0..7).map(|number| format!("+4416329601{number:02}")).collect();
    let wrong = world.vault().bind_parties(&customer(), id, &many).await;
    assert!(matches!(wrong, Err(Error::Invalid { field: "parties", .. })), "with two who are bound, nine");
    assert!(matches!(world.vault().bind_parties(&customer(), id, &[]).await, Err(Error::Invalid { .. })));
    let elsewhere = Actor { scope: Scope::Tenants(vec!["other".into()]), ..admin("anna") };
    assert!(matches!(world.vault().bind_parties(&elsewhere, id, &many).await, Err(Error::Unknown { .. })));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transcript_rests_on_what_its_call_rests_on_and_goes_with_its_audio() {
    let world = world(&policy("any", "[[basis]]\nrequired = \"consent\"\nannouncement = \"required\"")).await;
    let announcement = Some(Announcement { prompt: "p".into(), language: String::new(), offset_ms: 0 });
    let stated = StatedBasis { announcement, ..on(Basis::Consent) };
    let open = Open { basis: stated.clone(), ..tied(&world, ADA, &[BOB]) };
    let call = world.send(open).await.expect("recorded");
    let another = recorded(&world, ADA, stated).await;
    let transcript = world.send(made_from(&world, ADA, call)).await.expect("recorded");
    let kept = world.send(made_from(&world, ADA, another)).await.expect("recorded");
    assert_eq!(shown(&world, transcript).await.expect("shown").footing, Some(Footing::Stands(Basis::Consent)));

    let field = async |open: Open| match world.vault().record(open).await {
        Err(Error::Invalid { field, .. }) => field,
        other => panic!("{:?}", other.map(|ingest| ingest.opened())),
    };
    assert_eq!(field(made_from(&world, ADA, transcript)).await, "parent");
    assert_eq!(field(Open { basis: on(Basis::Contract), ..made_from(&world, ADA, call) }).await, "facts.basis");
    let made_up = RecordingId { handle: quietus::domain::id::RecordingHandle(random()), ..call };
    for (owner, parent) in [(BOB, call), (ADA, made_up)] {
        let unknown = world.vault().record(made_from(&world, owner, parent)).await;
        assert!(matches!(unknown.map(drop), Err(Error::Unknown { what: "recording" })));
    }
    refused(world.vault().bind_parties(&customer(), transcript, &[EVE.into()]).await, "bind that one");
    let preview = world.vault().preview(&admin("anna"), &Target::Recording(call, Part::Audio)).await;
    assert_eq!(preview.expect("looked").recordings, 2);

    let mut running = world.vault().record(made_from(&world, ADA, call)).await.expect("opened");
    running.data(0, Bytes::from_static(&[1; 500])).await.expect("taken");
    world.erase(Target::Recording(call, Part::Audio)).await.expect("erased");
    assert!(matches!(running.ended().await, Error::Erased));
    assert!(!world.plays(transcript).await && world.plays(kept).await && world.plays(another).await);
    assert!(shown(&world, call).await.expect("its facts stay").facts.is_some());
    let late = world.vault().record(made_from(&world, ADA, call)).await;
    assert!(matches!(late.map(drop), Err(Error::Erased)));
    // Made from a call that is bound, it goes with whoever is bound.
    world.vault().bind_parties(&customer(), another, &[EVE.into()]).await.expect("bound");
    world.erase_subscriber("acme", EVE).await.expect("erased");
    assert!(!world.plays(another).await && !world.plays(kept).await);
    drop(running);
    world.close().await;
}
