//! What each change and each reader does, one by one.

use super::{
    super::*, add_recording, add_subscriber, add_tenant, block_on, commit, medium::Disk, new_recording, open, sweep_all,
};
use crate::crypto::{envelope::Kind, random};

fn value(row: RowId, kind: Kind, suffix: &[u8], secret: &Secret) -> (ValueName, Vec<u8>) {
    let name = ValueName { row, kind, suffix: suffix.to_vec() };
    let envelope = envelope::seal(kind, secret, &name.to_bytes(), b"plain");
    (name, envelope)
}

#[test]
fn a_name_is_taken_once_and_free_again_after_erasure() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let again = || Change::AddTenant {
        tenant: TenantHandle(random()),
        row: RowId(random()),
        secret: Secret::random(),
        name: "acme".to_owned(),
    };
    assert!(matches!(commit(&keys, vec![again()]), Err(CommitError::Exists)));
    assert!(matches!(commit(&keys, vec![Change::EraseTenant(tenant), again(), again()]), Err(CommitError::Exists)));
    assert_eq!(keys.find_tenant("acme"), Some(tenant));
    commit(&keys, vec![Change::EraseTenant(tenant), again()]).expect("free again");
    assert_ne!(keys.find_tenant("acme"), Some(tenant));
}

#[test]
fn a_refused_mutation_leaves_nothing_behind() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let kept = add_recording(&keys, tenant, subscriber);
    let before = disk.image();
    let (at, create) = new_recording(tenant, subscriber, 1);
    let unknown = RecordingPath { recording: RecordingHandle(random()), ..at };
    let changes = vec![
        create,
        Change::AddObject { at, object: ObjectId(random()) },
        Change::EraseRecording { at: kept, parts: Parts::BOTH },
        Change::AddSubscriber {
            tenant,
            subscriber: SubscriberHandle(random()),
            row: RowId(random()),
            secret: Secret::random(),
            name: "eve".to_owned(),
        },
        Change::AddObject { at: unknown, object: ObjectId(random()) },
    ];
    assert!(matches!(commit(&keys, changes), Err(CommitError::Gone)));
    assert!(disk.image() == before);
    assert!(keys.audio_leaf(kept).expect("reads").is_some() && keys.find_subscriber(tenant, "eve").is_none());
    add_recording(&keys, tenant, subscriber);
}

#[test]
fn nothing_is_created_below_what_does_not_live() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let at = add_recording(&keys, tenant, subscriber);
    let leaf = keys.facts_leaf(at).expect("reads").expect("lives");
    commit(&keys, vec![Change::EraseSubscriber(tenant, subscriber)]).expect("erases");
    assert!(matches!(commit(&keys, vec![new_recording(tenant, subscriber, 0).1]), Err(CommitError::Gone)));
    assert!(matches!(
        commit(&keys, vec![Change::AddObject { at, object: ObjectId(random()) }]),
        Err(CommitError::Gone)
    ));
    let (name, envelope) = value(leaf.row, Kind::Facts, b"", &leaf.facts.expect("it lived"));
    assert!(matches!(
        commit(&keys, vec![Change::PutValue { owner: Owner::Facts(at), name, envelope }]),
        Err(CommitError::Gone)
    ));
}

#[test]
fn a_value_lies_under_its_owner_only() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let (at, other) = (add_recording(&keys, tenant, subscriber), add_recording(&keys, tenant, subscriber));
    let leaf = keys.audio_leaf(at).expect("reads").expect("lives");
    let audio = leaf.audio.expect("lives");
    let put = |owner, name, envelope| commit(&keys, vec![Change::PutValue { owner, name, envelope }]);
    let slice = |suffix: &[u8]| value(leaf.row, Kind::Slice, suffix, &audio);

    let (name, envelope) = slice(b"1");
    assert!(matches!(put(Owner::Facts(at), name.clone(), envelope.clone()), Err(CommitError::Malformed(_))));
    assert!(matches!(put(Owner::Audio(other), name.clone(), envelope.clone()), Err(CommitError::Malformed(_))));
    let elsewhere = ValueName { suffix: b"2".to_vec(), ..name.clone() };
    assert!(matches!(put(Owner::Audio(at), elsewhere, envelope.clone()), Err(CommitError::Malformed(_))));
    put(Owner::Audio(at), name.clone(), envelope.clone()).expect("puts");
    put(Owner::Audio(at), slice(b"0").0, slice(b"0").1).expect("puts");

    assert_eq!(keys.value(&name).expect("reads"), Some(envelope));
    let suffixes: Vec<_> = keys.values(leaf.row, Kind::Slice).expect("reads").into_iter().map(|(s, _)| s).collect();
    assert_eq!(suffixes, [b"0".to_vec(), b"1".to_vec()]);
    commit(&keys, vec![Change::DropValue { name: name.clone() }]).expect("drops");
    assert_eq!(keys.value(&name).expect("reads"), None);
}

#[test]
fn erasing_the_audio_leaves_the_facts_and_the_other_way_round() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let (first, second) = (add_recording(&keys, tenant, subscriber), add_recording(&keys, tenant, subscriber));
    for at in [first, second] {
        let audio = keys.audio_leaf(at).expect("reads").expect("lives");
        let facts = keys.facts_leaf(at).expect("reads").expect("lives");
        let (audio_secret, facts_secret) = (audio.audio.expect("lives"), facts.facts.expect("lives"));
        for (kind, owner, secret) in [
            (Kind::Audio, Owner::Audio(at), &audio_secret),
            (Kind::Slice, Owner::Audio(at), &audio_secret),
            (Kind::Facts, Owner::Facts(at), &facts_secret),
        ] {
            let (name, envelope) = value(audio.row, kind, b"", secret);
            commit(&keys, vec![Change::PutValue { owner, name, envelope }]).expect("puts");
        }
    }
    commit(&keys, vec![Change::EraseRecording { at: first, parts: Parts::AUDIO }]).expect("erases");
    commit(&keys, vec![Change::EraseRecording { at: second, parts: Parts::FACTS }]).expect("erases");

    let (audio, facts) = (keys.audio_leaf(first).unwrap().unwrap(), keys.facts_leaf(first).unwrap().unwrap());
    assert!(audio.audio.is_none() && audio.objects.is_empty() && facts.facts.is_some() && !facts.audio_present);
    let (other, other_facts) = (keys.audio_leaf(second).unwrap().unwrap(), keys.facts_leaf(second).unwrap().unwrap());
    assert!(other.audio.is_some() && other.objects.len() == 1 && other_facts.facts.is_none());

    assert_eq!(sweep_all(&keys, 10).len(), 1);
    let kinds = |row| [Kind::Audio, Kind::Slice, Kind::Facts].map(|kind| keys.values(row, kind).expect("reads").len());
    assert_eq!(kinds(audio.row), [0, 0, 1]);
    assert_eq!(kinds(other.row), [1, 1, 0]);

    // The second half takes the entry with it.
    commit(&keys, vec![Change::EraseRecording { at: first, parts: Parts::BOTH }]).expect("erases");
    assert!(keys.facts_leaf(first).expect("reads").is_none());
    sweep_all(&keys, 10);
    assert_eq!(kinds(audio.row), [0, 0, 0]);
}

#[test]
fn erasing_is_idempotent_and_says_which_generations() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    assert_eq!(keys.generation(), 1);
    let erase = || commit(&keys, vec![Change::EraseTenant(tenant)]).expect("erases");
    let first = Committed { erased: true, generation_from: 1, generation_to: 2, log: 0..0, number: 3, destroyed: true };
    assert_eq!(erase(), first);
    assert_eq!(erase(), Committed { erased: false, generation_from: 2, ..first });
    assert_eq!(keys.generation(), 2);
    assert!(keys.tenant(tenant).expect("reads").is_none() && keys.find_tenant("acme").is_none());
}

#[test]
fn a_failed_put_waits_for_the_sweeper_without_a_rotation() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let at = add_recording(&keys, tenant, subscriber);
    let object = keys.audio_leaf(at).expect("reads").expect("lives").objects[0];
    commit(&keys, vec![Change::DoomObject { at, object }]).expect("dooms");
    assert_eq!((keys.generation(), keys.doomed_count()), (1, 1));
    assert!(keys.audio_leaf(at).expect("reads").expect("lives").objects.is_empty());
    assert_eq!(sweep_all(&keys, 1), [object]);
    assert!(matches!(commit(&keys, vec![Change::DoomObject { at, object }]), Err(CommitError::Gone)));
}

#[test]
fn a_copy_that_comes_after_the_erasure_is_unwanted() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let mut objects = Vec::new();
    for _ in 0..3 {
        let at = add_recording(&keys, tenant, subscriber);
        let object = keys.audio_leaf(at).expect("reads").expect("lives").objects[0];
        commit(&keys, vec![Change::QueueCopy { object, to: "eu-west-1".to_owned() }]).expect("queues");
        objects.push((at, object));
    }
    assert_eq!((keys.copies_count(), keys.copies(2).expect("reads").len()), (3, 2));
    commit(&keys, vec![Change::CopyDone { object: objects[0].1 }]).expect("done");
    commit(&keys, vec![Change::EraseRecording { at: objects[1].0, parts: Parts::AUDIO }]).expect("erases");
    assert_eq!(keys.copies_count(), 1);
    assert!(matches!(commit(&keys, vec![Change::CopyDone { object: objects[1].1 }]), Err(CommitError::Gone)));
    commit(&keys, vec![Change::EraseSubscriber(tenant, subscriber)]).expect("erases");
    // Until its objects have been handed out, a copy that is reported done is caught by the sweeper like any object.
    while let Some(step) = keys.next_doomed(10).expect("draws up a step") {
        if step.objects.contains(&objects[2].1) {
            assert!(matches!(commit(&keys, vec![Change::CopyDone { object: objects[2].1 }]), Err(CommitError::Gone)));
        }
        block_on(keys.swept(step)).expect("ends a step");
    }
    assert_eq!(keys.copies_count(), 0);
}

#[test]
fn the_sweeper_finds_everything_below_a_tenant_and_may_be_killed_anywhere() {
    let disk = Disk::new();
    let mut keys = open(&disk);
    let (tenant, other) = (add_tenant(&keys, "acme"), add_tenant(&keys, "other"));
    let mut expected = std::collections::BTreeSet::new();
    for number in 0..6 {
        let subscriber = add_subscriber(&keys, tenant, &format!("{number}"));
        for _ in 0..7 {
            let at = add_recording(&keys, tenant, subscriber);
            let leaf = keys.audio_leaf(at).expect("reads").expect("lives");
            expected.extend(leaf.objects);
            let (name, envelope) = value(leaf.row, Kind::Audio, b"", &leaf.audio.expect("lives"));
            commit(&keys, vec![Change::PutValue { owner: Owner::Audio(at), name, envelope }]).expect("puts");
        }
    }
    let kept = add_subscriber(&keys, other, "ada");
    add_recording(&keys, other, kept);
    commit(&keys, vec![Change::EraseTenant(tenant)]).expect("erases");
    let mut found = std::collections::BTreeSet::new();
    let mut number = 0;
    while let Some(step) = keys.next_doomed(3).expect("draws up a step") {
        assert!(step.objects.len() <= 3);
        found.extend(step.objects.iter().copied());
        number += 1;
        if number % 3 == 0 {
            // Killed before the step was ended.
            drop(keys);
            keys = open(&disk);
        } else {
            block_on(keys.swept(step)).expect("ends a step");
        }
    }
    assert_eq!((found, keys.doomed_count()), (expected, 0));
    // What is left: the top, the other tenant's page, its subscriber's page, and the number.
    let (rows, _, _) = disk.image();
    assert!(!rows.keys().any(|(family, _)| *family == backing::Family::Values));
    let pages: std::collections::BTreeSet<_> = rows
        .keys()
        .filter(|(family, _)| *family == backing::Family::Pages)
        .map(|(_, key)| key[..16].to_vec())
        .collect();
    assert_eq!(pages.len(), 3);
}

#[test]
fn a_step_of_the_sweeper_ends_once() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    commit(&keys, vec![Change::EraseTenant(tenant)]).expect("erases");
    let (first, second) = (keys.next_doomed(1).unwrap().unwrap(), keys.next_doomed(1).unwrap().unwrap());
    block_on(keys.swept(first)).expect("ends");
    let before = disk.image();
    block_on(keys.swept(second)).expect("changes nothing");
    assert!(disk.image() == before);
}

#[test]
fn a_cold_leaf_below_warm_levels_takes_one_read() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let pages = || {
        let is_page =
            |(family, name): &&(backing::Family, Vec<u8>)| *family == backing::Family::Pages && name.len() == 16;
        disk.image().0.keys().filter(is_page).count()
    };
    let others = pages() - 1;
    let (all, creates): (Vec<_>, Vec<_>) = (0..40).map(|_| new_recording(tenant, subscriber, 1)).unzip();
    for create in creates {
        commit(&keys, vec![create]).expect("creates");
    }
    // The start reads what lies above the subscriber's own pages.
    drop(keys);
    let keys = open(&disk);
    let read_for = |at: &RecordingPath| {
        let before = disk.lock().reads;
        assert!(keys.audio_leaf(*at).expect("reads").expect("lives").audio.is_some());
        disk.lock().reads - before
    };
    let taken: Vec<usize> = all.iter().map(read_for).collect();
    assert!(taken[0] > 2, "several levels: {taken:?}");
    // Each page once, with its appended rows: so one read is left for a leaf when what lies above it is warm.
    assert_eq!(taken.iter().sum::<usize>(), pages() - others, "{taken:?}");
    assert!(taken.iter().filter(|reads| **reads == 1).count() > taken.len() / 6, "{taken:?}");
    assert!(all.iter().all(|at| read_for(at) == 0), "the cache has them now");
}
