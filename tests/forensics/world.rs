//! A small key store with everything that hangs on it, written by `docs/format.md` into a real RocksDB, with the roots,
//! versions and erasures that a test wants. It uses nothing of the gateway but sealing.

use prost::Message as _;
use quietus::{
    crypto::{
        envelope::{self, Kind},
        epoch::FreshSalt,
        label::{Label, derive},
        random,
        secret::Secret,
    },
    domain::id::{RecordingHandle, RecordingId},
    proto::stored,
    segment::seal_slice,
};
use rocksdb::{DB, Options, WriteBatch, WriteOptions};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

pub type Id = [u8; 16];

/// The due minute of pages below which nothing is due.
const NEVER: [u8; 4] = [255; 4];

/// One recording with one slice.
pub struct Recording {
    pub row: Id,
    pub handle: Id,
    pub audio: Secret,
    pub facts: Secret,
    pub object: Id,
    pub party: String,
    pub frame: Vec<u8>,
    pub sealed_object: Vec<u8>,
    slice_row: Vec<u8>,
    facts_row: Vec<u8>,
}

impl Recording {
    pub fn new(party: &str, facts_size: usize) -> Self {
        let (row, object): (Id, Id) = (random(), random());
        let (audio, facts) = (Secret::random(), Secret::random());
        let sealed = seal_slice(&audio, 0, true, format!("audio of {party}").repeat(9000).as_bytes());
        let slice = stored::Slice {
            object_id: object.to_vec(),
            salt: sealed.salt.to_vec(),
            length: sealed.length,
            last: true,
            region: "eu-west-2".into(),
        };
        let said = stored::Facts { parties: vec![party.into()], call_id: "x".repeat(facts_size), ..Default::default() };
        let slice_row = envelope::seal(Kind::Slice, &audio, &name(&row, Kind::Slice), &slice.encode_to_vec());
        let facts_row = envelope::seal(Kind::Facts, &facts, &name(&row, Kind::Facts), &said.encode_to_vec());
        let frame = frame(&row, &audio, format!("spoken by {party}").as_bytes());
        Self {
            row,
            handle: random(),
            audio,
            facts,
            object,
            party: party.into(),
            frame,
            sealed_object: sealed.object,
            slice_row,
            facts_row,
        }
    }

    fn entry(&self) -> (Vec<u8>, Vec<u8>) {
        let body = [[4].as_slice(), &self.handle, &[1, 0, 3], self.audio.expose(), self.facts.expose()].concat();
        (body, [item(2, &self.row), item(3, &self.object)].concat())
    }
}

fn name(row: &Id, kind: Kind) -> Vec<u8> {
    [row.as_slice(), &[kind as u8]].concat()
}

fn item(tag: u8, id: &Id) -> Vec<u8> {
    [[tag].as_slice(), id].concat()
}

fn frame(row: &Id, audio: &Secret, plain: &[u8]) -> Vec<u8> {
    let salt = FreshSalt::draw();
    let mut bytes = [b"QTJF\x01\x01\0\0".as_slice(), row, salt.bytes()].concat();
    let salt_bytes = *salt.bytes();
    bytes.extend([0; 7]);
    bytes.push(5);
    bytes.extend([0; 8]);
    bytes.extend((plain.len() as u32 + 16).to_be_bytes());
    let mut nonce = [0; 12];
    nonce[11] = 5;
    let key = salt.sealing_key(audio, Label::JournalFrame, &[row, &salt_bytes]);
    let mut sealed = plain.to_vec();
    let tag = key.seal(nonce, &bytes, &mut sealed);
    bytes.extend(sealed);
    bytes.extend(tag);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(crc.to_be_bytes());
    bytes
}

/// Tenant, subscriber and recordings; every call to [`World::write`] is a rotation with fresh keys on the whole path.
pub struct World {
    pub folder: TempDir,
    db: Option<DB>,
    pub recordings: Vec<Recording>,
    pub root: Secret,
    pages: [Id; 3],
    version: u64,
    tenant: (Id, Secret),
    subscriber: (Id, Secret),
    /// Row and key of a day's client ids.
    pub period: (Id, Secret),
}

const COLUMN_FAMILIES: [&str; 2] = ["pages", "values"];

impl World {
    pub fn new(recordings: Vec<Recording>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_disable_auto_compactions(true);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        let families = COLUMN_FAMILIES.map(|name| rocksdb::ColumnFamilyDescriptor::new(name, options.clone()));
        let db = DB::open_cf_descriptors(&options, folder.path().join("keys"), families).expect("a new database");
        fs::create_dir(folder.path().join("objects")).expect("a new folder");
        fs::create_dir(folder.path().join("journal")).expect("a new folder");
        let world = Self {
            folder,
            db: Some(db),
            recordings,
            root: Secret::random(),
            pages: [random(), random(), random()],
            version: 0,
            tenant: (random(), Secret::random()),
            subscriber: (random(), Secret::random()),
            period: (random(), Secret::random()),
        };
        let mut journal = b"some other bytes".to_vec();
        for recording in &world.recordings {
            journal.extend(&recording.frame);
            let name = data_encoding::HEXLOWER.encode(&recording.object);
            fs::write(world.path("objects").join(name), &recording.sealed_object).expect("a new file");
        }
        fs::write(world.path("journal").join("00000001.qtj"), journal).expect("a new file");
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes every page anew, under fresh keys and a fresh root, and the values of what lives.
    pub fn write(&mut self) {
        self.root = Secret::random();
        self.version += 1;
        let root_id = derive::<16>(self.root.expose(), Label::RootId, &[]);
        let keys = [Secret::random(), Secret::random(), Secret::random()];
        let [tenants, subscribers, recordings] = &self.pages;
        let mut batch = WriteBatch::default();
        let db = self.db.as_ref().expect("open");
        let pages = db.cf_handle("pages").expect("created");
        let values = db.cf_handle("values").expect("created");
        let clear =
            |page: &Id, root: &[u8], items: &[u8]| [page.as_slice(), &self.version.to_be_bytes(), root, items].concat();
        let body = |level: u8, entries: &[Vec<u8>]| {
            [[level].as_slice(), &(entries.len() as u32).to_be_bytes(), &entries.concat()].concat()
        };
        let account = |tag: u8, handle: u8, own: &(Id, Secret), key: &Secret, name: &str| {
            let name = [&(name.len() as u16).to_be_bytes(), name.as_bytes()].concat();
            [[tag].as_slice(), &[handle; 8], own.1.expose(), key.expose(), &NEVER, &name].concat()
        };
        let branch = [[0; 16].as_slice(), keys[0].expose(), &NEVER].concat();
        let top = envelope::seal(
            Kind::Top,
            &self.root,
            &clear(&[0; 16], root_id.as_slice(), &item(1, tenants)),
            &body(1, &[branch]),
        );
        let tenant = account(1, 7, &self.tenant, &keys[1], "Acme Ltd");
        let subscriber = account(2, 9, &self.subscriber, &keys[2], "+441632960001");
        let items = |own: &Id, page: &Id| [item(1, page), item(2, own)].concat();
        let page_of = |key: &Secret, page: &Id, items: &[u8], body: &[u8]| {
            envelope::seal(Kind::Page, key, &clear(page, &[], items), body)
        };
        batch.put_cf(pages, [0; 16], top);
        let entry = page_of(&keys[0], tenants, &items(&self.tenant.0, subscribers), &body(2, &[tenant]));
        batch.put_cf(pages, tenants, entry);
        let period = &self.period;
        let period = ([[3].as_slice(), &[10; 8], period.1.expose(), &[1, 0, 0, 0, 5]].concat(), item(2, &period.0));
        let items = [items(&self.subscriber.0, recordings), period.1].concat();
        let entry = page_of(&keys[1], subscribers, &items, &body(3, &[subscriber, period.0]));
        batch.put_cf(pages, subscribers, entry);
        // All but the newest recording lie in the page; that one is an appended row.
        let (newest, rest) = self.recordings.split_last().expect("a recording");
        let (entries, items): (Vec<_>, Vec<_>) = rest.iter().map(Recording::entry).unzip();
        batch.put_cf(pages, recordings, page_of(&keys[2], recordings, &items.concat(), &body(4, &entries)));
        let (entry, items) = newest.entry();
        let appended = [[1].as_slice(), &entry].concat();
        let row = [recordings.as_slice(), &self.version.to_be_bytes()].concat();
        batch.put_cf(pages, row, envelope::seal(Kind::Append, &keys[2], &clear(recordings, &[], &items), &appended));
        for recording in &self.recordings {
            batch.put_cf(values, name(&recording.row, Kind::Facts), &recording.facts_row);
            batch.put_cf(values, name(&recording.row, Kind::Slice), &recording.slice_row);
        }
        self.synced(batch);
    }

    /// Takes a recording out of the tree and deletes its rows; its object, frame and every old version stay behind.
    pub fn erase(&mut self, index: usize) -> Recording {
        let erased = self.recordings.remove(index);
        self.write();
        let mut batch = WriteBatch::default();
        let values = self.db.as_ref().expect("open").cf_handle("values").expect("created");
        batch.delete_cf(values, name(&erased.row, Kind::Facts));
        batch.delete_cf(values, name(&erased.row, Kind::Slice));
        self.synced(batch);
        erased
    }

    fn synced(&self, batch: WriteBatch) {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.db.as_ref().expect("open").write_opt(batch, &synced).expect("written");
    }

    pub fn flush(&self) {
        let db = self.db.as_ref().expect("open");
        for name in COLUMN_FAMILIES {
            db.flush_cf(db.cf_handle(name).expect("created")).expect("flushed");
        }
    }

    /// Closes the database and removes its files that end so.
    pub fn close_without(&mut self, suffix: &str) {
        self.db = None;
        for file in fs::read_dir(self.path("keys")).expect("a folder") {
            let path = file.expect("an entry").path();
            if path.to_string_lossy().ends_with(suffix) {
                fs::remove_file(path).expect("removed");
            }
        }
    }

    /// A slot folder with these roots, as the file slot writes them.
    pub fn slot(&self, name: &str, roots: &[&Secret]) -> PathBuf {
        let mut bytes = vec![0; 3 * 4096];
        for (sector, root) in bytes.chunks_mut(4096).zip(roots) {
            sector[..8].copy_from_slice(b"QTRS\x01\0\0\0");
            sector[16..32].copy_from_slice(derive::<16>(root.expose(), Label::RootId, &[]).as_slice());
            sector[32..64].copy_from_slice(root.expose());
        }
        let path = self.path(name);
        fs::create_dir(&path).expect("a new folder");
        fs::write(path.join("slot"), bytes).expect("a new file");
        path
    }

    /// The id that clients hold.
    pub fn recording_id(&self, recording: &Recording) -> RecordingId {
        let tenant = self.tenant.1.expose();
        let mut masked = *derive::<8>(tenant, Label::RecordingIdMask, &[&recording.handle]);
        masked.iter_mut().for_each(|byte| *byte ^= 9);
        let check = *derive::<8>(tenant, Label::RecordingIdCheck, &[&recording.handle, &masked]);
        RecordingId { handle: RecordingHandle(recording.handle), masked_subscriber: masked, check }
    }
}

/// Copies the files of a folder.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
        }
    }
}
