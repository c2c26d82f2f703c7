//! The journal against one `fdatasync` per batch.
//!
//! Frames of 1, 100 and 10 000 calls (a tenth of a second of 8 kHz 16-bit sound each); every call sends its next frame once the one
//! before is durable. The floor writes batches of as many bytes as ours had on average, sealed already, into a preallocated
//! file and syncs each: what a disk allows to anybody who acknowledges by groups. Memory is what the journal holds for
//! each call whose frames are released (it is in S3) and which goes on.

mod common;

use common::{Row, seconds};
use quietus::{
    crypto::{random, secret::Secret},
    domain::id::RowId,
    journal::{CallWriter, FrameKind, Journal, Options},
};
use std::{fs::OpenOptions, os::unix::fs::FileExt as _, path::Path};
use tokio::runtime::Runtime;

const FRAME: usize = 1600;
/// Calls, and frames of each in a round.
const ROUND: [(usize, usize); 3] = [(1, 500), (100, 100), (10_000, 5)];
const ROUNDS: usize = 7;
/// What the floor writes in a round, in as many batches as that makes.
const FLOOR_BYTES: u64 = 64 << 20;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let mut rows = Vec::new();
    let mut memory = Vec::new();
    for (count, frames) in ROUND {
        let dir = common::folder();
        let (journal, _) = Journal::open(dir.path(), Options::default()).expect("opens");
        let before = common::resident_bytes(std::process::id());
        let mut calls: Vec<Call> = (0..count).map(|_| Call::new(&journal)).collect();
        let mut pairs = Vec::new();
        // The first one warms.
        for round in 0..=ROUNDS {
            let (bytes, syncs) = (journal.bytes(), journal.syncs());
            let taken = seconds(|| calls = runtime.block_on(all_send(std::mem::take(&mut calls), frames)));
            let appends = (count * frames) as f64;
            let batch = appends / (journal.syncs() - syncs) as f64;
            let bytes = (journal.bytes() - bytes) as f64 / appends * batch;
            for call in &calls {
                journal.release(call.row, call.offset);
            }
            if round > 0 {
                pairs.push((appends / taken, batch / floor(dir.path(), bytes as usize)));
            }
        }
        rows.push(Row::new(format!("durable appends, {count} calls"), "1/s", "", pairs));
        if count >= 10_000 {
            memory.push((common::resident_bytes(std::process::id()) - before) / count as f64);
        }
    }
    rows.push(Row::alone("memory of the journal per call, 10 000 calls", "bytes", "a few kB", memory));
    common::print("Journal: `cargo bench --bench journal`", &rows);
}

struct Call {
    row: RowId,
    writer: CallWriter,
    offset: u64,
}

impl Call {
    fn new(journal: &Journal) -> Self {
        let row = RowId(random());
        Self { row, writer: journal.call(row, &Secret::random()), offset: 0 }
    }
}

async fn all_send(calls: Vec<Call>, frames: usize) -> Vec<Call> {
    let mut tasks = tokio::task::JoinSet::new();
    for mut call in calls {
        tasks.spawn(async move {
            for _ in 0..frames {
                call.writer.append(FrameKind::Audio, call.offset, &[0x55; FRAME]).await.expect("durable");
                call.offset += FRAME as u64;
            }
            call
        });
    }
    tasks.join_all().await
}

/// Seconds for one batch: written and synced.
fn floor(dir: &Path, bytes: usize) -> f64 {
    let batches = (FLOOR_BYTES / bytes as u64).clamp(4, 50);
    let path = dir.join("floor");
    let file = OpenOptions::new().write(true).create_new(true).open(&path).expect("a file");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, batches * bytes as u64).expect("space");
    file.sync_all().expect("syncs");
    let batch = vec![0xa5; bytes];
    let taken = seconds(|| {
        for number in 0..batches {
            file.write_all_at(&batch, number * bytes as u64).and_then(|()| file.sync_data()).expect("writes");
        }
    });
    std::fs::remove_file(&path).expect("removes");
    taken / batches as f64
}
