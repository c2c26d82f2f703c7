//! The memory of a process, and a search in it.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    fs::File,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bytes of a needle that is a part of something longer.
const PART: usize = 16;
/// Windows of audio lie so far apart where there is little of it, and at the ends of much: of what is longer than this and a
/// part, one is hit.
const NEAR: usize = 16;
/// The same, in the middle of much audio.
const FAR: usize = 1024;
/// So much at each end.
const END: usize = 64 << 10;

/// What a needle is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    Root,
    PageKey,
    /// The stable secret of a tenant, subscriber or period.
    Stable,
    /// The secret of a recording's audio.
    Audio,
    /// The secret of a recording's facts.
    Facts,
    /// What HKDF makes of a secret on the way to a key, and as good as the secret.
    Extracted,
    EnvelopeKey,
    SliceKey,
    FrameKey,
    /// Round keys of AES-256, without those that are the key itself.
    Schedule,
    /// Audio itself.
    Sound,
    /// A name, number, call id or label.
    Name,
}

/// What is looked for.
#[derive(Default)]
pub struct Needles {
    parts: Vec<(Kind, Vec<u8>)>,
    known: HashSet<Vec<u8>>,
    by_prefix: HashMap<[u8; 8], Vec<usize>>,
}

impl Needles {
    fn put(&mut self, kind: Kind, part: &[u8]) {
        if self.known.insert(part.to_vec()) {
            let prefix = part[..8].try_into().expect("a part is longer");
            self.by_prefix.entry(prefix).or_default().push(self.parts.len());
            self.parts.push((kind, part.to_vec()));
        }
    }

    /// A key, by its halves: what is left of one is found too.
    pub fn key(&mut self, kind: Kind, key: &[u8]) {
        key.chunks_exact(PART).for_each(|half| self.put(kind, half));
    }

    pub fn word(&mut self, kind: Kind, word: &str) {
        self.put(kind, word.as_bytes());
    }

    pub fn audio(&mut self, content: &[u8]) {
        let mut at = 0;
        while at + PART <= content.len() {
            self.put(Kind::Sound, &content[at..at + PART]);
            at += if at < END || at + END >= content.len() { NEAR } else { FAR };
        }
        self.put(Kind::Sound, &content[content.len() - PART..]);
    }

    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// Those that the bytes begin with.
    fn at(&self, bytes: &[u8], place: &str, found: &mut Found) {
        let prefix: Option<&[u8; 8]> = bytes.first_chunk();
        for part in prefix.and_then(|prefix| self.by_prefix.get(prefix)).into_iter().flatten() {
            let (kind, part) = &self.parts[*part];
            if bytes.starts_with(part) {
                found.0.entry((*kind, part.clone())).or_insert_with(|| (0, place.to_owned())).0 += 1;
            }
        }
    }
}

/// Which needles were found, and where first.
#[derive(Default)]
pub struct Found(BTreeMap<(Kind, Vec<u8>), (usize, String)>);

impl Found {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.0.keys().map(|(kind, _)| *kind)
    }

    /// Those that are among others.
    pub fn of(&self, needles: &Needles) -> Found {
        let among = self.0.iter().filter(|((_, part), _)| needles.known.contains(part));
        Found(among.map(|(part, place)| (part.clone(), place.clone())).collect())
    }
}

/// How many of each kind, and where: no byte of them.
impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sums: BTreeMap<(Kind, &str), (usize, usize)> = BTreeMap::new();
        for ((kind, _), (times, place)) in &self.0 {
            let sum = sums.entry((*kind, place)).or_default();
            *sum = (sum.0 + 1, sum.1 + times);
        }
        for ((kind, place), (parts, times)) in sums {
            write!(f, "{kind:?} {parts} parts {times} times in {place}; ")?;
        }
        write!(f, "{} in all", self.0.len())
    }
}

/// What was in every page that the process could write.
pub struct Image(Vec<(String, Vec<u8>)>);

impl Image {
    /// Stops the process while it is read.
    pub fn of(pid: u32) -> Self {
        signal(pid, Signal::STOP);
        let began = Instant::now();
        while !super::said(pid, "status", "State:").starts_with('T') {
            assert!(began.elapsed() < Duration::from_secs(60), "it does not stop");
            std::thread::yield_now();
        }
        let image = Self::read(pid);
        signal(pid, Signal::CONT);
        image
    }

    /// One that holds all that is looked for, at odd places.
    pub fn planted(needles: &Needles) -> Self {
        let mut bytes = vec![0; PAGE - 3];
        for (_, part) in &needles.parts {
            bytes.extend_from_slice(part);
            bytes.push(1);
        }
        Self(vec![("planted".to_owned(), bytes)])
    }

    fn read(pid: u32) -> Self {
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap_or_else(|error| {
            panic!("the memory of a process that is not dumpable is for administrators; run this as root: {error}")
        });
        let mut regions = Vec::new();
        for (start, end, flags, name) in mappings(pid) {
            // What could not be written holds what its file holds.
            if !flags.starts_with("rw") || name.starts_with("[v") {
                continue;
            }
            let mut bytes = vec![0; end - start];
            memory.read_exact_at(&mut bytes, start as u64).unwrap_or_else(|error| panic!("{name}: {error}"));
            regions.push((name, bytes));
        }
        assert!(regions.iter().any(|(name, _)| name == "[heap]") && regions.iter().any(|(name, _)| name == "[stack]"));
        Self(regions)
    }

    pub fn search(&self, needles: &Needles) -> Found {
        // First by three bytes, since most places are none; in a loop that is fast without optimisation.
        let mut marks = vec![false; 1 << 24];
        for (_, part) in &needles.parts {
            marks[usize::from(part[0]) << 16 | usize::from(part[1]) << 8 | usize::from(part[2])] = true;
        }
        let (marks, empty) = (&marks[..], [0; PAGE]);
        let mut found = Found::default();
        for (name, bytes) in &self.0 {
            let bytes = &bytes[..];
            let (mut at, mut last) = (0, 0_usize);
            while at < bytes.len() {
                if at % PAGE == 0 && bytes.len() >= at + PAGE && bytes[at..at + PAGE] == empty {
                    (at, last) = (at + PAGE, 0);
                    continue;
                }
                last = (last << 8 | bytes[at] as usize) & 0xff_ffff;
                if marks[last] && at >= 2 {
                    needles.at(&bytes[at - 2..], name, &mut found);
                }
                at += 1;
            }
        }
        found
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    kill_process(pid, signal).expect("it runs");
}

/// Start, end, permissions and name of each mapping; anonymous ones are named by their size, which tells stacks of threads.
fn mappings(pid: u32) -> Vec<(usize, usize, String, String)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("an administrator reads it");
    let address = |text: &str| usize::from_str_radix(text, 16).expect("hexadecimal");
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().and_then(|range| range.split_once('-')).expect("a range");
        let (start, end) = (address(start), address(end));
        let flags = words.next().expect("permissions").to_owned();
        let name = words.nth(3).map_or_else(|| format!("anonymous, {} kB", (end - start) >> 10), str::to_owned);
        (start, end, flags, name)
    };
    text.lines().map(parse).collect()
}

/// Mappings that may hold secrets and are not locked.
pub fn unlocked(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("an administrator reads it");
    let (mut mapping, mut left_out) = (String::new(), Vec::new());
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let is = |flag: &str| flags.split_whitespace().any(|found| found == flag);
            if is("wr") && !is("lo") {
                left_out.push(mapping.clone());
            }
        } else if line.split_whitespace().next().is_some_and(|first| !first.ends_with(':')) {
            mapping = line.to_owned();
        }
    }
    assert!(!mapping.is_empty(), "smaps says nothing");
    left_out
}
