//! What the benches share: measuring ours and a floor by turns in the same run, and the table at the end.
//!
//! A floor is the least that the same work could cost with the same parts (the bare cipher, the bare syncs, the bare put).
//! Only the ratio to it means anything on a machine that others use too; each round measures both, in alternating order, and
//! gives one ratio. The table shows the median of the rounds and, beside the ratio, its least and largest. Nothing is
//! asserted: a number that is too bad is a finding, not a failed test.
#![allow(dead_code, reason = "each bench is a program of its own and uses a part of this")]

use quietus::{
    crypto::{random, secret::Secret},
    domain::{
        id::{ObjectId, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
        time::Minute,
    },
    keys::{Change, Keeping, RecordingPath},
};
use std::{fmt::Write as _, path::PathBuf, time::Instant};

/// As the gateway has it: what is freed is wiped, and that takes its time.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// In which `/proc` counts: USER_HZ, 100 on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// One line of the table.
pub struct Row {
    what: String,
    unit: &'static str,
    pairs: Vec<(f64, f64)>,
    goal: &'static str,
}

impl Row {
    /// A line whose pairs `(ours, floor)` were measured round by round.
    pub fn new(what: impl Into<String>, unit: &'static str, goal: &'static str, pairs: Vec<(f64, f64)>) -> Self {
        Self { what: what.into(), unit, pairs, goal }
    }

    /// A figure that has no floor.
    pub fn alone(what: impl Into<String>, unit: &'static str, goal: &'static str, figures: Vec<f64>) -> Self {
        Self::new(what, unit, goal, figures.into_iter().map(|figure| (figure, f64::NAN)).collect())
    }

    fn line(&self) -> String {
        let of = |pick: &dyn Fn(&(f64, f64)) -> f64| sorted(self.pairs.iter().map(pick).collect());
        let (ours, floor, ratio) = (of(&|pair| pair.0), of(&|pair| pair.1), of(&|pair| pair.0 / pair.1));
        let floor_and_ratio = if median(&floor).is_nan() {
            "| |".to_owned()
        } else {
            let (least, most) = (ratio.first().copied().unwrap_or(f64::NAN), ratio.last().copied().unwrap_or(f64::NAN));
            format!("{} | **{:.2}** ({least:.2}-{most:.2}) |", shown(median(&floor)), median(&ratio))
        };
        format!("| {} | {} | {} | {floor_and_ratio} {} |", self.what, self.unit, shown(median(&ours)), self.goal)
    }
}

/// Prints the table; `make bench` puts the tables of all benches together, in the file that this variable names.
pub fn print(title: &str, rows: &[Row]) {
    let mut text =
        format!("\n### {title}\n\n| what | unit | ours | floor | ours / floor | goal |\n|---|---|---|---|---|---|\n");
    for row in rows {
        let _ = writeln!(text, "{}", row.line());
    }
    println!("{text}");
    if let Some(path) = std::env::var_os("QUIETUS_BENCH_TABLE") {
        let kept = std::fs::OpenOptions::new().create(true).append(true).open(path);
        kept.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes())).expect("the table is kept");
    }
}

/// Measures both by turns, the first one alternating; one round before that warms caches.
pub fn by_turns(rounds: usize, mut ours: impl FnMut() -> f64, mut floor: impl FnMut() -> f64) -> Vec<(f64, f64)> {
    ours();
    floor();
    let round = |number: usize| {
        if number.is_multiple_of(2) {
            let first = ours();
            (first, floor())
        } else {
            let first = floor();
            (ours(), first)
        }
    };
    (0..rounds).map(round).collect()
}

/// An ordinary recording that is over: when it ended, when its leaves are due, where and why it was made, and one object.
pub fn recording(tenant: TenantHandle, subscriber: SubscriberHandle) -> (Change, RecordingPath) {
    let at = RecordingPath { tenant, subscriber, recording: RecordingHandle(random()) };
    let (ended, due) = (Minute(29_000_000), Minute(29_500_000));
    let create = Change::AddRecording {
        at,
        row: RowId(random()),
        kind: 1,
        audio: Secret::random(),
        facts: Secret::random(),
        objects: vec![ObjectId(random())],
        keeping: Keeping {
            ended,
            audio_due: due,
            facts_due: due,
            jurisdiction: *b"IE",
            basis: 2,
            ..Keeping::default()
        },
        parent: None,
        parties: Vec::new(),
        wrapped: false,
    };
    (create, at)
}

/// Seconds that `work` takes.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

/// Seconds on a processor that `work` takes in this thread: of use where nothing waits, and blind to who else runs.
pub fn busy_seconds(work: impl FnOnce()) -> f64 {
    let before = thread_nanoseconds();
    work();
    (thread_nanoseconds() - before) / 1e9
}

fn thread_nanoseconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split_whitespace().next().and_then(|busy| busy.parse().ok()).expect("a number")
}

/// A folder on the disk that the target folder lies on: not in memory, where a sync would cost nothing.
pub fn folder() -> tempfile::TempDir {
    let parent = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(parent).expect("a folder below the target folder")
}

/// Waits until what this process wrote is on the disk and nothing in the background (compaction) writes more. At most a
/// minute: somebody who measures is told by the spread.
pub fn wait_until_the_disk_is_quiet() {
    let mut before = 0;
    for _ in 0..60 {
        rustix::fs::sync();
        let now = written_bytes();
        if now == before {
            return;
        }
        before = now;
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("Linux");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:")).expect("a line write_bytes");
    line.trim().parse().expect("a number")
}

/// Seconds on a processor that a process has used so far.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // Behind the name, which is in parentheses: state is the first field, user and system time the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).expect("a number");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Bytes of memory that a process holds now.
pub fn resident_bytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line VmRSS");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("kilobytes") * 1024.0
}

fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn shown(figure: f64) -> String {
    match figure.abs() {
        large if large >= 1000.0 => format!("{figure:.0}"),
        middle if middle >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.3}"),
    }
}
