//! The vault on a folder, with real stores, slot and S3, on a clock that the test moves; stopped, started again, copied for
//! the attacker.

// Each test binary that includes this uses a part of it.
#![allow(dead_code)]

use bytes::Bytes;
use quietus::{
    crypto::random,
    domain::{
        id::RecordingId,
        time::{Clock, Timestamp},
    },
    forensics::{Findings, Options as Search, investigate},
    journal::{Journal, Options},
    keys::{FileSlot, KeyStore},
    object::{Embedded, ObjectStore, embedded::Certificate},
    server::dev_files::DevFiles,
    vault::{
        Actor, ActorRole, Erasure, Error, Finish, Hearing, Kind, Mode, NewTenant, Open, Part, PlayRange, Proof,
        Residency, Scope, StatedBasis, StatedFacts, StatedTies, Target, Vault, VaultConfig,
    },
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;

pub const DAY_MS: i64 = 86_400_000;
pub const HOUR_MS: i64 = 3_600_000;
/// Noon of a day in the middle of a year: 2026-06-15.
pub const NOON: Timestamp = Timestamp(1_781_524_800_000);
const REGIONS: [&str; 2] = ["eu-west-2", "eu-west-1"];

pub struct World {
    pub clock: Clock,
    pub config: VaultConfig,
    vault: Option<Vault>,
    storage: Embedded,
    /// Last: the stores write to it until they are dropped.
    pub dir: TempDir,
}

/// Somebody who administers tenants.
pub fn admin(name: &str) -> Actor {
    Actor {
        name: format!("admin/{name}"),
        on_behalf_of: None,
        role: ActorRole::Admin,
        scope: Scope::All,
        subscriber: None,
    }
}

impl World {
    pub async fn new(config: VaultConfig) -> Self {
        let dir = TempDir::new().expect("a folder");
        let files = DevFiles::prepare(dir.path()).expect("certificates");
        let ca = files.tls.client_ca.clone().expect("a CA");
        let certificate = Certificate { chain_pem: &files.tls.certificate, key_pem: &files.tls.key, ca_pem: &ca };
        let storage = Embedded::start(&dir.path().join("s3"), &REGIONS, certificate).await.expect("storage");
        let mut world = Self { dir, storage, clock: Clock::set_to(NOON), config, vault: None };
        world.open().await;
        world
    }

    async fn open(&mut self) {
        let slot = self.path("slot");
        std::fs::create_dir_all(&slot).expect("a folder");
        let slot = FileSlot::open(&slot.join("root")).expect("a slot");
        let keys = KeyStore::open(&self.path("keys"), Box::new(slot)).expect("a key store");
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        let journal = Journal::open(&self.path("journal"), options).expect("a journal");
        let objects = ObjectStore::connect(self.storage.region_configs()).await.expect("connected");
        let vault = Vault::open(self.config.clone(), keys, journal, objects, self.clock.clone());
        self.vault = Some(vault.expect("opened"));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub async fn reopen(&mut self) {
        let vault = self.vault.take().expect("open");
        vault.drain().await;
        drop(vault);
        self.open().await;
    }

    pub fn vault(&self) -> &Vault {
        self.vault.as_ref().expect("open")
    }

    /// The key store aborts the process when its folder is taken away from under it.
    pub async fn close(mut self) {
        self.vault.take().expect("open").drain().await;
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves the clock, and does the daily work.
    pub async fn wait(&self, ms: i64) {
        self.clock.advance_ms(ms);
        self.vault().housekeep().await.expect("the daily work");
    }

    pub async fn tenant(&self, name: &str, policy: &str) {
        let new = NewTenant {
            name: name.into(),
            home: REGIONS[0].into(),
            residency: Residency::HomeOnly,
            policy: policy.into(),
        };
        self.vault().create_tenant(&admin("anna"), new).await.expect("created");
    }

    /// What a switch would send.
    pub fn call(&self, tenant: &str, subscriber: &str, parties: &[&str]) -> Open {
        Open {
            tenant: tenant.into(),
            subscriber: subscriber.into(),
            kind: Kind::Call,
            mode: Mode::Spooled,
            media_type: "audio/PCMA;rate=8000".into(),
            client_id: random::<16>().to_vec(),
            start: Some(self.now()),
            length_hint: Some(2000),
            facts: StatedFacts { parties: parties.iter().map(|party| (*party).into()).collect(), ..Default::default() },
            basis: StatedBasis::default(),
            ties: StatedTies::default(),
        }
    }

    pub async fn send(&self, open: Open) -> Result<RecordingId, Error> {
        let mut ingest = self.vault().record(open).await?;
        let opened = ingest.opened();
        ingest.data(0, Bytes::from(vec![7; 2000])).await?;
        ingest.finish(Finish { length: 2000, sha256: None, end: None }).await?;
        let mut progress = ingest.progress();
        progress.wait_for(|progress| progress.finished.is_some()).await.expect("finished");
        Ok(opened.id)
    }

    pub async fn record(&self, tenant: &str, subscriber: &str) -> RecordingId {
        self.send(self.call(tenant, subscriber, &[])).await.expect("recorded")
    }

    pub async fn erase(&self, target: Target) -> Result<Erasure, Error> {
        self.vault().erase(&admin("anna"), target, None).await
    }

    pub async fn erase_recording(&self, id: RecordingId) -> Result<Erasure, Error> {
        self.erase(Target::Recording(id, Part::Both)).await
    }

    pub async fn erase_subscriber(&self, tenant: &str, subscriber: &str) -> Result<Erasure, Error> {
        self.erase(Target::Subscriber { tenant: tenant.into(), subscriber: subscriber.into(), block: false }).await
    }

    pub async fn purge(&self, tenant: &str) -> Result<Erasure, Error> {
        self.erase(Target::Tenant { tenant: tenant.into() }).await
    }

    /// The audio, as a customer hears it.
    pub async fn play(&self, id: RecordingId) -> Result<Vec<u8>, Error> {
        let all = PlayRange::Bytes { start: 0, end: None };
        // Of whichever tenant it is: somebody of the customer's.
        let names = self.vault().tenants(&Scope::All)?.into_iter().map(|tenant| tenant.name).collect();
        let customer = Actor { scope: Scope::Tenants(names), ..admin("anna") };
        let hearing = Hearing { transport: "h2", download: false };
        let mut playback = self.vault().play(&customer, Proof::default(), id, all, hearing).await?;
        let mut audio = Vec::new();
        while let Some(chunk) = playback.next().await {
            audio.extend_from_slice(&chunk?);
        }
        Ok(audio)
    }

    pub async fn plays(&self, id: RecordingId) -> bool {
        match self.play(id).await {
            Ok(audio) => audio == vec![7; 2000],
            Err(Error::Erased | Error::Unknown { .. }) => false,
            Err(other) => panic!("neither plays nor is gone: {other}"),
        }
    }

    /// Copies what an attacker would: key store, journal, and the slot where it is asked for.
    pub fn copy(&self, name: &str, slot: bool) -> PathBuf {
        let to = self.path(name);
        for part in ["keys", "journal"] {
            copy_tree(&self.path(part), &to.join(part));
        }
        if slot {
            copy_tree(&self.path("slot"), &to.join("slot"));
        }
        to
    }

    /// What can be read with the slot as it is now, the present folders, and copies from earlier.
    pub fn attack(&self, copies: &[PathBuf], find: &[&str]) -> Findings {
        let mut keys = vec![self.path("keys"), self.path("journal")];
        keys.extend(copies.iter().cloned());
        let search = Search {
            keys,
            slots: vec![self.path("slot")],
            objects: vec![self.path("s3")],
            find: find.iter().map(|text| (*text).to_owned()).collect(),
            exhaustive: false,
        };
        investigate(&search).expect("it ran")
    }

    /// Waits until nothing erased is left to be swept.
    pub async fn swept(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while self.vault().status().sweeps_pending > 0 {
            assert!(std::time::Instant::now() < deadline, "not swept");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Drop for World {
    /// Where a test fails: background work holds the stores until the runtime is gone, so the folder must stay.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
        }
    }
}

/// Which of the strings that were looked for were found.
pub fn found(findings: &Findings) -> Vec<String> {
    let results = findings.needles.results();
    results.filter(|(_, places)| !places.is_empty()).map(|(text, _)| text.to_owned()).collect()
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
