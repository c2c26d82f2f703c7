//! What erasing and creating cost, as ratios to the floor of their syncs, measured in the same run on the same disk.
//!
//! - *Erase*: a subscriber with 1, 10³, 10⁵ recordings. Floor: one synced RocksDB write of as many bytes as an erasure
//!   writes, one new file of them synced, the slot's two syncs of a sector. The last column should not grow with the
//!   number of recordings.
//! - *Create*: recordings from many tasks at once. Floor: RocksDB writing as many rows and bytes in as many synced batches.
//!
//! Nothing is asserted: figures of a shared machine are for reading. `QUIETUS_BENCH_SMALL=1` makes a short run.

use quietus::{
    crypto::{random, secret::Secret},
    domain::id::{ObjectId, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
    keys::{Change, FileSlot, KeyStore, Mutation, RecordingPath},
};
use rocksdb::{DB, Options, WriteBatch, WriteOptions};
use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

/// Creates that are in flight at once.
const TASKS: usize = 256;
/// Bytes of an erasure's batch, about: four pages.
const ERASE_BYTES: usize = 4 * 8192;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let small = std::env::var_os("QUIETUS_BENCH_SMALL").is_some();
    let dir = tempfile::tempdir_in(std::env::var_os("QUIETUS_BENCH_DIR").unwrap_or_else(|| ".".into()))?;
    let keys = KeyStore::open(&dir.path().join("keys"), Box::new(FileSlot::open(&dir.path().join("slot"))?))?;
    let tenant = TenantHandle(random());
    let name = "bench".to_owned();
    one(&keys, Change::AddTenant { tenant, row: RowId(random()), secret: Secret::random(), name }).await?;
    for _ in 0..200 {
        add_subscriber(&keys, tenant).await?;
    }

    println!("{:<34} {:>10} {:>10} {:>7}", "erase a subscriber with", "p50", "floor p50", "ratio");
    let sizes: &[(usize, usize)] =
        if small { &[(1, 30), (100, 30), (3_000, 3)] } else { &[(1, 200), (1_000, 100), (100_000, 5)] };
    for (recordings, erasures) in sizes {
        let mut took = Vec::new();
        let mut floor = Vec::new();
        let floor_db = open_db(&dir.path().join(format!("floor-{recordings}")))?;
        for _ in 0..*erasures {
            let subscriber = add_subscriber(&keys, tenant).await?;
            create(&keys, tenant, &[subscriber], *recordings).await?;
            let start = Instant::now();
            one(&keys, Change::EraseSubscriber(tenant, subscriber)).await?;
            took.push(start.elapsed());
            floor.push(erase_floor(&floor_db, dir.path())?);
        }
        row(&format!("{recordings} recordings"), median(&mut took), median(&mut floor));
    }

    println!("\n{:<34} {:>10} {:>10} {:>7}", "create in groups", "each", "floor", "ratio");
    let mut subscribers = Vec::new();
    for _ in 0..100 {
        subscribers.push(add_subscriber(&keys, tenant).await?);
    }
    let recordings = if small { 5_000 } else { 100_000 };
    let (batches, bytes) = (keys.commands(), log_bytes(&dir.path().join("keys/db"))?);
    let start = Instant::now();
    create(&keys, tenant, &subscribers, recordings).await?;
    let took = start.elapsed();
    let batches = keys.commands() - batches;
    let bytes = log_bytes(&dir.path().join("keys/db"))?.saturating_sub(bytes);
    let floor = create_floor(&dir.path().join("floor"), recordings, batches, bytes)?;
    let each = |whole: Duration| whole / u32::try_from(recordings).unwrap_or(u32::MAX);
    row(&format!("{recordings} recordings, {batches} syncs"), each(took), each(floor));
    Ok(())
}

async fn one(keys: &KeyStore, change: Change) -> Result<(), quietus::keys::CommitError> {
    keys.commit(Mutation { changes: vec![change] }).await.map(drop)
}

async fn add_subscriber(keys: &KeyStore, tenant: TenantHandle) -> Result<SubscriberHandle, quietus::keys::CommitError> {
    let subscriber = SubscriberHandle(random());
    let (row, secret, name) = (RowId(random()), Secret::random(), subscriber.to_string());
    one(keys, Change::AddSubscriber { tenant, subscriber, row, secret, name }).await?;
    Ok(subscriber)
}

async fn create(
    keys: &KeyStore,
    tenant: TenantHandle,
    subscribers: &[SubscriberHandle],
    recordings: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let tasks = TASKS.min(recordings);
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let (keys, subscribers) = (keys.clone(), subscribers.to_vec());
        running.spawn(async move {
            for number in (task..recordings).step_by(tasks) {
                let subscriber = subscribers[number % subscribers.len()];
                let at = RecordingPath { tenant, subscriber, recording: RecordingHandle(random()) };
                let (audio, facts) = (Secret::random(), Secret::random());
                let objects = vec![ObjectId(random())];
                one(&keys, Change::AddRecording { at, row: RowId(random()), kind: 1, audio, facts, objects }).await?;
            }
            Ok::<(), quietus::keys::CommitError>(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

fn open_db(path: &Path) -> Result<DB, rocksdb::Error> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options.set_write_buffer_size(32 << 20);
    DB::open(&options, path)
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn erase_floor(db: &DB, dir: &Path) -> Result<Duration, Box<dyn std::error::Error>> {
    let content = vec![7; ERASE_BYTES];
    let slot = File::options().write(true).create(true).truncate(false).open(dir.join("floor-slot"))?;
    slot.set_len(8192)?;
    slot.sync_all()?;
    let path = dir.join("floor-file");
    let start = Instant::now();
    slot.write_all_at(&[1; 4096], 0)?;
    slot.sync_data()?;
    let mut file = File::create_new(&path)?;
    file.write_all(&content)?;
    file.sync_data()?;
    let mut batch = WriteBatch::default();
    for page in content.chunks(8192) {
        batch.put(random::<16>(), page);
    }
    db.write_opt(batch, &synced())?;
    slot.write_all_at(&[0; 4096], 4096)?;
    slot.sync_data()?;
    let took = start.elapsed();
    fs::remove_file(path)?;
    Ok(took)
}

fn create_floor(path: &Path, rows: usize, batches: u64, bytes: u64) -> Result<Duration, rocksdb::Error> {
    let db = open_db(path)?;
    let content = vec![7; usize::try_from(bytes).unwrap_or(0) / rows.max(1)];
    let batches = usize::try_from(batches).unwrap_or(1).max(1);
    let start = Instant::now();
    for number in 0..batches {
        let mut batch = WriteBatch::default();
        for _ in number * rows / batches..(number + 1) * rows / batches {
            batch.put(random::<24>(), &content);
        }
        db.write_opt(batch, &synced())?;
    }
    Ok(start.elapsed())
}

/// Bytes in the logs. Valid as a difference while no log is dropped in between.
fn log_bytes(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|end| end == "log") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn row(what: &str, took: Duration, floor: Duration) {
    let ratio = took.as_secs_f64() / floor.as_secs_f64().max(f64::MIN_POSITIVE);
    println!("{what:<34} {took:>10.1?} {floor:>10.1?} {ratio:>7.2}");
}
