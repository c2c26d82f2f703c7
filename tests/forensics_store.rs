//! The attacker against the real key store and journal: what they write is carved, understood and opened to the last value,
//! and after erasures nothing of what fell, from every copy ever made together with the present slot.

use prost::Message as _;
use quietus::{
    crypto::{
        envelope::{self, Kind},
        random,
        secret::Secret,
    },
    domain::{
        id::{ObjectId, PeriodHandle, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
        time::Day,
    },
    forensics::{Findings, Options, investigate, report},
    journal::{self, FrameKind, Journal},
    keys::{Change, FileSlot, Keeping, KeyStore, Mutation, Owner, Parts, Purpose, RecordingPath, ValueName},
    proto::stored,
    segment::seal_slice,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

struct Made {
    path: RecordingPath,
    row: RowId,
    object: ObjectId,
}

struct House {
    keys: KeyStore,
    journal: Journal,
    tenant: TenantHandle,
    /// Dropped last: the stores close in it.
    folder: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("objects")).expect("a new folder");
        let slot = FileSlot::open(&folder.path().join("slot").join("root")).expect("a new slot");
        let keys = KeyStore::open(&folder.path().join("keys"), Box::new(slot)).expect("a new key store");
        let (journal, _) = Journal::open(
            &folder.path().join("journal"),
            journal::Options { limit_bytes: 1 << 30, segment_bytes: 1 << 20 },
        )
        .expect("a new journal");
        let tenant = TenantHandle(random());
        let house = Self { folder, keys, journal, tenant };
        let (row, secret) = (RowId(random()), Secret::random());
        let name = ValueName { row, kind: Kind::TenantSettings, suffix: Vec::new() };
        let settings = envelope::seal(name.kind, &secret, &name.to_bytes(), b"settings");
        let period = PeriodHandle(random());
        let (period_row, period_secret) = (RowId(random()), Secret::random());
        let open = ValueName { row: period_row, kind: Kind::Open, suffix: vec![1; 16] };
        let open_envelope = envelope::seal(open.kind, &period_secret, &open.to_bytes(), b"open");
        house
            .commit(vec![
                Change::AddTenant { tenant, row, secret, name: "Acme Ltd".into() },
                Change::PutValue { owner: Owner::Tenant(tenant), name, envelope: settings },
                Change::AddPeriod {
                    tenant,
                    period,
                    row: period_row,
                    secret: period_secret,
                    purpose: Purpose::ClientIds,
                    day: Day(20_000),
                },
                Change::PutValue { owner: Owner::Period(tenant, period), name: open, envelope: open_envelope },
            ])
            .await;
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn commit(&self, changes: Vec<Change>) {
        self.keys.commit(Mutation::new(changes)).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// A subscriber with so many recordings, each with facts, one slice, its object and a journal frame.
    async fn subscriber(&self, name: &str, recordings: usize) -> Vec<Made> {
        let subscriber = SubscriberHandle(random());
        let (tenant, row, secret) = (self.tenant, RowId(random()), Secret::random());
        self.commit(vec![Change::AddSubscriber { tenant, subscriber, row, secret, name: name.into() }]).await;
        let mut made = Vec::new();
        for number in 0..recordings {
            let path = RecordingPath { tenant, subscriber, recording: RecordingHandle(random()) };
            let (row, object) = (RowId(random()), ObjectId(random()));
            let (audio, facts) = (Secret::random(), Secret::random());
            let said = format!("call {number} of {name}");
            let sealed = seal_slice(&audio, 0, true, format!("audio of {said}").as_bytes());
            fs::write(self.path("objects").join(object.to_string()), &sealed.object).expect("written");
            let slice = stored::Slice {
                object_id: object.0.to_vec(),
                salt: sealed.salt.to_vec(),
                length: sealed.length,
                last: true,
                region: "eu-west-2".into(),
            };
            let slice_name = ValueName { row, kind: Kind::Slice, suffix: vec![0; 4] };
            let slice_row = envelope::seal(Kind::Slice, &audio, &slice_name.to_bytes(), &slice.encode_to_vec());
            let facts_name = ValueName { row, kind: Kind::Facts, suffix: Vec::new() };
            let facts_row = envelope::seal(Kind::Facts, &facts, &facts_name.to_bytes(), said.as_bytes());
            let mut writer = self.journal.call(row, &audio);
            writer.append(FrameKind::Audio, 0, format!("spoken in {said}").as_bytes()).await.expect("journaled");
            // Every other recording learns of its object later, by an appended row.
            let (now, later) = if number % 2 == 0 { (vec![object], None) } else { (Vec::new(), Some(object)) };
            self.commit(vec![
                Change::AddRecording {
                    at: path,
                    row,
                    kind: 1,
                    audio,
                    facts,
                    objects: now,
                    keeping: Keeping::default(),
                    parent: None,
                    parties: Vec::new(),
                    wrapped: false,
                },
                Change::PutValue { owner: Owner::Facts(path), name: facts_name, envelope: facts_row },
                Change::PutValue { owner: Owner::Audio(path), name: slice_name, envelope: slice_row },
            ])
            .await;
            if let Some(object) = later {
                self.commit(vec![Change::AddObject { at: path, object }]).await;
            }
            made.push(Made { path, row, object });
        }
        made
    }

    /// Copies key store, journal and slot aside.
    fn copy(&self, name: &str) {
        for part in ["keys", "journal", "slot"] {
            copy(&self.path(part), &self.path(name).join(part));
        }
    }

    fn investigate(&self, copies: &[&str], slots: &[&str], exhaustive: bool) -> Findings {
        let mut keys = vec![self.path("keys"), self.path("journal")];
        keys.extend(copies.iter().map(|copy| self.path(copy).join("keys")));
        keys.extend(copies.iter().map(|copy| self.path(copy).join("journal")));
        let options = Options {
            keys,
            slots: slots.iter().map(|slot| self.path(slot)).collect(),
            objects: vec![self.path("objects")],
            find: vec!["Acme Ltd".into(), "+44 of S1".into(), "+44 of S2".into()],
            exhaustive,
        };
        investigate(&options).expect("it ran")
    }
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

/// The states of everything that hangs on a row or is named so, by what it is.
fn states(findings: &Findings) -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let mut out = Vec::new();
    report::json_lines(findings, true, &mut out).expect("writes to memory");
    let mut states: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for line in String::from_utf8(out).expect("text").lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let Some(state) = line["state"].as_str() else { continue };
        let (id, what) = match line["object"].as_str() {
            Some(object) => (object, "object"),
            None => (line["row"].as_str().expect("a row"), line["value"].as_str().expect("a value")),
        };
        states.entry(id.into()).or_default().entry(what.into()).or_default().push(state.into());
    }
    states
}

#[track_caller]
fn assert_all(findings: &Findings, made: &[&Made], state: &str) {
    let states = states(findings);
    for made in made {
        assert_eq!(states[&made.object.to_string()]["object"], [state]);
        let values = &states[&made.row.to_string()];
        for what in ["entry", "facts", "slice row", "journal frame"] {
            assert_eq!(values[what], [state], "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erased_is_unreadable_from_every_copy_and_the_rest_is_readable() {
    let house = House::new().await;
    // Enough for pages to split more than once.
    let first = house.subscriber("+44 of S1", 300).await;
    let second = house.subscriber("+44 of S2", 150).await;
    house.copy("before");
    let everything: Vec<&Made> = first.iter().chain(&second).collect();
    let found = house.investigate(&[], &["slot"], false);
    assert_all(&found, &everything, "readable");
    assert!(found.needles.results().all(|(_, places)| places.contains("name")));
    let readable = |what: &str, state: &str| {
        states(&found)
            .values()
            .flat_map(|values| values.get(what).cloned().unwrap_or_default())
            .filter(|s| s == state)
            .count()
    };
    assert_eq!(readable("tenant settings", "readable"), 1);
    assert_eq!(readable("open recording", "readable"), 1);

    house.commit(vec![Change::EraseSubscriber(house.tenant, second[0].path.subscriber)]).await;
    house.copy("between");
    house.commit(vec![Change::EraseRecording { at: first[7].path, parts: Parts::BOTH }]).await;
    house.subscriber("+44 of S3", 3).await;

    let erased: Vec<&Made> = second.iter().chain([&first[7]]).collect();
    let survivors: Vec<&Made> = first[..7].iter().chain(&first[8..]).collect();
    for exhaustive in [false, true] {
        let found = house.investigate(&["before", "between"], &["slot"], exhaustive);
        assert_all(&found, &erased, "unreadable");
        assert_all(&found, &survivors, "readable");
        let met: Vec<bool> = found.needles.results().map(|(_, places)| !places.is_empty()).collect();
        assert_eq!(met, [true, true, false], "the erased subscriber's name is nowhere");
    }
    // The control: with the slots of before, each copy opens again.
    let found = house.investigate(&["before", "between"], &["slot", "before/slot"], false);
    assert_all(&found, &everything, "readable");
    let found = house.investigate(&["before", "between"], &["slot", "between/slot"], false);
    assert_all(&found, &[&first[7]], "readable");
    assert_all(&found, &second.iter().collect::<Vec<_>>(), "unreadable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_are_erased_apart() {
    let house = House::new().await;
    let made = house.subscriber("+44 of S1", 4).await;
    house.copy("before");
    house.commit(vec![Change::EraseRecording { at: made[1].path, parts: Parts::AUDIO }]).await;
    house.commit(vec![Change::EraseRecording { at: made[2].path, parts: Parts::FACTS }]).await;
    let found = house.investigate(&["before"], &["slot"], true);
    let states = states(&found);
    let state = |made: &Made, what: &str| match what {
        "object" => states[&made.object.to_string()][what].clone(),
        _ => states[&made.row.to_string()][what].clone(),
    };
    for what in ["object", "slice row", "journal frame"] {
        assert_eq!(state(&made[1], what), ["unreadable"], "{what}");
        assert_eq!(state(&made[2], what), ["readable"], "{what}");
    }
    assert_eq!(state(&made[1], "facts"), ["readable"]);
    assert_eq!(state(&made[2], "facts"), ["unreadable"]);
    assert_all(&found, &[&made[0], &made[3]], "readable");
}
