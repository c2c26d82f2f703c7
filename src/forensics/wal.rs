//! Records of a RocksDB log, put together again.
//!
//! A log is a sequence of blocks of 32 KiB. A record that does not fit what is left of a block is written in fragments,
//! each behind a header of its own (checksum 4, length 2 little-endian, type 1; recyclable types add a log number of 4),
//! so that a long value is not contiguous in the file. Types: 1 full, 2 first, 3 middle, 4 last; 5 to 8 the same,
//! recyclable; others carry no data of ours. No checksum is looked at, and what is torn is given as far as it goes.

use std::io::{self, Read};

/// Bytes in a block.
pub const BLOCK: usize = 32 * 1024;
/// A record above this is given in pieces: no batch comes near it, and a hostile file cannot take more memory.
const MAX_RECORD: usize = 256 << 20;
const HEADER: usize = 7;
const RECYCLABLE_HEADER: usize = 11;

/// Whether the first block walks like one of a log.
pub fn looks_like_log(block: &[u8]) -> bool {
    let mut records = 0;
    let whole = walk(block, |_, _| records += 1);
    whole && records > 0
}

/// Gives every record that is in fragments; whole ones lie contiguous in the file already.
pub fn fragmented(mut log: impl Read, mut record: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut gathered: Vec<u8> = Vec::new();
    loop {
        let filled = fill(&mut log, &mut block)?;
        let mut outcome = Ok(());
        let whole = walk(&block[..filled], |kind, data| {
            if outcome.is_err() {
                return;
            }
            let (starts, ends) = match kind {
                2 | 6 => (true, false),
                3 | 7 => (false, false),
                4 | 8 => (false, true),
                _ => (true, true),
            };
            if starts {
                outcome = flush(&mut gathered, &mut record);
            }
            if starts && ends {
                return;
            }
            gathered.extend_from_slice(data);
            if outcome.is_ok() && (ends || gathered.len() > MAX_RECORD) {
                outcome = flush(&mut gathered, &mut record);
            }
        });
        outcome?;
        if !whole {
            flush(&mut gathered, &mut record)?;
        }
        if filled < BLOCK {
            return flush(&mut gathered, &mut record);
        }
    }
}

fn flush(gathered: &mut Vec<u8>, record: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let outcome = if gathered.is_empty() { Ok(()) } else { record(gathered) };
    gathered.clear();
    outcome
}

/// Walks the fragments of one block; false where it stops making sense. A torn last fragment is given as far as it goes.
fn walk(block: &[u8], mut fragment: impl FnMut(u8, &[u8])) -> bool {
    let mut at = 0;
    while let Some(header) = block.get(at..at + HEADER) {
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let kind = header[6];
        let header_len = match kind {
            // Behind the last record of a block, or of a file that was allocated in advance.
            0 => return length == 0,
            1..=4 | 9 | 10 | 130 => HEADER,
            5..=8 | 11 | 131 => RECYCLABLE_HEADER,
            _ => return false,
        };
        let start = (at + header_len).min(block.len());
        let end = start + length;
        if end > BLOCK {
            return false;
        }
        fragment(kind, &block[start..end.min(block.len())]);
        at = end;
    }
    true
}

fn fill(from: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match from.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A log as RocksDB writes it (checksums left out), with ordinary or recyclable headers.
    pub fn log_of(records: &[Vec<u8>], recyclable: bool) -> Vec<u8> {
        let header = if recyclable { RECYCLABLE_HEADER } else { HEADER };
        let mut log: Vec<u8> = Vec::new();
        for record in records {
            let mut rest = record.as_slice();
            let mut first = true;
            loop {
                let mut room = BLOCK - log.len() % BLOCK;
                if room < header {
                    log.extend(std::iter::repeat_n(0, room));
                    room = BLOCK;
                }
                let (now, later) = rest.split_at(rest.len().min(room - header));
                let kind = match (first, later.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                log.extend([0; 4]);
                log.extend((now.len() as u16).to_le_bytes());
                log.push(if recyclable { kind + 4 } else { kind });
                log.extend(std::iter::repeat_n(9, header - HEADER));
                log.extend(now);
                (rest, first) = (later, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        log
    }

    fn read(log: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        fragmented(log, |record| {
            found.push(record.to_vec());
            Ok(())
        })
        .expect("reading from memory");
        found
    }

    #[test]
    fn a_torn_record_is_given_as_far_as_it_goes() {
        let record = vec![5; 100_000];
        let log = log_of(std::slice::from_ref(&record), false);
        assert_eq!(read(&log), [record]);
        let found = read(&log[..70_000]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].len(), 70_000 - 3 * HEADER);
    }

    #[test]
    fn a_damaged_block_does_not_hide_the_next_records() {
        let records = [vec![1; 50_000], vec![2; 50_000]];
        let mut log = log_of(&records, false);
        log[6] = 200;
        assert!(read(&log).contains(&records[1]));
    }

    #[test]
    fn only_logs_look_like_logs() {
        assert!(looks_like_log(&log_of(&[vec![1; 10], vec![2; 50_000]], false)[..BLOCK]));
        assert!(!looks_like_log(b"QTEV is not a log at all"));
        assert!(!looks_like_log(&[]));
    }

    proptest! {
        #[test]
        fn every_fragmented_record_comes_back(sizes in prop::collection::vec(0..90_000_usize, 0..8), recyclable: bool) {
            let records: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, size)| vec![n as u8 + 1; *size]).collect();
            let found = read(&log_of(&records, recyclable));
            for record in records.iter().filter(|record| record.len() > BLOCK) {
                prop_assert!(found.contains(record));
            }
            prop_assert!(found.iter().all(|record| records.contains(record)));
        }

        #[test]
        fn hostile_logs_never_panic(
            pattern in prop::collection::vec(prop_oneof![0..12_u8, any::<u8>()], 1..60),
            length in 0..3 * BLOCK,
        ) {
            let bytes: Vec<u8> = pattern.iter().copied().cycle().take(length).collect();
            let _ = read(&bytes);
            let _ = looks_like_log(&bytes);
        }
    }
}
