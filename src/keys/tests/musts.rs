//! One test for each rule of the design that is marked **must**. Each fails when its rule is undone. Those whose names begin
//! with `trace_` are the traces by which the slot protocol was attacked on paper.

use super::{
    super::*,
    TINY, add_recording, add_subscriber, add_tenant,
    attacker::{Haul, Key},
    block_on, commit,
    medium::{Disk, Event, Left},
    model::{Forgotten, Model, check},
    new_recording, open, open_with,
};
use crate::crypto::random;
use backing::Family;
use std::{collections::HashSet, sync::Arc};

fn page_keys(disk: &Disk) -> HashSet<Key> {
    Haul::carve(&disk.present()).below_roots(&disk.roots()).pages.into_iter().map(|(_, key)| key).collect()
}

fn secrets_of(keys: &KeyStore, at: RecordingPath) -> HashSet<Key> {
    let audio = keys.audio_leaf(at).expect("reads").expect("lives").audio.expect("lives");
    let facts = keys.facts_leaf(at).expect("reads").expect("lives").facts.expect("lives");
    HashSet::from([*audio.expose(), *facts.expose()])
}

fn erase(keys: &KeyStore, at: RecordingPath) -> Result<Committed, CommitError> {
    commit(keys, vec![Change::EraseRecording { at, parts: Parts::BOTH }])
}

fn small_world(disk: &Arc<Disk>, recordings: usize) -> (KeyStore, TenantHandle, SubscriberHandle, Vec<RecordingPath>) {
    let keys = open(disk);
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let paths = (0..recordings).map(|_| add_recording(&keys, tenant, subscriber)).collect();
    (keys, tenant, subscriber, paths)
}

#[test]
fn a_split_leaves_the_page_key_to_no_part() {
    let disk = Disk::new();
    let (keys, tenant, subscriber, mut paths) = small_world(&disk, TINY.leaf);
    let before = page_keys(&disk);
    paths.push(add_recording(&keys, tenant, subscriber));
    // The top's key is the root and the tenant's page kept its own: only they may be left over.
    assert_eq!(page_keys(&disk).intersection(&before).count(), 2);
    for at in paths {
        let forgotten = Forgotten { secrets: secrets_of(&keys, at), ..Forgotten::default() };
        erase(&keys, at).expect("erases");
        check(&disk, &Model::of(&keys), &forgotten);
    }
}

#[test]
fn growth_at_the_top_moves_everything_under_fresh_keys() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenants: Vec<_> = (0..3 * TINY.leaf).map(|number| add_tenant(&keys, &format!("{number}"))).collect();
    let mut forgotten = Forgotten::default();
    for tenant in tenants {
        forgotten.secrets.insert(*keys.tenant(tenant).expect("reads").expect("lives").secret.expose());
        commit(&keys, vec![Change::EraseTenant(tenant)]).expect("erases");
        check(&disk, &Model::of(&keys), &forgotten);
    }
}

#[test]
fn an_erasure_gives_every_page_above_a_fresh_key_and_leaves_the_others() {
    let disk = Disk::new();
    let (keys, tenant, _, paths) = small_world(&disk, 1);
    let other = add_subscriber(&keys, tenant, "eve");
    let survivor = add_recording(&keys, tenant, other);
    let before = page_keys(&disk);
    erase(&keys, paths[0]).expect("erases");
    assert_eq!(page_keys(&disk).intersection(&before).count(), 1, "the other subscriber's page alone");
    assert!(keys.audio_leaf(survivor).expect("reads").is_some());
}

#[test]
fn a_page_merges_with_its_neighbour_when_an_erasure_thins_it_out() {
    let disk = Disk::new();
    let (keys, _, _, paths) = small_world(&disk, 24);
    let most = page_keys(&disk).len();
    for at in &paths[2..] {
        erase(&keys, *at).expect("erases");
    }
    assert!(most > 8);
    let pages = page_keys(&disk).len();
    assert!(pages <= 4, "two recordings are left on {pages} pages");
    check(&disk, &Model::of(&keys), &Forgotten::default());
}

#[test]
fn trace_staged_root_reused() {
    for left in [Left::Nothing, Left::Half] {
        let disk = Disk::new();
        let (keys, _, _, paths) = small_world(&disk, 2);
        // The slot stages, then the file fails.
        disk.arm(1, left);
        assert!(matches!(erase(&keys, paths[0]), Err(CommitError::Closed)));
        drop(keys);
        let staged = disk.image().2;
        assert_eq!(staged.len(), 2, "the failed attempt left its root staged");
        let keys = open(&disk);
        assert_eq!(disk.roots().len(), 1);
        erase(&keys, paths[1]).expect("erases");
        assert!(disk.image().2.iter().all(|(_, id)| staged.iter().all(|(_, old)| id != old)));
        assert!(keys.audio_leaf(paths[0]).expect("reads").is_some());
    }
}

#[test]
fn trace_rollback_after_a_failed_sync() {
    // The file, the batch, the slot's commit: what is on the disk is unknown from then on, so nothing is taken back either.
    for steps in 1..=3 {
        for left in [Left::Nothing, Left::Half, Left::All] {
            let disk = Disk::new();
            let (keys, tenant, subscriber, paths) = small_world(&disk, 2);
            disk.arm(steps, left);
            assert!(matches!(erase(&keys, paths[0]), Err(CommitError::Closed)));
            // The disk would do everything again.
            disk.revive();
            let before = disk.image();
            let (_, create) = new_recording(tenant, subscriber, 1);
            assert!(matches!(commit(&keys, vec![create]), Err(CommitError::Closed)));
            assert!(matches!(erase(&keys, paths[1]), Err(CommitError::Closed)));
            drop(keys);
            assert!(disk.image() == before, "{steps} {left:?}");
            let keys = open(&disk);
            let mut living = keys.facts_leaves(tenant, subscriber, None, 10).expect("reads").into_iter();
            let gone = living.all(|leaf| leaf.recording != paths[0].recording);
            assert_eq!(gone, steps > 1 || left == Left::All, "{steps} {left:?}");
        }
    }
}

#[test]
fn a_slot_that_refuses_keeps_nothing_of_the_attempt() {
    let disk = Disk::new();
    let (keys, _, _, paths) = small_world(&disk, 1);
    let before = disk.image();
    disk.edit(|state| state.refuse_stage = true);
    assert!(matches!(erase(&keys, paths[0]), Err(CommitError::Slot(_))));
    assert!(disk.image() == before);
    disk.edit(|state| state.refuse_stage = false);
    assert!(erase(&keys, paths[0]).expect("erases").erased);
}

#[test]
fn a_slot_that_refuses_fails_erasures_and_nobody_else() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "t");
    let subscriber = add_subscriber(&keys, tenant, "s");
    let erased = add_recording(&keys, tenant, subscriber);
    disk.edit(|state| state.refuse_stage = true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        // All of them are queued before the first is answered.
        let mut waiting = Vec::new();
        for number in 0..60 {
            let change = match number % 3 {
                0 => Change::EraseRecording { at: erased, parts: Parts::BOTH },
                _ => new_recording(tenant, subscriber, 1).1,
            };
            let keys = keys.clone();
            waiting.push(tokio::spawn(async move { (number, keys.commit(Mutation::new(vec![change])).await) }));
        }
        for answer in waiting {
            let (number, answer) = answer.await.expect("no panic");
            assert_eq!(answer.is_ok(), number % 3 != 0, "request {number}");
        }
    });
    assert!(keys.audio_leaf(erased).expect("reads").is_some(), "refused, so it is still there");
}

#[test]
fn the_order_is_stage_file_batch_commit() {
    let disk = Disk::new();
    let (keys, _, _, paths) = small_world(&disk, 1);
    let before = disk.events().len();
    erase(&keys, paths[0]).expect("erases");
    let events = disk.events();
    let &[Event::Stage(staged), Event::File(_), Event::Batch, Event::Commit(kept)] = &events[before..] else {
        panic!("{:?}", &events[before..])
    };
    assert_eq!(staged, kept);
    // The file goes after a flush only.
    drop(keys);
    assert_eq!(disk.events()[before + 4..], [Event::Flush, Event::Unlink]);
}

#[test]
fn trace_page_cache_commit() {
    let disk = Disk::new();
    let (keys, _, _, paths) = small_world(&disk, 2);
    // The batch can be read back, but it never reached the disk.
    disk.arm(2, Left::Half);
    assert!(matches!(erase(&keys, paths[0]), Err(CommitError::Closed)));
    drop(keys);
    let keys = open(&disk);
    assert!(keys.audio_leaf(paths[0]).expect("reads").is_none());
    // Killed: no clean close that would flush.
    disk.arm(0, Left::Nothing);
    drop(keys);
    disk.lose_power();
    let keys = open(&disk);
    assert!(keys.audio_leaf(paths[0]).expect("reads").is_none() && keys.audio_leaf(paths[1]).expect("reads").is_some());
}

#[test]
fn a_start_goes_forward_from_the_commit_point_and_back_before_it() {
    // Steps of a rotation: stage, file, batch, slot. What the file holds is decided once it is whole.
    for (steps, left, forward) in [
        (0, Left::Nothing, false),
        (0, Left::All, false),
        (1, Left::Nothing, false),
        (1, Left::Half, false),
        (1, Left::All, true),
        (2, Left::Nothing, true),
        (2, Left::Half, true),
        (2, Left::All, true),
        (3, Left::Nothing, true),
        (3, Left::All, true),
    ] {
        for power in [false, true] {
            let disk = Disk::new();
            let (keys, _, _, paths) = small_world(&disk, 2);
            let mut secrets = secrets_of(&keys, paths[0]);
            disk.arm(steps, left);
            // A slot that fails before the commit point refuses the erasure alone.
            let stopped = matches!(erase(&keys, paths[0]), Err(CommitError::Closed));
            assert!(stopped || steps == 0);
            drop(keys);
            if power {
                disk.lose_power();
            }
            let keys = open(&disk);
            let gone = keys.audio_leaf(paths[0]).expect("reads").is_none();
            assert_eq!(gone, forward, "{steps} {left:?}");
            if !gone {
                secrets.clear();
            }
            check(&disk, &Model::of(&keys), &Forgotten { secrets, ..Forgotten::default() });
        }
    }
}

#[test]
fn a_foreign_slot_is_refused_and_nothing_is_changed() {
    let disk = Disk::new();
    drop(small_world(&disk, 1));
    let foreign = Disk::new();
    drop(open(&foreign));
    let slot = foreign.lock().slot.clone();
    disk.edit(|state| state.slot = slot);
    let before = disk.image();
    assert!(matches!(open_with(&disk, TINY), Err(OpenError::ForeignRoot)));
    assert!(disk.image() == before);
}

#[test]
fn a_store_without_slot_and_a_slot_without_store_are_refused() {
    let disk = Disk::new();
    drop(small_world(&disk, 1));
    let slot = std::mem::take(&mut disk.lock().slot);
    assert!(matches!(open_with(&disk, TINY), Err(OpenError::SlotIsEmpty)));
    let empty = Disk::new();
    empty.edit(|state| state.slot = slot);
    let before = empty.image();
    assert!(matches!(open_with(&empty, TINY), Err(OpenError::StoreIsMissing)));
    assert!(empty.image() == before);
}

#[test]
fn a_first_start_may_fail_anywhere() {
    for steps in 0..6 {
        for left in [Left::Nothing, Left::Half, Left::All] {
            let disk = Disk::new();
            disk.arm(steps, left);
            drop(open_with(&disk, TINY));
            disk.disarm();
            let keys = open(&disk);
            assert_eq!(keys.generation(), 1);
            add_tenant(&keys, "acme");
        }
    }
}

#[test]
fn a_record_torn_off_the_log_is_filled_from_the_file() {
    let disk = Disk::new();
    let (keys, _, _, paths) = small_world(&disk, 2);
    disk.arm(3, Left::Nothing);
    let secrets = secrets_of(&keys, paths[0]);
    assert!(matches!(erase(&keys, paths[0]), Err(CommitError::Closed)));
    drop(keys);
    disk.tear_log();
    let keys = open(&disk);
    check(&disk, &Model::of(&keys), &Forgotten { secrets, ..Forgotten::default() });
    assert!(keys.audio_leaf(paths[0]).expect("reads").is_none());
}

#[test]
fn trace_silent_truncation_with_creates_before_the_bad_record() {
    let disk = Disk::new();
    let (keys, tenant, subscriber, paths) = small_world(&disk, 1);
    add_recording(&keys, tenant, subscriber);
    disk.arm(2, Left::Nothing);
    assert!(matches!(erase(&keys, paths[0]), Err(CommitError::Closed)));
    drop(keys);
    // The create before the rotation is lost too; no file has it.
    disk.tear_log();
    let before = disk.image();
    assert!(matches!(open_with(&disk, TINY), Err(OpenError::Gap { .. })));
    assert!(disk.image() == before);
}

#[test]
fn a_page_put_back_from_an_older_copy_is_noticed() {
    let disk = Disk::new();
    let (keys, tenant, subscriber, paths) = small_world(&disk, 2);
    let old = disk.image().0;
    erase(&keys, paths[0]).expect("erases");
    drop(keys);
    for ((family, key), value) in old {
        if family == Family::Pages {
            disk.edit(|state| state.put_row(family, &key, value));
        }
    }
    assert!(open_with(&disk, TINY).is_err());
    let _ = (tenant, subscriber);
}

/// A token that hangs before the commit point is no reason for anybody to lose a call.
#[test]
fn a_slot_that_hangs_holds_up_what_erases_and_nobody_else() {
    let disk = Disk::new();
    let (keys, tenant, subscriber, paths) = small_world(&disk, 2);
    let _open_at_the_end = disk.close_stage();
    let erasing = std::thread::spawn({
        let (keys, at) = (keys.clone(), paths[0]);
        move || commit(&keys, vec![Change::EraseRecording { at, parts: Parts::BOTH }])
    });
    while !disk.stage_waits() {
        std::thread::yield_now();
    }
    for _ in 0..3 {
        add_recording(&keys, tenant, subscriber);
    }
    assert!(!erasing.is_finished() && keys.generation() == 1);
    assert!(keys.audio_leaf(paths[0]).expect("reads").is_some());
    disk.open_gate();
    let committed = erasing.join().expect("ran").expect("erases");
    assert!(committed.erased && committed.destroyed && keys.audio_leaf(paths[1]).expect("reads").is_some());
}

/// Where nothing is left to erase no slot is asked, or what was staged goes again and the next root is another.
#[test]
fn what_is_gone_already_rotates_nothing_and_leaves_no_staged_root() {
    let disk = Disk::new();
    let (keys, tenant, subscriber, paths) = small_world(&disk, 2);
    erase(&keys, paths[0]).expect("erases");
    let (roots, events) = (disk.roots(), disk.events().len());
    let staged = || disk.events()[events..].iter().filter(|event| matches!(event, Event::Stage(_))).copied().collect();
    disk.edit(|state| state.refuse_stage = true);
    let again = erase(&keys, paths[0]).expect("nothing is left to refuse");
    assert!(!again.erased && again.destroyed && keys.generation() == 2);
    disk.edit(|state| state.refuse_stage = false);
    let (_, create) = new_recording(tenant, subscriber, 1);
    let beside = vec![create, Change::EraseRecording { at: paths[0], parts: Parts::BOTH }];
    assert!(!commit(&keys, beside).expect("creates").erased);
    let first: Vec<Event> = staged();
    assert!(first.len() == 1 && keys.generation() == 2 && disk.roots() == roots);
    erase(&keys, paths[1]).expect("erases");
    let both: Vec<Event> = staged();
    assert!(both.len() == 2 && both[0] != both[1], "{both:?}");
}

#[test]
fn erasures_that_arrive_together_share_one_rotation_and_creates_do_not_wait_for_the_slot() {
    let disk = Disk::new();
    let (keys, tenant, subscriber, paths) = small_world(&disk, 4);
    let _open_at_the_end = disk.close_gate();
    block_on(async {
        let soon = |create| {
            let commit = keys.commit(Mutation::new(vec![create]));
            async { tokio::time::timeout(std::time::Duration::from_secs(60), commit).await.expect("a create waits") }
        };
        let one = |at| Mutation::new(vec![Change::EraseRecording { at, parts: Parts::BOTH }]);
        let spawn = |at| {
            let keys = keys.clone();
            tokio::spawn(async move { keys.commit(one(at)).await })
        };
        let first = spawn(paths[0]);
        while keys.generation() == 1 {
            tokio::task::yield_now().await;
        }
        // Its batch is published, its slot hangs. Creates go on, under the new generation.
        let (_, create) = new_recording(tenant, subscriber, 1);
        let created = soon(create).await.expect("creates");
        assert_eq!(created.generation_to, 2);
        assert!(keys.audio_leaf(paths[0]).expect("reads").is_none());
        // Erasing the same again is not answered before the slot has forgotten.
        let (again, second, third) = (spawn(paths[0]), spawn(paths[1]), spawn(paths[2]));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let (_, create) = new_recording(tenant, subscriber, 1);
        soon(create).await.expect("creates");
        assert!(!first.is_finished() && !again.is_finished() && !second.is_finished() && keys.generation() == 2);
        disk.open_gate();
        let first = first.await.unwrap().unwrap();
        assert_eq!((first.erased, first.generation_from, first.generation_to), (true, 1, 2));
        assert!(first.destroyed);
        assert!(!again.await.unwrap().unwrap().erased);
        let second = second.await.unwrap().unwrap();
        assert_eq!((second.erased, second.generation_from, second.generation_to), (true, 2, 3));
        assert_eq!(third.await.unwrap().unwrap(), second, "together");
    });
    assert!(keys.audio_leaf(paths[3]).expect("reads").is_some());
}

#[test]
fn what_fell_has_left_the_cache_when_the_erasure_is_answered() {
    let disk = Disk::new();
    let (keys, tenant, subscriber, paths) = small_world(&disk, 12);
    for at in &paths {
        assert!(keys.audio_leaf(*at).expect("reads").is_some());
    }
    let before = keys.cached_secrets();
    commit(&keys, vec![Change::EraseSubscriber(tenant, subscriber)]).expect("erases");
    assert!(before >= 2 + 2 + 24);
    assert_eq!(keys.cached_secrets(), 2, "the tenant's own");
}

#[test]
fn a_create_in_the_same_batch_as_the_erasure_of_its_parent_reaches_the_sweeper() {
    let disk = Disk::new();
    let (keys, tenant, subscriber, _) = small_world(&disk, 1);
    let (_, create) = new_recording(tenant, subscriber, 2);
    let new = SubscriberHandle(random());
    let (_, below_new) = new_recording(tenant, new, 3);
    let changes = vec![
        create,
        Change::AddSubscriber {
            tenant,
            subscriber: new,
            row: RowId(random()),
            secret: Secret::random(),
            name: "eve".to_owned(),
        },
        below_new,
        Change::EraseSubscriber(tenant, subscriber),
        Change::EraseTenant(tenant),
    ];
    assert!(commit(&keys, changes).expect("erases").erased);
    assert_eq!(super::sweep_all(&keys, 2).len(), 1 + 2 + 3);
    check(&disk, &Model::default(), &Forgotten::default());
}

#[test]
fn what_comes_before_the_first_child_of_a_branch_splits_off_in_order() {
    let disk = Disk::new();
    let (keys, tenant, subscriber, _) = small_world(&disk, 0);
    let add = |number: u8| {
        let (at, mut create) = new_recording(tenant, subscriber, 0);
        let Change::AddRecording { at: place, .. } = &mut create else { unreachable!() };
        let at = RecordingPath { recording: RecordingHandle([number; 16]), ..at };
        *place = at;
        commit(&keys, vec![create]).expect("creates");
        at
    };
    let high: Vec<_> = (100..140).map(add).collect();
    // The first leaf goes; what comes before everything then lands in the next, and splits it.
    for at in &high[..20] {
        erase(&keys, *at).expect("erases");
    }
    let low: Vec<_> = (0..40).rev().map(add).collect();
    drop(keys);
    let keys = open(&disk);
    for at in low.iter().chain(&high[20..]) {
        assert!(keys.audio_leaf(*at).expect("reads").is_some());
    }
    assert_eq!(keys.facts_leaves(tenant, subscriber, None, 100).expect("reads").len(), 60);
}
