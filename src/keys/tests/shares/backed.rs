//! Slots beside a backup: lost nodes, storage that is away, and slots that join or go meanwhile.

use super::*;

#[test]
fn a_lost_node_and_a_lost_slot_leave_enough() {
    for lost in 0..3 {
        let mut world = World::with_backup(2, 3);
        let lives = inhabit(&world);
        let kept = add_recording(world.keys(), lives.tenant, lives.subscriber);
        // Its share waits, in the backup too.
        world.set_away(2, true);
        assert!(rotate(&world, &lives).destroyed && rotate(&world, &lives).destroyed && world.keys().tend_backup());
        world.set_away(2, false);
        world.set_away(lost, true);
        world.lose_node().expect("restored");
        world.start().expect("starts");
        assert!(world.keys().audio_leaf(kept).expect("reads").is_some(), "without slot {lost}");
        assert!(rotate(&world, &lives).destroyed);
    }
}

#[test]
fn a_restore_with_fewer_than_k_is_refused_and_builds_nothing() {
    let mut world = World::with_backup(2, 3);
    rotate(&world, &inhabit(&world));
    world.set_away(0, true);
    world.set_away(1, true);
    let slots = world.image();
    let verify = |world: &World| {
        let mut storage = world.storage.clone().expect("there is a backup");
        restore::verify(&mut world.slots(), &mut storage, &mut |_| {})
    };
    let refused = verify(&world).expect_err("it is whole, and does not open");
    assert!(matches!(refused, RestoreError::TooFewSlots { needed: 2, found: 1, .. }), "{refused}");
    world.set_away(0, false);
    assert!(verify(&world).expect("two are enough").read.number > 0);
    world.set_away(0, true);
    let refused = world.lose_node().expect_err("refused");
    assert!(matches!(refused, RestoreError::TooFewSlots { needed: 2, found: 1, .. }), "{refused}");
    assert!(refused.to_string().contains("slot 0 is away") && world.image() == slots);
}

#[test]
fn a_slot_that_returns_while_the_backup_is_behind_gets_what_the_backup_needs() {
    for starts in [false, true] {
        let mut world = World::with_backup(2, 3);
        let lives = inhabit(&world);
        let kept = add_recording(world.keys(), lives.tenant, lives.subscriber);
        world.set_away(2, true);
        assert!(rotate(&world, &lives).destroyed && world.keys().tend_backup());
        let storage = world.storage.clone().expect("there is a backup");
        storage.set_away(true);
        let (erased, answer) = lives.rotate(&world).expect("creates");
        assert!(!answer.expect("erases").destroyed);
        world.set_away(2, false);
        if starts {
            world.start().expect("starts");
        } else {
            assert!(!rotate(&world, &lives).destroyed);
        }
        let held: Vec<u64> = world.image()[2].iter().map(|record| record.0).collect();
        assert!(held.contains(&2) && held.len() == 2, "what the backup needs and what seals the top: {held:?}");
        // Node and another slot are lost: what the backup has comes back.
        world.set_away(0, true);
        storage.set_away(false);
        let mut world = if starts {
            world
        } else {
            // Here the backup catches up first, and the slots forget what it needed.
            block_on(world.keys().destroyed(world.keys().commands()));
            assert!(opened(&world, &world.reach(&[])).is_disjoint(&erased));
            world
        };
        world.lose_node().expect("restored");
        world.start().expect("starts");
        assert!(world.keys().audio_leaf(kept).expect("reads").is_some());
    }
}

#[test]
fn a_start_with_too_few_of_the_shares_that_the_backup_needs_forgets_none_of_them() {
    let mut world = World::with_backup(2, 3);
    let lives = inhabit(&world);
    let kept = add_recording(world.keys(), lives.tenant, lives.subscriber);
    world.set_away(1, true);
    assert!(rotate(&world, &lives).destroyed && world.keys().tend_backup());
    let storage = world.storage.clone().expect("there is a backup");
    storage.set_away(true);
    assert!(!rotate(&world, &lives).destroyed);
    // Slot 1 follows its row to the present root, and nobody but slot 0 holds what the backup needs.
    world.set_away(1, false);
    world.set_away(2, true);
    world.start().expect("two are enough");
    world.set_away(2, false);
    assert!(!rotate(&world, &lives).destroyed);
    world.stop();
    storage.set_away(false);
    // The node is lost, and any one slot.
    for lost in 0..3 {
        let held = world.image();
        let disk = world.disk.clone();
        world.set_away(lost, true);
        world.lose_node().unwrap_or_else(|error| panic!("without slot {lost}: {error}"));
        world.start().expect("starts");
        assert!(world.keys().audio_leaf(kept).expect("reads").is_some());
        world.stop();
        world.set_away(lost, false);
        for (drawer, records) in world.drawers.iter().zip(held) {
            drawer.lock().expect("no panic").records = records;
        }
        world.disk = disk;
    }
}

#[test]
fn a_start_without_storage_keeps_the_root_that_the_backup_may_have() {
    for returns in [false, true] {
        let mut world = World::with_backup(2, 3);
        let lives = inhabit(&world);
        let kept = add_recording(world.keys(), lives.tenant, lives.subscriber);
        world.set_away(2, returns);
        // The last command: its row is still in the outbox, though the backup has it.
        assert!(rotate(&world, &lives).destroyed && world.keys().tend_backup());
        let storage = world.storage.clone().expect("there is a backup");
        world.stop();
        storage.set_away(true);
        world.set_away(2, false);
        world.start().expect("starts");
        assert!(!rotate(&world, &lives).destroyed);
        world.stop();
        storage.set_away(false);
        world.lose_node().expect("restored");
        world.start().expect("starts");
        assert!(world.keys().audio_leaf(kept).expect("reads").is_some());
    }
}

/// A limit: what the backup is known to have, what it may have, and the top take all three places of a slot.
#[test]
fn behind_a_start_without_storage_there_is_room_for_one_rotation() {
    let mut world = World::with_backup(2, 3);
    let lives = inhabit(&world);
    assert!(world.keys().tend_backup());
    let storage = world.storage.clone().expect("there is a backup");
    storage.set_away(true);
    assert!(!rotate(&world, &lives).destroyed);
    world.start().expect("starts");
    assert!(!rotate(&world, &lives).destroyed);
    let (_, answer) = lives.rotate(&world).expect("creates go on");
    let refused = answer.expect_err("there is no fourth place");
    assert!(matches!(refused, CommitError::Slot(SlotError::TooFew { needed: 2, found: 0, .. })), "{refused}");
    storage.set_away(false);
    // Whoever asks again and again without a pause keeps nobody from finishing what was put off.
    let began = std::time::Instant::now();
    while lives.rotate(&world).expect("creates go on").1.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "refused although storage has been seen");
    }
    block_on(world.keys().destroyed(world.keys().commands()));
}

fn erase(world: &World, at: RecordingPath) -> bool {
    commit(world.keys(), vec![Change::EraseRecording { at, parts: Parts::BOTH }]).expect("erases").destroyed
}

/// Erases something, of which the delta arrives and the answer is lost. Gives what the backup was told to have, and the storage.
fn erase_untold(world: &World, at: RecordingPath) -> (u64, Storage) {
    assert!(world.keys().tend_backup());
    let told = world.keys().commands();
    let storage = world.storage.clone().expect("there is a backup");
    {
        let mut objects = storage.lock();
        (objects.mute, objects.leaving) = (true, true);
    }
    assert!(!erase(world, at), "its delta arrived, and nobody knows");
    (told, storage)
}

/// A root in the middle that some slots have let go of opens nothing: what was put under it is not spoken of, and the root that
/// leads to the state before stays.
#[test]
fn a_start_does_not_speak_for_a_root_of_which_too_few_shares_are_left() {
    for sees_storage in [false, true] {
        let mut world = World::with_backup(2, 3);
        let lives = inhabit(&world);
        let [kept, first, second] = [(); 3].map(|()| add_recording(world.keys(), lives.tenant, lives.subscriber));
        let (told, storage) = erase_untold(&world, first);
        world.set_away(2, true);
        assert!(!erase(&world, second), "two slots let go of the root in the middle");
        world.set_away(2, false);
        let there = |there: bool| {
            let mut objects = storage.lock();
            (objects.away, objects.full) = (!there, there);
        };
        there(sees_storage);
        world.start().expect("starts");
        there(true);
        assert!(!world.keys().tend_backup(), "it is looked at, and takes nothing");
        let behind = world.keys().backup_status().expect("there is a backup").behind;
        assert_eq!(world.keys().commands() - behind, told);
        assert!(!rotate(&world, &lives).destroyed);
        storage.lock().full = false;
        world.lose_node().expect("the state that was told of opens");
        world.start().expect("starts");
        assert!(world.keys().audio_leaf(kept).expect("reads").is_some());
    }
}

/// Two slots hold the root of the backup's newest state, and one of them is away. All three hold that of the state before.
#[test]
fn a_restore_says_what_it_passed_over_and_which_slot_would_open_it() {
    let mut world = World::with_backup(2, 3);
    let lives = inhabit(&world);
    let [first, second] = [(); 2].map(|()| add_recording(world.keys(), lives.tenant, lives.subscriber));
    let (told, storage) = erase_untold(&world, first);
    let arrived = world.keys().commands();
    world.set_away(2, true);
    // It takes its share of the next root, and does not let go of the one in the middle.
    world.drawers[1].lock().expect("no panic").fuse = Some((1, false));
    assert!(!erase(&world, second));
    world.stop();
    storage.set_away(false);
    world.set_away(2, false);
    let verify = |world: &World| {
        let mut storage = world.storage.clone().expect("there is a backup");
        restore::verify(&mut world.slots(), &mut storage, &mut |_| {}).expect("whole")
    };
    for reached in [verify(&world), world.lose_node().expect("restored")] {
        let newer = reached.passed_over.expect("a newer state is there");
        assert_eq!((reached.read.number, newer.number, newer.taken), (told, arrived, Timestamp(1_000_000)));
        assert!(newer.states > 0 && newer.absent.len() == 1);
        let text = newer.to_string();
        let written = format!("up to command {arrived}, written 1970-01-01T00:16:40Z");
        assert!(
            text.contains(&written) && text.contains("slot 1 is away (") && text.contains("restore with them"),
            "{text}"
        );
    }
    world.set_away(1, false);
    let reached = verify(&world);
    assert!(reached.read.number == arrived && reached.passed_over.is_none(), "{reached:?}");
    // Where all that are configured are there it is said that another one may be missing.
    world.seated = vec![0, 2];
    let newer = verify(&world).passed_over.expect("a newer state is there");
    assert!(newer.absent.is_empty() && newer.to_string().contains("all that are configured are there"), "{newer}");
}

#[test]
fn slots_that_go_before_a_sealed_erasure_is_finished_stop_nothing() {
    let world = World::with_backup(2, 3);
    let lives = inhabit(&world);
    assert!(world.keys().tend_backup());
    let storage = world.storage.clone().expect("there is a backup");
    storage.set_away(true);
    let (erased, answer) = lives.rotate(&world).expect("creates");
    let number = answer.expect("erases").number;
    world.set_away(0, true);
    world.set_away(1, true);
    storage.set_away(false);
    assert!(world.keys().tend_backup());
    // The slots are asked now, and two do not answer.
    let began = std::time::Instant::now();
    while world.keys().slots().losses_survivable > 0
        || world.keys().backup_status().is_none_or(|status| status.behind > 0)
    {
        assert!(began.elapsed() < Duration::from_secs(20), "the slots were never asked");
        std::thread::sleep(Duration::from_millis(5));
    }
    add_recording(world.keys(), lives.tenant, lives.subscriber);
    world.set_away(0, false);
    world.set_away(1, false);
    block_on(world.keys().destroyed(number));
    assert!(opened(&world, &world.reach(&[])).is_disjoint(&erased));
}

#[test]
fn a_slot_that_was_to_join_and_never_did_is_counted_until_it_is_emptied() {
    for backup in [false, true] {
        let mut world = if backup { World::with_backup(1, 1) } else { World::new(1, 1) };
        let lives = inhabit(&world);
        world.drawers.extend([Arc::default(), Arc::default()]);
        (world.seated, world.k) = (vec![0, 1, 2], 2);
        world.start().expect("one is enough");
        assert!(!backup || world.keys().tend_backup());
        // The command that says who is to join is written; the file of the rotation is torn, and power fails.
        world.disk.arm(1, Left::Half);
        assert!(block_on(world.keys().reshare(Reshare::Match)).is_err());
        assert!(world.image()[1..].iter().all(|records| records.len() == 1), "they have their shares already");
        world.stop();
        world.disk.disarm();
        world.disk.lose_power();
        let (now, later) = (vec![0], vec![0, 1, 2]);
        world.seated = now;
        world.start().expect("starts");
        assert_eq!(world.keys().generation(), 1);
        let (_, answer) = lives.rotate(&world).expect("creates");
        assert!(!answer.expect("erases").destroyed, "two slots hold a root that the file may have been sealed under");
        assert_eq!(world.keys().slots().shares_left, Some(2));
        world.seated = later;
        world.start().expect("starts");
        assert!(world.keys().all_destroyed() && world.image()[1..].iter().all(Vec::is_empty));
        // Now they join.
        assert!(block_on(world.keys().reshare(Reshare::Match)).expect("shares anew").destroyed);
        assert_eq!((world.keys().slots().k, world.keys().slots().losses_survivable), (2, 1));
    }
}

#[test]
fn a_refused_change_of_the_slots_says_why_and_leaves_nothing_to_wait_for() {
    let mut world = World::with_backup(1, 1);
    let lives = inhabit(&world);
    world.drawers.extend([Arc::default(), Arc::default()]);
    (world.seated, world.k) = (vec![0, 1, 2], 2);
    world.start().expect("one is enough");
    let storage = world.storage.clone().expect("there is a backup");
    storage.set_away(true);
    let refused = block_on(world.keys().reshare(Reshare::Match)).expect_err("the backup is away");
    assert!(matches!(refused, CommitError::Slot(SlotError::Sharing(_))), "{refused}");
    storage.set_away(false);
    world.set_away(1, true);
    world.start().expect("starts");
    let refused = block_on(world.keys().reshare(Reshare::Match)).expect_err("a slot is away");
    assert!(matches!(refused, CommitError::Slot(SlotError::Sharing(_))), "{refused}");
    world.set_away(1, false);
    world.start().expect("starts");
    // It refuses at the stage itself.
    world.drawers[2].lock().expect("no panic").fuse = Some((0, false));
    let refused = block_on(world.keys().reshare(Reshare::Match)).expect_err("a slot fails");
    assert!(matches!(refused, CommitError::Slot(SlotError::TooFew { .. })), "{refused}");
    world.set_away(2, false);
    assert!(rotate(&world, &lives).destroyed, "slot 2 never had anything, which is seen when it is back");
    assert!(block_on(world.keys().reshare(Reshare::Match)).expect("shares anew").destroyed);
    assert!(rotate(&world, &lives).destroyed);
}
