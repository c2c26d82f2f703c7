//! The real medium: RocksDB, files, the slot in a file; crash images taken from a store that runs.

use super::{super::*, add_recording, add_subscriber, add_tenant, commit};
use crate::crypto::envelope::{Envelope, Kind, seal};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

struct Place {
    _dir: tempfile::TempDir,
    keys: PathBuf,
    slot: PathBuf,
}

fn new_place() -> Place {
    let dir = tempfile::tempdir().expect("a folder");
    Place { keys: dir.path().join("keys"), slot: dir.path().join("slot").join("root"), _dir: dir }
}

fn open(place: &Place) -> Result<KeyStore, OpenError> {
    KeyStore::open(&place.keys, Box::new(FileSlot::open(&place.slot)?))
}

/// A copy of the files as they are now, as if the process were killed; names in `without` stay behind.
fn image(place: &Place) -> Place {
    let copy = new_place();
    copy_folder(&place.keys, &copy.keys);
    fs::create_dir_all(copy.slot.parent().expect("it has one")).expect("creates");
    fs::copy(&place.slot, &copy.slot).expect("copies");
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("reads") {
        let entry = entry.expect("reads");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("reads").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

fn logs(place: &Place) -> Vec<PathBuf> {
    let files = fs::read_dir(place.keys.join("db")).expect("reads").map(|entry| entry.expect("reads").path());
    let mut logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort();
    logs
}

fn newest_log(place: &Place) -> PathBuf {
    logs(place).pop().expect("there is a log")
}

fn pending(place: &Place) -> usize {
    fs::read_dir(place.keys.join("pending")).expect("reads").count()
}

/// The commands of which the files say something.
fn waiting(place: &Place) -> Vec<u64> {
    let files = fs::read_dir(place.keys.join("pending")).expect("reads");
    files
        .filter_map(|file| super::super::command::number_in(&fs::read(file.expect("reads").path()).expect("reads")))
        .collect()
}

fn erase(keys: &KeyStore, at: RecordingPath) {
    commit(keys, vec![Change::EraseRecording { at, parts: Parts::BOTH }]).expect("erases");
}

#[test]
fn a_second_start_finds_everything_again() {
    let place = new_place();
    let keys = open(&place).expect("opens");
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let paths: Vec<_> = (0..300).map(|_| add_recording(&keys, tenant, subscriber)).collect();
    erase(&keys, paths[7]);
    assert_eq!(waiting(&place).len(), 1);
    drop(keys);
    assert!(waiting(&place).is_empty(), "a clean close flushes");
    let keys = open(&place).expect("opens");
    assert_eq!((keys.find_tenant("acme"), keys.find_subscriber(tenant, "ada")), (Some(tenant), Some(subscriber)));
    for (number, at) in paths.iter().enumerate() {
        assert_eq!(keys.audio_leaf(*at).expect("reads").is_some(), number != 7);
    }
    assert_eq!((keys.generation(), keys.subscriber_count(tenant)), (2, 1));
    assert_eq!(keys.facts_leaves(tenant, subscriber, None, 1000).expect("reads").len(), 299);
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let place = new_place();
    let keys = open(&place).expect("opens");
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let (gone, kept) = (add_recording(&keys, tenant, subscriber), add_recording(&keys, tenant, subscriber));
    erase(&keys, gone);
    let keys = open(&image(&place)).expect("opens");
    assert!(keys.audio_leaf(gone).expect("reads").is_none() && keys.audio_leaf(kept).expect("reads").is_some());
}

#[test]
fn a_long_log_that_a_killed_process_left_is_no_loss_and_becomes_tables_at_the_start() {
    let place = new_place();
    let keys = open(&place).expect("opens");
    let tenant = add_tenant(&keys, "acme");
    let Holder { row, secret } = keys.tenant(tenant).expect("reads").expect("lives");
    let kind = Kind::TenantSettings;
    for number in 0..66_u8 {
        let name = ValueName { row, kind, suffix: vec![number] };
        let envelope = seal(kind, &secret, &name.to_bytes(), &vec![number; 1 << 20]);
        commit(&keys, vec![Change::PutValue { owner: Owner::Tenant(tenant), name, envelope }]).expect("puts");
    }
    let killed = image(&place);
    let logged = |place: &Place| logs(place).iter().map(|log| fs::metadata(log).expect("reads").len()).sum::<u64>();
    assert!(logged(&killed) > 64 << 20, "none of it is in a table yet");
    let keys = open(&killed).expect("opens");
    assert!(logged(&killed) < 1 << 20);
    let values = keys.values(row, kind).expect("reads");
    assert_eq!(values.len(), 66);
    for (suffix, envelope) in values {
        let opened = Envelope::parse(&envelope).expect("an envelope").open(&secret).expect("opens");
        assert!(opened.len() == 1 << 20 && opened.iter().all(|byte| *byte == suffix[0]));
    }
}

#[test]
fn a_torn_tail_is_filled_from_the_file() {
    let place = new_place();
    let keys = open(&place).expect("opens");
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let (gone, kept) = (add_recording(&keys, tenant, subscriber), add_recording(&keys, tenant, subscriber));
    erase(&keys, gone);
    let copy = image(&place);
    let log = newest_log(&copy);
    let bytes = fs::read(&log).expect("reads");
    fs::write(&log, &bytes[..bytes.len() - 20]).expect("tears");
    let keys = open(&copy).expect("opens");
    assert!(keys.audio_leaf(gone).expect("reads").is_none() && keys.audio_leaf(kept).expect("reads").is_some());
    assert!(waiting(&copy).is_empty());
}

#[test]
fn a_bad_record_before_good_ones_is_refused() {
    let place = new_place();
    let keys = open(&place).expect("opens");
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    for _ in 0..20 {
        add_recording(&keys, tenant, subscriber);
    }
    let copy = image(&place);
    let log = newest_log(&copy);
    let mut bytes = fs::read(&log).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&log, &bytes).expect("damages");
    assert!(open(&copy).is_err(), "records behind a bad one were dropped in silence");
}

#[test]
fn a_flush_whose_records_are_torn_inside_is_as_if_it_had_not_been() {
    let place = new_place();
    let keys = open(&place).expect("opens");
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let (gone, kept) = (add_recording(&keys, tenant, subscriber), add_recording(&keys, tenant, subscriber));
    erase(&keys, gone);
    // What the log holds before a flush, and a manifest that has gone on behind it.
    let copy = image(&place);
    drop(keys);
    let manifest = |place: &Place| {
        let current = fs::read_to_string(place.keys.join("db/CURRENT")).expect("reads");
        place.keys.join("db").join(current.trim_end())
    };
    let (before, mut after) = (fs::read(manifest(&copy)).expect("reads"), fs::read(manifest(&place)).expect("reads"));
    assert!(after.len() > before.len() + 50 && after.starts_with(&before), "several records");
    after[before.len() + 8] ^= 1;
    fs::write(manifest(&copy), &after).expect("tears");
    let keys = open(&copy).expect("opens");
    assert!(keys.audio_leaf(gone).expect("reads").is_none() && keys.audio_leaf(kept).expect("reads").is_some());
    // Where the log is gone that the lost records spoke of, it was no tear.
    let damaged = new_place();
    copy_folder(&place.keys, &damaged.keys);
    copy_folder(place.slot.parent().expect("it has one"), damaged.slot.parent().expect("it has one"));
    fs::write(manifest(&damaged), &after).expect("damages");
    assert!(open(&damaged).is_err(), "tables or logs are missing, and nobody said so");
}

#[test]
fn a_log_that_is_lost_with_a_rotation_in_it_is_refused() {
    let place = new_place();
    let keys = open(&place).expect("opens");
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let at = add_recording(&keys, tenant, subscriber);
    erase(&keys, at);
    let copy = image(&place);
    fs::remove_file(newest_log(&copy)).expect("removes");
    assert!(matches!(open(&copy), Err(OpenError::Gap { .. } | OpenError::ForeignRoot)));
}

#[test]
fn a_slot_without_store_creates_nothing() {
    let place = new_place();
    drop(open(&place).expect("opens"));
    fs::remove_dir_all(&place.keys).expect("removes");
    assert!(matches!(open(&place), Err(OpenError::StoreIsMissing)));
    assert!(!place.keys.exists());
}

#[test]
fn files_of_rotations_do_not_pile_up() {
    let place = new_place();
    let keys = open(&place).expect("opens");
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    // They are let go of when their flush is done, on a thread of its own; those that follow lie where they did.
    let until = Instant::now() + Duration::from_secs(60);
    let mut rotations = 0;
    while pending(&place) == rotations {
        assert!(Instant::now() < until, "none was let go of");
        let at = add_recording(&keys, tenant, subscriber);
        erase(&keys, at);
        rotations += 1;
    }
    let files = pending(&place);
    drop(keys);
    assert_eq!((waiting(&place).len(), pending(&place)), (0, files));
    let keys = open(&place).expect("opens");
    let at = add_recording(&keys, tenant, subscriber);
    erase(&keys, at);
    assert_eq!((waiting(&place).len(), pending(&place)), (1, files));
}

#[test]
fn no_name_reaches_the_disk() {
    let place = new_place();
    let keys = open(&place).expect("opens");
    let tenant = add_tenant(&keys, "a tenant's rather long name");
    add_subscriber(&keys, tenant, "+44 20 7946 0958 of somebody");
    drop(keys);
    let mut folders = vec![place.keys.clone(), place.slot.parent().expect("it has one").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("reads") {
            let path = entry.expect("reads").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).expect("reads");
                for secret in [&b"rather long"[..], b"7946 0958"] {
                    assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
                }
            }
        }
    }
}
