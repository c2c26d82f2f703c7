//! A root slot in a real PKCS#11 token: SoftHSM, on a folder of its own for each test.
//!
//! A module is initialised once in a process and reads its configuration from the environment, so each test runs in a process of
//! its own: this program, asked for that one test. Where the module is missing the tests fail: `make deps` installs it.

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/served.rs"]
mod served;

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    session::UserType,
    types::AuthPin,
};
use quietus::{
    crypto::{random, secret::Secret},
    domain::id::{RecordingHandle, RootId, RowId, SubscriberHandle, TenantHandle},
    forensics::{Options, investigate},
    keys::{
        Change, CommitError, FileSlot, Forgets, Keeping, KeyStore, ModuleToken, Mutation, OpenError, Parts, Pkcs11Slot,
        RecordingPath, Slot, SlotError, SlotRecord,
        slot::{
            pkcs11::{
                KeyId, SlotId, Token, TokenError,
                blob::{Content, NONCE, RECORDS, SECTOR},
            },
            root_id,
        },
    },
};
use ring::digest;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const LABEL: &str = "records";
const PIN: &str = "4711-0815";
/// Tells a test the folder that was laid out for it.
const FOLDER: &str = "QUIETUS_PKCS11_FOLDER";
/// Tells a helper what to do.
const TASK: &str = "QUIETUS_PKCS11_TASK";

/// `keys/`, `slot` (the file), `tokens/` and whatever else a test lays aside.
struct Place(PathBuf);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A process of this program that runs one test over a folder of tokens.
    fn process(&self, test: &str, tokens: &Path, task: &str) -> Output {
        let conf = tokens.with_extension("conf");
        let text =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        fs::write(&conf, text).expect("written");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", test, "--nocapture"]);
        command.env(FOLDER, &self.0).env(TASK, task).env("SOFTHSM2_CONF", conf).output().expect("it runs")
    }

    fn make_token(&self, label: &str) {
        let tokens = self.path("tokens");
        fs::create_dir_all(&tokens).expect("a folder");
        let conf = tokens.with_extension("conf");
        fs::write(&conf, format!("directories.tokendir = {}\n", tokens.display())).expect("written");
        let mut command = Command::new("softhsm2-util");
        command.args(["--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN]);
        let done = command.env("SOFTHSM2_CONF", conf).output();
        let done = done.expect("softhsm2-util is missing: `make deps` installs softhsm2");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn token_as(&self, label: &str, pin: &str) -> ModuleToken {
        ModuleToken::load(Path::new(MODULE), label, Zeroizing::new(pin.to_owned()))
            .unwrap_or_else(|error| panic!("{error}; `make deps` installs softhsm2"))
    }

    fn token(&self) -> ModuleToken {
        self.token_as(LABEL, PIN)
    }

    fn slot_over(&self, token: impl Token + 'static) -> Pkcs11Slot {
        Pkcs11Slot::open(&self.path("slot"), Box::new(token), Forgets::AtOnce).expect("a slot")
    }

    fn slot(&self) -> Pkcs11Slot {
        self.slot_over(self.token())
    }

    fn open(&self) -> Result<KeyStore, OpenError> {
        KeyStore::open(&self.path("keys"), Box::new(self.slot()))
    }

    /// The ids of the slot's keys in the token.
    fn keys_in_token(&self) -> Vec<KeyId> {
        self.token().keys(self.content().slot).expect("lists")
    }

    fn content(&self) -> Content {
        Content::parse(&fs::read(self.path("slot")).expect("reads")).expect("a slot").expect("made")
    }

    /// Lays key store, file and token aside.
    fn copy(&self, name: &str) {
        copy(&self.path("keys"), &self.path(name).join("keys"));
        copy(&self.path("tokens"), &self.path(name).join("tokens"));
        fs::copy(self.path("slot"), self.path(name).join("slot")).expect("copied");
    }

    /// Which of the rows the attacker reads who has a token, and every copy of the key store and of the file.
    fn attacked(&self, tokens: &Path, copies: &[&str], rows: &[RowId]) -> Vec<bool> {
        let mut files = vec![self.path("slot").display().to_string()];
        files.extend(copies.iter().map(|copy| self.path(copy).join("slot").display().to_string()));
        let roots = self.path("roots");
        let task = format!("{}\n{}", roots.display(), files.join("\n"));
        let output = self.process("helper_opens_files", tokens, &task);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let mut keys = vec![self.path("keys")];
        keys.extend(copies.iter().map(|copy| self.path(copy).join("keys")));
        let options = Options { keys, slots: vec![roots], objects: Vec::new(), find: Vec::new(), exhaustive: true };
        let found = investigate(&options).expect("it ran");
        rows.iter().map(|row| found.closure.entries.contains_key(&row.0)).collect()
    }
}

/// Runs a test in a process of its own, over a folder with a token.
fn alone(test: &str, run: impl FnOnce(&Place)) {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return run(&Place(folder.into()));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place(folder.path().to_owned());
    place.make_token(LABEL);
    let output = place.process(test, &place.path("tokens"), "");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for line in said.lines().filter(|line| line.starts_with("| ")) {
        println!("{line}");
    }
}

/// What a helper was asked for; none when it runs as a test.
fn task() -> Option<String> {
    std::env::var(TASK).ok().filter(|task| !task.is_empty())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, to).expect("copied");
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

fn commit(keys: &KeyStore, changes: Vec<Change>) -> Result<(), CommitError> {
    block_on(keys.commit(Mutation::new(changes))).map(drop)
}

fn add_subscriber(keys: &KeyStore) -> (TenantHandle, SubscriberHandle) {
    let (tenant, subscriber) = (TenantHandle(random()), SubscriberHandle(random()));
    let secret = Secret::random;
    let changes = vec![
        Change::AddTenant { tenant, row: RowId(random()), secret: secret(), name: "acme".into() },
        Change::AddSubscriber { tenant, subscriber, row: RowId(random()), secret: secret(), name: "ada".into() },
    ];
    commit(keys, changes).expect("added");
    (tenant, subscriber)
}

fn add_recording(keys: &KeyStore, tenant: TenantHandle, subscriber: SubscriberHandle) -> (RecordingPath, RowId) {
    let at = RecordingPath { tenant, subscriber, recording: RecordingHandle(random()) };
    let row = RowId(random());
    let change = Change::AddRecording {
        at,
        row,
        kind: 1,
        audio: Secret::random(),
        facts: Secret::random(),
        objects: Vec::new(),
        keeping: Keeping::default(),
        parent: None,
        parties: Vec::new(),
        wrapped: false,
    };
    commit(keys, vec![change]).expect("added");
    (at, row)
}

fn erase(keys: &KeyStore, at: RecordingPath) -> Result<(), CommitError> {
    commit(keys, vec![Change::EraseRecording { at, parts: Parts::BOTH }])
}

fn lives(keys: &KeyStore, at: RecordingPath) -> bool {
    keys.audio_leaf(at).expect("reads").is_some()
}

/// The root itself, for the only slot.
fn root_record(generation: u64, root: &Secret) -> SlotRecord {
    SlotRecord { generation, id: root_id(root), number: 1, share: root.duplicate() }
}

/// The attacker's hand in a token: opens every record of every file that it can.
#[test]
fn helper_opens_files() {
    let Some(task) = task() else { return };
    let mut lines = task.lines();
    let out = lines.next().expect("where to");
    let mut token = Place(PathBuf::new()).token();
    let mut roots = Vec::new();
    for file in lines {
        roots.extend(opened(&mut token, &fs::read(file).expect("reads")).into_iter().flat_map(|(_, root)| root));
    }
    fs::write(out, roots).expect("written");
}

/// What a token opens of a file.
fn opened(token: &mut dyn Token, file: &[u8]) -> Vec<(RootId, [u8; 32])> {
    let Some(Content { slot, blobs, .. }) = Content::parse(file).expect("a slot") else { return Vec::new() };
    let open = |blob: quietus::keys::slot::pkcs11::blob::Blob| {
        let associated = blob.associated();
        let root = token.open(slot, blob.key, &blob.nonce, &associated, &blob.sealed).ok()?;
        Some((blob.root, *root.expose()))
    };
    blobs.into_iter().flatten().filter_map(open).collect()
}

#[test]
fn what_was_erased_opens_with_no_copy_of_the_file_and_the_token_of_now() {
    alone("what_was_erased_opens_with_no_copy_of_the_file_and_the_token_of_now", |place| {
        let keys = place.open().expect("opens");
        let (tenant, subscriber) = add_subscriber(&keys);
        let made: Vec<_> = (0..20).map(|_| add_recording(&keys, tenant, subscriber)).collect();
        let rows: Vec<RowId> = made.iter().map(|(_, row)| *row).collect();
        place.copy("before");
        erase(&keys, made[3].0).expect("erased");
        place.copy("between");
        erase(&keys, made[4].0).expect("erased");
        assert_eq!(place.keys_in_token().len(), 1);
        drop(keys);

        let keys = place.open().expect("opens again");
        assert_eq!(keys.generation(), 3);
        for (number, (at, _)) in made.iter().enumerate() {
            assert_eq!(lives(&keys, *at), number != 3 && number != 4);
        }
        drop(keys);
        let survives = |erased: &[usize]| (0..20).map(|number| !erased.contains(&number)).collect::<Vec<_>>();
        let copies = ["before", "between"];
        assert_eq!(place.attacked(&place.path("tokens"), &copies, &rows), survives(&[3, 4]));
        // The control: tokens as they were open the files of then.
        assert_eq!(place.attacked(&place.path("between").join("tokens"), &copies, &rows), survives(&[3]));
        assert_eq!(place.attacked(&place.path("before").join("tokens"), &copies, &rows), survives(&[]));
    });
}

/// A token that the power leaves at one of its calls: before it is done, or after.
struct Cut {
    token: ModuleToken,
    calls: Arc<AtomicUsize>,
    at: usize,
    done: bool,
    abort: bool,
    /// The file is laid aside at every call.
    file: PathBuf,
}

impl Cut {
    fn call<T>(&mut self, act: impl FnOnce(&mut ModuleToken) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if let Ok(bytes) = fs::read(&self.file) {
            fs::write(self.file.with_extension(format!("copy{call}")), bytes).expect("written");
        }
        let answer = (call < self.at || call == self.at && self.done).then(|| act(&mut self.token));
        if call >= self.at && self.abort {
            std::process::abort();
        }
        match answer {
            Some(answer) if call < self.at => answer,
            _ => Err(TokenError::Failed("the power is gone".to_owned())),
        }
    }
}

impl Token for Cut {
    fn keys(&mut self, slot: SlotId) -> Result<Vec<KeyId>, TokenError> {
        self.call(|token| token.keys(slot))
    }

    fn seal(
        &mut self,
        slot: SlotId,
        key: KeyId,
        nonce: &[u8; NONCE],
        associated: &[u8],
        root: &Secret,
    ) -> Result<Vec<u8>, TokenError> {
        self.call(|token| token.seal(slot, key, nonce, associated, root))
    }

    fn open(
        &mut self,
        slot: SlotId,
        key: KeyId,
        nonce: &[u8; NONCE],
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Secret, TokenError> {
        self.call(|token| token.open(slot, key, nonce, associated, sealed))
    }

    fn destroy(&mut self, slot: SlotId, key: KeyId) -> Result<(), TokenError> {
        self.call(|token| token.destroy(slot, key))
    }
}

fn ids(slot: &mut Pkcs11Slot) -> Vec<RootId> {
    slot.records().unwrap_or_else(|error| panic!("{error}")).iter().map(|record| record.id).collect()
}

#[test]
fn a_rotation_cut_off_at_any_call_loses_no_root_and_leaves_none_behind() {
    alone("a_rotation_cut_off_at_any_call_loses_no_root_and_leaves_none_behind", |place| {
        let (mut cuts, mut whole) = (0, false);
        let mut at = 0;
        while !whole {
            for done in [false, true] {
                for entry in fs::read_dir(&place.0).expect("a folder") {
                    let path = entry.expect("an entry").path();
                    if path.file_stem().is_some_and(|stem| stem == "slot") {
                        fs::remove_file(path).expect("removed");
                    }
                }
                let (old, new) = (Secret::random(), Secret::random());
                let mut slot = place.slot();
                slot.stage(&root_record(1, &old)).expect("staged");
                slot.commit(root_id(&old)).expect("committed");
                drop(slot);

                let calls = Arc::new(AtomicUsize::new(0));
                let file = place.path("slot");
                let mut slot = place.slot_over(Cut { token: place.token(), calls, at, done, abort: false, file });
                let staged = slot.stage(&root_record(2, &new)).is_ok();
                let committed = staged && slot.commit(root_id(&new)).is_ok();
                whole |= committed && !done;
                cuts += usize::from(!committed);
                drop(slot);

                let mut slot = place.slot();
                let there = ids(&mut slot);
                assert!(there.contains(&root_id(if staged { &new } else { &old })), "at {at}, done {done}");
                // The store's top names the new root once it is staged, and then only forward; else the old one.
                let (keep, gone) = if staged { (&new, &old) } else { (&old, &new) };
                slot.commit(root_id(keep)).expect("settled");
                assert_eq!(ids(&mut slot), [root_id(keep)], "at {at}, done {done}");
                drop(slot);
                assert_eq!(place.keys_in_token().len(), 1, "at {at}, done {done}");
                // Every state of the file that ever was, and the token of now.
                let mut token = place.token();
                for entry in fs::read_dir(&place.0).expect("a folder") {
                    let path = entry.expect("an entry").path();
                    if path.file_stem().is_some_and(|stem| stem == "slot") {
                        let bytes = fs::read(path).expect("reads");
                        assert!(opened(&mut token, &bytes).iter().all(|(_, root)| root != gone.expose()));
                    }
                }
            }
            at += 1;
        }
        assert!(cuts >= 8, "it was cut off {cuts} times");
    });
}

/// Erases one recording after another and says which, until a call of the token aborts the process.
#[test]
fn helper_erases_until_it_is_cut_off() {
    let Some(task) = task() else { return };
    let place = Place(std::env::var_os(FOLDER).expect("a folder").into());
    let mut lines = task.lines();
    let at = lines.next().and_then(|at| at.parse().ok()).expect("a number");
    let done = lines.next() == Some("done");
    let calls = Arc::new(AtomicUsize::new(0));
    let file = place.path("slot");
    let cut = Cut { token: place.token(), calls, at, done, abort: true, file };
    let keys = KeyStore::open(&place.path("keys"), Box::new(place.slot_over(cut))).expect("opens");
    for line in lines {
        let at = path_of(line);
        erase(&keys, at).expect("erased");
        println!("erased {line}");
    }
}

fn path_of(line: &str) -> RecordingPath {
    let bytes = data_encoding::HEXLOWER.decode(line.as_bytes()).expect("digits");
    RecordingPath {
        tenant: TenantHandle(bytes[..8].try_into().expect("eight")),
        subscriber: SubscriberHandle(bytes[8..16].try_into().expect("eight")),
        recording: RecordingHandle(bytes[16..].try_into().expect("sixteen")),
    }
}

fn line_of(at: RecordingPath) -> String {
    data_encoding::HEXLOWER.encode(&[&at.tenant.0[..], &at.subscriber.0, &at.recording.0].concat())
}

#[test]
fn a_process_killed_between_any_two_steps_is_before_or_after_and_what_it_erased_is_gone() {
    alone("a_process_killed_between_any_two_steps_is_before_or_after_and_what_it_erased_is_gone", |place| {
        let keys = place.open().expect("opens");
        let (tenant, subscriber) = add_subscriber(&keys);
        let made: Vec<_> = (0..60).map(|_| add_recording(&keys, tenant, subscriber)).collect();
        let rows: Vec<RowId> = made.iter().map(|(_, row)| *row).collect();
        drop(keys);
        place.copy("before");
        let mut gone = vec![false; made.len()];
        let mut killed = 0;
        // Past the calls of the start and of two rotations.
        for at in 0..16 {
            for done in ["", "done"] {
                let left: Vec<_> = (0..made.len()).filter(|number| !gone[*number]).take(2).collect();
                let lines: Vec<_> = left.iter().map(|number| line_of(made[*number].0)).collect();
                let task = format!("{at}\n{done}\n{}", lines.join("\n"));
                let output = place.process("helper_erases_until_it_is_cut_off", &place.path("tokens"), &task);
                killed += usize::from(!output.status.success());
                let said = String::from_utf8_lossy(&output.stdout);
                let keys = place.open().unwrap_or_else(|error| panic!("at {at} {done}: {error}; {said}"));
                for (number, (path, _)) in made.iter().enumerate() {
                    let acknowledged = said.contains(&format!("erased {}", line_of(*path)));
                    let lives = lives(&keys, *path);
                    assert!(!(acknowledged && lives), "at {at} {done}: an erasure came undone");
                    assert!(lives || gone[number] || left.contains(&number), "at {at} {done}: somebody else fell");
                    gone[number] |= !lives;
                }
                drop(keys);
                assert_eq!(place.keys_in_token().len(), 1, "at {at} {done}");
            }
        }
        assert!(killed > 20, "killed {killed} times");
        let fell = gone.iter().filter(|gone| **gone).count();
        assert!(fell > 10 && fell < made.len(), "{fell}");
        let expected: Vec<bool> = gone.iter().map(|gone| !gone).collect();
        assert_eq!(place.attacked(&place.path("tokens"), &["before"], &rows), expected);
    });
}

#[test]
fn a_torn_sector_is_no_record_and_takes_the_next_root() {
    alone("a_torn_sector_is_no_record_and_takes_the_next_root", |place| {
        let (kept, torn) = (Secret::random(), Secret::random());
        let mut slot = place.slot();
        slot.stage(&root_record(1, &kept)).expect("staged");
        slot.stage(&root_record(2, &torn)).expect("staged");
        drop(slot);
        let good = fs::read(place.path("slot")).expect("reads");
        for cut in (0..140).step_by(7) {
            let mut bytes = good.clone();
            bytes[2 * SECTOR + cut..3 * SECTOR].fill(0);
            fs::write(place.path("slot"), &bytes).expect("written");
            assert_eq!(ids(&mut place.slot()), [root_id(&kept)], "cut at {cut}");
        }
        let mut slot = place.slot();
        let next = Secret::random();
        slot.stage(&root_record(3, &next)).expect("staged over it");
        slot.commit(root_id(&next)).expect("committed");
        assert_eq!(ids(&mut slot), [root_id(&next)]);
        drop(slot);
        assert_eq!(place.keys_in_token().len(), 1);
        assert!(fs::read(place.path("slot")).expect("reads")[SECTOR..2 * SECTOR].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_commit_to_a_root_that_does_not_open_destroys_nothing() {
    alone("a_commit_to_a_root_that_does_not_open_destroys_nothing", |place| {
        let (old, new) = (Secret::random(), Secret::random());
        let mut slot = place.slot();
        slot.stage(&root_record(1, &old)).expect("staged");
        slot.stage(&root_record(2, &new)).expect("staged");
        assert!(matches!(slot.commit(RootId([9; 16])), Err(SlotError::Missing)));
        drop(slot);
        let keys = place.keys_in_token();
        // A token that sealed wrongly: the record is whole, its key is there, and it does not open.
        let good = fs::read(place.path("slot")).expect("reads");
        let mut bytes = good.clone();
        bytes[2 * SECTOR + 60] ^= 1;
        let checksum = digest::digest(&digest::SHA256, &bytes[2 * SECTOR..2 * SECTOR + 108]);
        bytes[2 * SECTOR + 108..2 * SECTOR + 140].copy_from_slice(checksum.as_ref());
        fs::write(place.path("slot"), &bytes).expect("written");
        assert!(matches!(place.slot().commit(root_id(&new)), Err(SlotError::Token(TokenError::Failed(_)))));
        assert_eq!(place.keys_in_token(), keys);
        fs::write(place.path("slot"), &good).expect("written");
        // Somebody destroyed the new one's key.
        let content = place.content();
        let staged = content.blobs.iter().flatten().find(|blob| blob.generation == 2).expect("staged").key;
        place.token().destroy(content.slot, staged).expect("destroyed");
        let mut slot = place.slot();
        assert!(matches!(slot.commit(root_id(&new)), Err(SlotError::Missing)));
        assert_eq!(ids(&mut slot), [root_id(&old)]);
        slot.stage(&root_record(3, &Secret::random())).expect("staged");
        for generation in 4..=RECORDS as u64 {
            slot.stage(&root_record(generation, &Secret::random())).expect("staged");
        }
        assert!(matches!(slot.stage(&root_record(9, &Secret::random())), Err(SlotError::Full)));
        slot.commit(root_id(&old)).expect("committed");
        drop(slot);
        assert_eq!(place.keys_in_token().len(), 1);
        assert_eq!(keys.len(), 2);
    });
}

#[test]
fn another_token_changes_nothing_and_two_slots_share_one() {
    alone("another_token_changes_nothing_and_two_slots_share_one", |place| {
        place.make_token("other");
        let root = Secret::random();
        let mut slot = place.slot();
        slot.stage(&root_record(1, &root)).expect("staged");
        slot.commit(root_id(&root)).expect("committed");
        drop(slot);
        let before = fs::read(place.path("slot")).expect("reads");
        // A token that does not know the slot's keys, in a process of its own: it was not there when this one began.
        let output = place.process("helper_meets_another_token", &place.path("tokens"), "go");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(before, fs::read(place.path("slot")).expect("reads"));

        let mut neighbour =
            Pkcs11Slot::open(&place.path("neighbour"), Box::new(place.token()), Forgets::BestEffort).expect("opens");
        for generation in 1..=2 {
            let root = Secret::random();
            neighbour.stage(&root_record(generation, &root)).expect("staged");
            neighbour.commit(root_id(&root)).expect("committed");
        }
        assert_eq!(ids(&mut place.slot()), [root_id(&root)]);
    });
}

#[test]
fn helper_meets_another_token() {
    let Some(_) = task() else { return };
    let place = Place(std::env::var_os(FOLDER).expect("a folder").into());
    let mut slot = place.slot_over(place.token_as("other", PIN));
    assert!(matches!(slot.records(), Err(SlotError::ForeignToken)));
    assert!(KeyStore::open(&place.path("fresh"), Box::new(slot)).is_err());
    let mut slot = place.slot_over(place.token_as("nobody", PIN));
    let error = slot.records().err().expect("refused");
    assert!(matches!(error, SlotError::Token(TokenError::Away(_))), "{error}");
    assert!(error.to_string().contains("`slot.token`"), "{error}");
}

#[test]
fn a_wrong_pin_is_tried_once_and_never_told() {
    alone("a_wrong_pin_is_tried_once_and_never_told", |place| {
        let root = Secret::random();
        let mut slot = place.slot();
        slot.stage(&root_record(1, &root)).expect("staged");
        drop(slot);

        let mut wrong = place.slot_over(place.token_as(LABEL, "a-wrong-pin"));
        let error = wrong.records().err().expect("refused");
        assert!(matches!(error, SlotError::Token(TokenError::PinWrong)), "{error}");
        let said = format!("{error} {error:?}");
        assert!(said.contains("slot.pin_file") && !said.contains("a-wrong-pin"), "{said}");
        drop(wrong);
        // The token counts one now. Nobody tries it again, not even with the right one, until somebody has looked.
        let error = place.slot().records().err().expect("refused");
        assert!(matches!(error, SlotError::Token(TokenError::PinUncertain)), "{error}");

        let mut wrong = place.token_as(LABEL, "a-wrong-pin");
        log_in_by_hand(PIN);
        assert!(matches!(wrong.keys(SlotId([0; 16])), Err(TokenError::PinWrong)));
        log_in_by_hand(PIN);
        assert!(matches!(wrong.keys(SlotId([0; 16])), Err(TokenError::PinWrong)));
        // Had it been asked, the token would count.
        assert_eq!(ids(&mut place.slot()), [root_id(&root)]);
    });
}

/// As `pkcs11-tool --login` does.
fn log_in_by_hand(pin: &str) {
    let module = Pkcs11::new(MODULE).expect("loaded");
    let slots = module.get_slots_with_token().expect("slots");
    let label = |slot| module.get_token_info(slot).is_ok_and(|info| info.label() == LABEL);
    let slot = slots.into_iter().find(|slot| label(*slot)).expect("the token");
    let session = module.open_rw_session(slot).expect("a session");
    session.login(UserType::User, Some(&AuthPin::from(pin))).expect("logs in");
}

#[test]
fn while_the_token_is_away_creates_go_on_and_erasures_are_refused() {
    alone("while_the_token_is_away_creates_go_on_and_erasures_are_refused", |place| {
        let keys = place.open().expect("opens");
        let (tenant, subscriber) = add_subscriber(&keys);
        let (at, _) = add_recording(&keys, tenant, subscriber);
        fs::rename(place.path("tokens"), place.path("away")).expect("renamed");
        let refusal = erase(&keys, at).expect_err("refused");
        assert!(matches!(refusal, CommitError::Slot(SlotError::Token(_))), "{refusal}");
        let (other, _) = add_recording(&keys, tenant, subscriber);
        assert!(lives(&keys, at) && lives(&keys, other) && keys.generation() == 1);
        fs::rename(place.path("away"), place.path("tokens")).expect("renamed");
        erase(&keys, at).expect("erased");
        assert!(!lives(&keys, at) && lives(&keys, other) && keys.generation() == 2);
        drop(keys);
        assert_eq!(place.keys_in_token().len(), 1);
    });
}

#[test]
fn a_lost_session_is_opened_again() {
    alone("a_lost_session_is_opened_again", |place| {
        let mut slot = place.slot();
        let root = Secret::random();
        slot.stage(&root_record(1, &root)).expect("staged");
        // Ends every session with the token, as a restart of it does.
        let module = || Pkcs11::new(MODULE).expect("loaded");
        module().finalize().expect("ended");
        module().initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("begun");
        assert_eq!(ids(&mut slot), [root_id(&root)]);
    });
}

#[test]
fn helper_opens_the_slot() {
    let Some(_) = task() else { return };
    let place = Place(std::env::var_os(FOLDER).expect("a folder").into());
    let refused = Pkcs11Slot::open(&place.path("slot"), Box::new(place.token()), Forgets::AtOnce).err();
    assert!(matches!(refused, Some(SlotError::Held)), "{refused:?}");
}

#[test]
fn two_processes_do_not_hold_one_slot() {
    alone("two_processes_do_not_hold_one_slot", |place| {
        let mut slot = place.slot();
        slot.stage(&root_record(1, &Secret::random())).expect("staged");
        let output = place.process("helper_opens_the_slot", &place.path("tokens"), "go");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        drop(slot);
        let output = place.process("helper_opens_the_slot", &place.path("tokens"), "go");
        assert!(!output.status.success(), "held by nobody now");
    });
}

#[test]
fn a_module_that_is_missing_is_named() {
    let missing = ModuleToken::load(Path::new("/nonexistent/module.so"), LABEL, Zeroizing::new(PIN.to_owned()));
    let error = missing.err().expect("refused").to_string();
    assert!(error.contains("`slot.module` /nonexistent/module.so"), "{error}");
    assert!(!error.contains(PIN));
}

#[test]
fn serve_keeps_its_root_in_a_token_and_says_what_is_wrong_with_one() {
    alone("serve_keeps_its_root_in_a_token_and_says_what_is_wrong_with_one", |place| {
        tokio::runtime::Runtime::new().expect("a runtime").block_on(serving(place));
    });
}

async fn serving(place: &Place) {
    let world = served::World::new("").await;
    let (config, pin) = (world.data().join("quietus.toml"), place.path("pin"));
    fs::write(&pin, format!("{PIN}\n")).expect("written");
    let text = fs::read_to_string(&config).expect("reads");
    let slot = format!(
        "kind = \"pkcs11\"\nmodule = \"{MODULE}\"\ntoken = \"{LABEL}\"\npin_file = \"{}\"\nforgets = \"after 35d\"",
        pin.display()
    );
    fs::write(&config, text.replace("allow_same_filesystem = true", &slot)).expect("written");
    let file = world.data().join("slot").join("root");
    for _ in 0..2 {
        let gateway = world.start();
        let mut status = gateway.command(&["status", "--json"]);
        let status = status.env("QUIETUS_PROFILE", gateway.client_file("operator.toml")).output().expect("it runs");
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
        assert_eq!(status["slot_forgets"], "after 35d");
        let content = Content::parse(&fs::read(&file).expect("reads")).expect("a slot").expect("made");
        assert_eq!(place.token().keys(content.slot).expect("lists").len(), 1);
    }

    let serve = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quietus"));
        let output = command.args(["serve", "--config"]).arg(&config).output().expect("it runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    fs::write(&pin, "a-wrong-pin").expect("written");
    let said = serve();
    assert!(said.contains("`slot.pin_file`") && !said.contains("a-wrong-pin"), "{said}");
    // Restarts do not use up what tries are left.
    assert!(serve().contains("counts a failed login"));
    fs::remove_file(&pin).expect("removed");
    assert!(serve().contains("cannot read `slot.pin_file`"));
    fs::write(&config, text.replace("allow_same_filesystem = true", &slot.replace(MODULE, "/nonexistent.so")))
        .expect("written");
    fs::write(&pin, PIN).expect("written");
    assert!(serve().contains("`slot.module` /nonexistent.so"));
}

/// Not a test but a measurement: `cargo test --test pkcs11 -- --ignored --nocapture erase_latency`.
#[test]
#[ignore = "a measurement"]
fn erase_latency() {
    alone("erase_latency", |place| {
        let measure = |name: &str, slot: Box<dyn Slot>| {
            let keys = KeyStore::open(&place.path(name), slot).expect("opens");
            let (tenant, subscriber) = add_subscriber(&keys);
            let made: Vec<_> = (0..101).map(|_| add_recording(&keys, tenant, subscriber).0).collect();
            let mut times: Vec<Duration> = made
                .into_iter()
                .map(|at| {
                    let begun = Instant::now();
                    erase(&keys, at).expect("erased");
                    begun.elapsed()
                })
                .collect();
            times.sort();
            println!("| {name} | p50 {:?} | p90 {:?} |", times[50], times[90]);
        };
        for round in 1..=3 {
            let file = FileSlot::open(&place.path(&format!("root{round}"))).expect("opens");
            measure(&format!("file-{round}"), Box::new(file));
            let path = place.path(&format!("sealed{round}"));
            let token = Pkcs11Slot::open(&path, Box::new(place.token()), Forgets::AtOnce).expect("opens");
            measure(&format!("softhsm-{round}"), Box::new(token));
        }
    });
}
