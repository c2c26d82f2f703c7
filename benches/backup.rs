//! The backup of the key store: what is lost with a node at most (the recovery point), how long another one takes to go on
//! (the recovery time), and what an erasure waits for.
//!
//! A million recordings of 1,000 subscribers (`cargo bench --bench backup -- --full`: ten million), in a store whose backup
//! goes to two buckets of a real S3 server over TLS: `s3s-fs`, in this process, on this disk, at no distance and without a
//! sync of its own. What a real region adds is its distance: once for a put, once for each object of a restore.
//!
//! *Recovery point*: a create is durable here first; from then until the backup has it, it dies with the node. Measured is that
//! span, of creates that come one at a time. *Erase*: the floor is what a rotation syncs (slot twice, its file and the file's folder, one batch) and one put of as
//! many bytes to both buckets. *Recovery time*: from an empty folder to a store that answers; the floor gets the same objects
//! and writes their bytes to one file that is synced.

mod common;

use common::{Row, recording, seconds};
use quietus::{
    crypto::{random, secret::Secret},
    domain::{
        id::{RowId, SubscriberHandle, TenantHandle},
        time::Clock,
    },
    keys::{
        Change, Committed, FileSlot, KeyStore, Mutation, Parts, RecordingPath, Settings, Slots,
        backup::{Archive, Backup, Options, restore},
    },
    object::embedded::{Certificate, Embedded},
    server::{archive::Buckets, dev_files::DevFiles},
};
use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    time::Instant,
};
use tokio::runtime::Runtime;

const REGIONS: [&str; 2] = ["eu-west-2", "eu-west-1"];
const SUBSCRIBERS: usize = 1_000;
const RECORDINGS: usize = 1_000_000;
const FULL_RECORDINGS: usize = 10_000_000;
/// Recordings created by one command while preparing.
const PREPARED: usize = 10_000;
const CREATES: usize = 50;
const ERASES: usize = 15;
const SECTOR: usize = 4096;

fn main() {
    let full = std::env::args().any(|argument| argument == "--full");
    let recordings = if full { FULL_RECORDINGS } else { RECORDINGS };
    let runtime = Runtime::new().expect("a runtime");
    let dir = common::folder();
    let files = dir.path().join("files");
    std::fs::create_dir(&files).expect("a folder");
    let files = DevFiles::prepare(&files).expect("certificates");
    let ca = files.tls.client_ca.clone().expect("an authority");
    let certificate = Certificate { chain_pem: &files.tls.certificate, key_pem: &files.tls.key, ca_pem: &ca };
    let storage = runtime.block_on(Embedded::start(&dir.path().join("s3"), &REGIONS, certificate)).expect("storage");

    let mut rows = Vec::new();
    let store = dir.path().join("keys");
    let house = House::fill(&runtime, &store, &dir.path().join("slot"), &storage, recordings);
    common::wait_until_the_disk_is_quiet();
    house.recovery_point(&runtime, &mut rows);
    house.erasures(&runtime, &storage, dir.path(), &mut rows);
    assert!(house.keys.tend_backup());
    let witness = house.scattered[0];
    drop(house);
    recovery_time(&store, &dir.path().join("slot"), &storage, witness, &mut rows);
    let suffix = if full { " -- --full" } else { "" };
    common::print(&format!("Backup, {recordings} recordings: `cargo bench --bench backup{suffix}`"), &rows);
}

struct House {
    keys: KeyStore,
    tenant: TenantHandle,
    subscriber: SubscriberHandle,
    /// In random order.
    scattered: Vec<RecordingPath>,
}

fn slots(slot: &Path) -> Slots {
    Slots::one(Box::new(FileSlot::open(slot).expect("a slot")))
}

fn connect(storage: &Embedded) -> Buckets {
    Buckets::connect(storage.region_configs()).expect("buckets")
}

fn backup(storage: &Embedded) -> Backup {
    let archive = Box::new(connect(storage));
    Backup { archive, clock: Clock::system(), options: Options::default() }
}

impl House {
    fn fill(runtime: &Runtime, dir: &Path, slot: &Path, storage: &Embedded, recordings: usize) -> Self {
        let keys = KeyStore::open_with(dir, slots(slot), Some(backup(storage)), Settings::default()).expect("opens");
        let tenant = TenantHandle(random());
        let subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| SubscriberHandle(random())).collect();
        let name = |handle: [u8; 8]| data_encoding::HEXLOWER.encode(&handle);
        let (row, secret) = (RowId(random()), Secret::random());
        commit(runtime, &keys, vec![Change::AddTenant { tenant, row, secret, name: name(tenant.0) }]);
        let new = subscribers.iter().map(|subscriber| {
            let (subscriber, row, secret) = (*subscriber, RowId(random()), Secret::random());
            Change::AddSubscriber { tenant, subscriber, row, secret, name: name(subscriber.0) }
        });
        commit(runtime, &keys, new.collect());
        let (mut scattered, mut last) = (Vec::with_capacity(recordings), 0);
        for first in (0..recordings).step_by(PREPARED) {
            let mut creates = Vec::with_capacity(PREPARED);
            for number in first..recordings.min(first + PREPARED) {
                let (create, at) = recording(tenant, subscribers[number % SUBSCRIBERS]);
                creates.push(create);
                scattered.push(at);
            }
            last = commit(runtime, &keys, creates);
        }
        assert!(runtime.block_on(keys.backed_up(last)));
        scattered.sort_by_cached_key(|_| random::<8>());
        Self { keys, tenant, subscriber: subscribers[0], scattered }
    }

    fn recovery_point(&self, runtime: &Runtime, rows: &mut Vec<Row>) {
        let span = |_| {
            let number = commit(runtime, &self.keys, vec![recording(self.tenant, self.subscriber).0]);
            1e3 * seconds(|| assert!(runtime.block_on(self.keys.backed_up(number))))
        };
        let spans: Vec<f64> = (0..CREATES).map(span).collect();
        let longest = spans.iter().copied().fold(0.0, f64::max);
        rows.push(Row::alone("from durable here to durable in the backup, a create", "ms", "", spans));
        rows.push(Row::alone("… the longest: the recovery point", "ms", "", vec![longest]));
    }

    fn erasures(&self, runtime: &Runtime, storage: &Embedded, dir: &Path, rows: &mut Vec<Row>) {
        let mut floor = Floor::open(dir, storage);
        let mut pairs = Vec::new();
        for at in self.scattered.iter().rev().take(ERASES).copied() {
            let erase = Change::EraseRecording { at, parts: Parts::BOTH };
            let ours = 1e3 * seconds(|| assert!(committed(runtime, &self.keys, vec![erase]).destroyed));
            pairs.push((ours, 1e3 * floor.measure(newest_file(&dir.join("keys/pending")))));
        }
        rows.push(Row::new("erase a recording / its syncs and one put to both buckets", "ms", "≤ 2", pairs));
    }
}

/// From an empty folder to a store that answers.
fn recovery_time(store: &Path, slot: &Path, storage: &Embedded, witness: RecordingPath, rows: &mut Vec<Row>) {
    std::fs::remove_dir_all(store).expect("the node is lost");
    let mut archive = connect(storage);
    let began = Instant::now();
    let read = restore::restore(store, &mut slots(slot), &mut archive, &mut |_| {}).expect("restores").read;
    let restored = began.elapsed().as_secs_f64();
    let mut keys = None;
    let start = seconds(|| {
        let opened = KeyStore::open_with(store, slots(slot), Some(backup(storage)), Settings::default());
        let opened = opened.expect("opens");
        assert!(opened.audio_leaf(witness).expect("reads").is_some_and(|leaf| leaf.audio.is_some()));
        keys = Some(opened);
    });
    drop(keys);
    let bare = seconds(|| {
        let mut archive = connect(storage);
        let mut file = File::create(store.with_extension("bare")).expect("a file");
        for name in archive.list(quietus::keys::backup::name::PREFIX, "").expect("lists") {
            file.write_all(&archive.get(&name).expect("gets")).expect("writes");
        }
        file.sync_all().expect("syncs");
    });
    let mib = read.bytes as f64 / f64::from(1 << 20);
    rows.push(Row::alone(format!("a restore reads {} objects", read.objects), "MiB", "", vec![mib]));
    rows.push(Row::new("restore / get all objects and write them to a file", "s", "", vec![(restored, bare)]));
    rows.push(Row::alone("the start behind it, to the first secret", "s", "", vec![start]));
    rows.push(Row::alone("recovery time: both", "s", "", vec![restored + start]));
}

/// What an erasure syncs and puts, and nothing else.
struct Floor {
    slot: File,
    folder: File,
    log: File,
    dir: tempfile::TempDir,
    archive: Buckets,
    number: usize,
}

impl Floor {
    fn open(dir: &Path, storage: &Embedded) -> Self {
        let dir = tempfile::tempdir_in(dir).expect("a folder");
        let new = |name| OpenOptions::new().write(true).create_new(true).open(dir.path().join(name)).expect("a file");
        let (slot, log) = (new("slot"), new("log"));
        slot.write_all_at(&[0; 3 * SECTOR], 0).and_then(|()| slot.sync_all()).expect("writes");
        let folder = File::open(dir.path()).expect("the folder");
        let archive = connect(storage);
        Self { slot, folder, log, dir, archive, number: 0 }
    }

    /// Seconds.
    fn measure(&mut self, bytes: u64) -> f64 {
        self.number += 1;
        let batch = vec![0xa5; bytes as usize];
        let path = self.dir.path().join(format!("pending-{}", self.number));
        seconds(|| {
            self.sector(1);
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path).expect("a file");
            file.write_all(&batch).and_then(|()| file.sync_data()).expect("writes");
            self.folder.sync_all().expect("syncs");
            self.log.write_all(&batch).and_then(|()| self.log.sync_data()).expect("writes");
            self.archive.put(&format!("bare-{}", self.number), batch).expect("puts");
            self.sector(0);
        })
    }

    fn sector(&self, number: usize) {
        let written = self.slot.write_all_at(&[1; SECTOR], (number * SECTOR) as u64);
        written.and_then(|()| self.slot.sync_data()).expect("writes");
    }
}

/// Bytes of the newest rotation's file: what its batch and its delta held.
fn newest_file(pending: &Path) -> u64 {
    let files = std::fs::read_dir(pending).expect("a folder").filter_map(Result::ok);
    let newest = files.max_by_key(std::fs::DirEntry::file_name).expect("a rotation's file");
    newest.metadata().expect("is there").len()
}

fn committed(runtime: &Runtime, keys: &KeyStore, changes: Vec<Change>) -> Committed {
    runtime.block_on(keys.commit(Mutation::new(changes))).expect("commits")
}

/// The number of the command.
fn commit(runtime: &Runtime, keys: &KeyStore, changes: Vec<Change>) -> u64 {
    committed(runtime, keys, changes).number
}
