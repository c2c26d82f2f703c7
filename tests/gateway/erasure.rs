//! What erasing means: for whoever asks afterwards, for whoever listens or records at that moment, and for whoever holds
//! copies from before.

use super::{
    TRANSPORTS,
    seaweed::Seaweed,
    served::{REGIONS, World},
    wire::{self, Call, assert_erased, assert_plays, open, play, reason, sound, start_playing, store},
};
use aws_sdk_s3::types::BucketVersioningStatus;
use quietus::{
    cli::connect::Link,
    proto::v1::{self, Mode, Outcome, Part, Residency},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_and_facts_go_together_or_apart() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::Both).await;
    for transport in TRANSPORTS {
        let link = || gateway.link("admin", transport);
        let content = sound(1, 100_000);
        let facts = v1::Facts { parties: vec!["party".into()], ..Default::default() };
        let first = || v1::Open { facts: Some(facts.clone()), ..open("acme", Mode::Spooled) };
        let (both, audio, told) = (
            store(link(), first(), &content).await,
            store(link(), first(), &content).await,
            store(link(), first(), &content).await,
        );
        let counted = wire::statistics(link(), "acme").await;
        for (id, part) in [(&both, Part::Unspecified), (&audio, Part::Audio), (&told, Part::Facts)] {
            let done = wire::erase(link(), wire::recording(id, part)).await.expect("erased");
            assert_eq!(done.outcome(), Outcome::Erased);
            assert!(done.generation_to > done.generation_from);
            assert_eq!(done.slot_forgets, "best-effort");
            let again = wire::erase(link(), wire::recording(id, part)).await.expect("idempotent");
            assert_eq!(again.outcome(), Outcome::AlreadyErased);
        }
        // Both.
        assert_erased(link(), &both).await;
        assert_eq!(reason(&wire::show(link(), &both).await.expect_err("erased")), "ERASED");
        // The audio: what is known stays.
        assert_erased(link(), &audio).await;
        let shown = wire::show(link(), &audio).await.expect("shown");
        assert!(!shown.audio_present);
        assert_eq!(shown.facts.expect("facts").stated.expect("stated").parties, ["party"]);
        // The facts: it still plays under its id.
        assert_plays(link(), &told, &content).await;
        let shown = wire::show(link(), &told).await.expect("shown");
        assert!(shown.audio_present && shown.facts.is_none());
        let mut listed: Vec<String> = wire::list(link(), "acme", 0).await.into_iter().map(|one| one.id).collect();
        listed.sort();
        let mut wanted = vec![audio.clone(), told.clone()];
        wanted.sort();
        assert_eq!(listed, wanted);
        assert_eq!(wire::statistics(link(), "acme").await, counted, "counts outlive the recordings");
        wire::settled(link()).await;
        assert_eq!((world.objects(REGIONS[0]).len(), world.objects(REGIONS[1]).len()), (1, 1));
        // What is left of each.
        for (id, part) in [(&audio, Part::Facts), (&told, Part::Audio)] {
            assert_eq!(
                wire::erase(link(), wire::recording(id, part)).await.expect("erased").outcome(),
                Outcome::Erased
            );
            assert_erased(link(), id).await;
            assert_eq!(reason(&wire::show(link(), id).await.expect_err("erased")), "ERASED");
        }
        wire::settled(link()).await;
        assert_eq!(wire::list(link(), "acme", 0).await.len(), 0);
        assert_eq!(world.objects(REGIONS[0]).len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_and_a_tenant_go_with_everything_below() {
    let world = World::new("").await;
    let gateway = world.start();
    for transport in TRANSPORTS {
        let link = || gateway.link("admin", transport);
        wire::tenant(link(), "acme", Residency::HomeOnly).await;
        wire::tenant(link(), "other", Residency::HomeOnly).await;
        let of =
            |subscriber: &str, tenant: &str| v1::Open { subscriber: subscriber.into(), ..open(tenant, Mode::Spooled) };
        let content = sound(2, 70_000);
        let (gone, kept, far) = (
            store(link(), of("alice", "acme"), &content).await,
            store(link(), of("bob", "acme"), &content).await,
            store(link(), of("alice", "other"), &content).await,
        );
        let done = wire::erase(link(), wire::subscriber("acme", "alice")).await.expect("erased");
        assert_eq!(done.outcome(), Outcome::Erased);
        assert_erased(link(), &gone).await;
        assert_plays(link(), &kept, &content).await;
        assert_plays(link(), &far, &content).await;
        let name = wire::erase(link(), wire::subscriber("acme", "alice")).await.expect_err("a name that is gone");
        assert_eq!(reason(&name), "UNKNOWN");
        let by_id = wire::erase(link(), wire::recording(&gone, Part::Unspecified)).await.expect("idempotent");
        assert_eq!(by_id.outcome(), Outcome::AlreadyErased);
        // Somebody of the same name is somebody else.
        let again = store(link(), of("alice", "acme"), &content).await;
        assert_plays(link(), &again, &content).await;
        assert_erased(link(), &gone).await;

        let unconfirmed = v1::EraseTenant { tenant: "acme".into(), confirm: "acm".into() };
        let scope = v1::erase_request::Scope::Tenant(unconfirmed);
        assert_eq!(reason(&wire::erase(link(), scope).await.expect_err("refused")), "INVALID");
        wire::erase(link(), wire::whole_tenant("acme")).await.expect("erased");
        for id in [&gone, &kept, &again] {
            assert_eq!(reason(&play(link(), id, None).await.expect_err("gone")), "UNKNOWN");
        }
        assert_eq!(reason(&wire::erase(link(), wire::whole_tenant("acme")).await.expect_err("gone")), "UNKNOWN");
        assert_plays(link(), &far, &content).await;
        wire::settled(link()).await;
        assert_eq!(world.objects(REGIONS[0]).len(), 1);
        wire::erase(link(), wire::whole_tenant("other")).await.expect("erased");
        wire::settled(link()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_listens_or_records_at_that_moment_is_cut() {
    let world = World::new("").await;
    let gateway = world.start();
    let admin = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(admin(), "acme", Residency::HomeOnly).await;
    // More than all windows and queues between the gateway and a listener that does not read.
    let long = sound(3, 48 << 20);
    for transport in TRANSPORTS {
        let link = || gateway.link("admin", transport);
        for subscriber in [false, true] {
            let id = store(admin(), open("acme", Mode::Spooled), &long).await;
            let survivor = v1::Open { subscriber: "sub-2".into(), ..open("acme", Mode::Live) };
            let mut survivor = Call::begin(link(), survivor).await.expect("opened");
            let mut heard = start_playing(link(), &id, None).await.expect("plays");
            heard.message().await.expect("info");
            let first = open("acme", Mode::Live);
            let mut live = Call::begin(link(), first.clone()).await.expect("opened");
            assert!(live.data(0, &long[..5000]).await);
            live.until(|mark| mark.journaled == 5000).await.expect("journaled");
            let spool = open("acme", Mode::Spooled);
            let mut spooled = Call::begin(link(), spool.clone()).await.expect("opened");
            assert!(spooled.data(0, &long[..5000]).await);

            if subscriber {
                wire::erase(admin(), wire::subscriber("acme", "sub-1")).await.expect("erased");
            } else {
                for id in [&id, &live.id(), &spooled.id()] {
                    wire::erase(admin(), wire::recording(id, Part::Unspecified)).await.expect("erased");
                }
            }
            for call in [&mut live, &mut spooled] {
                assert_eq!(reason(&call.until_refused().await), "ERASED", "{transport:?}");
                assert_erased(link(), &call.id()).await;
            }
            for first in [first, spool] {
                let retry = Call::begin(link(), first).await.err().expect("its client id is remembered");
                assert_eq!(reason(&retry), "ERASED");
            }
            let mut received = 0;
            let cut = loop {
                match heard.message().await {
                    Ok(Some(answer)) => {
                        if let Some(v1::play_response::Event::Chunk(chunk)) = answer.event {
                            received += chunk.content.len();
                        }
                    }
                    Ok(None) => panic!("played to the end: {received}"),
                    Err(status) => break status,
                }
            };
            assert_eq!(reason(&cut), "ERASED");
            assert!(received < long.len());
            // Nobody else was.
            assert!(survivor.rest(&long[..20_000], 0).await && survivor.finish_with(&long[..20_000]).await);
            survivor.until_finished().await.expect("finished");
            assert_plays(link(), &survivor.id(), &long[..20_000]).await;
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("reads") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            // A file that the gateway removes meanwhile is not in this copy.
            let _ = std::fs::copy(entry.path(), to);
        }
    }
}

/// What an attacker with these copies reads: recordings whose audio opens, and which of the strings were seen.
fn attack(keys: &[PathBuf], slot: &Path, objects: &[PathBuf], find: &[String]) -> (BTreeMap<String, u64>, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quietus-forensics"));
    command.arg("--json").arg("--slot").arg(slot).arg("--keys").args(keys).arg("--objects").args(objects);
    for string in find {
        command.arg("--find").arg(string);
    }
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut readable, mut found) = (BTreeMap::new(), Vec::new());
    for line in String::from_utf8(output.stdout).expect("text").lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        if line["state"] == "readable" && line["object"].is_string() {
            *readable.entry(line["recording"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
        }
        if line["found"] == true {
            found.push(line["find"].as_str().expect("a string").to_owned());
        }
    }
    found.sort();
    (readable, found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_copies_from_before_reads_what_survived_and_nothing_else() {
    let world = World::new("").await;
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[1]);
    wire::tenant(link(), "acme", Residency::HomeOnly).await;
    let mut ids = Vec::new();
    for index in 0..9_usize {
        let name = ["ann", "bob", "cat"][index / 3];
        let facts = v1::Facts { call_id: format!("marker-call-{index}"), ..Default::default() };
        let first = v1::Open {
            subscriber: format!("marker-{name}"),
            facts: Some(facts),
            ..open("acme", if index % 2 == 0 { Mode::Live } else { Mode::Spooled })
        };
        ids.push(store(link(), first, &sound(index as u64, 50_000 + index)).await);
    }
    // One whose audio lies in the journal still.
    let waiting = v1::Open { subscriber: "marker-ann".into(), ..open("acme", Mode::Live) };
    let mut waiting = Call::begin(link(), waiting).await.expect("opened");
    assert!(waiting.data(0, &sound(99, 30_000)).await);
    waiting.until(|mark| mark.journaled == 30_000).await.expect("journaled");

    let before = world.aside("before");
    for folder in ["keys", "journal", "slot"] {
        copy(&world.data().join(folder), &before.join(folder));
    }
    copy(&world.bucket(REGIONS[0]), &before.join("objects"));
    // The whole of ann; of bob one recording, of another the audio, of the third the facts.
    wire::erase(link(), wire::subscriber("acme", "marker-ann")).await.expect("erased");
    wire::erase(link(), wire::recording(&ids[3], Part::Unspecified)).await.expect("erased");
    wire::erase(link(), wire::recording(&ids[4], Part::Audio)).await.expect("erased");
    wire::erase(link(), wire::recording(&ids[5], Part::Facts)).await.expect("erased");
    wire::settled(link()).await;
    let after = world.aside("after");
    for folder in ["keys", "journal", "slot"] {
        copy(&world.data().join(folder), &after.join(folder));
    }
    copy(&world.bucket(REGIONS[0]), &after.join("objects"));

    let keys: Vec<PathBuf> =
        [&before, &after].iter().flat_map(|copy| [copy.join("keys"), copy.join("journal")]).collect();
    let objects = [before.join("objects"), after.join("objects")];
    let find: Vec<String> = (0..9)
        .map(|index| format!("marker-call-{index}"))
        .chain(["ann", "bob", "cat"].map(|name| format!("marker-{name}")))
        .collect();
    let (readable, found) = attack(&keys, &after.join("slot"), &objects, &find);
    let survivors: Vec<&String> = [5, 6, 7, 8].map(|index| &ids[index]).to_vec();
    let mut wanted = survivors.clone();
    wanted.sort();
    assert_eq!(readable.keys().collect::<Vec<_>>(), wanted);
    let seen = ["marker-bob", "marker-call-4", "marker-call-6", "marker-call-7", "marker-call-8", "marker-cat"];
    assert_eq!(found, seen);
    // The control: with the slot from before, everything opens again.
    let (readable, found) = attack(&keys, &before.join("slot"), &objects, &find);
    let mut wanted: Vec<&String> = ids.iter().collect();
    wanted.sort();
    assert_eq!(readable.keys().collect::<Vec<_>>(), wanted);
    assert_eq!(found.len(), find.len());
    for id in survivors {
        let index = ids.iter().position(|other| other == id).expect("one of them");
        assert_plays(link(), id, &sound(index as u64, 50_000 + index)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_with_versions_keep_no_version_and_no_marker() {
    let server = tokio::task::block_in_place(Seaweed::shared);
    let buckets = REGIONS.map(|region| format!("erasure-{region}"));
    let regions = REGIONS.iter().zip(&buckets).map(|(region, bucket)| server.region_config(region, bucket)).collect();
    let world = World::over(regions, "").await;
    let gateway = world.start();
    for bucket in &buckets {
        server.set_versioning(bucket, BucketVersioningStatus::Enabled).await;
    }
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::Both).await;
    let of = |subscriber: &str| v1::Open { subscriber: subscriber.into(), ..open("acme", Mode::Spooled) };
    let content = sound(6, (8 << 20) + 1000);
    let kept = store(link(), of("kept"), &content).await;
    for transport in TRANSPORTS {
        let fresh: Link = gateway.link("admin", transport);
        store(fresh.clone(), of("gone"), &content).await;
        store(fresh.clone(), of("gone"), &content[..70_000]).await;
        store(fresh, v1::Open { mode: Mode::Live.into(), ..of("gone") }, &content[..90_000]).await;
    }
    wire::settled(link()).await;
    let versions = async |bucket: &str| {
        let page = server.client().list_object_versions().bucket(bucket).send().await.expect("lists");
        (page.versions().len(), page.delete_markers().len())
    };
    for bucket in &buckets {
        assert_eq!(versions(bucket).await, (2 + 2 * 4, 0), "each slice once, in both regions");
    }
    wire::erase(link(), wire::subscriber("acme", "gone")).await.expect("erased");
    wire::settled(link()).await;
    for bucket in &buckets {
        assert_eq!(versions(bucket).await, (2, 0));
    }
    assert_plays(link(), &kept, &content).await;
    wire::erase(link(), wire::whole_tenant("acme")).await.expect("erased");
    wire::settled(link()).await;
    for bucket in &buckets {
        assert_eq!(versions(bucket).await, (0, 0));
    }
}
