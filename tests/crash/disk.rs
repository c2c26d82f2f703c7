//! A disk rebuilt from a trace: what was written, what of it was made durable, and the images that loss of power may leave.
//!
//! The rules are those that POSIX gives, and one more. What was written to a file is durable once a sync of *that file*
//! that began behind the write has ended; a name (created, renamed, removed) once a sync of *its folder* has. Everything else
//! may be there or not, in any combination: whole, cut off at any byte, by sectors of 512 bytes, with zeros or garbage where
//! the length was written and the content was not. The one more: the names of one folder change in order, as on every
//! file system with a journal; RocksDB rests on it (it puts `CURRENT` in place before the manifest's name is synced). A sync that failed made nothing durable, and neither does the next one: the
//! kernel has dropped what it could not write, and forgotten that it should.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

const SECTOR: usize = 512;

/// Numbers that follow from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// One event of `recorder.c`.
#[derive(Debug)]
pub struct Event {
    pub call: u8,
    ino: u64,
    pub at: u64,
    size: u64,
    pub name: String,
    pub data: Vec<u8>,
}

/// Reads a trace.
pub fn read_trace(path: &Path) -> Vec<Event> {
    let bytes = std::fs::read(path).expect("the trace");
    let (mut rest, mut events) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let word = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().expect("eight"));
        let lengths = word(32);
        let (name, data) = ((lengths & 0xffff_ffff) as usize, (lengths >> 32) as usize);
        events.push(Event {
            call: rest[0],
            ino: word(8),
            at: word(16),
            size: word(24),
            name: String::from_utf8(rest[40..40 + name].to_vec()).expect("a name"),
            data: rest[40 + name..40 + name + data].to_vec(),
        });
        rest = &rest[40 + name + data..];
    }
    events
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                if to.len() < at + bytes.len() {
                    to.resize(at + bytes.len(), 0);
                }
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Length(length) => to.resize(*length, 0),
        }
    }

    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Write { at, bytes }, Self::Write { at: other, bytes: others }) => {
                *at < other + others.len() && *other < at + bytes.len()
            }
            _ => true,
        }
    }
}

struct Pending<T> {
    number: u64,
    /// A sync of it failed: no later one makes it durable.
    lost: bool,
    what: T,
}

#[derive(Default)]
struct File {
    /// Its first name.
    name: String,
    /// As it reads.
    now: Vec<u8>,
    /// As it is durable.
    safe: Vec<u8>,
    pending: Vec<Pending<Change>>,
    /// Numbers at which the syncs that run have begun.
    syncs: Vec<u64>,
    /// Everything that was ever written over or cut off.
    overwritten: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

enum NameChange {
    Put(String, Node),
    Remove(String),
    Rename(String, String),
}

impl NameChange {
    fn names(&self) -> [&str; 2] {
        match self {
            Self::Put(name, _) | Self::Remove(name) => [name, name],
            Self::Rename(from, to) => [from, to],
        }
    }

    fn apply(&self, to: &mut BTreeMap<String, Node>) {
        match self {
            Self::Put(name, node) => drop(to.insert(name.clone(), *node)),
            Self::Remove(name) => drop(to.remove(name)),
            // A file whose creation was lost, or was not chosen, is not there to be renamed.
            Self::Rename(from, target) => {
                if let Some(node) = to.remove(from) {
                    to.insert(target.clone(), node);
                }
            }
        }
    }
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The disk.
#[derive(Default)]
pub struct Disk {
    files: Vec<File>,
    by_ino: HashMap<u64, usize>,
    now: BTreeMap<String, Node>,
    safe: BTreeMap<String, Node>,
    pending: Vec<Pending<NameChange>>,
    syncs: HashMap<String, Vec<u64>>,
    number: u64,
}

/// What survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// What was synced, and nothing else.
    Synced,
    /// Everything: the process died and the machine did not.
    Written,
    /// What was synced, and any part of the rest.
    Torn(u64),
}

/// Files by name, folders without content.
pub type Image = BTreeMap<String, Option<Vec<u8>>>;

impl Disk {
    pub fn take(&mut self, event: &Event) {
        self.number += 1;
        let name = event.name.clone();
        match event.call {
            b'C' => {
                self.files.push(File { name: name.clone(), ..File::default() });
                let id = self.files.len() - 1;
                self.by_ino.insert(event.ino, id);
                self.rename(NameChange::Put(name, Node::File(id)));
            }
            b'M' => self.rename(NameChange::Put(name, Node::Folder)),
            b'U' | b'D' => self.rename(NameChange::Remove(name)),
            b'R' => {
                let to = String::from_utf8(event.data.clone()).expect("a name");
                assert_eq!(folder_of(&name), folder_of(&to), "a rename stays in its folder");
                self.rename(NameChange::Rename(name, to));
            }
            b'W' => {
                let at = event.at as usize;
                let end = self.file(event).now.len().max(at + event.data.len());
                self.grown(event, end);
                self.write(event, Change::Write { at, bytes: event.data.clone() });
            }
            b'Z' => self.write(event, Change::Length(event.size as usize)),
            b'S' | b'E' | b'B' => self.sync(event),
            b'P' => {
                // A process that is gone ends no sync.
                self.syncs.clear();
                self.files.iter_mut().for_each(|file| file.syncs.clear());
            }
            other => panic!("{} of {name}: a trace cannot tell what this does", other as char),
        }
    }

    fn file(&mut self, event: &Event) -> &mut File {
        let id = self.by_ino.get(&event.ino).unwrap_or_else(|| panic!("{} was never created", event.name));
        &mut self.files[*id]
    }

    /// Length that came by a call which libc did not see (the journal allocates by one).
    fn grown(&mut self, event: &Event, known: usize) {
        let size = event.size as usize;
        assert!(size >= known, "{} was cut by a call that was not recorded", event.name);
        if size > known {
            self.write(event, Change::Length(size));
        }
    }

    fn write(&mut self, event: &Event, change: Change) {
        let number = self.number;
        let file = self.file(event);
        match &change {
            Change::Write { at, bytes } => {
                let end = (at + bytes.len()).min(file.now.len());
                if *at < end {
                    let before = file.now[*at..end].to_vec();
                    file.overwritten.extend(before);
                }
            }
            Change::Length(length) => {
                let cut = file.now.get(*length..).unwrap_or_default().to_vec();
                file.overwritten.extend(cut);
            }
        }
        change.apply(&mut file.now);
        file.pending.push(Pending { number, lost: false, what: change });
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.now);
        self.pending.push(Pending { number: self.number, lost: false, what: change });
    }

    fn sync(&mut self, event: &Event) {
        let number = self.number;
        if event.name.is_empty() || self.now.get(&event.name) == Some(&Node::Folder) {
            let begun = self.syncs.entry(event.name.clone()).or_default();
            if event.call == b'S' {
                return begun.push(number);
            }
            let began = begun.remove(0);
            let mut kept: Vec<Pending<NameChange>> = Vec::new();
            for mut pending in std::mem::take(&mut self.pending) {
                let covered = pending.number < began && folder_of(pending.what.names()[0]) == event.name;
                if covered && event.call == b'E' && !pending.lost {
                    pending.what.apply(&mut self.safe);
                    let names = pending.what.names();
                    kept.retain(|older| !older.lost || !older.what.names().iter().any(|name| names.contains(name)));
                } else {
                    pending.lost |= covered;
                    kept.push(pending);
                }
            }
            self.pending = kept;
        } else {
            if event.call == b'S' {
                let known = self.file(event).now.len();
                self.grown(event, known);
            }
            let file = self.file(event);
            if event.call == b'S' {
                return file.syncs.push(number);
            }
            let began = file.syncs.remove(0);
            let File { pending, safe, .. } = file;
            let mut kept: Vec<Pending<Change>> = Vec::new();
            for mut pending in std::mem::take(pending) {
                let covered = pending.number < began;
                if covered && event.call == b'E' && !pending.lost {
                    pending.what.apply(safe);
                    // What was lost before in the same place does not come back over it.
                    kept.retain(|older| !older.what.meets(&pending.what));
                } else {
                    pending.lost |= covered;
                    kept.push(pending);
                }
            }
            file.pending = kept;
        }
    }

    /// What loss of power, or of the process, may leave.
    pub fn image(&self, survives: Survives) -> Image {
        let mut dice = Dice(match survives {
            Survives::Torn(seed) => seed,
            _ => 0,
        });
        let names = match survives {
            Survives::Synced => self.safe.clone(),
            Survives::Written => self.now.clone(),
            Survives::Torn(_) => self.some_names(&mut dice),
        };
        let mut image = Image::new();
        for (name, node) in &names {
            let folder = folder_of(name);
            if !(folder.is_empty() || image.contains_key(folder)) || is_passed_over(name) {
                continue;
            }
            let content = match node {
                Node::Folder => None,
                Node::File(id) => Some(match survives {
                    Survives::Synced => self.files[*id].safe.clone(),
                    Survives::Written => self.files[*id].now.clone(),
                    Survives::Torn(_) => self.files[*id].torn(&mut dice),
                }),
            };
            image.insert(name.clone(), content);
        }
        image
    }

    /// From some change of its names on, a folder may be missing all.
    fn some_names(&self, dice: &mut Dice) -> BTreeMap<String, Node> {
        let (mut names, mut behind) = (self.safe.clone(), Vec::new());
        let one_in = [0, 2, 4][dice.below(3)];
        for Pending { what, .. } in &self.pending {
            let folder = folder_of(what.names()[0]);
            if one_in != 0 && dice.below(one_in) == 0 {
                behind.push(folder);
            }
            if !behind.contains(&folder) {
                what.apply(&mut names);
            }
        }
        names
    }

    /// Everything that was ever written outside the slot, one file for each that there ever was: names do not matter to who
    /// carves.
    pub fn ever(&self, to: &Path) {
        std::fs::create_dir_all(to).expect("a folder");
        for (id, file) in self.files.iter().enumerate() {
            if !file.name.contains("slot/") && !is_passed_over(&file.name) {
                std::fs::write(to.join(format!("{id}.now")), &file.now).expect("written");
                std::fs::write(to.join(format!("{id}.over")), &file.overwritten).expect("written");
            }
        }
    }
}

/// What RocksDB tells about itself, and never reads; the list of what was acknowledged.
fn is_passed_over(name: &str) -> bool {
    name == "acks" || name.starts_with("store/keys/db/LOG")
}

impl File {
    fn torn(&self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.safe.clone();
        if self.pending.is_empty() {
            return bytes;
        }
        match dice.below(6) {
            0 => {}
            1 => bytes.clone_from(&self.now),
            // The first so many changes, the last of them in part.
            kind @ 2..=3 => {
                let whole = dice.below(self.pending.len());
                self.pending[..whole].iter().for_each(|pending| pending.what.apply(&mut bytes));
                if let Change::Write { at, bytes: written } = &self.pending[whole].what {
                    let cut = dice.below(written.len() + 1);
                    Change::Write { at: *at, bytes: written[..cut].to_vec() }.apply(&mut bytes);
                    if kind == 3 && bytes.len() == at + cut {
                        // The rest of the sector, or of the write: zeros or garbage.
                        let rest = (written.len() - cut).min(1 + dice.below(2 * SECTOR));
                        let garbage = dice.coin();
                        bytes.extend((0..rest).map(|_| if garbage { dice.next() as u8 } else { 0 }));
                    }
                }
            }
            // Any sectors, in a file of the length of before or of now.
            kind => {
                if dice.coin() {
                    let garbage = kind == 5;
                    while bytes.len() < self.now.len() {
                        bytes.push(if garbage { dice.next() as u8 } else { 0 });
                    }
                    bytes.truncate(self.now.len().max(self.safe.len()));
                }
                for Pending { what, .. } in &self.pending {
                    let Change::Write { at, bytes: written } = what else { continue };
                    let mut from = 0;
                    while from < written.len() {
                        let to = ((at + from) / SECTOR * SECTOR + SECTOR - at).min(written.len());
                        if dice.coin() {
                            Change::Write { at: at + from, bytes: written[from..to].to_vec() }.apply(&mut bytes);
                        }
                        from = to;
                    }
                }
            }
        }
        bytes
    }
}

/// Lays an image down in a folder.
pub fn lay_down(image: &Image, folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    for (name, content) in image {
        let path = folder.join(name);
        match content {
            None => std::fs::create_dir_all(path).expect("a folder"),
            Some(bytes) => std::fs::write(path, bytes).expect("a file"),
        }
    }
}

/// What lies in a folder now.
pub fn pick_up(folder: &Path) -> Image {
    let mut image = Image::new();
    let mut folders = vec![String::new()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(folder.join(&next)).expect("a folder") {
            let entry = entry.expect("an entry");
            let own = entry.file_name().into_string().expect("UTF-8");
            let name = if next.is_empty() { own } else { format!("{next}/{own}") };
            if is_passed_over(&name) {
                continue;
            }
            if entry.file_type().expect("a type").is_dir() {
                folders.push(name.clone());
                image.insert(name, None);
            } else {
                image.insert(name, Some(std::fs::read(entry.path()).expect("a file")));
            }
        }
    }
    image
}
