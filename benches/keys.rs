//! The key store against the syncs that it cannot do without.
//!
//! *Erasing a subscriber* with 1, 1 000 and 100 000 recordings. The floor is what a crash-safe rotation syncs, with as many
//! bytes as ours wrote: the slot's two syncs and one synced RocksDB batch. A second line counts the syncs of the rotation's
//! file (the commit point: the file and its folder) to the floor as well.
//!
//! *Creating recordings*, by 1, 64 and 512 senders at a time, each create an entry and two sealed values. The floor is
//! RocksDB with one synced batch of rows of the same number and sizes per create, by as many threads, which RocksDB puts
//! together into groups just as our writer does; it seals nothing and keeps no tree.

mod common;

use common::{Row, by_turns, seconds};
use quietus::{
    crypto::{envelope, random, secret::Secret},
    domain::id::{ObjectId, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
    keys::{Change, FileSlot, KeyStore, Mutation, Owner, RecordingPath, ValueName},
};
use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
};
use tokio::runtime::Runtime;

const ERASE_ROUNDS: usize = 9;
const SIZES: [usize; 3] = [1, 1_000, 100_000];
/// Subscribers who stay: the path to the top has the pages of a real tenant.
const BYSTANDERS: usize = 1_000;
/// Recordings created by one command while preparing.
const PREPARED: usize = 10_000;
const CREATE_ROUNDS: usize = 5;
/// Creates of one round, for each sender count.
const CREATES: [(usize, usize); 3] = [(1, 500), (64, 16_384), (512, 32_768)];
/// An appended entry: two wrapped secrets, ids, an object id, and its envelope.
const ENTRY_ROW: usize = 250;
/// What is known about a call, sealed.
const VALUE: usize = 200;
const SECTOR: usize = 4096;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let mut rows = erasures(&runtime);
    rows.extend(creates(&runtime));
    common::print("Keys: `cargo bench --bench keys`", &rows);
}

struct Store {
    keys: KeyStore,
    tenant: TenantHandle,
    dir: tempfile::TempDir,
}

impl Store {
    fn open(runtime: &Runtime) -> Self {
        let dir = common::folder();
        let slot = FileSlot::open(&dir.path().join("slot")).expect("a slot");
        let keys = KeyStore::open(&dir.path().join("keys"), Box::new(slot)).expect("a store");
        let tenant = TenantHandle(random());
        let name = "tenant".to_owned();
        commit(
            runtime,
            &keys,
            vec![Change::AddTenant { tenant, row: RowId(random()), secret: Secret::random(), name }],
        );
        Self { keys, tenant, dir }
    }

    fn subscriber(&self, runtime: &Runtime, recordings: usize) -> SubscriberHandle {
        let subscriber = SubscriberHandle(random());
        let name = format!("{:032x}", u128::from_be_bytes(random()));
        let (tenant, row, secret) = (self.tenant, RowId(random()), Secret::random());
        commit(runtime, &self.keys, vec![Change::AddSubscriber { tenant, subscriber, row, secret, name }]);
        let mut left = recordings;
        while left > 0 {
            let now = left.min(PREPARED);
            commit(runtime, &self.keys, (0..now).map(|_| recording(tenant, subscriber).0).collect());
            left -= now;
        }
        subscriber
    }

    /// Bytes of the newest rotation's file: what its batch held.
    fn rotation_bytes(&self) -> Option<u64> {
        let files = std::fs::read_dir(self.dir.path().join("keys/pending")).ok()?;
        let newest = files.filter_map(Result::ok).max_by_key(std::fs::DirEntry::file_name)?;
        Some(newest.metadata().ok()?.len())
    }
}

fn recording(tenant: TenantHandle, subscriber: SubscriberHandle) -> (Change, RecordingPath, RowId, Secret, Secret) {
    let at = RecordingPath { tenant, subscriber, recording: RecordingHandle(random()) };
    let (row, audio, facts) = (RowId(random()), Secret::random(), Secret::random());
    let objects = vec![ObjectId(random())];
    let create = Change::AddRecording { at, row, kind: 1, audio: audio.duplicate(), facts: facts.duplicate(), objects };
    (create, at, row, audio, facts)
}

fn commit(runtime: &Runtime, keys: &KeyStore, changes: Vec<Change>) {
    runtime.block_on(keys.commit(Mutation { changes })).expect("commits");
}

fn erasures(runtime: &Runtime) -> Vec<Row> {
    let store = Store::open(runtime);
    for _ in 0..BYSTANDERS {
        store.subscriber(runtime, 1);
    }
    let floor = Floor::open();
    let mut rows = Vec::new();
    for size in SIZES {
        // One more for the round that warms.
        let mut doomed: Vec<SubscriberHandle> = (0..=ERASE_ROUNDS).map(|_| store.subscriber(runtime, size)).collect();
        let bytes = Cell::new(0);
        let mut with_file = Vec::new();
        let mut round = || {
            let subscriber = doomed.pop().expect("one for each round");
            let tenant = store.tenant;
            let ours = seconds(|| commit(runtime, &store.keys, vec![Change::EraseSubscriber(tenant, subscriber)]));
            bytes.set(store.rotation_bytes().unwrap_or(bytes.get()));
            ours * 1e3
        };
        round();
        let mut pairs = Vec::new();
        for _ in 0..ERASE_ROUNDS {
            // Around ours, so that a disk that is slow for a moment is slow for both.
            let before = floor.measure(bytes.get(), false);
            let before_with_file = floor.measure(bytes.get(), true);
            let ours = round();
            let after_with_file = floor.measure(bytes.get(), true);
            let after = floor.measure(bytes.get(), false);
            pairs.push((ours, f64::midpoint(before, after)));
            with_file.push((ours, f64::midpoint(before_with_file, after_with_file)));
        }
        let what = format!("erase a subscriber with {size} recordings ({} KiB batch)", bytes.get().div_ceil(1024));
        rows.push(Row::new(format!("{what}: slot, RocksDB, slot"), "ms", "≤ 2", pairs));
        rows.push(Row::new(format!("{what}: and the rotation's file"), "ms", "≤ 2", with_file));
    }
    rows
}

/// The syncs of a rotation and nothing else.
struct Floor {
    dir: tempfile::TempDir,
    db: Rocks,
    slot: File,
    folder: File,
}

impl Floor {
    fn open() -> Self {
        let dir = common::folder();
        let slot = OpenOptions::new().write(true).create_new(true).open(dir.path().join("slot")).expect("a file");
        slot.write_all_at(&[0; 3 * SECTOR], 0).and_then(|()| slot.sync_all()).expect("writes");
        let folder = File::open(dir.path()).expect("the folder");
        Self { db: Rocks::open(dir.path()), dir, slot, folder }
    }

    /// Milliseconds.
    fn measure(&self, bytes: u64, with_file: bool) -> f64 {
        let batch = vec![0xa5; bytes as usize];
        let path = self.dir.path().join("pending");
        let taken = seconds(|| {
            self.sector(1);
            if with_file {
                let mut file = OpenOptions::new().write(true).create_new(true).open(&path).expect("a file");
                file.write_all(&batch).and_then(|()| file.sync_data()).expect("writes");
                self.folder.sync_all().expect("syncs");
            }
            self.db.write([(random::<16>().to_vec(), batch.as_slice())]);
            self.sector(0);
        });
        if with_file {
            std::fs::remove_file(&path).expect("removes");
        }
        taken * 1e3
    }

    fn sector(&self, number: usize) {
        let written = self.slot.write_all_at(&[1; SECTOR], (number * SECTOR) as u64);
        written.and_then(|()| self.slot.sync_data()).expect("writes");
    }
}

fn creates(runtime: &Runtime) -> Vec<Row> {
    let store = Store::open(runtime);
    let subscribers: Vec<SubscriberHandle> = (0..BYSTANDERS).map(|_| store.subscriber(runtime, 10)).collect();
    let dir = common::folder();
    let rocks = Rocks::open(dir.path());
    CREATES
        .into_iter()
        .map(|(senders, creates)| {
            let each = creates / senders;
            let ours = || {
                let taken = seconds(|| runtime.block_on(create_by(&store, &subscribers, senders, each)));
                creates as f64 / taken
            };
            let floor = || {
                let taken = seconds(|| {
                    std::thread::scope(|scope| {
                        for _ in 0..senders {
                            scope.spawn(|| (0..each).for_each(|_| rocks.create()));
                        }
                    });
                });
                creates as f64 / taken
            };
            let what = format!("create recordings, {senders} at a time");
            Row::new(what, "1/s", "", by_turns(CREATE_ROUNDS, ours, floor))
        })
        .collect()
}

async fn create_by(store: &Store, subscribers: &[SubscriberHandle], senders: usize, each: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for sender in 0..senders {
        let (keys, tenant) = (store.keys.clone(), store.tenant);
        let mine: Vec<SubscriberHandle> =
            (0..each).map(|n| subscribers[(sender + n * senders) % subscribers.len()]).collect();
        tasks.spawn(async move {
            for subscriber in mine {
                let (create, at, row, audio, facts) = recording(tenant, subscriber);
                let value = |owner, kind, secret: &Secret| {
                    let name = ValueName { row, kind, suffix: Vec::new() };
                    let envelope = envelope::seal(kind, secret, &name.to_bytes(), &[0; VALUE]);
                    Change::PutValue { owner, name, envelope }
                };
                let facts = value(Owner::Facts(at), envelope::Kind::Facts, &facts);
                let audio = value(Owner::Audio(at), envelope::Kind::Audio, &audio);
                keys.commit(Mutation { changes: vec![create, facts, audio] }).await.expect("commits");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a sender");
    }
}

/// Bare RocksDB, synced, uncompressed.
struct Rocks {
    db: rocksdb::DB,
    synced: rocksdb::WriteOptions,
}

impl Rocks {
    fn open(dir: &Path) -> Self {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        options.set_write_buffer_size(32 << 20);
        let mut synced = rocksdb::WriteOptions::default();
        synced.set_sync(true);
        Self { db: rocksdb::DB::open(&options, dir.join("db")).expect("opens"), synced }
    }

    fn write<'a>(&self, rows: impl IntoIterator<Item = (Vec<u8>, &'a [u8])>) {
        let mut batch = rocksdb::WriteBatch::default();
        for (key, value) in rows {
            batch.put(key, value);
        }
        self.db.write_opt(batch, &self.synced).expect("writes");
    }

    fn create(&self) {
        let (entry, value) = ([0xa5; ENTRY_ROW], [0xa5; VALUE + 100]);
        let key = || random::<17>().to_vec();
        self.write([(key(), &entry[..]), (key(), &value[..]), (key(), &value[..])]);
    }
}
