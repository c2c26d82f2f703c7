//! What depends on the day: counters close, client ids are forgotten, starts lie within bounds. Through the library, with a
//! clock that the test moves; stores, slot and S3 are real.

use bytes::Bytes;
use quietus::{
    crypto::random,
    domain::{
        id::RecordingId,
        time::{Clock, Day, Timestamp},
    },
    journal::{Journal, Options},
    keys::{FileSlot, KeyStore},
    object::{Embedded, ObjectStore, embedded::Certificate},
    server::dev_files::DevFiles,
    vault::{
        Actor, Error, Finish, Kind, Mode, NewTenant, Open, Opened, Part, Residency, StatedBasis, StatedFacts,
        StatedTies, Target, Vault, VaultConfig,
    },
};
use tempfile::TempDir;

const DAY_MS: i64 = 86_400_000;
/// A midnight.
const MIDNIGHT: Timestamp = Timestamp(20_000 * DAY_MS);
/// How far a start may lie ahead, and how long after midnight a day closes.
const FIVE_MINUTES: i64 = 300_000;
const WINDOW_DAYS: i64 = 14;

struct World {
    dir: TempDir,
    storage: Embedded,
    clock: Clock,
    now: Timestamp,
    vault: Option<Vault>,
}

impl World {
    async fn new(now: Timestamp) -> Self {
        let dir = TempDir::new().expect("a folder");
        let files = DevFiles::prepare(dir.path()).expect("certificates");
        let ca = files.tls.client_ca.clone().expect("a CA");
        let certificate = Certificate { chain_pem: &files.tls.certificate, key_pem: &files.tls.key, ca_pem: &ca };
        let regions = ["eu-west-2", "eu-west-1"];
        let storage = Embedded::start(&dir.path().join("s3"), &regions, certificate).await.expect("storage");
        let mut world = Self { dir, storage, clock: Clock::set_to(now), now, vault: None };
        world.open().await;
        let new = NewTenant {
            name: "acme".into(),
            home: "eu-west-2".into(),
            residency: Residency::HomeOnly,
            policy: "dev".into(),
        };
        world.vault().create_tenant(&Actor::gateway(), new).await.expect("created");
        world
    }

    async fn open(&mut self) {
        let slot = self.dir.path().join("slot");
        std::fs::create_dir_all(&slot).expect("a folder");
        let slot = FileSlot::open(&slot.join("root")).expect("a slot");
        let keys = KeyStore::open(&self.dir.path().join("keys"), Box::new(slot)).expect("a key store");
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        let journal = Journal::open(&self.dir.path().join("journal"), options).expect("a journal");
        let objects = ObjectStore::connect(self.storage.region_configs()).await.expect("connected");
        let vault = Vault::open(VaultConfig::default(), keys, journal, objects, self.clock.clone());
        self.vault = Some(vault.expect("opened"));
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

    /// The key store aborts the process when its folder is taken away from under it.
    async fn close(mut self) {
        self.vault.take().expect("open").drain().await;
    }

    /// Moves the clock, and does what is due.
    async fn move_to(&mut self, now: Timestamp) {
        self.clock.advance_ms(now.0 - self.now.0);
        self.now = now;
        self.vault().housekeep().await.expect("the daily work");
    }

    async fn record(&self, open: Open) -> Result<Opened, Error> {
        let mut ingest = self.vault().record(open).await?;
        let opened = ingest.opened();
        if !opened.already_finished {
            // A quarter of a second.
            ingest.data(0, Bytes::from(vec![7; 2000])).await?;
            ingest.finish(Finish { length: 2000, sha256: None, end: None }).await?;
            let mut progress = ingest.progress();
            progress.wait_for(|progress| progress.finished.is_some()).await.expect("finished");
        }
        Ok(opened)
    }

    fn counted(&self) -> Vec<(u32, u64, f64, u64)> {
        let rows = self.vault().statistics("acme").expect("counted");
        rows.iter().map(|row| (row.day.0, row.recordings, row.seconds, row.bytes)).collect()
    }

    async fn erase(&self, id: RecordingId) {
        let target = Target::Recording(id, Part::Both);
        assert!(self.vault().erase(&Actor::gateway(), target, None).await.expect("erased").destroyed);
    }
}

fn open(start: Option<Timestamp>) -> Open {
    Open {
        tenant: "acme".into(),
        subscriber: "sub-1".into(),
        kind: Kind::Call,
        mode: Mode::Spooled,
        media_type: "audio/PCMA;rate=8000".into(),
        client_id: random::<16>().to_vec(),
        start,
        length_hint: Some(2000),
        facts: StatedFacts::default(),
        basis: StatedBasis::default(),
        ties: StatedTies::default(),
    }
}

fn again(open: &Open) -> Open {
    Open {
        tenant: open.tenant.clone(),
        subscriber: open.subscriber.clone(),
        media_type: open.media_type.clone(),
        client_id: open.client_id.clone(),
        facts: StatedFacts::default(),
        basis: StatedBasis::default(),
        ties: StatedTies::default(),
        ..*open
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_closes_once_and_its_counts_outlive_the_recordings() {
    let Day(day) = MIDNIGHT.day();
    let mut world = World::new(MIDNIGHT.plus_ms(DAY_MS / 2)).await;
    let first = world.record(open(Some(world.now))).await.expect("recorded").id;
    let second = world.record(open(Some(world.now))).await.expect("recorded").id;
    let of_the_day = (day, 2, 0.5, 4000);
    assert_eq!(world.counted(), [of_the_day]);

    // Just before the day settles nothing happens; then its key dies, once, and the sums stay.
    let before = world.vault().status().generation;
    world.move_to(MIDNIGHT.plus_ms(DAY_MS + FIVE_MINUTES - 1)).await;
    assert_eq!((world.counted(), world.vault().status().generation), (vec![of_the_day], before));
    world.move_to(MIDNIGHT.plus_ms(DAY_MS + FIVE_MINUTES)).await;
    let closed = world.vault().status().generation;
    assert_eq!((world.counted(), closed), (vec![of_the_day], before + 1), "closing is an erasure");
    world.vault().housekeep().await.expect("the daily work");
    assert_eq!((world.counted(), world.vault().status().generation), (vec![of_the_day], closed));

    // What comes next is counted on its own day, and a restart changes nothing.
    let third = world.record(open(Some(MIDNIGHT))).await.expect("recorded").id;
    let of_the_next = (day + 1, 1, 0.25, 2000);
    assert_eq!(world.counted(), [of_the_day, of_the_next]);
    world.reopen().await;
    assert_eq!(world.counted(), [of_the_day, of_the_next]);
    for id in [first, second, third] {
        world.erase(id).await;
    }
    assert_eq!(world.counted(), [of_the_day, of_the_next]);
    world.move_to(MIDNIGHT.plus_ms(10 * DAY_MS)).await;
    assert_eq!(world.counted(), [of_the_day, of_the_next]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_id_is_remembered_as_long_as_its_start_is_taken() {
    // The worst case: received at the last moment of a day, with a start as far ahead as it may lie.
    let received = MIDNIGHT.plus_ms(DAY_MS - 1);
    let mut world = World::new(received).await;
    let start = received.plus_ms(FIVE_MINUTES);
    let sent = open(Some(start));
    let id = world.record(again(&sent)).await.expect("recorded").id;
    let last = start.plus_ms(WINDOW_DAYS * DAY_MS);
    for now in [received.plus_ms(DAY_MS), last.plus_ms(-DAY_MS), last] {
        world.move_to(now).await;
        let retried = world.record(again(&sent)).await.expect("remembered");
        assert_eq!((retried.id, retried.already_finished), (id, true));
        assert_eq!(world.counted().len(), 1);
    }
    world.reopen().await;
    assert!(world.record(again(&sent)).await.expect("remembered").already_finished);
    world.move_to(last.plus_ms(1)).await;
    let refused = world.record(again(&sent)).await.expect_err("too late");
    assert!(matches!(refused, Error::Invalid { field: "start_ms", .. }), "{refused}");
    // The id itself means nothing any more.
    let anew = world.record(Open { start: Some(world.now), ..again(&sent) }).await.expect("recorded");
    assert_ne!(anew.id, id);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_recording_is_not_made_again_by_a_late_retry() {
    let mut world = World::new(MIDNIGHT.plus_ms(DAY_MS / 2)).await;
    let sent = open(Some(world.now));
    let id = world.record(again(&sent)).await.expect("recorded").id;
    world.erase(id).await;
    for now in [world.now, world.now.plus_ms((WINDOW_DAYS - 1) * DAY_MS)] {
        world.move_to(now).await;
        assert!(matches!(world.record(again(&sent)).await, Err(Error::Erased)));
    }
    world.reopen().await;
    assert!(matches!(world.record(again(&sent)).await, Err(Error::Erased)));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_lies_within_its_bounds() {
    let now = MIDNIGHT.plus_ms(DAY_MS / 3);
    let world = World::new(now).await;
    // One that is not stated would let a late retry pass for a new call.
    let unstated = world.record(open(None)).await.expect_err("refused");
    assert!(matches!(unstated, Error::Invalid { field: "start_ms", .. }), "{unstated}");
    for (moved, taken) in [
        (FIVE_MINUTES, true),
        (FIVE_MINUTES + 1, false),
        (0, true),
        (-WINDOW_DAYS * DAY_MS, true),
        (-WINDOW_DAYS * DAY_MS - 1, false),
    ] {
        match world.record(open(Some(now.plus_ms(moved)))).await {
            Ok(_) => assert!(taken, "{moved}"),
            Err(Error::Invalid { field: "start_ms", .. }) => assert!(!taken, "{moved}"),
            Err(other) => panic!("{moved}: {other}"),
        }
    }
    world.close().await;
}
