//! The real medium: RocksDB in `db/`, the files of rotations in `pending/` beside it.
//!
//! Assumptions about the disk: what fsync has confirmed survives loss of power; a file or record that was being written
//! may be torn, and its checksum says so. Settings that carry the crash argument: synced writes through one log; a torn
//! tail is tolerated and nothing else (point-in-time recovery would drop synced records behind a bad one; what of a torn tail
//! RocksDB takes for damage, [`torn`] tells from it); logs are
//! tracked in the manifest, and never recycled, so that a missing one is noticed. Everything is uncompressed: what lies
//! in raw files is then what was written, and the forensics tool can find it.

mod files;
mod torn;

use super::backing::{Backing, BackingError, Family, KeyValue, Row, Snapshot, create_folder, sync_folder};
use files::Files;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, ErrorKind,
    FlushOptions, IteratorMode, Options, ReadOptions, SliceTransform, WriteBatch, WriteOptions,
};
use std::{fs, io, path::Path};

const BLOCK_CACHE: usize = 64 << 20;
const WRITE_BUFFER: usize = 64 << 20;
/// Most of them that one column family fills: whoever writes more, before the first is a table, waits. A night's expiries, whose
/// pages lie scattered, fit.
const WRITE_BUFFERS: i32 = 6;
/// The part of a write buffer that is the same filter over it: most of what is read is in none of them.
const BUFFER_FILTER: f64 = 0.02;
const INFO_LOG: usize = 4 << 20;
/// Of a table that is being written: the disk takes it bit by bit, so that the sync of a batch does not wait for all of it.
const SYNCED_AT_ONCE: u64 = 512 << 10;
/// Most bytes of tables that are written in a second, flushes and compactions together: a disk that is busy with tables has
/// the sync of a batch wait for tens of milliseconds, and whoever creates something with it.
const TABLES_PER_SECOND: i64 = 32 << 20;
/// How often some of it is handed out, in microseconds: a few tables' blocks at a time.
const HANDED_OUT: i64 = 10_000;
/// One in so many requests of compactions goes before those of flushes. RocksDB's own default.
const FAIRNESS: i32 = 10;

/// RocksDB and a folder of files.
pub struct Rocks {
    db: DB,
    synced: WriteOptions,
    pending: Files,
}

impl Rocks {
    /// Whether a key store is in this folder.
    pub fn exists(dir: &Path) -> bool {
        dir.join("db").join("CURRENT").exists()
    }

    /// Opens or creates.
    pub fn open(dir: &Path) -> Result<Self, BackingError> {
        Self::open_or_build(dir, true)
    }

    /// Creates, for a restore: nothing is durable before the flush, and nothing needs to be; nobody waits for a sync meanwhile.
    pub(super) fn build(dir: &Path) -> Result<Self, BackingError> {
        Self::open_or_build(dir, false)
    }

    fn open_or_build(dir: &Path, sync: bool) -> Result<Self, BackingError> {
        let pending = dir.join("pending");
        create_folder(dir).and_then(|()| create_folder(&pending)).map_err(medium)?;
        let db = dir.join("db");
        let mut options = db_options();
        if sync {
            // What a killed process left in the log becomes tables while this opens: as fast as the disk can, since nobody
            // creates anything yet.
            if logged(&db).map_err(medium)? > WRITE_BUFFER as u64 {
                drop(open_whole(&options, &db)?);
            }
            options.set_ratelimiter(TABLES_PER_SECOND, HANDED_OUT, FAIRNESS);
        }
        let db = open_whole(&options, &db)?;
        for folder in [&pending, dir] {
            sync_folder(folder).map_err(medium)?;
        }
        let mut synced = WriteOptions::default();
        synced.set_sync(sync);
        Ok(Self { db, synced, pending: Files::open(&pending).map_err(medium)? })
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, BackingError> {
        self.db.cf_handle(family.name()).ok_or_else(|| BackingError("a column family is missing".to_owned()))
    }
}

/// Bytes of the log, where there is one.
fn logged(db: &Path) -> io::Result<u64> {
    if !db.exists() {
        return Ok(0);
    }
    let mut bytes = 0;
    for entry in fs::read_dir(db)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            // Whoever has it open may be done with one meanwhile.
            bytes += fs::metadata(path).map_or(0, |log| log.len());
        }
    }
    Ok(bytes)
}

/// Opens it, without a torn tail of its log where that is what RocksDB takes for damage.
fn open_whole(options: &Options, db: &Path) -> Result<DB, BackingError> {
    match open_db(options, db) {
        Err(error) if error.kind() == ErrorKind::Corruption && torn::cut_off(db).map_err(medium)? => {
            open_db(options, db)
        }
        opened => opened,
    }
    .map_err(rocks)
}

fn open_db(options: &Options, path: &Path) -> Result<DB, rocksdb::Error> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE);
    let families = Family::ALL.map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, &cache)));
    DB::open_cf_descriptors(options, path, families)
}

fn db_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_recycle_log_file_num(0);
    options.set_paranoid_checks(true);
    options.set_max_open_files(256);
    options.set_max_total_wal_size(WRITE_BUFFERS as u64 * WRITE_BUFFER as u64);
    options.set_bytes_per_sync(SYNCED_AT_ONCE);
    options.set_max_log_file_size(INFO_LOG);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(WRITE_BUFFER);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    if matches!(family, Family::Pages | Family::Values) {
        // Scans name an id of 16 bytes at least; the filter tells which tables hold any row of it.
        options.set_prefix_extractor(SliceTransform::create_fixed_prefix(16));
        blocks.set_bloom_filter(10.0, false);
        options.set_memtable_prefix_bloom_ratio(BUFFER_FILTER);
    }
    options.set_block_based_table_factory(&blocks);
    options
}

impl Backing for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, BackingError> {
        self.db.get_cf(self.family(family)?, key).map_err(rocks)
    }

    fn scan(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, BackingError> {
        debug_assert!(prefix.len() >= 16 || !matches!(family, Family::Pages | Family::Values));
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(prefix.len() >= 16);
        let start = after.unwrap_or(prefix);
        let from = IteratorMode::From(start, rocksdb::Direction::Forward);
        let mut found = Vec::new();
        for row in self.db.iterator_cf_opt(self.family(family)?, options, from) {
            let (key, value) = row.map_err(rocks)?;
            if !key.starts_with(prefix) || found.len() == limit {
                break;
            }
            if after.is_none_or(|after| *key > *after) {
                found.push((key.into_vec(), value.into_vec()));
            }
        }
        Ok(found)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, BackingError> {
        Ok(Box::new(RocksSnapshot { rocks: self, snapshot: self.db.snapshot() }))
    }

    fn write(&self, lists: &[&[Row]]) -> Result<(), BackingError> {
        let mut batch = WriteBatch::default();
        for row in lists.iter().copied().flatten() {
            let family = self.family(row.family)?;
            match &row.value {
                Some(value) => batch.put_cf(family, &row.key, value),
                None => batch.delete_cf(family, &row.key),
            }
        }
        self.db.write_opt(batch, &self.synced).map_err(rocks)
    }

    fn flush(&self) -> Result<(), BackingError> {
        let families = Family::ALL.map(|family| self.family(family));
        let families = families.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families, &options).map_err(rocks)
    }

    fn put_pending(&self, number: u64, bytes: &[u8]) -> Result<(), BackingError> {
        self.pending.put(number, bytes).map_err(medium)
    }

    fn pending(&self) -> Result<Vec<(u64, Vec<u8>)>, BackingError> {
        self.pending.read().map_err(medium)
    }

    fn unlink_pending(&self, numbers: &[u64]) -> Result<(), BackingError> {
        self.pending.unlink(numbers).map_err(medium)
    }

    fn release_pending(&self, numbers: &[u64]) -> Result<(), BackingError> {
        self.pending.release(numbers).map_err(medium)
    }
}

struct RocksSnapshot<'a> {
    rocks: &'a Rocks,
    snapshot: rocksdb::Snapshot<'a>,
}

impl Snapshot for RocksSnapshot<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, BackingError> {
        self.snapshot.get_cf(self.rocks.family(family)?, key).map_err(rocks)
    }

    fn rows(&self, family: Family, after: Option<&[u8]>, bytes: usize) -> Result<Vec<KeyValue>, BackingError> {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.fill_cache(false);
        let from = after.map_or(IteratorMode::Start, |after| IteratorMode::From(after, rocksdb::Direction::Forward));
        let (mut found, mut size) = (Vec::new(), 0);
        for row in self.snapshot.iterator_cf_opt(self.rocks.family(family)?, options, from) {
            let (key, value) = row.map_err(rocks)?;
            if after.is_none_or(|after| *key > *after) {
                size += key.len() + value.len();
                found.push((key.into_vec(), value.into_vec()));
            }
            if size >= bytes {
                break;
            }
        }
        Ok(found)
    }
}

fn rocks(error: rocksdb::Error) -> BackingError {
    BackingError(error.into_string())
}

fn medium(error: io::Error) -> BackingError {
    BackingError(error.to_string())
}
