//! The ends of RocksDB's log and manifest after power has failed during a write.
//!
//! RocksDB takes a log that is cut off in its last record for a torn one, and any other flaw for a damaged store. But the parts
//! of a write reach the disk in any order: of a batch that was being written the middle may be missing, and the end be there.
//! What tells that from damage is *what lies behind the flaw*. Each of the two has one writer, which writes nothing before the
//! last is synced. The log gets one record at a time; so behind the one that power has torn no other begins. The manifest
//! gets a group: a flush adds a record for each column family, compactions that end meanwhile join it, and one sync follows.
//! So behind a torn record there may be the rest of its group, and no more than [`GROUP`]. If more records begin, what is flawed was
//! synced, and the store is to be restored, not mended.
//!
//! A last record that was synced and has gone bad is cut off too, as RocksDB does with one that is cut short. Of the log, the
//! file of a rotation has it, or the numbers of commands show the gap; of the manifest, the logs that it tracks, or tables, are
//! missing, and RocksDB refuses: what a record does away with goes only when that record is synced.
//!
//! ```text
//! bytes  field (of a fragment; a record is one, or first … last; none crosses a block of 32768 bytes)
//!     4  CRC-32C of kind and content, rotated right by 15, plus 0xa282ead8; little endian
//!     2  length of the content, little endian
//!     1  kind: 1 whole, 2 first, 3 middle, 4 last
//! ```
//!
//! Of kinds that our settings do not write none is met; one that is there anyway is a flaw, and nothing is mended behind which
//! a record begins.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Most records that may lie behind a torn one of the manifest.
const GROUP: usize = 32;
const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const LAST: u8 = 4;

/// Cuts torn records off the newest log and the manifest of a database that is not open. Says whether there was one; else
/// nothing was changed.
pub fn cut_off(db: &Path) -> io::Result<bool> {
    let mut mended = false;
    for (file, group) in [(newest_log(db)?, 0), (manifest(db)?, GROUP)] {
        let Some(file) = file else { continue };
        let bytes = std::fs::read(&file)?;
        let Some(end) = torn_at(&bytes, group) else { continue };
        let file = File::options().write(true).open(&file)?;
        file.set_len(end as u64)?;
        file.sync_all()?;
        let cut = bytes.len() - end;
        tracing::warn!(cut, "power had failed during the key store's last write: what is there of it is cut off");
        mended = true;
    }
    Ok(mended)
}

fn manifest(db: &Path) -> io::Result<Option<PathBuf>> {
    let current = std::fs::read_to_string(db.join("CURRENT"))?;
    let name = current.trim_end();
    Ok(name.starts_with("MANIFEST-").then(|| db.join(name)))
}

fn newest_log(db: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in std::fs::read_dir(db)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".log"));
        if let Some(number) = name.and_then(|name| name.parse().ok())
            && newest.as_ref().is_none_or(|(newest, _)| number > *newest)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the first flawed record begins, if no more than `group` begin behind it; none when there is no flaw, or one that power
/// cannot have made.
fn torn_at(log: &[u8], group: usize) -> Option<usize> {
    let (mut at, mut begun) = (0, None);
    loop {
        if BLOCK - at % BLOCK < HEADER {
            at += BLOCK - at % BLOCK;
        }
        if at >= log.len() {
            return begun;
        }
        let Some((kind, length)) = fragment(log, at) else { break };
        match (kind, begun) {
            (WHOLE, None) => {}
            (FIRST, None) => begun = Some(at),
            (WHOLE | FIRST, Some(_)) | (_, None) => break,
            (LAST, Some(_)) => begun = None,
            _ => {}
        }
        at += HEADER + length;
    }
    let flaw = begun.unwrap_or(at);
    let begins = |at: &usize| matches!(fragment(log, *at), Some((WHOLE | FIRST, _)));
    let behind = (flaw + 1..log.len()).filter(begins).take(group + 1).count();
    if behind > group { None } else { Some(flaw) }
}

/// Kind and length of a fragment whose checksum fits.
fn fragment(log: &[u8], at: usize) -> Option<(u8, usize)> {
    let header = log.get(at..at + HEADER)?;
    let (length, kind) = (usize::from(u16::from_le_bytes([header[4], header[5]])), header[6]);
    if !(WHOLE..=LAST).contains(&kind) || at % BLOCK + HEADER + length > BLOCK {
        return None;
    }
    let covered = log.get(at + HEADER - 1..at + HEADER + length)?;
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let masked = crc32c::crc32c(covered).rotate_right(15).wrapping_add(0xa282_ead8);
    (masked == stored).then_some((kind, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(records: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut log, mut starts) = (Vec::new(), Vec::new());
        for record in records {
            let (mut rest, mut first) = (&record[..], true);
            loop {
                let mut room = BLOCK - log.len() % BLOCK;
                if room < HEADER {
                    log.resize(log.len() + room, 0);
                    room = BLOCK;
                }
                if first {
                    starts.push(log.len());
                }
                let (now, later) = rest.split_at(rest.len().min(room - HEADER));
                let kind = match (first, later.is_empty()) {
                    (true, true) => WHOLE,
                    (true, false) => FIRST,
                    (false, false) => 3,
                    (false, true) => LAST,
                };
                let crc = crc32c::crc32c(&[&[kind], now].concat()).rotate_right(15).wrapping_add(0xa282_ead8);
                log.extend_from_slice(&crc.to_le_bytes());
                log.extend_from_slice(&(now.len() as u16).to_le_bytes());
                log.push(kind);
                log.extend_from_slice(now);
                (rest, first) = (later, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        (log, starts)
    }

    fn records() -> Vec<Vec<u8>> {
        [100, 40_000, 7, 32_761, 90_000].into_iter().map(|length| vec![0x5a; length]).collect()
    }

    #[test]
    fn a_log_without_flaw_is_left_alone() {
        let (log, starts) = log_of(&records());
        assert_eq!(torn_at(&log, 0), None);
        assert_eq!(torn_at(&log[..starts[4]], 0), None);
        assert_eq!(torn_at(&[], 0), None);
    }

    #[test]
    fn whatever_is_missing_of_the_last_record_is_cut_off_with_it() {
        let (log, starts) = log_of(&records());
        let last = starts[4];
        for sector in (last..log.len()).step_by(4096) {
            let mut torn = log.clone();
            let end = (sector + 4096).min(log.len());
            torn[sector..end].fill(0);
            assert_eq!(torn_at(&torn, 0), Some(last), "{sector}");
            torn[sector..end].fill(0xc3);
            assert_eq!(torn_at(&torn, 0), Some(last), "{sector}");
        }
    }

    #[test]
    fn a_flaw_before_another_record_is_damage_and_not_mended() {
        let (log, starts) = log_of(&records());
        for start in &starts[..4] {
            for byte in [*start, start + 5, start + 6, start + 7] {
                let mut damaged = log.clone();
                damaged[byte] ^= 1;
                assert_eq!(torn_at(&damaged, 0), None, "{byte}");
            }
        }
    }

    #[test]
    fn a_group_goes_with_the_first_of_it_that_is_torn_and_no_more_than_a_group() {
        let (log, starts) = log_of(&vec![vec![0x5a; 60]; GROUP + 2]);
        for torn in [starts[1], starts[GROUP]] {
            let mut flawed = log.clone();
            flawed[torn..torn + 30].fill(0xc3);
            assert_eq!(torn_at(&flawed, GROUP), Some(torn));
            assert_eq!(torn_at(&flawed, 0), None, "the log has no groups");
        }
        let mut damaged = log;
        damaged[starts[0] + 9] ^= 1;
        assert_eq!(torn_at(&damaged, GROUP), None, "more behind it than one sync can have left");
    }
}
