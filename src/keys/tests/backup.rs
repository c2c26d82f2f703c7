//! The backup: what base and deltas give back, what the slot keeps for them, and what nobody gets out of them.

use super::{
    super::{
        backing::Family,
        backup::{
            ArchiveError,
            format::{Delta, Part},
            name,
            restore::{self, RestoreError},
        },
    },
    TINY, add_recording, add_subscriber, add_tenant,
    attacker::{Haul, Key},
    block_on, commit,
    medium::{Disk, Left, Memory, MemorySlot},
    model::Model,
    settings,
    storage::Storage,
    sweep_all,
};
use crate::{
    domain::time::{Clock, Timestamp},
    keys::*,
};
use std::{collections::BTreeMap, sync::Arc};

const DAY: i64 = 86_400_000;

pub struct World {
    pub disk: Arc<Disk>,
    pub storage: Storage,
    pub clock: Clock,
}

impl World {
    pub fn new() -> Self {
        Self { disk: Disk::new(), storage: Storage::default(), clock: Clock::set_to(Timestamp(20_000 * DAY)) }
    }

    fn try_open(&self) -> Result<KeyStore, OpenError> {
        self.open_on(&self.disk, settings(TINY))
    }

    pub fn open_on(&self, disk: &Arc<Disk>, settings: Settings) -> Result<KeyStore, OpenError> {
        disk.revive();
        let backup = self.storage.backup(&self.clock);
        let slots = Slots::one(Box::new(MemorySlot(disk.clone())));
        let settings = Settings { clock: self.clock.clone(), ..settings };
        KeyStore::open_on(Arc::new(Memory(disk.clone())), slots, Some(backup), settings)
    }

    pub fn open(&self) -> KeyStore {
        self.try_open().expect("opens")
    }

    /// A node with nothing but the slot.
    fn restored(&self) -> Result<Arc<Disk>, RestoreError> {
        let disk = Disk::new();
        let slot = self.disk.lock().slot.clone();
        disk.edit(|state| state.slot = slot);
        let mut slots = Slots::one(Box::new(MemorySlot(disk.clone())));
        restore::restore_into(|| Box::new(Memory(disk.clone())), &mut slots, &mut self.storage.clone())?;
        Ok(disk)
    }
}

pub fn backed(keys: &KeyStore) {
    assert!(block_on(keys.backed_up(keys.commands())));
}

pub fn erase(keys: &KeyStore, at: RecordingPath) -> Committed {
    commit(keys, vec![Change::EraseRecording { at, parts: Parts::BOTH }]).expect("erases")
}

/// Rows that commands alone write.
fn kept(disk: &Disk) -> BTreeMap<(Family, Vec<u8>), Vec<u8>> {
    let (rows, ..) = disk.image();
    let meta = |family: Family, key: &[u8]| family == Family::Meta && key != b"store";
    rows.into_iter().filter(|((family, key), _)| Family::KEPT.contains(family) || meta(*family, key)).collect()
}

fn audio_of(keys: &KeyStore, at: RecordingPath) -> Option<Key> {
    keys.audio_leaf(at).expect("reads").and_then(|leaf| leaf.audio).map(|secret| *secret.expose())
}

#[test]
fn base_and_deltas_give_every_row_of_the_live_store() {
    let world = World::new();
    let keys = world.open();
    let mut living = Vec::new();
    for round in 0..12u8 {
        let tenant = add_tenant(&keys, &format!("tenant-{round}"));
        let subscriber = add_subscriber(&keys, tenant, "ada");
        living.extend((0..7).map(|_| add_recording(&keys, tenant, subscriber)));
        erase(&keys, living.swap_remove(usize::from(round) % living.len()));
        if round % 4 == 3 {
            commit(&keys, vec![Change::EraseSubscriber(tenant, subscriber)]).expect("erases");
            living.retain(|at| at.subscriber != subscriber);
            sweep_all(&keys, 3);
        }
        if round % 5 == 2 {
            world.clock.advance_ms(2 * DAY);
            assert!(keys.tend_backup());
        }
        backed(&keys);
        let restored = world.restored().expect("restored");
        assert!(kept(&restored) == kept(&world.disk), "round {round}");
    }
    let model = Model::of(&keys);
    drop(keys);
    let restored = world.open_on(&world.restored().expect("restored"), settings(TINY)).expect("opens");
    assert!(Model::of(&restored) == model);
    for at in living {
        assert!(audio_of(&restored, at).is_some());
    }
}

#[test]
fn while_object_storage_is_away_an_erasure_is_sealed_and_creates_go_on() {
    let world = World::new();
    let keys = world.open();
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let gone: Vec<_> = (0..3).map(|_| add_recording(&keys, tenant, subscriber)).collect();
    backed(&keys);
    assert!(erase(&keys, gone[0]).destroyed && keys.all_destroyed());
    world.storage.set_away(true);
    for at in &gone[1..] {
        assert!(!erase(&keys, *at).destroyed);
        let status = keys.backup_status().expect("there is a backup");
        assert!(status.away && status.behind > 0 && !keys.all_destroyed());
        assert_eq!(world.disk.roots().len(), 2, "what the backup needs, and what seals the top");
        assert!(audio_of(&keys, *at).is_none());
    }
    // Nothing left to erase is no destruction either.
    assert!(!erase(&keys, gone[1]).destroyed);
    let kept = add_recording(&keys, tenant, subscriber);
    let number = keys.commands();
    let lost = world.restored();
    assert!(matches!(lost, Err(RestoreError::Archive(ArchiveError::Away(_)))));
    world.storage.set_away(false);
    block_on(keys.destroyed(number));
    assert!(block_on(keys.backed_up(number)));
    assert_eq!(world.disk.roots().len(), 1);
    let restored = world.open_on(&world.restored().expect("restored"), settings(TINY)).expect("opens");
    assert!(audio_of(&restored, kept).is_some());
    assert!(gone.iter().all(|at| audio_of(&restored, *at).is_none()));
}

#[test]
fn leaves_of_the_log_count_when_the_backup_has_them() {
    let world = World::new();
    let mut keys = world.open();
    let append = |keys: &KeyStore, leaves: usize| {
        let leaf = |_| Change::Log { leaf: vec![7], under: None };
        commit(keys, (0..leaves).map(leaf).collect()).expect("appends");
    };
    append(&keys, 2);
    backed(&keys);
    assert_eq!((keys.log_size(), keys.log_size_backed()), (2, 2));
    world.storage.set_away(true);
    for more in [1, 3] {
        append(&keys, more);
        add_tenant(&keys, &format!("tenant {more}"));
        assert_eq!(keys.log_size_backed(), 2);
        keys = {
            drop(keys);
            world.open()
        };
        assert_eq!(keys.log_size_backed(), 2, "also behind a start");
    }
    assert_eq!(keys.log_size(), 6);
    world.storage.set_away(false);
    backed(&keys);
    assert_eq!(keys.log_size_backed(), 6);
}

#[test]
fn a_start_without_object_storage_keeps_what_the_backup_needs() {
    let world = World::new();
    let keys = world.open();
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let (gone, kept) = (add_recording(&keys, tenant, subscriber), add_recording(&keys, tenant, subscriber));
    backed(&keys);
    world.storage.set_away(true);
    assert!(!erase(&keys, gone).destroyed);
    drop(keys);
    drop(world.open());
    let keys = world.open();
    assert!(!keys.all_destroyed());
    assert_eq!(world.disk.roots().len(), 2);
    assert!(audio_of(&keys, gone).is_none() && audio_of(&keys, kept).is_some());
    world.storage.set_away(false);
    block_on(keys.destroyed(keys.commands()));
    assert_eq!(world.disk.roots().len(), 1);
}

#[test]
fn a_put_whose_answer_was_lost_is_found_again() {
    let world = World::new();
    let keys = world.open();
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let gone = add_recording(&keys, tenant, subscriber);
    backed(&keys);
    world.storage.lock().mute = true;
    let sealed = erase(&keys, gone);
    block_on(keys.destroyed(sealed.number));
    assert_eq!(world.disk.roots().len(), 1);
    backed(&keys);
    let kept = kept(&world.disk);
    assert!(self::kept(&world.restored().expect("restored")) == kept);
}

#[test]
fn a_torn_tail_is_filled_from_the_backup() {
    let world = World::new();
    let keys = world.open();
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    // The base is made; what follows goes as a delta, which alone can fill a tail.
    backed(&keys);
    let at = add_recording(&keys, tenant, subscriber);
    backed(&keys);
    let before = kept(&world.disk);
    // Power fails: nothing of the store runs any more, and the last record is torn.
    world.disk.arm(0, Left::Nothing);
    drop(keys);
    world.disk.tear_log();
    assert!(kept(&world.disk) != before, "the control: something was lost");
    let keys = world.open();
    assert!(audio_of(&keys, at).is_some());
    backed(&keys);
    assert!(kept(&world.disk) == before);
}

/// A copy of the disk without the slot, to be put back later.
fn copy(disk: &Disk) -> BTreeMap<(Family, Vec<u8>), Vec<u8>> {
    disk.image().0
}

fn put_back(disk: &Disk, rows: &BTreeMap<(Family, Vec<u8>), Vec<u8>>) {
    let (present, files, _) = disk.image();
    disk.edit(|state| {
        for (family, key) in present.keys() {
            state.remove_row(*family, key);
        }
        for ((family, key), value) in rows {
            state.put_row(*family, key, value.clone());
        }
        state.files.retain(|number, _| !files.contains_key(number));
    });
}

#[test]
fn an_older_store_is_filled_or_refused_and_one_that_went_another_way_is_refused() {
    let world = World::new();
    let keys = world.open();
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let gone = add_recording(&keys, tenant, subscriber);
    backed(&keys);
    drop(keys);
    let old = copy(&world.disk);
    let keys = world.open();
    erase(&keys, gone);
    let kept = add_recording(&keys, tenant, subscriber);
    backed(&keys);
    drop(keys);
    let present = copy(&world.disk);

    // It is known to be behind, and what it lacks cannot be had: to go on would make another history.
    put_back(&world.disk, &old);
    world.storage.lock().lists_only = true;
    let image = world.disk.image();
    assert!(matches!(world.try_open(), Err(OpenError::CannotBeFilled { .. })));
    assert!(world.disk.image() == image, "nothing was changed");
    world.storage.lock().lists_only = false;
    let keys = world.open();
    assert!(audio_of(&keys, gone).is_none() && audio_of(&keys, kept).is_some(), "filled");
    drop(keys);

    // The same, where the deltas do not reach back any more.
    put_back(&world.disk, &present);
    let keys = world.open();
    world.clock.advance_ms(40 * DAY);
    assert!(keys.tend_backup());
    backed(&keys);
    drop(keys);
    let present = copy(&world.disk);
    put_back(&world.disk, &old);
    let image = world.disk.image();
    assert!(matches!(world.try_open(), Err(OpenError::OlderThanBackup { .. })));
    assert!(world.disk.image() == image, "nothing was changed");

    // Two stores from one: each goes on by itself, and only one of them is the backup's.
    put_back(&world.disk, &present);
    world.storage.set_away(true);
    let keys = world.open();
    add_recording(&keys, tenant, subscriber);
    drop(keys);
    let other = copy(&world.disk);
    world.storage.set_away(false);
    put_back(&world.disk, &present);
    let keys = world.open();
    add_recording(&keys, tenant, subscriber);
    backed(&keys);
    drop(keys);
    put_back(&world.disk, &other);
    let image = world.disk.image();
    assert!(matches!(world.try_open(), Err(OpenError::Diverged)));
    assert!(world.disk.image() == image, "nothing was changed");
}

#[test]
fn no_copy_of_the_backup_opens_what_was_erased_with_the_slot_of_now() {
    let world = World::new();
    let keys = world.open();
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let (gone, kept) = (add_recording(&keys, tenant, subscriber), add_recording(&keys, tenant, subscriber));
    backed(&keys);
    let (erased, lives) = (audio_of(&keys, gone).expect("it lives"), audio_of(&keys, kept).expect("it lives"));
    let before = world.disk.roots();
    erase(&keys, gone);
    let after = world.disk.roots();
    let haul = Haul::carve(&world.storage.lock().ever);
    let now = haul.below_roots(&after).secrets;
    assert!(now.contains(&lives) && !now.contains(&erased));
    let then = haul.below_roots(&before).secrets;
    assert!(then.contains(&erased), "the control: with the root of before it opens");
}

#[test]
fn a_backup_from_before_an_erasure_is_refused_with_its_reason() {
    let world = World::new();
    let keys = world.open();
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let gone = add_recording(&keys, tenant, subscriber);
    backed(&keys);
    let old = world.storage.lock().objects.clone();
    let slot = world.disk.lock().slot.clone();
    erase(&keys, gone);
    drop(keys);
    world.storage.lock().objects = old;
    let error = world.restored().err().expect("refused");
    assert!(matches!(error, RestoreError::OtherRoot { .. }), "{error}");
    // The control: the slot of before opens it.
    world.disk.edit(|state| state.slot = slot);
    let restored = world.open_on(&world.restored().expect("restored"), settings(TINY)).expect("opens");
    assert!(audio_of(&restored, gone).is_some());
}

#[test]
fn what_is_over_its_age_goes_and_the_newest_state_stays() {
    let world = World::new();
    let keys = world.open();
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let begin = world.clock.now();
    for _ in 0..40 {
        add_recording(&keys, tenant, subscriber);
        backed(&keys);
        world.clock.advance_ms(DAY / 2);
        assert!(keys.tend_backup());
        let restored = world.restored().expect("the newest state is there at every moment");
        assert!(kept(&restored) == kept(&world.disk));
        let taken = |name: &String| {
            let field = name.split('-').nth(if name.contains("/base/") { 3 } else { 5 }).expect("a name of ours");
            i64::from_str_radix(field, 16).expect("a time")
        };
        let oldest = world.storage.names().iter().map(taken).min().expect("objects");
        assert!(world.clock.now().0 - oldest <= 9 * DAY, "seven days, a day's base and what is newest");
    }
    assert!(world.clock.now().0 - begin.0 >= 20 * DAY);
}

#[test]
fn a_crash_at_any_step_leaves_a_store_and_a_backup_that_open() {
    for left in [Left::Nothing, Left::All, Left::Half] {
        for steps in 0..14 {
            let world = World::new();
            let keys = world.open();
            let tenant = add_tenant(&keys, "acme");
            let subscriber = add_subscriber(&keys, tenant, "ada");
            let (gone, old) = (add_recording(&keys, tenant, subscriber), add_recording(&keys, tenant, subscriber));
            backed(&keys);
            world.disk.arm(steps, left);
            let erased = commit(&keys, vec![Change::EraseRecording { at: gone, parts: Parts::BOTH }]);
            let (new, change) = super::new_recording(tenant, subscriber, 1);
            let created = commit(&keys, vec![change]);
            drop(keys);
            world.disk.disarm();
            world.disk.lose_power();
            let keys = world.open();
            assert!(audio_of(&keys, old).is_some());
            assert!(created.is_err() || audio_of(&keys, new).is_some(), "{left:?} {steps}");
            assert!(erased.is_err() || audio_of(&keys, gone).is_none(), "{left:?} {steps}");
            block_on(keys.destroyed(keys.commands()));
            backed(&keys);
            assert_eq!(world.disk.roots().len(), 1);
            let restored = world.restored().expect("restored");
            assert!(kept(&restored) == kept(&world.disk), "{left:?} {steps}");
        }
    }
}

#[test]
fn a_restore_builds_beside_and_refuses_what_is_not_empty() {
    let world = World::new();
    let keys = world.open();
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let at = add_recording(&keys, tenant, subscriber);
    backed(&keys);
    drop(keys);
    let dir = tempfile::tempdir().expect("a folder");
    let (place, beside) = (dir.path().join("keys"), dir.path().join("keys.restoring"));
    let mut storage = world.storage.clone();
    let mut slots = Slots::one(Box::new(MemorySlot(world.disk.clone())));
    // What a restore leaves that was killed.
    std::fs::create_dir_all(beside.join("db")).expect("a folder");
    std::fs::write(beside.join("db/CURRENT"), "torn").expect("written");
    let started = KeyStore::open(&place, Box::new(MemorySlot(world.disk.clone())));
    assert!(matches!(started, Err(OpenError::StoreIsMissing)));
    // An object that is damaged stops it, with nothing in the store's place.
    let base = world.storage.names().into_iter().find(|name| name.contains("/base/")).expect("a base");
    let good = world.storage.lock().objects[&base].clone();
    world.storage.lock().objects.get_mut(&base).expect("it is there")[100] ^= 1;
    let damaged = restore::restore(&place, &mut slots, &mut storage, &mut |_| {});
    assert!(matches!(damaged, Err(RestoreError::Damaged(_))) && !place.exists());
    world.storage.lock().objects.insert(base, good);

    restore::restore(&place, &mut slots, &mut storage, &mut |_| {}).expect("restored");
    assert!(!beside.exists());
    let again = restore::restore(&place, &mut slots, &mut storage, &mut |_| {});
    assert!(matches!(again, Err(RestoreError::NotEmpty(_))));
    let keys = KeyStore::open(&place, Box::new(MemorySlot(world.disk.clone()))).expect("opens");
    assert!(audio_of(&keys, at).is_some());
}

proptest::proptest! {
    #[test]
    fn hostile_bytes_never_panic(content: Vec<u8>, name: String) {
        let framed = |magic: [u8; 4], last: u8| {
            let mut framed = [&magic[..], &[1, last, 0, 0], &content].concat();
            let digest = ring::digest::digest(&ring::digest::SHA256, &framed);
            framed.extend_from_slice(digest.as_ref());
            framed
        };
        for bytes in [content.clone(), framed(*b"QTBD", 0), framed(*b"QTBB", 1)] {
            let _ = Delta::decode(&bytes);
            let _ = Part::decode(&bytes);
        }
        let _ = name::catalogues(&[name.clone(), format!("{}{name}", name::PREFIX)]);
    }
}

#[test]
fn an_object_with_one_byte_changed_is_refused() {
    let world = World::new();
    let keys = world.open();
    add_tenant(&keys, "acme");
    backed(&keys);
    for (name, bytes) in world.storage.lock().objects.iter() {
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            assert!(Delta::decode(&changed).is_err() && Part::decode(&changed).is_err(), "{name}");
            assert!(Delta::decode(&bytes[..at]).is_err() && Part::decode(&bytes[..at]).is_err(), "{name}");
        }
    }
}
