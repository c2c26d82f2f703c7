//! What the recorded process works with besides its own disk: slots that may be away, object storage that may be away.

use quietus::{
    domain::{id::RootId, time::Clock},
    keys::{
        FileSlot, Forgets, KeyStore, OpenError, Opener, Settings, Slot, SlotError, SlotRecord, Slots,
        backup::{
            Archive, ArchiveError, Backup, Options,
            restore::{self, RestoreError},
        },
    },
};
use std::{
    fs::File,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How many slots there are to choose from.
pub const SLOTS: usize = 4;
/// Those that are configured at first.
pub const FIRST_SEATS: &[usize] = &[0, 1, 2];

/// Where the root lies, and what is left when the node is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// In one slot; nothing.
    Alone,
    /// Any two of three slots; a backup.
    Shared,
}

impl Setting {
    /// As the recorded process is told.
    pub fn word(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Shared => "shared",
        }
    }

    /// From [`Setting::word`].
    pub fn of(word: &str) -> Self {
        if word == Self::Alone.word() { Self::Alone } else { Self::Shared }
    }
}

/// Below a folder that is not there yet: the product makes each, and their names must last.
fn slot_path(folder: &Path, setting: Setting, at: usize) -> PathBuf {
    match setting {
        Setting::Alone => folder.join("held/slot/root"),
        Setting::Shared => folder.join(format!("held/{}/slot/root", ["a", "b", "c", "d"][at])),
    }
}

/// What a slot is called in the configuration.
pub fn name(at: usize) -> String {
    format!("slot {at}")
}

/// Who is there now, and which slots are configured.
#[derive(Clone)]
pub struct Site {
    pub seats: Vec<usize>,
    away: [Arc<AtomicBool>; SLOTS],
    storage_away: Arc<AtomicBool>,
}

impl Site {
    /// Everybody is there.
    pub fn with(seats: &[usize]) -> Self {
        Self { seats: seats.to_vec(), away: Default::default(), storage_away: Arc::default() }
    }

    pub fn set_away(&self, at: usize, away: bool) {
        self.away[at].store(away, Ordering::SeqCst);
    }

    /// How many slots are away.
    pub fn away(&self) -> usize {
        self.away.iter().filter(|away| away.load(Ordering::SeqCst)).count()
    }

    pub fn set_storage_away(&self, away: bool) {
        self.storage_away.store(away, Ordering::SeqCst);
    }

    pub fn storage_is_there(&self) -> bool {
        !self.storage_away.load(Ordering::SeqCst)
    }

    fn slots(&self, folder: &Path) -> Slots {
        let seat = |at: &usize| {
            let (path, away) = (slot_path(folder, Setting::Shared, *at), self.away[*at].clone());
            let open: Opener = Box::new(move || {
                let slot = Gate { slot: FileSlot::open(&path)?, away: away.clone() };
                slot.there()?;
                Ok(Box::new(slot) as Box<dyn Slot>)
            });
            (name(*at), open)
        };
        Slots::several(2, self.seats.iter().map(seat).collect())
    }

    /// The key store, opened as the product does.
    pub fn open(&self, folder: &Path, setting: Setting) -> Result<KeyStore, OpenError> {
        let keys = folder.join("store/keys");
        match setting {
            Setting::Alone => KeyStore::open(&keys, Box::new(FileSlot::open(&slot_path(folder, setting, 0))?)),
            Setting::Shared => {
                let options = Options {
                    tick: Duration::ZERO,
                    // Storage that is away says so at once; nobody waits so long.
                    patience: Duration::from_secs(60),
                    retry: Duration::from_millis(5),
                    ..Options::default()
                };
                let archive = Bucket::open(folder, self.storage_away.clone());
                let backup = Backup { archive: Box::new(archive), clock: Clock::default(), options };
                KeyStore::open_with(&keys, self.slots(folder), Some(backup), Settings::default())
            }
        }
    }

    /// The key store of a lost node, from what is left of it in this folder: slots and bucket.
    pub fn restore(&self, folder: &Path) -> Result<(), RestoreError> {
        let mut bucket = Bucket::open(folder, Arc::default());
        restore::restore(&folder.join("store/keys"), &mut self.slots(folder), &mut bucket, &mut |_| {}).map(drop)
    }
}

/// A slot that may be out of reach.
struct Gate {
    slot: FileSlot,
    away: Arc<AtomicBool>,
}

impl Gate {
    fn there(&self) -> Result<(), SlotError> {
        if self.away.load(Ordering::SeqCst) { Err(SlotError::Io("away".to_owned())) } else { Ok(()) }
    }
}

impl Slot for Gate {
    fn records(&mut self) -> Result<Vec<SlotRecord>, SlotError> {
        self.there().and_then(|()| self.slot.records())
    }

    fn stage(&mut self, record: &SlotRecord) -> Result<(), SlotError> {
        self.there().and_then(|()| self.slot.stage(record))
    }

    fn commit(&mut self, keep: RootId) -> Result<(), SlotError> {
        self.there().and_then(|()| self.slot.commit(keep))
    }

    fn discard(&mut self, root: RootId) -> Result<(), SlotError> {
        self.there().and_then(|()| self.slot.discard(root))
    }

    fn clear(&mut self) -> Result<(), SlotError> {
        self.there().and_then(|()| self.slot.clear())
    }

    fn forgets(&self) -> Forgets {
        self.slot.forgets()
    }
}

/// Object storage in a folder. What was put is durable when that is answered; an object of which nobody was told is there
/// whole, or not at all; and what it shows, or gives, it has for good.
struct Bucket {
    folder: PathBuf,
    away: Arc<AtomicBool>,
}

/// A put on its way.
const NEW: &str = ".new";

fn failed(error: std::io::Error) -> ArchiveError {
    ArchiveError::Away(error.to_string())
}

impl Bucket {
    fn open(node: &Path, away: Arc<AtomicBool>) -> Self {
        let folder = node.join("bucket");
        if !folder.is_dir() {
            std::fs::create_dir(&folder).expect("a folder");
            File::open(node).and_then(|node| node.sync_all()).expect("object storage does not lose itself");
        }
        Self { folder, away }
    }

    fn there(&self) -> Result<(), ArchiveError> {
        if self.away.load(Ordering::SeqCst) { Err(ArchiveError::Away("away".to_owned())) } else { Ok(()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name.replace('/', "%"))
    }

    fn settle(&self) -> Result<(), ArchiveError> {
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

impl Archive for Bucket {
    fn list(&mut self, prefix: &str, after: &str) -> Result<Vec<String>, ArchiveError> {
        self.there()?;
        self.settle()?;
        let entries = std::fs::read_dir(&self.folder).map_err(failed)?;
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            name.replace('%', "/")
        };
        let mut names: Vec<String> = entries.map(name).filter(|name| name != NEW).collect();
        names.retain(|name| name.starts_with(prefix) && name.as_str() > after);
        names.sort_unstable();
        Ok(names)
    }

    fn put(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        self.there()?;
        let (new, path) = (self.folder.join(NEW), self.path(name));
        if new.exists() {
            std::fs::remove_file(&new).map_err(failed)?;
        }
        let mut file = File::create_new(&new).map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&new, &path).map_err(failed)?;
        self.settle().inspect_err(|_| drop(std::fs::remove_file(&path)))
    }

    fn get(&mut self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        self.there()?;
        self.settle()?;
        std::fs::read(self.path(name)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => ArchiveError::Missing,
            _ => failed(error),
        })
    }

    fn remove(&mut self, names: &[String]) -> Result<(), ArchiveError> {
        self.there()?;
        for name in names {
            match std::fs::remove_file(self.path(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        self.settle()
    }

    fn heal(&mut self) -> Result<(), ArchiveError> {
        self.there()
    }
}
