//! The key store by size: what a recording takes, and what opening, erasing, expiring, sweeping and starting cost when there
//! are many.
//!
//! By default a million recordings of 10,000 subscribers in 100 tenants; `cargo bench --bench scale -- --full` makes ten
//! million of 100,000. Recordings arrive as calls do, a few for each subscriber at a time, so pages have been appended to,
//! rewritten and split as they would be. One subscriber has a tenth of all recordings and one tenant more has as many
//! subscribers as all others together, with a recording each: they are there to be erased. The values of recordings (facts,
//! slice lists) and the audit log are left out; a create of the product has them, and `keys` and `ingest` measure it.
//!
//! A recording says of its keeping what an ordinary one says once its call has ended. Bytes are those of the rows (key and
//! value) as they are in each column family when all is flushed; the second figure is what RocksDB's tables take on the disk,
//! with the versions that it has not compacted away. Expiry takes what is due in the runner's order and at its pace, looks
//! ahead as it does, and has a create beside it, again and again: the slowest of them is the figure, and beside it stands what
//! the disk alone made a write of that length wait.

mod common;

use common::{Row, recording, seconds};
use quietus::{
    crypto::{random, secret::Secret},
    domain::{
        id::{RowId, SubscriberHandle, TenantHandle},
        time::Minute,
    },
    keys::{Change, FileSlot, Keeping, KeyStore, Mutation, Pace, Parts, PassedOver, RecordingPath},
};
use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// Recordings, subscribers and scattered expiries.
struct Size {
    recordings: usize,
    subscribers: usize,
    expiries: usize,
}

const SMALL: Size = Size { recordings: 1_000_000, subscribers: 10_000, expiries: 10_000 };
const FULL: Size = Size { recordings: 10_000_000, subscribers: 100_000, expiries: 100_000 };
const TENANTS: usize = 100;
/// Recordings that a subscriber gets at a time.
const AT_A_TIME: usize = 5;
/// Changes of one command while preparing.
const PREPARED: usize = 10_000;
/// What the runner takes up at one time.
const ROUND: usize = 1024;
/// When what is to expire is due.
const DUE: Minute = Minute(1);
const OPENS: usize = 20_000;
/// As many as the cache holds whole, and how often each is opened again.
const WARM_OPENS: usize = 200;
const WARM_ROUNDS: usize = 50;
const ERASES: usize = 21;
/// Bytes of a bare write beside expiries: as long as a create's.
const A_RECORDING: usize = 300;
/// Time between two of them.
const BETWEEN: Duration = Duration::from_millis(5);
/// How long is swept.
const SWEEPS: Duration = Duration::from_secs(10);

fn main() {
    let size = if std::env::args().any(|argument| argument == "--full") { FULL } else { SMALL };
    let runtime = Runtime::new().expect("a runtime");
    let dir = common::folder();
    let mut rows = Vec::new();
    let mut house = House::fill(&runtime, dir.path(), &size, &mut rows).reopened(dir.path(), &mut rows);
    common::wait_until_the_disk_is_quiet();
    house.open_latency(&mut rows);
    house.erase_latency(&runtime, &mut rows);
    house.expire(&runtime, size.expiries, &mut rows);
    house.sweep(&runtime, &mut rows);
    let title = format!(
        "Scale, {} recordings of {} subscribers: `cargo bench --bench scale{}`",
        size.recordings,
        size.subscribers,
        if size.recordings == FULL.recordings { " -- --full" } else { "" }
    );
    common::print(&title, &rows);
}

struct House {
    keys: KeyStore,
    /// Those that stay until they are erased one by one or expire, in random order.
    scattered: Vec<RecordingPath>,
    heavy: (TenantHandle, SubscriberHandle),
    wide: TenantHandle,
    /// Of all, those of the wide tenant included.
    recordings: usize,
}

fn open(dir: &Path) -> KeyStore {
    let slot = FileSlot::open(&dir.join("slot")).expect("a slot");
    KeyStore::open(&dir.join("keys"), Box::new(slot)).expect("a store")
}

impl House {
    fn fill(runtime: &Runtime, dir: &Path, size: &Size, rows: &mut Vec<Row>) -> Self {
        let keys = open(dir);
        let tenants: Vec<TenantHandle> = (0..TENANTS).map(|_| TenantHandle(random())).collect();
        let wide = TenantHandle(random());
        let new = tenants.iter().chain([&wide]).map(|tenant| add_tenant(*tenant)).collect();
        commit(runtime, &keys, new);
        let at_home = |number: usize| (tenants[number % TENANTS], SubscriberHandle(random()));
        let homes: Vec<_> = (0..size.subscribers).map(at_home).collect();
        let in_wide: Vec<_> = (0..size.subscribers).map(|_| (wide, SubscriberHandle(random()))).collect();
        let new = homes.iter().chain(&in_wide).map(|(tenant, subscriber)| add_subscriber(*tenant, *subscriber));
        in_commands(runtime, &keys, new);
        let heavy = homes[0];

        let each = size.recordings * 9 / 10 / size.subscribers;
        let rounds = each.div_ceil(AT_A_TIME);
        let mut scattered = Vec::with_capacity(rounds * AT_A_TIME * size.subscribers);
        let taken = seconds(|| {
            for _ in 0..rounds {
                let mut calls = Vec::new();
                for (tenant, subscriber) in &homes {
                    for _ in 0..AT_A_TIME {
                        let (create, at) = recording(*tenant, *subscriber);
                        calls.push(create);
                        scattered.push(at);
                    }
                }
                in_commands(runtime, &keys, calls);
            }
            in_commands(runtime, &keys, (0..size.recordings / 10).map(|_| recording(heavy.0, heavy.1).0));
        });
        let made = scattered.len() + size.recordings / 10;
        rows.push(Row::alone("prepare: recordings created, 10 000 in a command", "1/s", "", vec![made as f64 / taken]));
        in_commands(runtime, &keys, in_wide.iter().map(|(tenant, subscriber)| recording(*tenant, *subscriber).0));
        scattered.retain(|at| at.subscriber != heavy.1);
        // By nothing that orders pages: the lowest handles of everybody would share the first page of each.
        scattered.sort_by_cached_key(|_| random::<8>());
        Self { keys, scattered, heavy, wide, recordings: made + in_wide.len() }
    }

    /// Closed and opened anew, so that nothing is in a cache of ours; what is on the disk is looked at between.
    fn reopened(self, dir: &Path, rows: &mut Vec<Row>) -> Self {
        let Self { keys, scattered, heavy, wide, recordings } = self;
        drop(keys);
        rows.extend(bytes(&dir.join("keys/db"), recordings));
        let began = Instant::now();
        let keys = open(dir);
        let what = format!("start with {recordings} recordings");
        rows.push(Row::alone(what, "s", "≤ 5", vec![began.elapsed().as_secs_f64()]));
        rows.push(Row::alone("memory after the start (resident)", "MiB", "", vec![resident_mib()]));
        Self { keys, scattered, heavy, wide, recordings }
    }

    /// Of recordings at random, whose pages no cache of ours holds, and of the same again.
    fn open_latency(&self, rows: &mut Vec<Row>) {
        let some: Vec<_> = self.scattered.iter().rev().take(OPENS).collect();
        // Upper levels warm: the subscribers' own pages, not their recordings'.
        for at in &some {
            self.keys.subscriber(at.tenant, at.subscriber).expect("reads").expect("lives");
        }
        let opened =
            |at: &RecordingPath| 1e6 * seconds(|| drop(self.keys.audio_leaf(*at).expect("reads").expect("lives")));
        let cold = some.iter().map(|at| opened(at)).collect();
        rows.push(Row::alone("open an audio leaf, cold, of a warm subscriber", "µs", "", cold));
        let few = &some[..WARM_OPENS];
        for at in few {
            opened(at);
        }
        let again = few.iter().map(|at| opened(at)).collect();
        rows.push(Row::alone("open an audio leaf, warm, the first time after its page was read", "µs", "", again));
        let warm = (0..WARM_ROUNDS).flat_map(|_| few).map(|at| opened(at)).collect();
        rows.push(Row::alone("open an audio leaf, warm", "µs", "≤ 2", warm));
    }

    fn erase_latency(&mut self, runtime: &Runtime, rows: &mut Vec<Row>) {
        let erase = |change| 1e3 * seconds(|| commit(runtime, &self.keys, vec![change]));
        let one = self.scattered.drain(..ERASES);
        let one = one.map(|at| erase(Change::EraseRecording { at, parts: Parts::BOTH })).collect();
        rows.push(Row::alone("erase a recording", "ms", "", one));
        let heavy = erase(Change::EraseSubscriber(self.heavy.0, self.heavy.1));
        rows.push(Row::alone("erase a subscriber with a tenth of all recordings", "ms", "", vec![heavy]));
        let wide = erase(Change::EraseTenant(self.wide));
        rows.push(Row::alone("erase a tenant with as many subscribers as all others", "ms", "", vec![wide]));
    }

    /// As the runner does, one rotation after the other, with a create beside them as often as it is answered.
    fn expire(&mut self, runtime: &Runtime, expiries: usize, rows: &mut Vec<Row>) {
        let keeping = Keeping { audio_due: DUE, facts_due: DUE, ..Keeping::default() };
        let due = self.scattered.drain(..expiries).map(|at| Change::SetKeeping { at, keeping });
        in_commands(runtime, &self.keys, due);
        common::wait_until_the_disk_is_quiet();
        let home = self.scattered[0];
        let done = Arc::new(AtomicBool::new(false));
        let beside = std::thread::spawn({
            let (keys, done, handle) = (self.keys.clone(), done.clone(), runtime.handle().clone());
            move || {
                let mut waited = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    let create = recording(home.tenant, home.subscriber).0;
                    let commit = keys.commit(Mutation::new(vec![create]));
                    waited.push(1e3 * seconds(|| assert!(handle.block_on(commit).is_ok())));
                }
                waited
            }
        });
        let bare = std::thread::spawn({
            let done = done.clone();
            move || {
                let dir = common::folder();
                let mut file = File::create(dir.path().join("bare")).expect("a file");
                let mut waited = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    let write = || file.write_all(&[0; A_RECORDING]).and_then(|()| file.sync_data()).expect("writes");
                    waited.push(1e3 * seconds(write));
                    std::thread::sleep(BETWEEN);
                }
                waited
            }
        });
        let look = |behind: Option<RecordingPath>| {
            let keys = self.keys.clone();
            runtime.spawn_blocking(move || keys.due(DUE, ROUND, &PassedOver::new(), behind).expect("reads"))
        };
        let (mut pace, mut rotations, mut waiting) = (Pace::default(), Vec::new(), 0.0);
        let taken = seconds(|| {
            let mut looked = look(None);
            loop {
                let mut found = Vec::new();
                waiting += seconds(|| found = runtime.block_on(looked).expect("looks"));
                let Some(last) = found.last() else { break };
                looked = look(Some(last.at));
                let mut due = &found[..];
                while !due.is_empty() {
                    let (batch, later) = due.split_at(pace.next(due));
                    let erase = batch.iter().map(|due| Change::EraseRecording { at: due.at, parts: Parts::BOTH });
                    let began = Instant::now();
                    commit(runtime, &self.keys, erase.collect());
                    pace.took(batch, began.elapsed());
                    rotations.push(batch.len() as f64);
                    due = later;
                }
            }
        });
        done.store(true, Ordering::SeqCst);
        let waited = beside.join().expect("creates");
        let bare = bare.join().expect("writes");
        let slowest = |waited: &[f64]| vec![waited.iter().copied().fold(0.0, f64::max)];
        let what = format!("expire {expiries} scattered recordings, in {} rotations", rotations.len());
        rows.push(Row::alone(what, "s", "≤ 5 for 100 000", vec![taken]));
        rows.push(Row::alone("… of it: waiting for what is due to be found", "s", "", vec![waiting]));
        rows.push(Row::alone("… recordings in a rotation", "", "", rotations));
        rows.push(Row::alone("a create beside them: of all", "ms", "", waited.clone()));
        rows.push(Row::alone("a create beside them: the slowest", "ms", "≤ 50", slowest(&waited)));
        rows.push(Row::alone("a bare synced write beside them: the slowest", "ms", "", slowest(&bare)));
    }

    /// The key store's part of the sweeping: objects are taken as removed.
    fn sweep(&self, runtime: &Runtime, rows: &mut Vec<Row>) {
        let (mut objects, began) = (0, Instant::now());
        while began.elapsed() < SWEEPS {
            let Some(batch) = self.keys.next_doomed(1000).expect("reads") else { break };
            objects += batch.objects.len();
            runtime.block_on(self.keys.swept(batch)).expect("commits");
        }
        let rate = objects as f64 / began.elapsed().as_secs_f64();
        rows.push(Row::alone("objects taken off the list of the doomed, 1 000 at a time", "1/s", "", vec![rate]));
    }
}

/// Rows of each column family that has any, by recording.
fn bytes(db: &Path, recordings: usize) -> Vec<Row> {
    let options = rocksdb::Options::default();
    let names = rocksdb::DB::list_cf(&options, db).expect("column families");
    let db = rocksdb::DB::open_cf_for_read_only(&options, db, &names, false).expect("opens");
    let mut found = Vec::new();
    for name in &names {
        let family = db.cf_handle(name).expect("a column family");
        let mut options = rocksdb::ReadOptions::default();
        options.set_total_order_seek(true);
        let (mut count, mut bytes) = (0_u64, 0);
        for row in db.iterator_cf_opt(family, options, rocksdb::IteratorMode::Start) {
            let (key, value) = row.expect("reads");
            count += 1;
            bytes += key.len() + value.len();
        }
        if count == 0 {
            continue;
        }
        let tables = db.property_int_value_cf(family, "rocksdb.total-sst-files-size").expect("a property").unwrap_or(0);
        let goal = if name == "pages" { "≤ 160" } else { "" };
        let per = |bytes: f64| vec![bytes / recordings as f64];
        found.push(Row::alone(
            format!("a recording's rows in `{name}` ({count} rows)"),
            "bytes",
            goal,
            per(bytes as f64),
        ));
        found.push(Row::alone(format!("… tables of `{name}` on the disk"), "bytes", "", per(tables as f64)));
    }
    found
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

fn add_tenant(tenant: TenantHandle) -> Change {
    let name = data_encoding::HEXLOWER.encode(&tenant.0);
    Change::AddTenant { tenant, row: RowId(random()), secret: Secret::random(), name }
}

fn add_subscriber(tenant: TenantHandle, subscriber: SubscriberHandle) -> Change {
    let name = data_encoding::HEXLOWER.encode(&subscriber.0);
    Change::AddSubscriber { tenant, subscriber, row: RowId(random()), secret: Secret::random(), name }
}

fn in_commands(runtime: &Runtime, keys: &KeyStore, changes: impl IntoIterator<Item = Change>) {
    let mut changes = changes.into_iter().peekable();
    while changes.peek().is_some() {
        commit(runtime, keys, changes.by_ref().take(PREPARED).collect());
    }
}

fn commit(runtime: &Runtime, keys: &KeyStore, changes: Vec<Change>) {
    runtime.block_on(keys.commit(Mutation::new(changes))).expect("commits");
}
