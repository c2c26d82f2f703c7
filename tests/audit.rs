//! The audit log and the receipts over the real vault, slot and S3, with a clock that the test moves: what an erasure
//! leaves readable, what a tenant sees, what an RFC 6962 verifier that is not ours says, and what a receipt survives.

use bytes::Bytes;
use quietus::{
    audit::{VerifierKey, leaf, proof, receipt, verify},
    crypto::{envelope::Kind as Sealed, random},
    domain::{
        audit::{Action, Outcome},
        id::{RecordingId, RootId},
        time::{Clock, Timestamp},
    },
    forensics::{Options as Attack, investigate},
    journal::{Journal, Options},
    keys::{FileSlot, Forgets, KeyStore, Slot, SlotError, slot::Record},
    object::{Embedded, ObjectStore, embedded::Certificate},
    server::dev_files::DevFiles,
    vault::{
        Actor, ActorRole, Erasure, Error, Finish, Hearing, Kind, Mode, NewTenant, Open, Part, PlayRange, Proof,
        Residency, Scope, StatedBasis, StatedFacts, StatedTies, SubjectView, TailOf, Target, Vault, VaultConfig,
    },
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;

const DAY_MS: i64 = 86_400_000;
const NOW: Timestamp = Timestamp(20_000 * DAY_MS);
const REGIONS: [&str; 2] = ["eu-west-2", "eu-west-1"];
/// What is written about a playback, and nowhere else.
const TRANSPORT: &str = "carrier-pigeon";

struct World {
    dir: TempDir,
    storage: Embedded,
    clock: Clock,
    key: Arc<quietus::audit::SigningKey>,
    vault: Option<Vault>,
    forgets: Forgets,
}

/// A slot that declares what it is told.
struct Declared(FileSlot, Forgets);

impl Slot for Declared {
    fn records(&mut self) -> Result<Vec<Record>, SlotError> {
        self.0.records()
    }

    fn stage(&mut self, record: &Record) -> Result<(), SlotError> {
        self.0.stage(record)
    }

    fn commit(&mut self, keep: RootId) -> Result<(), SlotError> {
        self.0.commit(keep)
    }

    fn discard(&mut self, root: RootId) -> Result<(), SlotError> {
        self.0.discard(root)
    }

    fn clear(&mut self) -> Result<(), SlotError> {
        self.0.clear()
    }

    fn forgets(&self) -> Forgets {
        self.1
    }
}

impl World {
    async fn new() -> Self {
        Self::with_slot(Forgets::BestEffort).await
    }

    async fn with_slot(forgets: Forgets) -> Self {
        let dir = TempDir::new().expect("a folder");
        let files = DevFiles::prepare(dir.path()).expect("certificates");
        let ca = files.tls.client_ca.clone().expect("a CA");
        let certificate = Certificate { chain_pem: &files.tls.certificate, key_pem: &files.tls.key, ca_pem: &ca };
        let storage = Embedded::start(&dir.path().join("s3"), &REGIONS, certificate).await.expect("storage");
        let key = Arc::new(quietus::audit::SigningKey::of_this_run("uk+eu"));
        let mut world = Self { dir, storage, clock: Clock::set_to(NOW), key, vault: None, forgets };
        world.open().await;
        for name in ["acme", "other"] {
            let new = NewTenant {
                name: name.into(),
                home: REGIONS[0].into(),
                residency: Residency::HomeOnly,
                policy: "dev".into(),
            };
            world.vault().create_tenant(&admin(), new).await.expect("created");
        }
        world
    }

    async fn open(&mut self) {
        let slot = self.dir.path().join("slot");
        std::fs::create_dir_all(&slot).expect("a folder");
        let slot = FileSlot::open(&slot.join("root")).expect("a slot");
        let slot = Box::new(Declared(slot, self.forgets));
        let keys = KeyStore::open(&self.dir.path().join("keys"), slot).expect("a key store");
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        let journal = Journal::open(&self.dir.path().join("journal"), options).expect("a journal");
        let objects = ObjectStore::connect(self.storage.region_configs()).await.expect("connected");
        let config = VaultConfig { signing_key: Some(self.key.clone()), ..VaultConfig::default() };
        self.vault = Some(Vault::open(config, keys, journal, objects, self.clock.clone()).expect("opened"));
    }

    async fn reopen(&mut self) {
        let vault = self.vault.take().expect("open");
        vault.drain().await;
        drop(vault);
        self.open().await;
    }

    fn vault(&self) -> &Vault {
        self.vault.as_ref().expect("open")
    }

    fn verifier(&self) -> VerifierKey {
        self.vault().verifier_key().parse().expect("a verifier key")
    }

    /// The key store aborts the process when its folder is taken away from under it.
    async fn close(mut self) {
        self.vault.take().expect("open").drain().await;
    }

    async fn record(&self, tenant: &str, subscriber: &str) -> RecordingId {
        let open = Open {
            tenant: tenant.into(),
            subscriber: subscriber.into(),
            kind: Kind::Call,
            mode: Mode::Spooled,
            media_type: "audio/PCMA;rate=8000".into(),
            client_id: random::<16>().to_vec(),
            start: Some(self.clock.now()),
            length_hint: None,
            facts: StatedFacts::default(),
            basis: StatedBasis::default(),
            ties: StatedTies::default(),
        };
        let mut ingest = self.vault().record(open).await.expect("opened");
        ingest.data(0, Bytes::from(vec![7; 2000])).await.expect("taken");
        ingest.finish(Finish { length: 2000, sha256: None, end: None }).await.expect("finished");
        let mut progress = ingest.progress();
        progress.wait_for(|progress| progress.finished.is_some()).await.expect("stored");
        ingest.opened().id
    }

    async fn play(&self, actor: &Actor, id: RecordingId) {
        let all = PlayRange::Bytes { start: 0, end: None };
        let hearing = Hearing { transport: TRANSPORT, download: false };
        let mut playback = self.vault().play(actor, Proof::default(), id, all, hearing).await.expect("plays");
        while let Some(chunk) = playback.next().await {
            chunk.expect("authentic");
        }
    }

    async fn erase(&self, id: RecordingId, opening: Option<[u8; 32]>) -> Erasure {
        self.vault().erase(&admin(), Target::Recording(id, Part::Both), opening).await.expect("erased")
    }

    fn tail(&self, scope: &Scope, of: TailOf) -> Result<Vec<quietus::vault::AuditEntry>, Error> {
        self.vault().tail(scope, &of, None, 1000)
    }

    /// Waits for the receipt that says that the ciphertext is gone.
    async fn swept(&self, first: &Erasure) -> quietus::vault::Receipt {
        for _ in 0..600 {
            if let Some(second) = self.vault().receipt(first.receipt).expect("a receipt").swept_by {
                return self.vault().receipt(second).expect("a second receipt");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the ciphertext is not swept");
    }

    /// Every copy of the key store so far, and the slot as it is now.
    fn attack(&self, copies: &[PathBuf]) -> (usize, [usize; 2], [usize; 2], bool) {
        let options = Attack {
            keys: copies.to_vec(),
            slots: vec![self.dir.path().join("slot")],
            find: vec![TRANSPORT.to_owned()],
            ..Attack::default()
        };
        let findings = investigate(&options).expect("understood");
        let mut seen = std::collections::HashSet::new();
        let mut count = |kind| {
            let mut states = [0, 0];
            for sealed in findings.carved.sealed.iter().filter(|sealed| sealed.kind == kind && seen.insert(sealed.salt))
            {
                states[usize::from(!findings.closure.opened.contains(&sealed.salt))] += 1;
            }
            states
        };
        let (evidence, subjects) = (count(Sealed::AuditEvidence), count(Sealed::AuditSubject));
        let found = findings.needles.results().any(|(_, places)| !places.is_empty());
        (findings.closure.roots, evidence, subjects, found)
    }

    fn copy(&self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        copy_tree(&self.dir.path().join("keys"), &to);
        to
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("reads") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_tree(&entry.path(), &target);
        } else if let Err(error) = std::fs::copy(entry.path(), target) {
            // A file that the running process removed while it was copied.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

fn actor(name: &str, role: ActorRole, scope: Scope) -> Actor {
    Actor { name: name.into(), on_behalf_of: None, role, scope, subscriber: None }
}

/// An administrator of both tenants, who hears what is theirs.
fn customer() -> Actor {
    actor("admin/carla", ActorRole::Admin, Scope::Tenants(vec!["acme".into(), "other".into()]))
}

fn admin() -> Actor {
    actor("admin/anna", ActorRole::Admin, Scope::All)
}

fn acme() -> Scope {
    Scope::Tenants(vec!["acme".into()])
}

/// The whole point of the two parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_erasure_the_evidence_is_readable_and_the_subject_is_not() {
    let world = World::new().await;
    let (gone, kept) = (world.record("acme", "alice").await, world.record("acme", "bob").await);
    let auditor = actor("admin/otto", ActorRole::Admin, acme());
    world.play(&auditor, gone).await;
    let before = world.copy("copy-before");

    // The control: before the erasure the attacker reads whose it was.
    let (roots, evidence, subjects, found) = world.attack(std::slice::from_ref(&before));
    assert_eq!(roots, 1);
    assert_eq!((evidence[1], subjects[1]), (0, 0), "everything opens before");
    assert!(found, "what is in the subject part is found");
    let played = |entries: Vec<quietus::vault::AuditEntry>| {
        entries.into_iter().find(|entry| entry.action == Action::Play).expect("the playback is in the log")
    };
    let entry = played(world.tail(&acme(), TailOf::Tenant("acme".into())).expect("entries"));
    assert!(
        matches!(&entry.subject, SubjectView::Open { recording: Some(id), range: Some(range), .. } if *id == gone && *range == (0..2000))
    );
    assert_eq!((entry.actor.as_str(), entry.outcome), ("admin/otto", Outcome::Done));
    let by_recording = world.tail(&acme(), TailOf::Recording(gone)).expect("entries");
    assert_eq!(by_recording.iter().map(|entry| entry.index).collect::<Vec<_>>(), [entry.index]);

    world.erase(gone, None).await;
    world.erase(kept, None).await;
    let (_, evidence, subjects, found) =
        world.attack(&[before, world.copy("copy-after"), world.dir.path().join("keys")]);
    assert_eq!(evidence[1], 0, "all evidence opens after");
    assert!(evidence[0] >= 5, "{evidence:?}");
    assert_eq!(subjects[1], 1, "the subject of the playback, and it alone, is blank: {subjects:?}");
    assert!(!found, "what was in the subject part is found nowhere, in no copy");

    let same = played(world.tail(&acme(), TailOf::Tenant("acme".into())).expect("entries"));
    assert!(matches!(same.subject, SubjectView::Erased), "somebody listened; whose it was cannot be told");
    assert_eq!((same.index, same.actor.as_str(), &same.leaf), (entry.index, "admin/otto", &entry.leaf));
    assert!(matches!(world.tail(&acme(), TailOf::Recording(gone)), Err(Error::Erased)));
    // And the log holds: the same leaf, in the present tree.
    let head = world.verifier().open_checkpoint(&world.vault().checkpoint().expect("signed")).expect("a checkpoint");
    let inclusion = world.vault().inclusion(same.index, Some(head.size)).expect("a proof");
    assert!(proof::includes(leaf::hash(&same.leaf), same.index, head.size, head.root, &inclusion.hashes));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_see_their_own_entries_only() {
    let world = World::new().await;
    let (own, foreign) = (world.record("acme", "alice").await, world.record("other", "carol").await);
    world.play(&customer(), own).await;
    world.play(&customer(), foreign).await;
    world.erase(foreign, None).await;
    for of in [TailOf::Tenant("other".into()), TailOf::Recording(foreign), TailOf::Group] {
        assert!(matches!(world.tail(&acme(), of), Err(Error::Unknown { .. })));
    }
    let carol = TailOf::Subscriber { tenant: "other".into(), subscriber: "carol".into() };
    assert!(matches!(world.tail(&acme(), carol), Err(Error::Unknown { .. })));
    assert!(matches!(world.vault().receipts(&acme(), Some("other"), false, None, 10), Err(Error::Unknown { .. })));
    assert!(matches!(world.vault().receipts(&acme(), None, false, None, 10), Err(Error::Unknown { .. })));

    let all = |name: &str| world.tail(&Scope::All, TailOf::Tenant(name.into())).expect("entries");
    let actions = |name: &str| all(name).iter().map(|entry| entry.action.word()).collect::<Vec<_>>();
    assert_eq!(actions("acme"), ["tenant.create", "play"]);
    assert_eq!(actions("other"), ["tenant.create", "play", "erase.done"]);
    let indexes = |name: &str| all(name).iter().map(|entry| entry.index).collect::<Vec<_>>();
    assert!(indexes("acme").iter().all(|index| !indexes("other").contains(index)));
    let mine = world.tail(&acme(), TailOf::Tenant("acme".into())).expect("entries");
    assert_eq!(mine.iter().map(|entry| entry.index).collect::<Vec<_>>(), indexes("acme"));
    world.close().await;
}

/// What a subscriber does is evidence that outlives the subscriber; the name must not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_names_a_subscriber_by_role_alone() {
    let world = World::new().await;
    let id = world.record("acme", "alice").await;
    let scope = Scope::Own { tenant: "acme".into(), subscriber: "alice".into() };
    let mut alice = actor("subscriber/alice", ActorRole::Subscriber, scope);
    alice.subscriber = Some("alice".into());
    world.play(&alice, id).await;
    let mut helper = actor("admin/sam", ActorRole::Admin, acme());
    helper.on_behalf_of = Some("subscriber/alice".into());
    world.play(&helper, id).await;
    let entries = world.tail(&acme(), TailOf::Recording(id)).expect("entries");
    let said: Vec<_> = entries.iter().map(|entry| (entry.actor.as_str(), entry.on_behalf_of.as_deref())).collect();
    assert_eq!(said, [("subscriber", None), ("admin/sam", Some("subscriber"))]);
    assert!(matches!(&entries[0].subject, SubjectView::Open { acting: Some(name), .. } if name == "alice"));

    let target = Target::Subscriber { tenant: "acme".into(), subscriber: "alice".into(), block: false };
    world.vault().erase(&admin(), target, None).await.expect("erased");
    let options = Attack {
        keys: vec![world.dir.path().join("keys"), world.copy("copy")],
        slots: vec![world.dir.path().join("slot")],
        find: vec!["alice".to_owned()],
        ..Attack::default()
    };
    let findings = investigate(&options).expect("understood");
    assert!(findings.needles.results().all(|(_, places)| places.is_empty()), "the name is in nothing that opens");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_with_backups_puts_off_what_the_receipt_says_is_destroyed() {
    let world = World::with_slot(Forgets::After { days: 35 }).await;
    let id = world.record("acme", "alice").await;
    // The time counts from the destruction, not from when the store was opened.
    world.clock.advance_ms(3 * DAY_MS);
    let erasure = world.erase(id, None).await;
    assert_eq!(erasure.slot_forgets, "after 35d");
    let said = verify::verify(&erasure.receipt_file, &world.verifier(), None).expect("it holds").statement;
    assert_eq!(said.state, receipt::State::DestroyedBy(NOW.plus_ms(38 * DAY_MS)));
    assert_eq!(said.slots, [receipt::Slot { forgets: "after 35d".into(), beside_store: false }]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_has_a_receipt_and_a_second_one_when_the_ciphertext_is_gone() {
    let mut world = World::new().await;
    let id = world.record("acme", "alice").await;
    let opening = random::<32>();
    let erasure = world.erase(id, Some(opening)).await;
    assert_eq!(erasure.opening, opening);
    let scope = receipt::recording_scope(id);
    assert_eq!(erasure.scope, scope);
    let about = Some((&opening, scope.as_str()));
    let first = verify::verify(&erasure.receipt_file, &world.verifier(), about).expect("it holds");
    let said = &first.statement;
    assert_eq!((said.id, said.about, said.parts), (erasure.receipt, receipt::About::Recording, receipt::Parts::Both));
    assert_eq!((said.state, said.follows), (receipt::State::Destroyed, None));
    assert_eq!(said.generations, (erasure.generation_from, erasure.generation_to));
    assert!(said.generations.0 < said.generations.1);
    assert_eq!(said.slots, [receipt::Slot { forgets: "best-effort".into(), beside_store: false }]);
    assert!(said.ciphertext.iter().all(|(_, removed)| !removed) && said.ciphertext.len() == 2);
    assert_eq!(said.gone_by, Some(NOW.plus_ms(30 * DAY_MS)));

    let second = world.swept(&erasure).await;
    let text = second.text.expect("stated");
    let second = verify::verify(&text, &world.verifier(), about).expect("it holds");
    assert_eq!((second.statement.state, second.statement.follows), (receipt::State::Removed, Some(erasure.receipt)));
    assert!(second.statement.ciphertext.iter().all(|(_, removed)| *removed));
    assert!(second.index > first.index);

    // Shown again after a restart: the same statement, a proof to the head of now.
    world.record("acme", "bob").await;
    world.reopen().await;
    let again = world.vault().receipt(erasure.receipt).expect("known");
    assert!(again.stated && again.gone_by.is_none() && !again.overdue);
    let again = verify::verify(&again.text.expect("stated"), &world.verifier(), about).expect("it holds");
    assert_eq!(again.statement, first.statement);
    assert!(again.checkpoint.size >= first.checkpoint.size);

    // The tenant's own list leads to it.
    let listed = world.vault().receipts(&acme(), Some("acme"), false, None, 10).expect("listed");
    assert_eq!(listed.iter().map(|receipt| receipt.id).collect::<Vec<_>>(), [erasure.receipt]);
    assert_eq!(world.vault().receipts(&Scope::All, None, false, None, 10).expect("listed").len(), 2);
    assert!(world.vault().receipts(&Scope::All, None, true, None, 10).expect("listed").is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_again_says_that_nothing_was_left() {
    let world = World::new().await;
    let (id, other) = (world.record("acme", "alice").await, world.record("acme", "alice").await);
    let first = world.erase(id, None).await;
    let again = world.erase(id, None).await;
    assert!(first.destroyed && !again.destroyed);
    assert_ne!(first.receipt, again.receipt);
    assert_ne!(first.opening, again.opening, "the gateway draws one for each");
    let said = verify::verify(&again.receipt_file, &world.verifier(), Some((&again.opening, &again.scope)));
    let said = said.expect("it holds").statement;
    assert_eq!(said.state, receipt::State::NothingLeft);
    assert_eq!(said.generations.0, said.generations.1);
    assert!(said.ciphertext.is_empty() && said.gone_by.is_none());
    assert!(!world.vault().receipt(again.receipt).expect("known").overdue);
    // What is said of the one is not said of the other.
    let scope = receipt::recording_scope(other);
    let wrong = verify::verify(&again.receipt_file, &world.verifier(), Some((&again.opening, &scope)));
    assert_eq!(wrong.err(), Some(verify::Refused::Commitment));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_expires_and_the_log_still_holds() {
    let world = World::new().await;
    let id = world.record("acme", "alice").await;
    world.play(&customer(), id).await;
    let old = world.verifier().open_checkpoint(&world.vault().checkpoint().expect("signed")).expect("a checkpoint");
    assert_eq!(world.tail(&acme(), TailOf::Tenant("acme".into())).expect("entries").len(), 2);

    // The quarter of day 20 000 ends with 2024; six years later it is 2031.
    let end = NOW.day().quarter().plus_months(3 + 12 * 6);
    let last_moment = i64::from(end.0) * DAY_MS - 1;
    world.clock.advance_ms(last_moment - NOW.0);
    world.vault().housekeep().await.expect("the daily work");
    assert_eq!(world.tail(&acme(), TailOf::Tenant("acme".into())).expect("entries").len(), 2, "not a moment early");
    let copy = world.copy("copy-before");
    world.clock.advance_ms(DAY_MS);
    world.vault().housekeep().await.expect("the daily work");
    assert!(world.tail(&acme(), TailOf::Tenant("acme".into())).expect("entries").is_empty());
    let (_, evidence, _, _) = world.attack(&[copy, world.dir.path().join("keys")]);
    assert_eq!(evidence[0], 0, "no evidence of that time opens, in no copy");
    let head = world.verifier().open_checkpoint(&world.vault().checkpoint().expect("signed")).expect("a checkpoint");
    let (size, hashes) = world.vault().consistency(old.size, Some(head.size)).expect("a proof");
    assert!(proof::extends((old.size, old.root), (size, head.root), &hashes));
    world.close().await;
}

/// The Python that `make deps` prepares.
fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("QUIETUS_PYTHON") {
        return python.into();
    }
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let prepared = home.join(".cache/quietus/venv/bin/python");
    if prepared.exists() { prepared } else { "python3".into() }
}

/// `tests/clients/tlog_verifier.py` knows RFC 6962 and the pages of C2SP, and nothing of this program.
fn ask_python(folder: &Path) -> (bool, String) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/tlog_verifier.py");
    let output = Command::new(python())
        .arg(script)
        .arg(folder)
        .output()
        .expect("python is there; `make deps` prepares it, QUIETUS_PYTHON names another one");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verifier_that_is_not_ours_accepts_checkpoints_proofs_and_receipts_and_nothing_altered() {
    let world = World::new().await;
    let mut checkpoints = vec![world.vault().checkpoint().expect("signed")];
    let mut erasures = Vec::new();
    for subscriber in ["alice", "bob", "carol"] {
        let id = world.record("acme", subscriber).await;
        world.play(&customer(), id).await;
        checkpoints.push(world.vault().checkpoint().expect("signed"));
        let opening = random::<32>();
        erasures.push(world.erase(id, Some(opening)).await);
        checkpoints.push(world.vault().checkpoint().expect("signed"));
    }
    let head = world.verifier().open_checkpoint(checkpoints.last().expect("one")).expect("a checkpoint");
    let base64 = |hashes: &[[u8; 32]]| hashes.iter().map(|hash| data_encoding::BASE64.encode(hash)).collect::<Vec<_>>();
    // Between any two sizes, not only those that were signed.
    let mut consistency = Vec::new();
    for new in 0..=head.size {
        for old in 0..=new {
            let (_, hashes) = world.vault().consistency(old, Some(new)).expect("a proof");
            consistency.push(serde_json::json!({"old": old, "new": new, "proof": base64(&hashes)}));
        }
    }
    let mut leaves = Vec::new();
    let mut inclusion = Vec::new();
    for index in 0..head.size {
        for size in index + 1..=head.size {
            let found = world.vault().inclusion(index, Some(size)).expect("a proof");
            inclusion.push(serde_json::json!({"index": index, "size": size, "proof": base64(&found.hashes)}));
            if size == head.size {
                leaves.push(data_encoding::BASE64.encode(&found.leaf));
            }
        }
    }
    let receipts: Vec<_> = erasures
        .iter()
        .map(|erasure| {
            serde_json::json!({
                "text": erasure.receipt_file,
                "opening": data_encoding::HEXLOWER.encode(&erasure.opening),
                "scope": erasure.scope,
            })
        })
        .collect();
    let case = serde_json::json!({
        "vkey": world.vault().verifier_key(), "checkpoints": checkpoints, "leaf_hashes": leaves,
        "consistency": consistency, "inclusion": inclusion, "receipts": receipts,
    });
    let folder = world.dir.path().join("python");
    std::fs::create_dir(&folder).expect("a folder");
    let ask = |case: &serde_json::Value| {
        std::fs::write(folder.join("case.json"), case.to_string()).expect("written");
        ask_python(&folder)
    };
    let (good, said) = ask(&case);
    assert!(good && said.contains("all of it holds"), "{said}");

    // It must be able to say no.
    let last = case["consistency"].as_array().expect("proofs").len() - 2;
    for (pointer, what) in [
        ("/leaf_hashes/1", "leaf"),
        ("/checkpoints/1", "checkpoint"),
        ("/receipts/0/scope", "commitment"),
        ("/receipts/1/text", "receipt"),
        (&format!("/consistency/{last}/proof/0"), "consistency"),
    ] {
        let mut altered = case.clone();
        let value = altered.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is there"));
        let text = value.as_str().expect("text").to_owned();
        let at = text.len() / 2;
        let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
        *value = format!("{}{other}{}", &text[..at], &text[at + 1..]).into();
        let (good, said) = ask(&altered);
        assert!(!good, "an altered {what} is accepted: {said}");
    }
    world.close().await;
}
