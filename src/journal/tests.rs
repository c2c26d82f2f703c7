//! Tests of the journal as a whole: what is acknowledged stays, what is released goes, nothing else appears.

use super::*;
use proptest::prelude::*;
use std::{
    collections::HashSet,
    sync::{
        Condvar,
        atomic::{AtomicBool, AtomicUsize},
    },
};
use tempfile::TempDir;

const ROW: RowId = RowId([1; 16]);
const OTHER: RowId = RowId([2; 16]);

fn options(segment_bytes: u64) -> Options {
    Options { limit_bytes: 1 << 30, segment_bytes }
}

fn open(dir: &TempDir, segment_bytes: u64) -> (Journal, Recovered) {
    Journal::open(dir.path(), options(segment_bytes)).expect("opens")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("lists")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "qtj"))
        .collect();
    files.sort();
    files
}

/// What a test does to the disk.
#[derive(Default)]
pub(crate) struct Control {
    syncs: AtomicUsize,
    held: Mutex<bool>,
    changed: Condvar,
    full: AtomicBool,
    broken: AtomicBool,
    fatal: AtomicBool,
}

impl Control {
    pub(crate) fn hold(&self, held: bool) {
        *self.held.lock().expect("lock") = held;
        self.changed.notify_all();
    }

    fn wait_for_sync(&self, count: usize) {
        while self.syncs() < count {
            std::thread::yield_now();
        }
    }

    /// Syncs that were begun.
    pub(crate) fn syncs(&self) -> usize {
        self.syncs.load(Ordering::SeqCst)
    }
}

struct Controlled(Arc<Control>);

impl Medium for Controlled {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<File> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Disk.allocate(path, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        let held = self.0.held.lock().expect("lock");
        drop(self.0.changed.wait_while(held, |held| *held).expect("lock"));
        if self.0.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("broken"));
        }
        Disk.sync(file)
    }

    fn fatal(&self, _: &'static str, _: io::Error) {
        self.0.fatal.store(true, Ordering::SeqCst);
    }
}

fn open_controlled(dir: &TempDir, segment_bytes: u64) -> (Journal, Arc<Control>) {
    let ((journal, _), control) = controlled(dir.path(), options(segment_bytes));
    (journal, control)
}

/// A journal whose disk the test controls.
pub(crate) fn controlled(dir: &Path, options: Options) -> ((Journal, Recovered), Arc<Control>) {
    let control = Arc::new(Control::default());
    let medium = Box::new(Controlled(control.clone()));
    (Journal::open_on(dir, options, medium).expect("opens"), control)
}

/// How many wait for the frames of a call to settle.
pub(crate) fn settling(journal: &Journal, row: RowId) -> usize {
    journal.0.shared.index().waiting(row)
}

#[tokio::test]
async fn what_is_appended_reads_back_at_once_and_after_a_restart() {
    let dir = TempDir::new().expect("a folder");
    let secret = Secret::random();
    let (journal, found) = open(&dir, 1 << 20);
    assert!(found.calls.is_empty());
    let mut writer = journal.call(ROW, &secret);
    let first = writer.append(FrameKind::Audio, 0, b"first").await.expect("durable");
    writer.append(FrameKind::Audio, 5, b"").await.expect("durable");
    let last = writer.append(FrameKind::Finish, 5, b"the end").await.expect("durable");
    assert_eq!(journal.read(&secret, &first).expect("reads").as_slice(), b"first");
    assert_eq!(journal.frames(ROW).len(), 3);
    drop((writer, journal));

    let (journal, found) = open(&dir, 1 << 20);
    assert_eq!(found.damage, []);
    assert_eq!(found.calls[&ROW].len(), 3);
    assert_eq!(found.calls[&ROW][2], last);
    assert_eq!(journal.frames(ROW), found.calls[&ROW]);
    assert_eq!(journal.read(&secret, &last).expect("reads").as_slice(), b"the end");
    assert!(matches!(journal.read(&Secret::random(), &last), Err(ReadError::Damaged)));
}

#[tokio::test]
async fn no_plaintext_reaches_the_disk() {
    let dir = TempDir::new().expect("a folder");
    let (journal, _) = open(&dir, 1 << 20);
    let speech = [0x5a; 4000];
    journal.call(ROW, &Secret::random()).append(FrameKind::Audio, 0, &speech).await.expect("durable");
    for file in segment_files(dir.path()) {
        let bytes = std::fs::read(file).expect("reads");
        assert!(!bytes.windows(8).any(|window| window == [0x5a; 8]));
    }
}

#[test]
fn a_folder_is_opened_once() {
    let dir = TempDir::new().expect("a folder");
    let (journal, _) = open(&dir, 1 << 20);
    assert!(matches!(Journal::open(dir.path(), options(1 << 20)), Err(OpenError::Locked)));
    drop(journal);
    open(&dir, 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_wait_together_share_one_sync_and_none_is_answered_before_it() {
    let dir = TempDir::new().expect("a folder");
    let (journal, control) = open_controlled(&dir, 1 << 20);
    let secret = Secret::random();
    let mut writer = journal.call(ROW, &secret);
    control.hold(true);
    let first = writer.enqueue(FrameKind::Audio, 0, b"first").await.expect("queued");
    control.wait_for_sync(1);
    let mut waiting = Vec::new();
    for offset in 0..100 {
        waiting.push(writer.enqueue(FrameKind::Audio, offset, b"x").await.expect("queued"));
    }
    assert_eq!(journal.frames(ROW), [], "nothing is live before its sync");
    control.hold(false);
    first.durable().await.expect("durable");
    for pending in waiting {
        pending.durable().await.expect("durable");
    }
    assert_eq!(control.syncs(), 2);
    assert_eq!(journal.syncs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_is_fatal_and_never_acknowledged() {
    let dir = TempDir::new().expect("a folder");
    let (journal, control) = open_controlled(&dir, 1 << 20);
    let mut writer = journal.call(ROW, &Secret::random());
    control.broken.store(true, Ordering::SeqCst);
    assert_eq!(writer.append(FrameKind::Audio, 0, b"lost").await, Err(WriteError::Closed));
    assert!(control.fatal.load(Ordering::SeqCst));
    assert_eq!(journal.frames(ROW), []);
    assert_eq!(writer.append(FrameKind::Audio, 0, b"lost").await, Err(WriteError::Closed));
}

#[tokio::test]
async fn without_space_frames_are_refused_and_nothing_durable_is_lost() {
    let dir = TempDir::new().expect("a folder");
    let (journal, control) = open_controlled(&dir, 4096);
    let secret = Secret::random();
    let mut writer = journal.call(ROW, &secret);
    let kept = writer.append(FrameKind::Audio, 0, &[1; 3000]).await.expect("durable");
    control.full.store(true, Ordering::SeqCst);
    assert_eq!(writer.append(FrameKind::Audio, 3000, &[2; 3000]).await, Err(WriteError::NoSpace));
    let small = writer.append(FrameKind::Audio, 3000, &[3; 100]).await.expect("the segment has room for this one");
    control.full.store(false, Ordering::SeqCst);
    let later = writer.append(FrameKind::Audio, 3100, &[4; 3000]).await.expect("durable");
    for (frame, byte, len) in [(kept, 1, 3000), (small, 3, 100), (later, 4, 3000)] {
        assert_eq!(journal.read(&secret, &frame).expect("reads").as_slice(), vec![byte; len]);
    }
}

#[tokio::test]
async fn released_segments_are_unlinked_and_the_rest_stays() {
    let dir = TempDir::new().expect("a folder");
    let (journal, _) = open(&dir, 4096);
    let secret = Secret::random();
    let mut writer = journal.call(ROW, &secret);
    let mut frames = Vec::new();
    for i in 0..10 {
        frames.push(writer.append(FrameKind::Audio, i * 3000, &[7; 3000]).await.expect("durable"));
    }
    assert_eq!(segment_files(dir.path()).len(), 10);
    let bytes = journal.bytes();
    journal.release(ROW, 4 * 3000 + 2999);
    assert_eq!(segment_files(dir.path()).len(), 6);
    assert_eq!(journal.bytes(), bytes / 10 * 6);
    assert!(matches!(journal.read(&secret, &frames[3]), Err(ReadError::Released)));
    assert_eq!(journal.frames(ROW), frames[4..]);
    assert!(journal.read(&secret, &frames[4]).is_ok());
    journal.forget(ROW);
    assert_eq!(segment_files(dir.path()).len(), 1, "the newest is still written to");

    // Forgetting is in memory only: a crash now brings back the frames whose segment is there, for the vault to forget.
    let crashed = TempDir::new().expect("a folder");
    let left = &segment_files(dir.path())[0];
    std::fs::copy(left, crashed.path().join(left.file_name().expect("a name"))).expect("copies");
    let (again, found) = open(&crashed, 4096);
    assert_eq!(found.calls[&ROW], frames[9..]);
    again.forget(ROW);
    assert_eq!((segment_files(crashed.path()).len(), again.bytes()), (0, 0));

    drop((writer, journal));
    assert_eq!(segment_files(dir.path()).len(), 0, "a clean stop leaves nothing that is dead");
}

#[tokio::test]
async fn a_segment_lives_as_long_as_any_call_in_it() {
    let dir = TempDir::new().expect("a folder");
    let (journal, _) = open(&dir, 4096);
    let secret = Secret::random();
    let mut one = journal.call(ROW, &secret);
    let mut two = journal.call(OTHER, &secret);
    one.append(FrameKind::Audio, 0, &[1; 1500]).await.expect("durable");
    let finish = two.append(FrameKind::Finish, 0, &[2; 1500]).await.expect("durable");
    one.append(FrameKind::Audio, 1500, &[1; 3000]).await.expect("durable");
    journal.forget(ROW);
    journal.release(OTHER, u64::MAX);
    assert_eq!(segment_files(dir.path()).len(), 2, "Finish is live until its call is forgotten");
    assert_eq!(journal.read(&secret, &finish).expect("reads").as_slice(), [2; 1500]);
    journal.forget(OTHER);
    assert_eq!(segment_files(dir.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_queued_before_its_call_was_forgotten_never_comes_to_life() {
    let dir = TempDir::new().expect("a folder");
    let (journal, control) = open_controlled(&dir, 1 << 20);
    let secret = Secret::random();
    let mut old = journal.call(ROW, &secret);
    control.hold(true);
    let pending = old.enqueue(FrameKind::Audio, 0, b"too late").await.expect("queued");
    control.wait_for_sync(1);
    journal.forget(ROW);
    let _new = journal.call(ROW, &secret);
    control.hold(false);
    assert_eq!(pending.durable().await, Err(WriteError::Forgotten));
    assert_eq!(journal.frames(ROW), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_outlives_the_writer_that_queued_it() {
    let dir = TempDir::new().expect("a folder");
    let (journal, control) = open_controlled(&dir, 1 << 20);
    control.hold(true);
    let mut writer = journal.call(ROW, &Secret::random());
    let pending = writer.enqueue(FrameKind::Finish, 0, b"").await.expect("queued");
    drop(writer);
    control.hold(false);
    let frame = pending.durable().await.expect("durable");
    assert_eq!(journal.frames(ROW), [frame]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_has_settled_when_its_last_frame_is_live_or_it_was_forgotten() {
    let dir = TempDir::new().expect("a folder");
    let (journal, control) = open_controlled(&dir, 1 << 20);
    journal.settled(ROW).await;
    for forgotten in [false, true] {
        let begun = control.syncs();
        control.hold(true);
        let mut writer = journal.call(ROW, &Secret::random());
        let first = writer.enqueue(FrameKind::Audio, 0, b"first").await.expect("queued");
        control.wait_for_sync(begun + 1);
        let second = writer.enqueue(FrameKind::Audio, 5, b"second").await.expect("queued");
        drop(writer);
        let settled = tokio::spawn({
            let journal = journal.clone();
            async move {
                journal.settled(ROW).await;
                journal.frames(ROW)
            }
        });
        while settling(&journal, ROW) == 0 {
            assert!(!settled.is_finished(), "a frame is on its way");
            tokio::task::yield_now().await;
        }
        if forgotten {
            journal.forget(ROW);
        }
        control.hold(false);
        let live = [first.durable().await, second.durable().await].into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(live.len(), if forgotten { 0 } else { 2 });
        assert_eq!(settled.await.expect("ran"), live);
    }
}

#[tokio::test]
async fn the_limit_refuses_new_calls_and_lets_running_ones_go_on() {
    let dir = TempDir::new().expect("a folder");
    let options = Options { limit_bytes: 5000, segment_bytes: 4096 };
    let (journal, _) = Journal::open(dir.path(), options).expect("opens");
    let mut writer = journal.call(ROW, &Secret::random());
    writer.append(FrameKind::Audio, 0, &[0; 3000]).await.expect("durable");
    assert_eq!(journal.admit(), Ok(()));
    writer.append(FrameKind::Audio, 3000, &[0; 3000]).await.expect("durable");
    assert_eq!(journal.admit(), Err(Full { bytes: journal.bytes(), limit: 5000 }));
    writer.append(FrameKind::Audio, 6000, &[0; 3000]).await.expect("a running call goes on");
    journal.release(ROW, 9000);
    assert_eq!(journal.admit(), Ok(()));
}

#[tokio::test]
async fn a_frame_over_the_bound_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let (journal, _) = open(&dir, 4096);
    let mut writer = journal.call(ROW, &Secret::random());
    let large = vec![0; MAX_PLAINTEXT + 1];
    assert_eq!(writer.append(FrameKind::Audio, 0, &large).await, Err(WriteError::TooLarge));
    writer.append(FrameKind::Audio, 0, &large[1..]).await.expect("a segment grows for one large frame");
}

#[tokio::test]
async fn damage_in_the_middle_is_reported_and_hides_nothing_behind_it() {
    let dir = TempDir::new().expect("a folder");
    let secret = Secret::random();
    let (journal, _) = open(&dir, 1 << 20);
    let mut writer = journal.call(ROW, &secret);
    let mut frames = Vec::new();
    for i in 0..5 {
        frames.push(writer.append(FrameKind::Audio, i * 100, &[i as u8; 100]).await.expect("durable"));
    }
    drop((writer, journal));
    let path = &segment_files(dir.path())[0];
    let mut bytes = std::fs::read(path).expect("reads");
    let len = frame::disk_len(100);
    bytes[2 * len + 90] ^= 1;
    std::fs::write(path, bytes).expect("writes");
    let (journal, found) = open(&dir, 1 << 20);
    frames.remove(2);
    assert_eq!(found.calls[&ROW], frames);
    let expected = Damage { segment: 1, offset: 2 * len as u64, bytes: len as u64, frames_behind: 2 };
    assert_eq!(found.damage, [expected]);
    assert_eq!(journal.read(&secret, &frames[3]).expect("reads").as_slice(), [4; 100]);
}

#[tokio::test]
async fn no_run_writes_into_a_segment_of_an_earlier_one_nor_seals_in_its_epochs() {
    let dir = TempDir::new().expect("a folder");
    let secret = Secret::random();
    let mut seen = HashSet::new();
    let mut segments = HashSet::new();
    for run in 0..4 {
        let (journal, _) = open(&dir, 1 << 20);
        for _ in 0..3 {
            let mut writer = journal.call(ROW, &secret);
            for i in 0..5 {
                let frame = writer.append(FrameKind::Audio, i, b"again").await.expect("durable");
                assert!(seen.insert((frame.salt, frame.sequence)), "a nonce of an epoch was used twice");
                segments.insert((run, frame.at.segment));
            }
        }
    }
    assert_eq!(segments, HashSet::from([(0, 1), (1, 2), (2, 3), (3, 4)]));
}

#[test]
fn foreign_files_are_left_alone() {
    let dir = TempDir::new().expect("a folder");
    for name in ["1.qtj", "0000000a.qtj", "99999999999.qtj", "note.txt"] {
        std::fs::write(dir.path().join(name), b"QTJF").expect("writes");
    }
    std::fs::create_dir(dir.path().join("00000009.qtj")).expect("creates");
    let (journal, found) = open(&dir, 4096);
    assert!(found.calls.is_empty() && found.damage.is_empty());
    drop(journal);
    assert!(dir.path().join("1.qtj").exists() && dir.path().join("note.txt").exists());
}

#[derive(Debug, Clone)]
enum Step {
    /// A frame of one of two calls.
    Append(bool, u8),
    /// The stream broke and came back: a new writer.
    Resume(bool),
    /// The process ended and started again.
    Restart,
    /// The folder as it is now was copied; the copy goes on too.
    Clone,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), any::<u8>()).prop_map(|(call, byte)| Step::Append(call, byte)),
        2 => any::<bool>().prop_map(Step::Resume),
        1 => Just(Step::Restart),
        1 => Just(Step::Clone),
    ]
}

/// Appends to both calls and puts every frame that lies in the folder into `sealed`. The same key and nonce may only be
/// met again with the same bytes: then it is a copy of the file, not a second sealing.
fn go_on_and_collect(dir: &Path, secret: &Secret, sealed: &mut std::collections::HashMap<(Salt, u64), Vec<u8>>) {
    let (journal, _) = Journal::open(dir, options(4096)).expect("opens");
    for row in [ROW, OTHER] {
        block_on(journal.call(row, secret).append(FrameKind::Audio, 0, b"after")).expect("durable");
    }
    drop(journal);
    for file in segment_files(dir) {
        let bytes = std::fs::read(file).expect("reads");
        let mut at = 0;
        while let Some(found) = frame::parse(&bytes, at, 0) {
            let end = at + found.reference.disk_len();
            let frame = bytes[at..end].to_vec();
            let before = sealed.insert((found.reference.salt, found.reference.sequence), frame.clone());
            assert!(before.is_none_or(|before| before == frame), "a key and a nonce met twice");
            at = end;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Restarts, resumed streams and disk clones that both go on: no key and nonce seal twice.
    #[test]
    fn no_key_and_nonce_meet_twice(steps in proptest::collection::vec(step(), 1..30)) {
        let secret = Secret::random();
        let dir = TempDir::new().expect("a folder");
        let mut clones = Vec::new();
        let mut journal = open(&dir, 4096).0;
        let mut writers = [journal.call(ROW, &secret), journal.call(OTHER, &secret)];
        for step in steps {
            match step {
                Step::Append(call, byte) => {
                    let writer = &mut writers[usize::from(call)];
                    block_on(writer.append(FrameKind::Audio, 0, &[byte; 700])).expect("durable");
                }
                Step::Resume(call) => {
                    let row = if call { OTHER } else { ROW };
                    writers[usize::from(call)] = journal.call(row, &secret);
                }
                Step::Restart => {
                    drop((writers, journal));
                    journal = open(&dir, 4096).0;
                    writers = [journal.call(ROW, &secret), journal.call(OTHER, &secret)];
                }
                Step::Clone => {
                    let clone = TempDir::new().expect("a folder");
                    for file in segment_files(dir.path()) {
                        std::fs::copy(&file, clone.path().join(file.file_name().expect("a name"))).expect("copies");
                    }
                    clones.push(clone);
                }
            }
        }
        drop((writers, journal));
        let mut sealed = std::collections::HashMap::new();
        for folder in clones.iter().chain([&dir]) {
            go_on_and_collect(folder.path(), &secret, &mut sealed);
        }
        prop_assert!(sealed.len() >= 2 * (clones.len() + 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A crash damages the tail in any way: what lies before is there, and nothing that was not written appears.
    #[test]
    fn frames_before_the_damage_survive_and_nothing_bogus_appears(
        sizes in proptest::collection::vec((0usize..600, any::<bool>()), 1..20),
        cut in any::<prop::sample::Index>(),
        truncate: bool,
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let dir = TempDir::new().expect("a folder");
        let secret = Secret::random();
        let (journal, _) = open(&dir, 1 << 14);
        let mut writers = [(ROW, journal.call(ROW, &secret)), (OTHER, journal.call(OTHER, &secret))];
        let mut written = Vec::new();
        for (i, (size, which)) in sizes.iter().enumerate() {
            let (row, writer) = &mut writers[usize::from(*which)];
            let plaintext = vec![i as u8; *size];
            let frame = block_on(writer.append(FrameKind::Audio, i as u64, &plaintext)).expect("durable");
            written.push((*row, frame, plaintext));
        }
        drop((writers, journal));
        let files = segment_files(dir.path());
        let path = files.last().expect("a segment");
        let mut bytes = std::fs::read(path).expect("reads");
        let cut = cut.index(bytes.len());
        for (at, byte) in noise {
            let at = cut + at.index(bytes.len() - cut);
            bytes[at] ^= byte;
        }
        if truncate {
            bytes.truncate(cut);
        }
        std::fs::write(path, &bytes).expect("writes");

        let (journal, found) = open(&dir, 1 << 14);
        let last = written.last().expect("a frame").1.at.segment;
        let mut expected = written.iter();
        for (row, frame, plaintext) in expected.by_ref() {
            if frame.at.segment < last || frame.at.offset as usize + frame.disk_len() <= cut {
                prop_assert!(found.calls[row].contains(frame));
                let read = journal.read(&secret, frame).expect("reads");
                prop_assert_eq!(read.as_slice(), plaintext.as_slice());
            }
        }
        for (row, frames) in &found.calls {
            let order: Vec<usize> = frames
                .iter()
                .map(|frame| written.iter().position(|(r, f, _)| r == row && f == frame).expect("was written"))
                .collect();
            prop_assert!(order.is_sorted());
        }
    }

    #[test]
    fn hostile_segments_never_panic(bytes: Vec<u8>, frames in 0usize..3) {
        let dir = TempDir::new().expect("a folder");
        let mut content = bytes.clone();
        for _ in 0..frames {
            content.extend_from_slice(b"QTJF\x01\x01\0\0");
            content.extend_from_slice(&bytes);
        }
        std::fs::write(dir.path().join("00000001.qtj"), &content).expect("writes");
        let (_, found) = open(&dir, 4096);
        prop_assert!(found.calls.is_empty());
    }
}
