//! The files of rotations, each with one command, in a folder of their own.
//!
//! The sync of such a file is the commit point of a rotation. Once its command needs it no more, its room is kept for another
//! one: to write over a file that is there takes one sync, a new one takes two, and the file system has to note both. What is let
//! go of has its first bytes overwritten with zeros, so that it says nothing; that is not waited for.
//!
//! # What a start finds after a loss of power
//! A command says where it ends, and behind the end a digest; what lies behind that is left of a longer one. While a file is
//! written over, any of its blocks may be old or new, so by cases:
//! - *none is new*: the command of before, whole, or zeros. Its number is past, and the store is flushed beyond it.
//! - *all are new*: the command. It was committed, whether anybody knew or not.
//! - *some are*: the digest fits neither. It is torn, and its attempt did not reach the commit point. Where the first block is new
//!   it tells the number, and a start notices that commands before it are missing. Where it is not, nothing does; the attempt had
//!   no effect, and whatever is missing is missing without it too.
//!
//! A torn file that tells a number is unlinked before anything else is planned, so no two files ever tell the same.

use super::super::{backing::sync_folder, command};
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Bytes of files that are kept for further rotations.
const SPARE: u64 = 64 << 20;
/// A file is as long as a multiple of this, so that most of those that come after fit where it lies.
const ROOM: u64 = 32 << 10;
/// What a file begins with that says nothing.
const NOTHING: [u8; 16] = [0; 16];

/// The folder.
pub struct Files {
    folder: PathBuf,
    known: Mutex<Known>,
}

/// A file, by the number that is its name.
type Name = u64;

/// A file that says nothing.
struct Spare {
    name: Name,
    length: u64,
}

#[derive(Default)]
struct Known {
    /// Which command lies where.
    used: Vec<(u64, Name)>,
    spare: Vec<Spare>,
    /// Bytes of all that are spare.
    spared: u64,
    /// No file has this name, or a higher one.
    next: Name,
}

impl Files {
    /// Of a folder that is there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mut known = Known::default();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str().and_then(|name| name.parse::<Name>().ok()) else {
                return Err(io::Error::other("a foreign file lies among those of rotations"));
            };
            // What lies there is known when it has been read.
            known.used.push((0, name));
            known.next = known.next.max(name + 1);
        }
        Ok(Self { folder: folder.to_owned(), known: Mutex::new(known) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: Name) -> PathBuf {
        self.folder.join(format!("{name:020}"))
    }

    /// Writes a command; durable when it returns.
    pub fn put(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let mut known = self.known();
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let length = bytes.len() as u64;
        let spare = known.spare_of(length);
        let (name, room) = match &spare {
            Some(spare) => (spare.name, spare.length),
            None => {
                options.create_new(true);
                known.next += 1;
                (known.next - 1, 0)
            }
        };
        let file = options.open(self.path(name))?;
        if room < length {
            file.write_all_at(&vec![0; (length.next_multiple_of(ROOM) - length) as usize], length)?;
        }
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        if spare.is_none() {
            sync_folder(&self.folder)?;
        }
        known.used.push((number, name));
        Ok(())
    }

    /// What lies in the files, ascending by the number that the command gives; 0 where it gives none.
    pub fn read(&self) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let mut known = self.known();
        let mut found = Vec::new();
        let names = known.used.iter().map(|(_, name)| *name).collect::<Vec<_>>();
        known.used.clear();
        for name in names {
            let bytes = fs::read(self.path(name))?;
            if bytes.is_empty() || bytes.starts_with(&NOTHING) {
                known.spare(Spare { name, length: bytes.len() as u64 });
                continue;
            }
            let number = command::number_in(&bytes).unwrap_or(0);
            known.used.push((number, name));
            found.push((number, bytes));
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        Ok(found)
    }

    /// These commands need their files no more.
    pub fn release(&self, numbers: &[u64]) -> io::Result<()> {
        let mut known = self.known();
        let (mut done, mut gone) = (Vec::new(), Vec::new());
        for name in known.take(numbers) {
            let file = OpenOptions::new().write(true).open(self.path(name))?;
            done.push((file.metadata()?.len(), name, file));
        }
        // The short ones first: few long ones would take the room of many.
        done.sort_unstable_by_key(|(length, ..)| *length);
        for (length, name, file) in done {
            if known.spared + length <= SPARE {
                file.write_all_at(&NOTHING, 0)?;
                known.spare(Spare { name, length });
            } else {
                gone.push(name);
            }
        }
        drop(known);
        self.remove(&gone)
    }

    /// These files are torn.
    pub fn unlink(&self, numbers: &[u64]) -> io::Result<()> {
        let names = self.known().take(numbers);
        self.remove(&names)
    }

    fn remove(&self, names: &[Name]) -> io::Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        names.iter().try_for_each(|name| fs::remove_file(self.path(*name)))?;
        sync_folder(&self.folder)
    }
}

impl Known {
    fn spare(&mut self, spare: Spare) {
        self.spared += spare.length;
        self.spare.push(spare);
    }

    /// The shortest of those that are long enough, else the longest, which grows.
    fn spare_of(&mut self, length: u64) -> Option<Spare> {
        let fits = |spare: &Spare| if spare.length < length { (1, u64::MAX - spare.length) } else { (0, spare.length) };
        let (at, _) = self.spare.iter().enumerate().min_by_key(|(_, spare)| fits(spare))?;
        let spare = self.spare.swap_remove(at);
        self.spared -= spare.length;
        Some(spare)
    }

    fn take(&mut self, numbers: &[u64]) -> Vec<Name> {
        let taken = |(number, _): &mut (u64, Name)| numbers.contains(number);
        self.used.extract_if(.., taken).map(|(_, name)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::id::{PageId, RootId},
        keys::{
            backing::{Family, Row},
            command::{Command, Rotation},
        },
    };
    use proptest::prelude::*;

    fn command(number: u64, length: usize) -> Vec<u8> {
        let rotation = Rotation { generation: number, from: RootId([1; 16]), to: RootId([2; 16]) };
        let rows = vec![Row::put(Family::Values, [3; 16], vec![number as u8; length])];
        Command { number, rotation: Some(rotation), expects: vec![(PageId([4; 16]), 1)], rows }.encode()
    }

    fn whole(bytes: &[u8]) -> Option<u64> {
        Command::decode_first(bytes).ok().map(|(command, _)| command.number)
    }

    fn open() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().expect("a folder");
        let files = Files::open(dir.path()).expect("opens");
        (dir, files)
    }

    fn found(files: &Files) -> Vec<(u64, Option<u64>)> {
        files.read().expect("reads").iter().map(|(number, bytes)| (*number, whole(bytes))).collect()
    }

    #[test]
    fn a_file_that_is_needed_no_more_takes_the_next_command() {
        let (dir, files) = open();
        for number in [5, 6] {
            files.put(number, &command(number, 9000)).expect("writes");
        }
        files.release(&[5]).expect("released");
        files.put(7, &command(7, 100)).expect("writes");
        assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 2);
        assert_eq!(found(&files), [(6, Some(6)), (7, Some(7))], "shorter than what lay there");
        let again = Files::open(dir.path()).expect("opens");
        assert_eq!(found(&again), [(6, Some(6)), (7, Some(7))]);
        again.release(&[6, 7]).expect("released");
        let again = Files::open(dir.path()).expect("opens");
        assert_eq!(found(&again), [], "what is let go of says nothing");
        again.put(8, &command(8, 20_000)).expect("writes");
        again.put(9, &command(9, 1)).expect("writes");
        again.put(10, &command(10, 1)).expect("writes");
        assert_eq!(found(&again), [(8, Some(8)), (9, Some(9)), (10, Some(10))]);
        assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 3);
    }

    #[test]
    fn the_file_that_fits_best_is_taken() {
        let (dir, files) = open();
        let lengths = |files: &Files| {
            let known = files.known();
            let mut lengths: Vec<u64> = known.spare.iter().map(|spare| spare.length / ROOM).collect();
            lengths.sort_unstable();
            assert_eq!(known.spared, lengths.iter().sum::<u64>() * ROOM);
            lengths
        };
        for (number, rooms) in [(5, 4), (6, 1), (7, 2)] {
            files.put(number, &command(number, rooms * ROOM as usize - 1000)).expect("writes");
        }
        files.release(&[5, 6, 7]).expect("released");
        assert_eq!(lengths(&files), [1, 2, 4]);
        files.put(8, &command(8, ROOM as usize)).expect("writes");
        assert_eq!(lengths(&files), [1, 4]);
        files.put(9, &command(9, 5 * ROOM as usize - 1000)).expect("writes");
        assert_eq!(lengths(&files), [1], "the longest grows");
        assert_eq!(found(&files), [(8, Some(8)), (9, Some(9))]);
        files.release(&[8, 9]).expect("released");
        assert_eq!(lengths(&files), [1, 2, 5]);
        files.put(10, &command(10, (SPARE - 2 * ROOM) as usize - 1000)).expect("writes");
        files.put(11, &command(11, 100)).expect("writes");
        files.release(&[10, 11]).expect("released");
        assert_eq!(lengths(&files), [1, 2], "the long one found no room behind the short one");
        assert_eq!(found(&Files::open(dir.path()).expect("opens")), []);
    }

    #[test]
    fn a_long_file_and_a_torn_one_go() {
        let (dir, files) = open();
        files.put(5, &command(5, SPARE as usize)).expect("writes");
        files.put(6, &command(6, 100)).expect("writes");
        files.release(&[5]).expect("released");
        assert_eq!(found(&files), [(6, Some(6))]);
        fs::write(files.path(1), &command(6, 100)[..50]).expect("tears");
        assert_eq!(found(&files), [(6, None)], "it still tells the number");
        files.unlink(&[6]).expect("unlinked");
        assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 0);
        fs::write(files.path(2), [1; 600]).expect("damages");
        let files = Files::open(dir.path()).expect("opens");
        assert_eq!(found(&files), [(0, None)], "nor one that tells none");
        files.unlink(&[0]).expect("unlinked");
        assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 0);
    }

    #[test]
    fn a_foreign_file_is_refused() {
        let (dir, _) = open();
        fs::write(dir.path().join("notes"), "x").expect("writes");
        assert!(Files::open(dir.path()).is_err());
    }

    proptest! {
        /// Any blocks of the old and the new content.
        #[test]
        fn a_command_that_is_written_over_is_the_old_one_the_new_one_or_torn(
            (old, new, released) in (0_usize..9000, 0_usize..9000, any::<bool>()),
            arrived in prop::collection::vec(any::<bool>(), 20),
        ) {
            let (mut before, after) = (command(5, old), command(6, new));
            if released {
                before[..16].copy_from_slice(&NOTHING);
            }
            let mut content = before.clone();
            content.resize(before.len().max(after.len()), 0);
            let blocks = after.chunks(512).count();
            for (at, block) in after.chunks(512).enumerate().filter(|(at, _)| arrived[*at]) {
                content[at * 512..at * 512 + block.len()].copy_from_slice(block);
            }
            let arrived = &arrived[..blocks];
            let expected = match arrived.iter().all(|new| *new) {
                true => Some(6),
                // Nothing came, or what came lies behind the end of the old one.
                false if content.starts_with(&before) && !released => Some(5),
                false => None,
            };
            prop_assert_eq!(whole(&content), expected);
            let tells = if arrived[0] { Some(6) } else { Some(5).filter(|_| !released) };
            prop_assert_eq!(command::number_in(&content), tells);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = (whole(&bytes), command::number_in(&bytes));
        }
    }
}
