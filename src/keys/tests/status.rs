//! Since when backup and erasures wait, by a clock that stands still until it is set.

use super::{
    super::*,
    TINY, add_recording, add_subscriber, add_tenant,
    backup::{World, backed, erase},
    block_on, settings,
};
use crate::domain::time::Timestamp;
use std::{thread::JoinHandle, time::Duration};

/// Opens it, with some recordings that the backup has.
fn inhabited(world: &World, settings: Settings) -> (KeyStore, Vec<RecordingPath>) {
    let keys = world.open_on(&world.disk, settings).expect("opens");
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let paths = (0..4).map(|_| add_recording(&keys, tenant, subscriber)).collect();
    backed(&keys);
    (keys, paths)
}

/// What the clock shows behind a second more.
fn later(world: &World) -> Timestamp {
    world.clock.advance_ms(1000);
    world.clock.now()
}

fn erasing(keys: &KeyStore, at: RecordingPath) -> JoinHandle<Committed> {
    let keys = keys.clone();
    std::thread::spawn(move || erase(&keys, at))
}

fn until(happens: impl Fn() -> bool) {
    while !happens() {
        std::thread::yield_now();
    }
}

#[test]
fn what_the_backup_lacks_is_as_old_as_the_oldest_command() {
    let world = World::new();
    let (keys, _) = inhabited(&world, settings(TINY));
    let begin = world.clock.now();
    let status = |keys: &KeyStore| keys.backup_status().expect("there is a backup");
    assert_eq!((status(&keys).behind_since, status(&keys).base), (None, Some(begin)));
    world.storage.set_away(true);
    let first = later(&world);
    add_tenant(&keys, "first");
    later(&world);
    add_tenant(&keys, "second");
    assert_eq!((status(&keys).behind, status(&keys).behind_since), (2, Some(first)));
    // Nobody knows how long it waited before a start, nor what the backup has.
    drop(keys);
    let start = later(&world);
    let keys = world.open();
    assert_eq!((status(&keys).behind_since, status(&keys).base), (Some(start), None));
    later(&world);
    world.storage.set_away(false);
    backed(&keys);
    assert_eq!((status(&keys).behind_since, status(&keys).base), (None, Some(begin)));
    drop(keys);
    let keys = world.open();
    assert_eq!((status(&keys).behind_since, status(&keys).base), (None, Some(begin)), "a start looks itself");
    world.clock.advance_ms(2 * 86_400_000);
    assert!(keys.tend_backup());
    assert_eq!(status(&keys).base, Some(world.clock.now()));
}

#[test]
fn a_sealed_erasure_waits_until_it_is_destroyed() {
    let world = World::new();
    let (keys, paths) = inhabited(&world, settings(TINY));
    assert!(erase(&keys, paths[0]).destroyed);
    assert_eq!(keys.erasures_waiting_since(), None);
    world.storage.set_away(true);
    let first = later(&world);
    assert!(!erase(&keys, paths[1]).destroyed);
    later(&world);
    assert!(!erase(&keys, paths[2]).destroyed);
    assert_eq!(keys.erasures_waiting_since(), Some(first));
    drop(keys);
    let start = later(&world);
    let keys = world.open();
    assert_eq!(keys.erasures_waiting_since(), Some(start));
    later(&world);
    world.storage.set_away(false);
    block_on(keys.destroyed(keys.commands()));
    assert_eq!(keys.erasures_waiting_since(), None);
}

/// Before the commit point, and behind it.
#[test]
fn while_a_slot_hangs_it_is_known_since_when_erasures_wait() {
    for stage in [true, false] {
        let world = World::new();
        let (keys, paths) = inhabited(&world, settings(TINY));
        let _open_at_the_end = if stage { world.disk.close_stage() } else { world.disk.close_gate() };
        let first = later(&world);
        let hanging = erasing(&keys, paths[0]);
        until(|| if stage { world.disk.stage_waits() } else { keys.generation() == 2 });
        later(&world);
        let queued = erasing(&keys, paths[1]);
        assert_eq!(keys.erasures_waiting_since(), Some(first));
        assert_eq!(keys.all_destroyed(), stage);
        world.disk.open_gate();
        assert!(hanging.join().expect("ran").destroyed && queued.join().expect("ran").destroyed);
        assert_eq!(keys.erasures_waiting_since(), None);
    }
}

#[test]
fn an_erasure_that_is_queued_waits_and_one_that_is_refused_does_not() {
    let world = World::new();
    let spaced = Settings { min_rotation_interval: Duration::from_secs(3600), ..settings(TINY) };
    let (keys, paths) = inhabited(&world, spaced);
    erase(&keys, paths[0]);
    let since = later(&world);
    let queued = erasing(&keys, paths[1]);
    until(|| keys.erasures_waiting_since().is_some());
    later(&world);
    assert_eq!((keys.erasures_waiting_since(), keys.generation()), (Some(since), 2));
    world.clock.advance_ms(3_600_000);
    assert!(queued.join().expect("ran").destroyed);
    assert_eq!(keys.erasures_waiting_since(), None);
    world.clock.advance_ms(3_600_000);
    world.disk.edit(|state| state.refuse_stage = true);
    let change = Change::EraseRecording { at: paths[2], parts: Parts::BOTH };
    assert!(block_on(keys.commit(Mutation::new(vec![change]))).is_err());
    assert_eq!(keys.erasures_waiting_since(), None);
}
