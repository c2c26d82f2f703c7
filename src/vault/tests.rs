//! Random histories of the whole vault over real stores: streams that break, resume and finish, crashes, and disks that
//! are cloned and put back, against a model that knows what was acknowledged.
//!
//! Two things are checked. Every acknowledged byte is there after whatever happened. And no key seals twice under one
//! nonce: the ledger of [`crate::crypto::epoch`] runs in every unit test and ends the process's test at the first pair it
//! sees again, so the histories need only be wild enough: they resume one recording from two copies of one disk.

mod basis;
mod keeping;
mod listening;
mod resuming;
mod stating;

use super::{
    Actor, ActorRole, Error, Finish, Hearing, Ingest, Kind, Mode, Narrower, NewPermission, NewTenant, Open, Over, Page,
    PlayRange, Proof, Residency, Scope, StatedBasis, StatedFacts, StatedTies, Target, Vault, VaultConfig,
};
use crate::{
    crypto::epoch::ledger,
    domain::{
        id::RecordingId,
        pause::PauseReason,
        permission::{Level, Terms},
        time::Clock,
    },
    journal::{Journal, Options, Recovered},
    keys::{FileSlot, KeyStore},
    object::{
        ObjectStore,
        embedded::{Certificate, Embedded},
    },
};
use bytes::Bytes;
use proptest::{prelude::*, test_runner::Config};
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
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
    root: PathBuf,
}

/// Runs a test in a house of its own. Its folder goes when nothing writes to it any more: what the vault does by itself
/// may outlast the test, never the runtime, and a store that finds its folder gone ends the process.
fn run(test: impl AsyncFnOnce(House)) {
    let root = tempfile::tempdir().expect("folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async { test(House::new(root.path()).await).await });
    drop(runtime);
}

const JOURNAL: Options = Options { limit_bytes: 64 << 20, segment_bytes: 1 << 20 };

fn open_disk(disk: &Path, objects: ObjectStore) -> Vault {
    open_over(disk, Journal::open(&disk.join("journal"), JOURNAL).expect("journal"), objects)
}

fn open_over(disk: &Path, journal: (Journal, Recovered), objects: ObjectStore) -> Vault {
    let slot = FileSlot::open(&disk.join("slot")).expect("slot");
    let keys = KeyStore::open(&disk.join("keys"), Box::new(slot)).expect("keys");
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
    async fn new(root: &Path) -> Self {
        // What a store says before it aborts the process is worth reading, and what a test has captured is lost then.
        let errors = tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(std::io::stderr);
        let _ = errors.try_init();
        let key = rcgen::KeyPair::generate().expect("key");
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .expect("certificate")
            .pem();
        let key = key.serialize_pem();
        let pem =
            Certificate { chain_pem: certificate.as_bytes(), key_pem: key.as_bytes(), ca_pem: certificate.as_bytes() };
        let embedded = Embedded::start(&root.join("s3"), &["eu-west-2", "eu-west-1"], pem).await.expect("s3");
        let objects = ObjectStore::connect(embedded.region_configs()).await.expect("objects");
        let disk = root.join("disk-0");
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
            root: root.to_owned(),
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
        self.root.join(format!("disk-{}", self.disks))
    }

    /// The old process goes on for a moment on its own copy, as a put that was under way would.
    async fn restart_on(&mut self, disk: PathBuf) {
        let vault = open_disk(&disk, self.objects.clone());
        self.go_on_with(vault, disk).await;
    }

    async fn go_on_with(&mut self, vault: Vault, disk: PathBuf) {
        let old = std::mem::replace(&mut self.vault, vault);
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
        let before = ledger::pairs();
        run(async |mut house| {
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
