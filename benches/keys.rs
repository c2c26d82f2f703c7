//! The key store against the syncs that it cannot do without.
//!
//! *Erasing a subscriber* with 1, 1 000 and 100 000 recordings (a million with `-- --full`). The floor is what a crash-safe
//! rotation syncs, with as many bytes as ours wrote: the slot's two syncs and one synced RocksDB batch. A second line counts the
//! sync of the rotation's file (the commit point) to the floor as well. The store has rotated before, as all but the youngest
//! have: its files are there to be written over.
//!
//! *Creating recordings*, by 1, 64 and 512 senders at a time, each create an entry and two sealed values. The floor is
//! RocksDB with one synced batch of rows of the same number and sizes per create, by as many threads, which RocksDB puts
//! together into groups just as our writer does; it seals nothing and keeps no tree.

mod common;

use common::{Row, by_turns, seconds};
use quietus::{
    crypto::{envelope, random, secret::Secret},
    domain::id::{ObjectId, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
    keys::{Change, FileSlot, Keeping, KeyStore, Mutation, Owner, RecordingPath, ValueName},
};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
};
use tokio::runtime::Runtime;

const ERASE_ROUNDS: usize = 7;
const SIZES: [usize; 3] = [100_000, 1_000, 1];
const FULL_SIZES: [usize; 3] = [1_000_000, 1_000, 1];
/// Subscribers who stay: the path to the top has the pages of a real tenant.
const BYSTANDERS: usize = 1_000;
/// Recordings created by one command while preparing.
const PREPARED: usize = 10_000;
const CREATE_ROUNDS: usize = 5;
/// Creates of one round, for each sender count.
const CREATES: [(usize, usize); 3] = [(1, 500), (64, 16_384), (512, 32_768)];
/// An appended entry: two secrets, ids, an object id, and its envelope.
const ENTRY_ROW: usize = 207;
/// What is known about a call, sealed.
const VALUE: usize = 200;
const SECTOR: usize = 4096;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let full = std::env::args().any(|argument| argument == "--full");
    let mut rows = erasures(&runtime, if full { FULL_SIZES } else { SIZES });
    rows.extend(creates(&runtime));
    common::print(&format!("Keys: `cargo bench --bench keys{}`", if full { " -- --full" } else { "" }), &rows);
}

fn open(dir: &Path) -> KeyStore {
    let slot = FileSlot::open(&dir.join("slot")).expect("a slot");
    KeyStore::open(&dir.join("keys"), Box::new(slot)).expect("a store")
}

struct Store {
    keys: KeyStore,
    tenant: TenantHandle,
    dir: tempfile::TempDir,
}

impl Store {
    fn open(runtime: &Runtime) -> Self {
        let dir = common::folder();
        let keys = open(dir.path());
        let tenant = TenantHandle(random());
        let name = "tenant".to_owned();
        commit(
            runtime,
            &keys,
            vec![Change::AddTenant { tenant, row: RowId(random()), secret: Secret::random(), name }],
        );
        Self { keys, tenant, dir }
    }

    /// Flushed, and with nothing in the cache: an erasure also wipes the cached pages of what fell, which is bounded by the
    /// cache and is left out here.
    fn reopened(self) -> Self {
        let Self { keys, tenant, dir } = self;
        drop(keys);
        let keys = open(dir.path());
        Self { keys, tenant, dir }
    }

    /// Makes subscribers with so many recordings each.
    fn subscribers(&self, runtime: &Runtime, count: usize, recordings: usize) -> Vec<SubscriberHandle> {
        let subscribers: Vec<SubscriberHandle> = (0..count).map(|_| SubscriberHandle(random())).collect();
        let tenant = self.tenant;
        let new = subscribers.iter().map(|subscriber| {
            let name = data_encoding::HEXLOWER.encode(&subscriber.0);
            let (subscriber, row, secret) = (*subscriber, RowId(random()), Secret::random());
            Change::AddSubscriber { tenant, subscriber, row, secret, name }
        });
        let theirs = subscribers
            .iter()
            .flat_map(|subscriber| std::iter::repeat_n(*subscriber, recordings))
            .map(|subscriber| recording(tenant, subscriber).0);
        let mut changes = new.chain(theirs).peekable();
        while changes.peek().is_some() {
            commit(runtime, &self.keys, changes.by_ref().take(PREPARED).collect());
        }
        subscribers
    }

    /// Bytes of RocksDB's log.
    fn logged(&self) -> u64 {
        let files = std::fs::read_dir(self.dir.path().join("keys/db")).expect("reads");
        let logs = files.filter_map(Result::ok).filter(|file| file.path().extension().is_some_and(|end| end == "log"));
        logs.filter_map(|log| log.metadata().ok()).map(|log| log.len()).sum()
    }
}

fn recording(tenant: TenantHandle, subscriber: SubscriberHandle) -> (Change, RecordingPath, RowId, Secret, Secret) {
    let at = RecordingPath { tenant, subscriber, recording: RecordingHandle(random()) };
    let (row, audio, facts) = (RowId(random()), Secret::random(), Secret::random());
    let objects = vec![ObjectId(random())];
    let create = Change::AddRecording {
        at,
        row,
        kind: 1,
        audio: audio.duplicate(),
        facts: facts.duplicate(),
        objects,
        keeping: Keeping::default(),
        parent: None,
        parties: Vec::new(),
        wrapped: false,
    };
    (create, at, row, audio, facts)
}

fn commit(runtime: &Runtime, keys: &KeyStore, changes: Vec<Change>) {
    runtime.block_on(keys.commit(Mutation::new(changes))).expect("commits");
}

fn erasures(runtime: &Runtime, sizes: [usize; 3]) -> Vec<Row> {
    let store = Store::open(runtime);
    // The largest first, and one more of each for the round that warms.
    let mut doomed = sizes.map(|size| store.subscribers(runtime, ERASE_ROUNDS + 1, size));
    store.subscribers(runtime, BYSTANDERS, 1);
    for subscriber in store.subscribers(runtime, sizes.len() * (ERASE_ROUNDS + 1), 1) {
        commit(runtime, &store.keys, vec![Change::EraseSubscriber(store.tenant, subscriber)]);
    }
    let store = store.reopened();
    let floor = Floor::open();
    common::wait_until_the_disk_is_quiet();

    let mut bytes = 0;
    let mut pairs = sizes.map(|_| (Vec::new(), Vec::new()));
    for round in 0..=ERASE_ROUNDS {
        for (pairs, doomed) in pairs.iter_mut().zip(&mut doomed) {
            let subscriber = doomed.pop().expect("one for each round");
            let erase = Change::EraseSubscriber(store.tenant, subscriber);
            // The floor around ours, so that a disk that is slow for a moment is slow for both.
            let before = [floor.measure(bytes, false), floor.measure(bytes, true)];
            let logged = store.logged();
            let ours = 1e3 * seconds(|| commit(runtime, &store.keys, vec![erase]));
            // Where the log was begun anew, about as much as the last time.
            bytes = store.logged().checked_sub(logged).unwrap_or(bytes);
            let after = [floor.measure(bytes, false), floor.measure(bytes, true)];
            if round > 0 {
                pairs.0.push((ours, f64::midpoint(before[0], after[0])));
                pairs.1.push((ours, f64::midpoint(before[1], after[1])));
            }
        }
    }
    let flat = pairs[0].0.iter().zip(&pairs[2].0).map(|(most, one)| (most.0, one.0)).collect();
    let rows = pairs.into_iter().zip(sizes).flat_map(|((syncs, with_file), size)| {
        [
            Row::new(format!("erase a subscriber with {size} recordings / slot, batch, slot"), "ms", "≤ 2", syncs),
            Row::new(
                format!("erase a subscriber with {size} recordings / with the rotation's file"),
                "ms",
                "≤ 2",
                with_file,
            ),
        ]
    });
    let flat = Row::new(
        format!("erase with {} recordings / erase with one ({} KiB batch)", sizes[0], bytes / 1024),
        "ms",
        "1",
        flat,
    );
    rows.chain([flat]).collect()
}

/// The syncs of a rotation and nothing else.
struct Floor {
    _dir: tempfile::TempDir,
    db: Rocks,
    slot: File,
    file: File,
}

impl Floor {
    fn open() -> Self {
        let dir = common::folder();
        let slot = OpenOptions::new().write(true).create_new(true).open(dir.path().join("slot")).expect("a file");
        slot.write_all_at(&[0; 3 * SECTOR], 0).and_then(|()| slot.sync_all()).expect("writes");
        let file = File::create_new(dir.path().join("pending")).expect("a file");
        Self { db: Rocks::open(dir.path()), _dir: dir, slot, file }
    }

    /// Milliseconds.
    fn measure(&self, bytes: u64, with_file: bool) -> f64 {
        let batch = vec![0xa5; bytes as usize];
        1e3 * seconds(|| {
            self.sector(1);
            if with_file {
                self.file.write_all_at(&batch, 0).and_then(|()| self.file.sync_data()).expect("writes");
            }
            self.db.write([(random::<16>().to_vec(), batch.as_slice())]);
            self.sector(0);
        })
    }

    fn sector(&self, number: usize) {
        let written = self.slot.write_all_at(&[1; SECTOR], (number * SECTOR) as u64);
        written.and_then(|()| self.slot.sync_data()).expect("writes");
    }
}

fn creates(runtime: &Runtime) -> Vec<Row> {
    let store = Store::open(runtime);
    let subscribers = store.subscribers(runtime, BYSTANDERS, 10);
    common::wait_until_the_disk_is_quiet();
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
                keys.commit(Mutation::new(vec![create, facts, audio])).await.expect("commits");
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
        options.set_write_buffer_size(64 << 20);
        options.set_max_write_buffer_number(6);
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
