//! Finds sealed values in the raw bytes of files.
//!
//! Every file is read from end to end for the magics of envelopes and journal frames, at any offset; logs are read a second
//! time, record by record, for values that lie there in fragments. What is found is kept as a place (file and offset;
//! what was put together goes to an unnamed temporary file, sealed as it is) and read again when there is a key to try.
//! The same bytes in several files (tables, checkpoints, backups) are kept once.

use super::{
    Error, files_below,
    find::Needles,
    page::{self, Id},
    progress, wal,
};
use crate::crypto::envelope::{self, Envelope, Kind};
use memchr::memmem::Finder;
use ring::digest::{SHA256, digest};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    io::{self, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// First bytes of a journal frame.
pub const FRAME_MAGIC: [u8; 4] = *b"QTJF";
/// Bytes before a frame's sealed part.
pub const FRAME_HEADER: usize = 76;
/// Bytes behind a frame's sealed part.
const FRAME_CHECKSUM: usize = 4;
/// Far above any frame.
const MAX_FRAME: usize = 16 << 20;
/// How much of a file is in memory.
const CHUNK: usize = 4 << 20;
/// The longer of the two headers: what a hit needs to tell its length.
const LONGEST_HEADER: usize = FRAME_HEADER;

/// An envelope that was found.
pub struct Sealed {
    /// What it holds.
    pub kind: Kind,
    /// Salt of its epoch: names the sealing, wherever its copies lie.
    pub salt: [u8; 32],
    /// The page, or the row, that its clear part begins with.
    pub id: Id,
    /// Names the root; in a Top only.
    pub root: Option<Id>,
    place: Place,
    length: usize,
}

/// A journal frame that was found.
pub struct Frame {
    /// The recording's row.
    pub row: Id,
    /// Salt of its epoch.
    pub salt: [u8; 32],
    /// Its number within the epoch.
    pub sequence: [u8; 8],
    place: Place,
    length: usize,
}

#[derive(Clone, Copy)]
enum Place {
    File { number: usize, at: u64 },
    Spill(u64),
}

/// Everything that was found.
pub struct Carved {
    /// Envelopes.
    pub sealed: Vec<Sealed>,
    /// Journal frames.
    pub frames: Vec<Frame>,
    /// Row ids that stand in clear beside pages: there was an entry for each.
    pub rows: BTreeSet<Id>,
    /// Rows that an object id stands behind, in clear.
    pub object_rows: HashMap<Id, BTreeSet<Id>>,
    /// Bytes that were read.
    pub bytes: u64,
    files: Vec<PathBuf>,
    spill: Spill,
    seen: HashSet<[u8; 32]>,
}

impl Carved {
    /// Reads every file below these paths.
    pub fn from_paths(paths: &[PathBuf], needles: &mut Needles) -> Result<Self, Error> {
        let mut carved = Self {
            sealed: Vec::new(),
            frames: Vec::new(),
            rows: BTreeSet::new(),
            object_rows: HashMap::new(),
            bytes: 0,
            files: Vec::new(),
            spill: Spill::new().map_err(Error::Spill)?,
            seen: HashSet::new(),
        };
        for path in paths {
            carved.files.extend(files_below(path)?);
        }
        let total = carved.files.iter().filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum();
        let bar = progress("carving", total, true);
        for number in 0..carved.files.len() {
            carved.read_file(number, needles, &bar)?;
        }
        bar.finish_and_clear();
        Ok(carved)
    }

    /// How many files were read.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// The bytes of an envelope.
    pub fn envelope(&self, sealed: &Sealed) -> Result<Vec<u8>, Error> {
        self.read(sealed.place, sealed.length)
    }

    /// The bytes of a frame, without its checksum.
    pub fn frame(&self, frame: &Frame) -> Result<Vec<u8>, Error> {
        let mut bytes = self.read(frame.place, frame.length)?;
        bytes.truncate(frame.length.saturating_sub(FRAME_CHECKSUM));
        Ok(bytes)
    }

    fn read(&self, place: Place, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length];
        match place {
            Place::Spill(at) => self.spill.file.read_exact_at(&mut bytes, at).map_err(Error::Spill)?,
            Place::File { number, at } => {
                let path = &self.files[number];
                File::open(path).and_then(|file| file.read_exact_at(&mut bytes, at)).map_err(Error::read(path))?;
            }
        }
        Ok(bytes)
    }

    fn read_file(&mut self, number: usize, needles: &mut Needles, bar: &indicatif::ProgressBar) -> Result<(), Error> {
        let path = self.files[number].clone();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            // A database that is in use removes files; what was in them lies in others by then.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::read(&path)(error)),
        };
        let put_together = self.read_log(&path, &mut file, needles)?;
        file.seek(SeekFrom::Start(0)).map_err(Error::read(&path))?;
        let keep = LONGEST_HEADER.max(needles.longest());
        let mut buffer = vec![0; CHUNK + keep];
        let (mut start, mut filled) = (0_u64, 0_usize);
        loop {
            let more = match file.read(&mut buffer[filled..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                more => more.map_err(Error::read(&path))?,
            };
            filled += more;
            self.bytes += more as u64;
            bar.inc(more as u64);
            if filled < buffer.len() && more > 0 {
                continue;
            }
            let window = &buffer[..filled];
            needles.search("raw bytes of a file", window);
            for hit in hits(window) {
                let at = start + hit as u64;
                self.hit(&path, &file, &window[hit..], Place::File { number, at }, at, &put_together)?;
            }
            if more == 0 {
                return Ok(());
            }
            // The end is looked at again with what follows it.
            buffer.copy_within(filled - keep..filled, 0);
            start += (filled - keep) as u64;
            filled = keep;
        }
    }

    /// A magic in a file. What is not whole in the window is read from the file.
    fn hit(
        &mut self,
        path: &Path,
        file: &File,
        window: &[u8],
        place: Place,
        at: u64,
        put_together: &HashSet<[u8; 32]>,
    ) -> Result<(), Error> {
        let mut header = [0; LONGEST_HEADER];
        let head = match window.get(..LONGEST_HEADER) {
            Some(head) => head,
            None => {
                let read = read_at_most(file, &mut header, at).map_err(Error::read(path))?;
                &header[..read]
            }
        };
        let Some(length) = length(head) else {
            return Ok(());
        };
        let last = at.saturating_add(length as u64 - 1);
        let crosses = at / wal::BLOCK as u64 != last / wal::BLOCK as u64;
        if crosses && salt(head).is_some_and(|salt| put_together.contains(&salt)) {
            return Ok(());
        }
        match window.get(..length) {
            Some(bytes) => self.keep(bytes, place),
            None => {
                let mut bytes = vec![0; length];
                if read_at_most(file, &mut bytes, at).map_err(Error::read(path))? == length {
                    self.keep(&bytes, place);
                }
            }
        }
        Ok(())
    }

    /// The fragmented records of a log, if the file is one; gives the salts of what was found in them.
    fn read_log(&mut self, path: &Path, file: &mut File, needles: &mut Needles) -> Result<HashSet<[u8; 32]>, Error> {
        let mut put_together = HashSet::new();
        let mut block = vec![0; wal::BLOCK];
        let read = read_at_most(file, &mut block, 0).map_err(Error::read(path))?;
        let named_log = path.file_name().is_some_and(|name| name.to_string_lossy().contains(".log"));
        if !named_log && !wal::looks_like_log(&block[..read]) {
            return Ok(put_together);
        }
        // Errors of the temporary file are told apart from those of the log.
        let mut failed = None;
        let outcome = wal::fragmented(BufReader::new(&mut *file), |record| {
            needles.search("raw bytes of a file", record);
            for hit in hits(record) {
                let Some(bytes) = length(&record[hit..]).and_then(|length| record.get(hit..hit + length)) else {
                    continue;
                };
                put_together.extend(salt(bytes));
                if self.seen.contains(&fingerprint(bytes)) {
                    continue;
                }
                match self.spill.append(bytes) {
                    Ok(at) => self.keep(bytes, Place::Spill(at)),
                    Err(error) => {
                        failed = Some(error);
                        return Err(io::Error::other("stopped"));
                    }
                }
            }
            Ok(())
        });
        match (failed, outcome) {
            (Some(error), _) => Err(Error::Spill(error)),
            (None, outcome) => outcome.map(|()| put_together).map_err(Error::read(path)),
        }
    }

    /// Notes one envelope or frame that fills `bytes`.
    fn keep(&mut self, bytes: &[u8], place: Place) {
        let envelope = Envelope::parse(bytes).ok();
        if envelope.is_none() && !bytes.starts_with(&FRAME_MAGIC) || !self.seen.insert(fingerprint(bytes)) {
            return;
        }
        let length = bytes.len();
        match envelope {
            Some(envelope) => {
                let (Some(salt), Some(id)) = (salt(bytes), array(envelope.clear, 0)) else {
                    return;
                };
                let root = if envelope.kind == Kind::Top { array(envelope.clear, 24) } else { None };
                if matches!(envelope.kind, Kind::Top | Kind::Page | Kind::Append) {
                    self.note_items(page::items_of(envelope.kind, envelope.clear));
                }
                self.sealed.push(Sealed { kind: envelope.kind, salt, id, root, place, length });
            }
            None => {
                if let (Some(row), Some(salt), Some(sequence)) = (array(bytes, 8), array(bytes, 24), array(bytes, 56)) {
                    self.frames.push(Frame { row, salt, sequence, place, length });
                }
            }
        }
    }

    fn note_items(&mut self, items: &[u8]) {
        let mut row = None;
        for (tag, id) in page::items(items) {
            match (tag, row) {
                (2, _) => {
                    self.rows.insert(id);
                    row = Some(id);
                }
                (3, Some(row)) => drop(self.object_rows.entry(id).or_default().insert(row)),
                _ => {}
            }
        }
    }
}

/// Where magics begin.
fn hits(bytes: &[u8]) -> Vec<usize> {
    let mut hits: Vec<usize> = Finder::new(&envelope::MAGIC).find_iter(bytes).collect();
    hits.extend(Finder::new(&FRAME_MAGIC).find_iter(bytes));
    hits
}

/// Bytes of the envelope or frame with this header.
fn length(header: &[u8]) -> Option<usize> {
    let be32 = |at: usize| array(header, at).map(|bytes| u32::from_be_bytes(bytes) as usize);
    if header.starts_with(&envelope::MAGIC) {
        let (clear, sealed) = (be32(8)?, be32(12)?);
        let bounded =
            clear <= envelope::MAX_PART && sealed <= envelope::MAX_PART && header.len() >= envelope::HEADER_LEN;
        bounded.then_some(envelope::HEADER_LEN + clear + sealed)
    } else {
        let sealed = be32(72).filter(|sealed| *sealed <= MAX_FRAME)?;
        let known = header[4] == 1 && matches!(header[5], 1 | 2) && header[6..8] == [0, 0];
        known.then_some(FRAME_HEADER + sealed + FRAME_CHECKSUM)
    }
}

fn salt(bytes: &[u8]) -> Option<[u8; 32]> {
    array(bytes, if bytes.starts_with(&envelope::MAGIC) { 16 } else { 24 })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn fingerprint(bytes: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, bytes).as_ref());
    fingerprint
}

fn read_at_most(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A temporary file that has no name from the moment it exists.
struct Spill {
    file: File,
    end: u64,
}

impl Spill {
    fn new() -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("quietus-forensics.{}.{count}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, end: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.end;
        self.file.write_all_at(bytes, at)?;
        self.end += bytes.len() as u64;
        Ok(at)
    }
}
