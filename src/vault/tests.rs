//! Random histories of the whole vault over real stores: streams that break, resume and finish, crashes, and disks that
//! are cloned and put back, against a model that knows what was acknowledged.
//!
//! Two things are checked. Every acknowledged byte is there after whatever happened. And no key seals twice under one
//! nonce: the ledger of [`crate::crypto::epoch`] runs in every unit test and ends the process's test at the first pair it
//! sees again, so the histories need only be wild enough: they resume one recording from two copies of one disk.

mod basis;
mod listening;

use super::{
    Actor, ActorRole, Error, Finish, Hearing, Ingest, Kind, Mode, Narrower, NewPermission, Open, Over, Page, PlayRange,
    Proof, Scope, StatedBasis, StatedFacts, StatedTies, Target, Vault, VaultConfig, values,
};
use crate::{
    crypto::{envelope::Kind as Sealed, epoch::ledger, secret::Secret},
    domain::{
        id::{ObjectId, RecordingHandle, RecordingId, RowId},
        pause::PauseReason,
        permission::{Level, Terms},
        time::Clock,
    },
    journal::{Journal, Options},
    keys::{Change, FileSlot, Keeping, KeyStore, Mutation, Owner, RecordingPath},
    object::{
        ObjectStore,
        embedded::{Certificate, Embedded},
    },
    proto::stored,
    vault::{NewTenant, Residency},
};
use bytes::Bytes;
use proptest::{prelude::*, test_runner::Config};
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_stream::StreamExt as _;

const CLIENTS: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    Open {
        client: u8,
        live: bool,
    },
    Data {
        client: u8,
        length: usize,
    },
    Pause {
        client: u8,
    },
    Resume {
        client: u8,
    },
    Vanish {
        client: u8,
    },
    Finish {
        client: u8,
    },
    Play {
        client: u8,
    },
    Erase {
        client: u8,
    },
    /// The process dies; the next one starts on the disk as it was at that moment.
    Crash,
    /// The disk is cloned.
    Clone,
    /// The process dies; the next one starts on the clone, its slot included.
    PutBack,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        3 => (client.clone(), any::<bool>()).prop_map(|(client, live)| Step::Open { client, live }),
        6 => (client.clone(), 1..150_000_usize).prop_map(|(client, length)| Step::Data { client, length }),
        2 => client.clone().prop_map(|client| Step::Pause { client }),
        2 => client.clone().prop_map(|client| Step::Resume { client }),
        2 => client.clone().prop_map(|client| Step::Vanish { client }),
        2 => client.clone().prop_map(|client| Step::Finish { client }),
        1 => client.clone().prop_map(|client| Step::Play { client }),
        1 => client.prop_map(|client| Step::Erase { client }),
        1 => Just(Step::Crash),
        1 => Just(Step::Clone),
        1 => Just(Step::PutBack),
    ]
}

impl Step {
    fn client(&self) -> Option<u8> {
        match self {
            Step::Open { client, .. }
            | Step::Data { client, .. }
            | Step::Pause { client }
            | Step::Resume { client }
            | Step::Vanish { client }
            | Step::Finish { client }
            | Step::Play { client }
            | Step::Erase { client } => Some(*client),
            Step::Crash | Step::Clone | Step::PutBack => None,
        }
    }
}

fn developer() -> Actor {
    Actor { name: "developer/test".into(), role: ActorRole::Developer, ..Actor::gateway() }
}

/// What the model knows of one client id.
#[derive(Clone)]
struct Known {
    live: bool,
    id: RecordingId,
    /// Bytes that were acknowledged at some time.
    kept: u64,
    finished: bool,
    erased: bool,
    paused: bool,
    /// Where it was ever paused.
    gaps: Vec<u64>,
}

/// The audio of a client: any byte of it can be told from its place.
fn audio(client: u8, from: u64, length: usize) -> Bytes {
    (from..from + length as u64).map(|at| (at % 251) as u8 ^ client).collect()
}

struct House {
    disks: u32,
    disk: PathBuf,
    objects: ObjectStore,
    _embedded: Embedded,
    vault: Vault,
    streams: HashMap<u8, Ingest>,
    model: HashMap<u8, Known>,
    clone: Option<(PathBuf, HashMap<u8, Known>)>,
    /// Clients whose recordings were erased on a disk that was replaced by an older one.
    lost: HashSet<u8>,
    /// Client ids differ from house to house.
    nonce: [u8; 16],
    /// Last: the stores write to it until they are dropped.
    root: tempfile::TempDir,
}

fn open_disk(disk: &Path, objects: ObjectStore) -> Vault {
    let slot = FileSlot::open(&disk.join("slot")).expect("slot");
    let keys = KeyStore::open(&disk.join("keys"), Box::new(slot)).expect("keys");
    let options = Options { limit_bytes: 64 << 20, segment_bytes: 1 << 20 };
    let journal = Journal::open(&disk.join("journal"), options).expect("journal");
    let config = VaultConfig {
        max_unstored: Duration::from_millis(30),
        sender_timeout: Duration::from_secs(3600),
        ..VaultConfig::default()
    };
    Vault::open(config, keys, journal, objects, Clock::system()).expect("vault")
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("reads") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy_tree(&entry.path(), &target);
        } else if let Err(error) = std::fs::copy(entry.path(), target) {
            // A file that the running process removed while it was copied.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

/// What is on the disk at one moment. The key store goes first: what it lists is in S3, and what the journal lets go of
/// is listed.
fn copy_disk(from: &Path, to: &Path) {
    for part in ["journal", "keys"] {
        copy_tree(&from.join(part), &to.join(part));
    }
    std::fs::copy(from.join("slot"), to.join("slot")).expect("slot");
}

impl House {
    async fn new() -> Self {
        // What a store says before it aborts the process is worth reading.
        let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_test_writer().try_init();
        let root = tempfile::tempdir().expect("folder");
        let key = rcgen::KeyPair::generate().expect("key");
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .expect("certificate")
            .pem();
        let key = key.serialize_pem();
        let pem =
            Certificate { chain_pem: certificate.as_bytes(), key_pem: key.as_bytes(), ca_pem: certificate.as_bytes() };
        let embedded = Embedded::start(&root.path().join("s3"), &["eu-west-2", "eu-west-1"], pem).await.expect("s3");
        let objects = ObjectStore::connect(embedded.region_configs()).await.expect("objects");
        let disk = root.path().join("disk-0");
        let vault = open_disk(&disk, objects.clone());
        vault
            .create_tenant(
                &Actor::gateway(),
                NewTenant {
                    name: "acme".to_owned(),
                    home: "eu-west-2".to_owned(),
                    residency: Residency::Both,
                    policy: "circleloop".into(),
                },
            )
            .await
            .expect("tenant");
        Self {
            root,
            disks: 0,
            disk,
            objects,
            _embedded: embedded,
            vault,
            streams: HashMap::new(),
            model: HashMap::new(),
            clone: None,
            lost: HashSet::new(),
            nonce: crate::crypto::random(),
        }
    }

    fn new_disk(&mut self) -> PathBuf {
        self.disks += 1;
        self.root.path().join(format!("disk-{}", self.disks))
    }

    /// The old process goes on for a moment on its own copy, as a put that was under way would.
    async fn restart_on(&mut self, disk: PathBuf) {
        let old = std::mem::replace(&mut self.vault, open_disk(&disk, self.objects.clone()));
        self.streams.clear();
        self.disk = disk;
        old.drain().await;
    }

    /// Takes down what has been acknowledged by now.
    fn look(&mut self) {
        for (client, stream) in &self.streams {
            let known = self.model.get_mut(client).expect("an open stream is known");
            let progress = *stream.progress().borrow();
            known.kept = known.kept.max(progress.journaled.max(progress.stored));
            known.finished |= progress.finish_journaled || progress.finished.is_some();
        }
    }

    async fn take(&mut self, step: Step) {
        self.look();
        if step.client().is_some_and(|client| self.lost.contains(&client)) {
            return;
        }
        match step {
            Step::Open { client, live } => self.open(client, live).await,
            Step::Data { client, length } => {
                if let Some(stream) = self.streams.get_mut(&client) {
                    let from = stream.received();
                    let taken = stream.data(from, audio(client, from, length)).await;
                    if self.model[&client].paused {
                        assert!(matches!(taken, Err(Error::Invalid { field: "data", .. })), "audio of a pause");
                        assert_eq!(stream.received(), from, "some of it was taken");
                    } else {
                        taken.expect("takes audio");
                    }
                }
            }
            Step::Pause { client } => {
                if let (Some(stream), Some(known)) = (self.streams.get_mut(&client), self.model.get_mut(&client)) {
                    let paused = stream.pause(&developer(), PauseReason::PaymentCard, None).await.expect("pauses");
                    assert_eq!(paused.offset, stream.received());
                    // Whoever is told of a pause is told that what came before it is kept.
                    known.kept = known.kept.max(paused.offset);
                    known.paused = true;
                    if known.gaps.last() != Some(&paused.offset) {
                        known.gaps.push(paused.offset);
                    }
                }
            }
            Step::Resume { client } => {
                if let (Some(stream), Some(known)) = (self.streams.get_mut(&client), self.model.get_mut(&client)) {
                    stream.resume(&developer(), None).await.expect("goes on");
                    known.paused = false;
                }
            }
            Step::Vanish { client } => drop(self.streams.remove(&client)),
            Step::Finish { client } => self.finish(client).await,
            Step::Play { client } => self.play(client).await,
            Step::Erase { client } => {
                if let Some(known) = self.model.get_mut(&client) {
                    known.erased = true;
                    let target = Target::Recording(known.id, super::Part::Both);
                    self.vault.erase(&Actor::gateway(), target, None).await.expect("erases");
                    self.streams.remove(&client);
                }
            }
            Step::Crash => {
                let disk = self.new_disk();
                copy_disk(&self.disk, &disk);
                self.restart_on(disk).await;
            }
            Step::Clone => {
                let disk = self.new_disk();
                copy_disk(&self.disk, &disk);
                self.clone = Some((disk, self.model.clone()));
            }
            Step::PutBack => {
                if let Some((clone, mut model)) = self.clone.take() {
                    // What was erased since has lost its objects. (A slot that is put back is the operator's mistake that
                    // the guarantee excludes; here it serves to seal twice from one disk.)
                    let lost = self.model.iter().filter(|(_, known)| known.erased).map(|(client, _)| *client);
                    self.lost.extend(lost);
                    model.retain(|client, _| !self.lost.contains(client));
                    self.model = model;
                    self.restart_on(clone).await;
                }
            }
        }
    }

    async fn open(&mut self, client: u8, live: bool) {
        let live = self.model.get(&client).map_or(live, |known| known.live);
        let opened = self
            .vault
            .record(Open {
                tenant: "acme".to_owned(),
                subscriber: format!("subscriber-{}", client % 2),
                kind: Kind::Call,
                mode: if live { Mode::Live } else { Mode::Spooled },
                media_type: "audio/PCMA".to_owned(),
                client_id: [&self.nonce[..], &[client]].concat(),
                start: Some(Clock::system().now()),
                length_hint: None,
                facts: StatedFacts::default(),
                basis: StatedBasis::default(),
                ties: StatedTies::default(),
            })
            .await;
        match (opened, self.model.get(&client)) {
            (Err(Error::Erased), known) => {
                assert!(known.is_some_and(|known| known.erased), "a recording that lives is called erased");
            }
            (Err(error), _) => panic!("does not open: {error}"),
            (Ok(stream), known) => {
                let opened = stream.opened();
                if let Some(known) = known {
                    assert!(!known.erased, "an erased recording came back");
                    assert_eq!(opened.id, known.id, "one client id, two recordings");
                    assert!(opened.resume_offset >= known.kept, "acknowledged bytes are lost");
                    assert!(!known.finished || opened.already_finished || live, "a finished recording takes audio");
                    let paused = known.paused.then(|| *known.gaps.last().expect("a gap"));
                    assert_eq!(stream.paused().map(|paused| paused.offset), paused);
                }
                let (finished, kept) = (opened.already_finished, opened.resume_offset);
                let (paused, gaps) = known.map_or_else(Default::default, |known| (known.paused, known.gaps.clone()));
                self.model.insert(client, Known { live, id: opened.id, kept, finished, erased: false, paused, gaps });
                if !finished {
                    self.streams.insert(client, stream);
                }
            }
        }
    }

    async fn finish(&mut self, client: u8) {
        let Some(mut stream) = self.streams.remove(&client) else { return };
        let length = stream.received();
        let sha256 = ring::digest::digest(&ring::digest::SHA256, &audio(client, 0, length as usize));
        let sha256 = Some(sha256.as_ref().try_into().expect("32 bytes"));
        let stated = Finish { length, sha256, end: None };
        match stream.finish(stated).await {
            Ok(()) => {}
            Err(Error::Invalid { .. }) if length == 0 => {
                // Nothing arrived: the recording is forgotten, and its client id with it.
                self.model.remove(&client);
                return;
            }
            Err(error) => panic!("does not finish: {error}"),
        }
        let mut progress = stream.progress();
        let end = tokio::time::timeout(Duration::from_secs(30), progress.wait_for(|now| now.finished.is_some()));
        let finished = end.await.expect("in time").expect("not cut").finished.expect("waited for");
        assert!(!finished.mismatch && finished.length == length, "the audio that was kept is not what was sent");
        let known = self.model.get_mut(&client).expect("known");
        (known.kept, known.finished, known.paused) = (length, true, false);
        self.play(client).await;
    }

    async fn play(&mut self, client: u8) {
        let Some(known) = self.model.get(&client) else { return };
        let all = PlayRange::Bytes { start: 0, end: None };
        let playback = self
            .vault
            .play(&developer(), Proof::default(), known.id, all, Hearing { transport: "none", download: false })
            .await;
        if known.erased {
            assert!(matches!(playback, Err(Error::Erased)), "an erased recording plays");
            return;
        }
        let mut playback = playback.expect("plays");
        assert!(playback.info().total_length >= known.kept, "acknowledged bytes do not play");
        let gaps = playback.info().gaps.iter();
        assert_eq!(gaps.clone().map(|gap| gap.offset).collect::<Vec<_>>(), known.gaps, "other gaps than there were");
        let lasting: Vec<usize> =
            gaps.enumerate().filter(|(_, gap)| gap.length_ms.is_none()).map(|(at, _)| at).collect();
        assert_eq!(lasting, known.paused.then(|| known.gaps.len() - 1).into_iter().collect::<Vec<_>>());
        let mut at = 0;
        while let Some(chunk) = playback.next().await {
            let chunk = chunk.expect("authentic");
            assert!(chunk == audio(client, at, chunk.len()), "other bytes than were sent, at {at}");
            at += chunk.len() as u64;
        }
        assert_eq!(at, playback.info().length);
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, max_shrink_iters: 40, ..Config::default() })]

    #[test]
    fn acknowledged_bytes_survive_and_no_nonce_meets_a_key_twice(steps in prop::collection::vec(step(), 10..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        runtime.block_on(async {
            let before = ledger::pairs();
            let mut house = House::new().await;
            for step in steps {
                house.take(step).await;
            }
            house.take(Step::Crash).await;
            for client in 0..CLIENTS {
                house.play(client).await;
            }
            house.vault.drain().await;
            assert!(ledger::pairs() > before, "nothing was sealed");
        });
    }
}

/// The objects that lie in the home region.
fn objects_in(region: &Path) -> HashSet<ObjectId> {
    let Ok(entries) = std::fs::read_dir(region) else { return HashSet::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let bytes = names.filter_map(|name| data_encoding::HEXLOWER.decode(name.as_bytes()).ok());
    bytes.filter_map(|bytes| ObjectId::from_slice(&bytes)).collect()
}

#[test]
fn an_object_is_named_in_the_key_store_before_it_is_put() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let mut house = House::new().await;
        house.open(0, true).await;
        let id = house.streams[&0].opened().id;
        let path = house.vault.0.locate(&Scope::All, id).expect("located").path;
        let (keys, region) = (house.vault.0.keys.clone(), house.root.path().join("s3/eu-west-2"));
        let done = Arc::new(AtomicBool::new(false));
        // Looks at the bucket first and at the key store then: whatever is there by then must have been named before.
        let watch = std::thread::spawn({
            let done = done.clone();
            move || {
                let mut seen = HashSet::new();
                while !done.load(Ordering::SeqCst) {
                    let there = objects_in(&region);
                    let named = keys.audio_leaf(path).expect("reads").expect("lives").objects;
                    assert!(
                        there.iter().all(|object| named.contains(object)),
                        "an object lies there that nothing names"
                    );
                    seen.extend(there);
                }
                seen.len()
            }
        });
        // A slice whenever audio has waited for 30 ms.
        let mut progress = house.streams[&0].progress();
        for _ in 0..40 {
            house.take(Step::Data { client: 0, length: 2000 }).await;
            let sent = house.streams[&0].received();
            progress.wait_for(|now| now.stored == sent).await.expect("stored");
        }
        done.store(true, Ordering::SeqCst);
        let seen = watch.join();
        house.vault.drain().await;
        assert!(seen.expect("no object without a name") >= 30, "the watch saw too little");
    });
}

/// The permitted view: what staff may see, and what they must not touch for it.
#[test]
fn staff_see_facts_and_no_key_of_audio_is_opened() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let mut house = House::new().await;
        house.open(0, false).await;
        house.take(Step::Data { client: 0, length: 5000 }).await;
        house.take(Step::Finish { client: 0 }).await;
        let id = house.model[&0].id;
        let (vault, keys) = (house.vault.clone(), house.vault.0.keys.clone());
        let staff = Actor { name: "staff/sam".into(), role: ActorRole::Staff, ..Actor::gateway() };
        // What runs by itself has settled.
        while vault.status().recordings_open > 0 || vault.status().replications_pending > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let before = keys.audio_opened();
        assert!(vault.recording(&staff, id, "T-1").await.expect("shown").facts.is_some());
        let page =
            || Page { tenant: "acme".into(), subscriber: None, size: 10, token: String::new(), ticket: "T-1".into() };
        assert_eq!(vault.recordings(&staff, page()).await.expect("listed").0.len(), 1);
        vault.explain(&staff, id, "T-1").await.expect("explained");
        vault.subscriber(&staff, "acme", "subscriber-0", "T-1").await.expect("shown");
        let all = PlayRange::Bytes { start: 0, end: None };
        let refused =
            vault.play(&staff, Proof::default(), id, all, Hearing { transport: "none", download: false }).await;
        assert!(matches!(refused, Err(Error::NotPermitted { .. })));
        assert_eq!(keys.audio_opened(), before, "not to look, and not to be refused");
        // The control: whoever may hear it opens it.
        house.play(0).await;
        assert!(keys.audio_opened() > before);
        house.vault.drain().await;
    });
}

/// A policy that does not read any more, after an upgrade say: its tenant's promises wait, and nobody else's.
#[test]
fn a_tenant_in_which_something_fails_holds_up_no_other() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let house = House::new().await;
        let (vault, inner) = (&house.vault, &house.vault.0);
        let gateway = Actor::gateway();
        let new = NewTenant {
            name: "other".to_owned(),
            home: "eu-west-2".to_owned(),
            residency: Residency::HomeOnly,
            policy: "name = \"short\"\nmargin = \"1h\"\nparties = \"owner\"\n\
                     [[keep]]\nwhat = \"both\"\nnot_after = \"1h after end\"\n"
                .into(),
        };
        vault.create_tenant(&gateway, new).await.expect("tenant");
        // Over for so long that it is due.
        let began = Clock::system().now().plus_ms(-3 * 3_600_000);
        let open = |tenant: &str, client: u8| Open {
            tenant: tenant.to_owned(),
            subscriber: "subscriber".to_owned(),
            kind: Kind::Call,
            mode: Mode::Spooled,
            media_type: "audio/PCMA".to_owned(),
            client_id: [client; 16].to_vec(),
            start: Some(began),
            length_hint: None,
            facts: StatedFacts::default(),
            basis: StatedBasis::default(),
            ties: StatedTies::default(),
        };
        let record = async |tenant: &str, client: u8| {
            let mut ingest = vault.record(open(tenant, client)).await.expect("opened");
            ingest.data(0, audio(client, 0, 100)).await.expect("taken");
            ingest.finish(Finish { length: 100, sha256: None, end: Some(began) }).await.expect("finished");
            let mut progress = ingest.progress();
            progress.wait_for(|now| now.finished.is_some()).await.expect("stored");
            ingest.opened().id
        };
        let (kept, due) = (record("acme", 1).await, record("other", 2).await);

        let acme = inner.find_tenant("acme").expect("a tenant");
        let holder = inner.tenant_holder(acme).expect("lives");
        let name = values::name(holder.row, Sealed::TenantPolicy);
        let unread = stored::TenantPolicy { text: "nonsense".to_owned(), keep: String::new() };
        let envelope = values::seal(&unread, &holder.secret, &name);
        let row = Change::PutValue { owner: Owner::Tenant(acme), name, envelope };
        let broken = inner.change_settings(acme, |settings| {
            settings.rules_changed();
            Ok(vec![row])
        });
        broken.await.expect("written");

        vault.expire().await.expect("runs");
        assert!(matches!(vault.recording(&developer(), due, "").await, Err(Error::Erased)));
        assert!(vault.recording(&developer(), kept, "").await.is_ok());
        assert_eq!(vault.status().expiry.failing_tenants, 1);
        vault.drain().await;
    });
}

/// Both orders of the race that `vault::permission` argues about, each made to happen.
#[test]
fn a_revocation_finds_a_playback_on_either_side_of_its_cut() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let mut house = House::new().await;
        house.open(0, false).await;
        house.take(Step::Data { client: 0, length: 5000 }).await;
        house.take(Step::Finish { client: 0 }).await;
        let id = house.model[&0].id;
        let vault = house.vault.clone();
        let staff = Actor { name: "staff/sam".into(), role: ActorRole::Staff, ..Actor::gateway() };
        let scope = Scope::Tenants(vec!["acme".into()]);
        let customer = Actor { name: "admin/anna".into(), role: ActorRole::Admin, scope, ..Actor::gateway() };
        let granted = async || {
            let terms = Terms { level: Level::Listen, lasts_ms: 3_600_000, later_calls: false };
            let over = Over::Recording(id);
            let new = NewPermission { over, purpose: "p".into(), ticket: "t".into(), terms };
            let asked = vault.request_permission(&staff, new).await.expect("asked").id;
            vault.grant_permission(&customer, asked, Narrower::default()).await.expect("granted").id
        };
        let path = vault.0.locate(&Scope::All, id).expect("located").path;

        // The cut looks before the session says what it rests on: the second look finds the revocation.
        let grant = granted().await;
        let guard = vault.0.sessions.enter_playback(path);
        let revoked = || {
            let revoke = async { vault.revoke_permission(&customer, grant).await.expect("revoked") };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(revoke));
        };
        let admitted = vault.0.admit_after(&staff, &guard, revoked);
        assert!(matches!(admitted, Err(Error::NotPermitted { .. })), "let in under what was revoked and answered");
        drop(guard);

        // The session says it first: it is cut, and the revocation waits until it has left.
        let grant = granted().await;
        let guard = vault.0.sessions.enter_playback(path);
        let admitted = vault.0.admit(&staff, &guard);
        assert_eq!(admitted.ok().and_then(|admitted| admitted.id()), Some(grant));
        let revoking = tokio::spawn({
            let (vault, customer) = (vault.clone(), customer.clone());
            async move { vault.revoke_permission(&customer, grant).await }
        });
        guard.cut().await;
        assert!(!revoking.is_finished(), "answered while somebody is inside");
        drop(guard);
        revoking.await.expect("ran").expect("revoked");
        house.vault.drain().await;
    });
}

/// A transcript says what was said in a call; its own facts need not name who spoke.
#[test]
fn a_hold_on_a_number_or_a_party_covers_what_was_made_from_a_call() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let house = House::new().await;
        let (vault, inner) = (house.vault.clone(), house.vault.0.clone());
        let start = Clock::system().now();
        let call = |parties: &[&str]| Open {
            tenant: "acme".to_owned(),
            subscriber: "subscriber-0".to_owned(),
            kind: Kind::Call,
            mode: Mode::Spooled,
            media_type: "audio/PCMA".to_owned(),
            client_id: crate::crypto::random::<16>().to_vec(),
            start: Some(start),
            length_hint: None,
            facts: StatedFacts {
                parties: parties.iter().map(|party| (*party).to_owned()).collect(),
                ..StatedFacts::default()
            },
            basis: StatedBasis::default(),
            ties: StatedTies::default(),
        };
        let tenant = inner.find_tenant("acme").expect("a tenant");
        let secret = inner.tenant_holder(tenant).expect("lives").secret;
        let mut transcripts = Vec::new();
        for parties in [&["+441632960999"][..], &["+441632960998"]] {
            let stream = vault.record(call(parties)).await.expect("opened");
            let parent = inner.locate(&Scope::All, stream.opened().id).expect("found").path;
            let at = RecordingPath { recording: RecordingHandle(crate::crypto::random()), ..parent };
            let transcript = Change::AddRecording {
                at,
                row: RowId(crate::crypto::random()),
                kind: Kind::Transcript as u8,
                audio: Secret::random(),
                facts: Secret::random(),
                objects: Vec::new(),
                keeping: Keeping::default(),
                parent: Some(parent.recording),
                parties: Vec::new(),
                wrapped: false,
            };
            inner.keys.commit(Mutation::new(vec![transcript])).await.expect("made");
            transcripts.push((stream, super::recording_id::issue(&secret, at.subscriber, at.recording)));
        }
        let hold = super::NewHold {
            tenant: "acme".to_owned(),
            scope: super::HoldScope::Number { number: "+44 1632 960999".to_owned(), from: None, to: None },
            ground: "dispute".to_owned(),
            authority: "counsel".to_owned(),
            review: start.plus_ms(86_400_000),
        };
        let placed = vault.place_hold(&Actor::gateway(), hold).await.expect("placed");
        assert_eq!(placed.found, 2, "the call and its transcript");
        let erase = async |id| vault.erase(&Actor::gateway(), Target::Recording(id, super::Part::Both), None).await;
        assert!(matches!(erase(transcripts[0].1).await, Err(Error::Parked { .. })), "what was made from it is held");
        assert!(erase(transcripts[1].1).await.expect("the control: of another call").destroyed);
        vault.drain().await;
    });
}
