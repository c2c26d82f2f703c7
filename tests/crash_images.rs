//! Power fails at every sync of the real stores.
//!
//! A process that is this test binary again works with key store, slot and journal as the product builds them: RocksDB on the
//! real file system, the slot in a file, the journal's segments. A library in front of libc (`common/recorder.c`) writes down
//! what it asks of the file system. From that trace [`disk`] rebuilds, for every sync, what loss of power may leave: exactly
//! what was synced; everything; and random parts of what lies between, torn and out of order, names included. Each image is
//! opened with the code of the product and judged by [`workload`], and the attacker of [`quietus::forensics`] gets the slot of
//! the image, before and behind that start, with every byte that was ever written outside of a slot.
//!
//! Why a library and not something within the program: RocksDB offers no file system of ours through its bindings, and what
//! is tried must be the calls that the product makes, in their order, with nothing of it rebuilt for the test. The same library
//! ends or refuses the process at a chosen call: that takes the place of failpoints, and the product has none. A tracer from
//! outside (ptrace) would be slower by far and one more tool. What bypasses libc (the journal allocates with a system call
//! of its own) shows in lengths, and at the end of every recording the rebuilt disk is compared with the folder, byte for byte:
//! nothing escapes unnoticed.
//!
//! A recording is one disk over several lives of the process: killed or refused at a step of a rotation, started again on
//! what it finds *in the page cache*, killed in that start. So an image may show what a start took for durable and was not.
//!
//! `QUIETUS_CRASH=full` tries every sync of the lives without trouble with eight random parts, and eight times as many lives,
//! which takes about two hours; the default takes the syncs near rotations, and some of the others.

#[path = "crash/disk.rs"]
mod disk;
#[path = "common/recorder.rs"]
mod recorder;
#[path = "crash/site.rs"]
mod site;
#[path = "crash/workload.rs"]
mod workload;

use disk::{Disk, Event, Image, Survives};
use quietus::forensics::{carve::Carved, closure::Closure, find::Needles};
use recorder::{STEPS, is_full};
use site::{SLOTS, Setting};
use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap, HashSet},
    panic::AssertUnwindSafe,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    time::Instant,
};
use tempfile::TempDir;
use workload::{Seen, Thing, Told};

type Key = [u8; 32];

/// Where the recorded process works.
const FOLDER: &str = "QUIETUS_CRASH_FOLDER";
/// In which setting.
const SETTING: &str = "QUIETUS_CRASH_SETTING";
/// How much it does in one life.
const GROUPS: &str = "QUIETUS_CRASH_GROUPS";
/// Lives that one recording may take.
const LIVES: usize = 400;

/// In memory where there is room: images are many, and their syncs need not reach a disk.
fn new_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a folder")
}

/// The recorded process: does nothing unless it is started by [`record`].
#[test]
#[ignore = "started by the others"]
fn the_recorded_process() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let groups = std::env::var(GROUPS).expect("a number").parse().expect("a number");
        workload::run(Path::new(&folder), Setting::of(&std::env::var(SETTING).expect("a word")), groups);
    }
}

/// One disk over as many lives as it takes to do everything, so many groups of steps at most in each. `act` says for each life
/// where it ends.
fn record(setting: Setting, groups: usize, act: impl Fn(usize) -> Option<String>) -> Recording {
    let place = new_folder();
    let (folder, trace) = (place.path().join("root"), place.path().join("trace"));
    std::fs::create_dir(&folder).expect("a folder");
    let mut ended = false;
    for life in 0..LIVES {
        let mut process = Command::new(std::env::current_exe().expect("this test"));
        process
            .args(["--exact", "the_recorded_process", "--ignored", "--nocapture"])
            .env("LD_PRELOAD", recorder::library())
            .env("QUIETUS_RECORD_ROOT", &folder)
            .env("QUIETUS_RECORD_TRACE", &trace)
            .env(FOLDER, &folder)
            .env(SETTING, setting.word())
            .env(GROUPS, groups.to_string())
            .stdin(Stdio::null());
        let act = act(life);
        if let Some(act) = &act {
            process.env("QUIETUS_RECORD_ACT", act);
        }
        let output = process.output().expect("it starts");
        let did = output.status.success();
        ended = did && workload::told(&folder, setting).is_over();
        if ended {
            break;
        }
        // Killed, aborted, or a start that was refused a call and said so.
        assert!(
            did || act.is_some(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert!(ended, "it never came to its end");
    let events = disk::read_trace(&trace);
    let mut rebuilt = Disk::default();
    events.iter().for_each(|event| rebuilt.take(event));
    let (rebuilt, found) = (rebuilt.image(Survives::Written), disk::pick_up(&folder));
    let odd: Vec<_> =
        found.keys().chain(rebuilt.keys()).filter(|name| found.get(*name) != rebuilt.get(*name)).collect();
    assert!(odd.is_empty(), "the trace does not tell all about {odd:?}");
    Recording { setting, events }
}

/// What became of one disk.
struct Recording {
    setting: Setting,
    events: Vec<Event>,
}

/// An image to try.
struct Task {
    what: String,
    image: Image,
    told: Told,
    /// Whether it is tried with all slots, or with one of them lost.
    lost: Option<usize>,
    /// Whether the node is tried as lost, too.
    restores: bool,
}

/// What the slots of an image hold, one behind the other.
type Held = Vec<Vec<u8>>;

fn held(image: &Image) -> Held {
    image.iter().filter(|(name, _)| name.ends_with("slot/root")).filter_map(|(_, bytes)| bytes.clone()).collect()
}

/// Where the record of the last rotation begins in RocksDB's log, as long as nothing was written behind it.
#[derive(Default)]
enum LastRecord {
    #[default]
    Unknown,
    /// The rotation's file is there.
    Expected,
    Written {
        log: String,
        at: usize,
        is_synced: bool,
    },
}

impl LastRecord {
    fn take(&mut self, event: &Event) {
        let is_log = event.name.contains("keys/db/") && event.name.ends_with(".log");
        match (event.call, &mut *self) {
            // What says something: one that is let go of gets zeros.
            (b'W', _) if event.name.contains("keys/pending/") && event.data.starts_with(b"QTCM") => {
                *self = Self::Expected
            }
            (b'W', Self::Expected) if is_log => {
                *self = Self::Written { log: event.name.clone(), at: event.at as usize, is_synced: false };
            }
            (b'W', Self::Written { is_synced: true, .. }) if is_log => *self = Self::Unknown,
            (b'E', Self::Written { is_synced, .. }) if is_log => *is_synced = true,
            // Flushed, or another life.
            (b'P', _) => *self = Self::Unknown,
            (b'C', Self::Written { .. }) if is_log => *self = Self::Unknown,
            _ => {}
        }
    }
}

/// What an attacker with every byte ever written outside the slot can open, by what he finds in a slot.
struct Attacker {
    _haul: TempDir,
    carved: Mutex<Carved>,
    opened: Mutex<HashMap<Held, Arc<HashSet<Key>>>>,
}

impl Attacker {
    fn new(events: &[Event]) -> Self {
        let haul = new_folder();
        let mut disk = Disk::default();
        events.iter().for_each(|event| disk.take(event));
        disk.ever(haul.path());
        let carved = Carved::from_paths(&[haul.path().to_owned()], &mut Needles::new(&[])).expect("carves");
        Self { _haul: haul, carved: Mutex::new(carved), opened: Mutex::default() }
    }

    fn with(&self, slots: &Held) -> Arc<HashSet<Key>> {
        if let Some(known) = self.opened.lock().expect("a lock").get(slots) {
            return known.clone();
        }
        let place = tempfile::tempdir().expect("a folder");
        let write = |(at, slot): (usize, &Vec<u8>)| {
            let path = place.path().join(at.to_string());
            std::fs::write(&path, slot).expect("written");
            path
        };
        let paths: Vec<_> = slots.iter().enumerate().map(write).collect();
        let carved = self.carved.lock().expect("a lock");
        let closure = Closure::of(&carved, &paths, false, &mut Needles::new(&[])).expect("follows");
        assert_eq!(closure.not_understood, 0);
        let secrets: Arc<HashSet<Key>> = Arc::new(closure.secrets().map(|known| known.secret).collect());
        self.opened.lock().expect("a lock").insert(slots.clone(), secrets.clone());
        secrets
    }

    fn assert_gone(&self, slots: &Held, erased: &BTreeSet<Thing>) {
        let opened = self.with(slots);
        let back: Vec<_> = erased.iter().filter(|thing| opened.contains(&thing.secret())).collect();
        assert!(back.is_empty(), "erased, and opens with the slot: {back:?}");
    }
}

/// What was tried in a recording.
#[derive(Default)]
struct Tried {
    images: AtomicUsize,
    restored: AtomicUsize,
    /// Erased things that some earlier slot would have opened.
    controls: Mutex<BTreeSet<Thing>>,
    erased: Mutex<BTreeSet<Thing>>,
}

/// How many images of a recording are tried.
#[derive(Clone, Copy)]
struct Extent {
    /// One in so many syncs of the slot and of rotations' files.
    near: usize,
    /// One in so many of all syncs.
    stride: usize,
    /// Random parts at each.
    torn: u64,
    /// The first life whose syncs are tried.
    from: usize,
}

/// Tries images of a recording; gives what failed, and stops at the first.
fn try_images(name: &str, recording: &Recording, extent: Extent) -> Vec<String> {
    let (began, Recording { setting, events }) = (Instant::now(), recording);
    let (attacker, tried) = (Attacker::new(events), Tried::default());
    let failed = Mutex::new(Vec::new());
    let (send, tasks) = sync_channel::<Task>(8);
    let tasks = Mutex::new(tasks);
    let (mut syncs, mut lives, handed_out) = (0, 0, Cell::new(0));
    // Every slot that ever was, those included between two images that are tried.
    let mut slots = Vec::new();
    let mut told = Told::nothing(*setting);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(|| {
                while let Some(task) = next(&tasks) {
                    let judged = std::panic::catch_unwind(AssertUnwindSafe(|| try_image(&task, &attacker, &tried)));
                    if judged.is_err() {
                        failed.lock().expect("a lock").push(task.what);
                    }
                }
            });
        }
        let (mut disk, mut last) = (Disk::default(), LastRecord::default());
        for (position, event) in events.iter().enumerate() {
            if event.call == b'W' && event.name == "acks" {
                String::from_utf8_lossy(&event.data).lines().for_each(|line| told.line(line));
            }
            last.take(event);
            lives += usize::from(event.call == b'P');
            let is_slot = event.name.contains("slot/");
            let is_sync = event.call == b'E' && event.name != "acks";
            let is_near = is_slot || event.name.contains("pending");
            let is_tried = is_sync
                && lives > extent.from
                && (is_near && syncs % extent.near == 0 || syncs % extent.stride == 0)
                && failed.lock().expect("a lock").is_empty();
            let hand_out = |survives: &str, image: Image| {
                let what = format!("{name}: sync {syncs} ({}), event {position}: {survives}", event.name);
                // All are there, or one that is configured is lost.
                let lost = handed_out.get() % (SLOTS + 1);
                let lost = (told.may_lose_a_slot() && lost < SLOTS).then_some(lost);
                let restores = *setting == Setting::Shared && handed_out.get() % 3 == 0;
                handed_out.set(handed_out.get() + 1);
                send.send(Task { what, image, told: told.clone(), lost, restores }).expect("somebody works");
            };
            if is_tried {
                let parts = (0..extent.torn).map(|part| Survives::Torn(((syncs as u64) << 8) + part));
                for survives in parts.chain((extent.torn != 1 || syncs % 2 == 0).then_some(Survives::Written)) {
                    hand_out(&format!("{survives:?}"), disk.image(survives));
                }
            }
            disk.take(event);
            if is_sync && is_slot {
                slots.push(held(&disk.image(Survives::Written)));
            }
            if is_tried {
                hand_out("Synced", disk.image(Survives::Synced));
            }
            // The disk was wrong about a record that RocksDB drops without a word: the rotation's file has it.
            if let (true, LastRecord::Written { log, at, .. }) = (is_tried && is_slot, &last) {
                let mut image = disk.image(Survives::Synced);
                if let Some(Some(log)) = image.get_mut(log) {
                    log.truncate(*at);
                    hand_out("Synced, but for the last record", image);
                }
            }
            syncs += usize::from(is_sync);
        }
        drop(send);
    });
    let failed = failed.into_inner().expect("a lock");
    let (controls, erased) = (tried.controls.into_inner().expect("a lock"), tried.erased.into_inner().expect("a lock"));
    println!(
        "{name}, {}: {} images at {syncs} syncs in {} starts, {} restored, {} erased, {} states of slots, {:.1?}",
        setting.word(),
        tried.images.into_inner(),
        events.iter().filter(|event| event.call == b'P').count(),
        tried.restored.into_inner(),
        erased.len(),
        attacker.opened.lock().expect("a lock").len(),
        began.elapsed()
    );
    if failed.is_empty() {
        // A slot that died while it joined counts as left for good: whatever is erased from then on stays sealed.
        assert!(erased.len() > 100 || told.may_have_lost_a_joiner(), "too little was erased: {}", erased.len());
        let mut unseen: Vec<_> = erased.difference(&controls).collect();
        for slot in slots {
            if unseen.is_empty() {
                break;
            }
            let opened = attacker.with(&slot);
            unseen.retain(|thing| !opened.contains(&thing.secret()));
        }
        assert!(unseen.is_empty(), "the attacker is blind: {unseen:?}");
    }
    failed
}

fn next(tasks: &Mutex<Receiver<Task>>) -> Option<Task> {
    tasks.lock().expect("a lock").recv().ok()
}

fn try_image(task: &Task, attacker: &Attacker, tried: &Tried) {
    let place = new_folder();
    disk::lay_down(&task.image, place.path());
    attacker.assert_gone(&held(&task.image), &task.told.destroyed());
    if task.restores {
        let (place, mut left) = (new_folder(), task.image.clone());
        left.retain(|name, _| name.starts_with("held") || name.starts_with("bucket"));
        disk::lay_down(&left, place.path());
        let restored = workload::judge_restored(place.path(), &task.told, task.lost);
        tried.restored.fetch_add(usize::from(restored), Ordering::Relaxed);
    }
    let Seen { erased, living } = workload::judge(place.path(), &task.told, task.lost);
    let slot = held(&disk::pick_up(place.path()));
    attacker.assert_gone(&slot, &erased);
    // The controls: what lives opens to the attacker too, and so did what is erased now, with the slot of its time.
    let opened = attacker.with(&slot);
    assert!(living.iter().all(|thing| opened.contains(&thing.secret())), "the attacker does not see what lives");
    tried.controls.lock().expect("a lock").extend(living);
    tried.erased.lock().expect("a lock").extend(erased);
    tried.images.fetch_add(1, Ordering::Relaxed);
}

/// By default; and where there is time for as many as `full` says.
fn extent(default: (usize, usize), full: (usize, usize)) -> Extent {
    let ((near, stride), torn) = if is_full() { (full, 8) } else { (default, 1) };
    Extent { near, stride, torn, from: 0 }
}

#[test]
fn power_may_fail_at_every_sync() {
    without_trouble(Setting::Alone, extent((1, 24), (1, 1)));
}

#[test]
fn power_may_fail_at_every_sync_beside_slots_that_come_and_go_and_a_backup() {
    without_trouble(Setting::Shared, extent((3, 48), (1, 1)));
}

fn without_trouble(setting: Setting, extent: Extent) {
    let failed = try_images("one life", &record(setting, usize::MAX, |_| None), extent);
    assert!(failed.is_empty(), "{failed:#?}");
}

/// What a node with several slots and a backup does besides.
const SHARED_STEPS: &[&str] = &[
    "W:b/slot/root", // the second of those that are staged, or destroy
    "S:c/slot/root",
    "W:d/slot/root", // one that joins
    "S:bucket/",     // a delta, or a base
    "R:bucket",
    "S:bucket$",
];

/// In every other life: at the steps in turn, and wherever the dice say.
fn ends(act: &'static str, setting: Setting, seed: usize) -> impl Fn(usize) -> Option<String> {
    let more = if setting == Setting::Shared { SHARED_STEPS } else { &[] };
    let steps = [STEPS, more].concat();
    move |life| {
        let mut dice = disk::Dice((seed + life) as u64);
        (life % 2 == 0).then(|| match steps.get((life / 2 + seed) % (steps.len() + 2)) {
            Some(step) => format!("{act}:{step}:{}", 1 + dice.below(3)),
            None => format!("{act}:*:*:{}", 1 + dice.below(200)),
        })
    }
}

#[test]
fn a_process_may_die_at_every_step_and_power_fail_later() {
    over_many_lives("kill", Setting::Alone, extent((3, 48), (3, 24)));
}

#[test]
fn a_process_may_die_beside_slots_that_come_and_go_and_a_backup() {
    over_many_lives("kill", Setting::Shared, extent((6, 96), (6, 48)));
}

#[test]
fn writes_and_syncs_may_fail_at_every_step_and_power_later() {
    over_many_lives("fail", Setting::Alone, extent((3, 48), (3, 24)));
}

#[test]
fn writes_and_syncs_may_fail_beside_slots_that_come_and_go_and_a_backup() {
    over_many_lives("fail", Setting::Shared, extent((6, 96), (6, 48)));
}

fn over_many_lives(act: &'static str, setting: Setting, extent: Extent) {
    for seed in 0..if is_full() { 8 } else { 1 } {
        let failed = try_images(act, &record(setting, 4, ends(act, setting, seed * 5)), extent);
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

/// What the product would be without one of its syncs. Were this not noticed, the tests above would prove nothing about it.
#[test]
fn every_sync_that_is_left_out_is_noticed() {
    for (setting, left_out) in [
        (Setting::Alone, "S:.log:0"),          // RocksDB's, of a batch
        (Setting::Alone, "S:keys/pending/:0"), // the rotation's file
        (Setting::Alone, "S:keys/pending$:0"), // its folder
        (Setting::Alone, "S:slot/root:1"),     // the slot's, destroying a root
        (Setting::Alone, "S:slot/root:2"),     // the slot's, staging one
        (Setting::Alone, "S:slot$:0"),         // its name, and that of its folder
        (Setting::Alone, "S:held$:0"),
        (Setting::Alone, "S:store$:0"),   // the key store's
        (Setting::Alone, "S:live$:0"),    // the journal's
        (Setting::Alone, "S:.qtj:0"),     // the journal's segments
        (Setting::Alone, "S:journal$:0"), // and their names
        (Setting::Alone, "S:.sst:0"),     // RocksDB's, of a flush
        (Setting::Shared, "S:.log:0"),
        (Setting::Shared, "S:slot/root:0"),
    ] {
        // A flush is what a start rests on that found a batch in the page cache: one that was not synced any more.
        let second = usize::from(left_out == "S:.sst:0");
        let events = record(setting, usize::MAX, |life| match life < second {
            true => Some("kill:S:.log:12".to_owned()),
            false => Some(format!("skip:{left_out}")),
        });
        let failed = try_images(left_out, &events, Extent { near: 1, stride: 4, torn: 2, from: second });
        assert!(!failed.is_empty(), "nobody notices that {left_out} is left out ({setting:?})");
    }
}
