//! What the recorded process does, and what must be true of whatever it leaves.
//!
//! The list of steps is the same in every process: things have numbers, and their handles, rows, secrets and contents follow
//! from the numbers. So the process that works and the test that judges it share nothing but a log of a few words:
//!
//! - `begin N`, `ack N`, `refused N`: step N was asked for, was acknowledged, was refused and so did not happen;
//! - `opened`: a start has settled; `settled N 0|1`: whether step N, which an earlier process began and got no answer to,
//!   has happened. From there that is as good as an answer: a start ends in one state, and no later one in another;
//! - `delete ID`: an object the sweeper handed out was deleted.
//!
//! Steps of one group are asked for at the same time, and touch nothing in common.

use quietus::{
    crypto::{
        envelope::{self, Kind},
        secret::Secret,
    },
    domain::id::{ObjectId, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
    journal::{self, CallWriter, FrameKind, Journal},
    keys::{Change, CommitError, FileSlot, Keeping, KeyStore, Mutation, Owner, Parts, RecordingPath, ValueName},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Arc, OnceLock},
};

const SUBSCRIBERS: u16 = 100;

/// A tenant, a subscriber (tenant × 100 + its own), one leaf of a recording, whose subscriber is given with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Thing {
    Tenant(u16),
    Subscriber(u16),
    Audio(u16, u16),
    Facts(u16, u16),
}

/// One mutation, or what else is asked for at once.
#[derive(Clone, Debug)]
pub enum Step {
    Tenant(u16),
    Subscriber(u16),
    /// Recordings of a subscriber, all in one mutation.
    Recordings(u16, std::ops::Range<u16>),
    EraseRecording(u16, u16),
    EraseAudio(u16, u16),
    EraseSubscriber(u16),
    EraseTenant(u16),
    Sweep,
    /// Frame number so much of a recording.
    Frame(u16, u16, u16),
    /// Frames of a recording below this number are stored.
    Release(u16, u16),
}

/// Bytes that follow from a name.
fn bytes<const N: usize>(what: &str, number: u16) -> [u8; N] {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{what} {number}").as_bytes());
    digest.as_ref()[..N].try_into().expect("at most 32")
}

fn tenant(number: u16) -> TenantHandle {
    TenantHandle(bytes("tenant", number))
}

fn subscriber(number: u16) -> SubscriberHandle {
    SubscriberHandle(bytes("subscriber", number))
}

fn path(of: u16, number: u16) -> RecordingPath {
    RecordingPath {
        tenant: tenant(of / SUBSCRIBERS),
        subscriber: subscriber(of),
        recording: RecordingHandle(bytes("recording", number)),
    }
}

fn row(number: u16) -> RowId {
    RowId(bytes("row", number))
}

fn object(number: u16) -> ObjectId {
    ObjectId(bytes("object", number))
}

/// Numbers of recordings by what is named after them.
struct KnownNames {
    handles: BTreeMap<RecordingHandle, u16>,
    rows: BTreeMap<RowId, u16>,
}

fn known_names() -> &'static KnownNames {
    static KNOWN: OnceLock<KnownNames> = OnceLock::new();
    KNOWN.get_or_init(|| KnownNames {
        handles: (0..1000).map(|number| (path(0, number).recording, number)).collect(),
        rows: (0..1000).map(|number| (row(number), number)).collect(),
    })
}

fn audio(number: u16) -> [u8; 32] {
    bytes("audio", number)
}

impl Thing {
    /// The secret that must be gone with it.
    pub fn secret(self) -> [u8; 32] {
        match self {
            Self::Tenant(number) => bytes("tenant secret", number),
            Self::Subscriber(number) => bytes("subscriber secret", number),
            Self::Audio(_, number) => audio(number),
            Self::Facts(_, number) => bytes("facts", number),
        }
    }

    fn is_below(self, other: Self) -> bool {
        match (self, other) {
            (Self::Subscriber(own), Self::Tenant(of)) => own / SUBSCRIBERS == of,
            (Self::Audio(own, _) | Self::Facts(own, _), Self::Tenant(of)) => own / SUBSCRIBERS == of,
            (Self::Audio(own, _) | Self::Facts(own, _), Self::Subscriber(of)) => own == of,
            _ => false,
        }
    }
}

/// Bytes of a frame. Some are longer than a sector, some than a page.
fn speech(recording: u16, frame: u16) -> Vec<u8> {
    let length = [200, 700, 5000][(recording + frame) as usize % 3];
    bytes::<32>("speech", recording ^ (frame << 10)).into_iter().cycle().take(length).collect()
}

fn offset(recording: u16, frame: u16) -> u64 {
    (0..frame).map(|before| speech(recording, before).len() as u64).sum()
}

impl Step {
    fn adds(&self) -> Vec<Thing> {
        match self {
            Self::Tenant(number) => vec![Thing::Tenant(*number)],
            Self::Subscriber(number) => vec![Thing::Subscriber(*number)],
            Self::Recordings(of, numbers) => {
                numbers.clone().flat_map(|number| [Thing::Audio(*of, number), Thing::Facts(*of, number)]).collect()
            }
            _ => Vec::new(),
        }
    }

    fn removes(&self) -> Vec<Thing> {
        match self {
            Self::EraseTenant(number) => vec![Thing::Tenant(*number)],
            Self::EraseSubscriber(number) => vec![Thing::Subscriber(*number)],
            Self::EraseRecording(of, number) => vec![Thing::Audio(*of, *number), Thing::Facts(*of, *number)],
            Self::EraseAudio(of, number) => vec![Thing::Audio(*of, *number)],
            _ => Vec::new(),
        }
    }

    fn apply(&self, to: &mut BTreeSet<Thing>) {
        let removes = self.removes();
        if !removes.is_empty() {
            to.retain(|thing| !removes.iter().any(|gone| thing == gone || thing.is_below(*gone)));
        }
        to.extend(self.adds());
    }

    /// Whether it has happened, by what lives now; none for steps that change nothing there.
    fn has_happened(&self, living: &BTreeSet<Thing>) -> Option<bool> {
        let added = self.adds().first().map(|thing| living.contains(thing));
        added.or_else(|| self.removes().first().map(|thing| !living.contains(thing)))
    }

    fn changes(&self) -> Vec<Change> {
        let secret = |thing: Thing| Secret::from_bytes(&thing.secret());
        match self {
            Self::Tenant(number) => vec![Change::AddTenant {
                tenant: tenant(*number),
                row: RowId(bytes("tenant row", *number)),
                secret: secret(Thing::Tenant(*number)),
                name: format!("tenant {number}"),
            }],
            Self::Subscriber(number) => vec![Change::AddSubscriber {
                tenant: tenant(number / SUBSCRIBERS),
                subscriber: subscriber(*number),
                row: RowId(bytes("subscriber row", *number)),
                secret: secret(Thing::Subscriber(*number)),
                name: format!("subscriber {number}"),
            }],
            Self::Recordings(of, numbers) => numbers.clone().flat_map(|number| recording(*of, number)).collect(),
            Self::EraseRecording(of, number) => {
                vec![Change::EraseRecording { at: path(*of, *number), parts: Parts::BOTH }]
            }
            Self::EraseAudio(of, number) => {
                vec![Change::EraseRecording { at: path(*of, *number), parts: Parts::AUDIO }]
            }
            Self::EraseSubscriber(number) => {
                vec![Change::EraseSubscriber(tenant(number / SUBSCRIBERS), subscriber(*number))]
            }
            Self::EraseTenant(number) => vec![Change::EraseTenant(tenant(*number))],
            Self::Sweep | Self::Frame(..) | Self::Release(..) => Vec::new(),
        }
    }
}

fn recording(of: u16, number: u16) -> [Change; 2] {
    let (at, row, facts) = (path(of, number), row(number), Secret::from_bytes(&Thing::Facts(of, number).secret()));
    let name = ValueName { row, kind: Kind::Facts, suffix: Vec::new() };
    let envelope = envelope::seal(Kind::Facts, &facts, &name.to_bytes(), format!("call {number}").as_bytes());
    let add = Change::AddRecording {
        at,
        row,
        kind: 1,
        audio: Secret::from_bytes(&audio(number)),
        facts,
        objects: vec![object(number)],
        keeping: Keeping::default(),
        parent: None,
        parties: Vec::new(),
        wrapped: false,
    };
    [add, Change::PutValue { owner: Owner::Facts(at), name, envelope }]
}

/// Everything that is asked for, in order. Pages hold 128 entries and 32 appended rows, so that some split.
pub fn steps() -> Vec<Vec<Step>> {
    use Step::*;
    let mut groups = vec![vec![Tenant(0)], vec![Tenant(1), Tenant(2)]];
    groups.push(vec![Subscriber(0), Subscriber(1), Subscriber(100), Subscriber(200)]);
    groups.push(vec![Recordings(0, 0..1), Recordings(1, 500..503), Recordings(100, 600..602)]);
    groups.push(vec![Frame(0, 0, 0), Frame(1, 500, 0)]);
    groups.push(vec![Recordings(0, 1..60)]);
    groups.push(vec![EraseRecording(0, 3)]);
    groups.push(vec![Frame(0, 0, 1), Frame(0, 1, 0), EraseAudio(0, 7), Recordings(100, 602..603)]);
    // Splits.
    groups.push(vec![Recordings(0, 60..150)]);
    groups.push(vec![EraseRecording(0, 120), Recordings(1, 503..504), Frame(1, 500, 1)]);
    groups.push(vec![Sweep]);
    groups.push(vec![EraseRecording(0, 61), EraseRecording(0, 0), EraseRecording(1, 501)]);
    groups.push(vec![Frame(0, 1, 1), Frame(0, 1, 2), Release(500, 1), Recordings(200, 700..702)]);
    groups.push(vec![EraseSubscriber(100)]);
    groups.push(vec![Sweep]);
    // Rows are appended until the page is folded, between rotations.
    for number in 150..186 {
        groups.push(vec![Recordings(0, number..number + 1), Frame(0, 2, number - 150)]);
        if number % 9 == 0 {
            groups.push(vec![EraseRecording(0, number - 100), Recordings(1, 400 + number..401 + number)]);
        }
    }
    groups.push(vec![EraseTenant(2), EraseAudio(0, 62), Recordings(0, 190..193)]);
    groups.push(vec![Sweep, Frame(0, 4, 0)]);
    groups.push(vec![EraseSubscriber(0), Subscriber(101)]);
    groups.push(vec![Sweep]);
    groups.push(vec![Recordings(101, 800..804)]);
    groups.push(vec![EraseRecording(101, 801)]);
    groups
}

/// Each store below a folder that is not there yet: the product makes both, and their names must last.
fn open(folder: &Path) -> (KeyStore, Journal, journal::Recovered) {
    let slot = FileSlot::open(&folder.join("held/slot/root")).expect("the slot opens");
    let keys = KeyStore::open(&folder.join("store/keys"), Box::new(slot)).unwrap_or_else(|error| panic!("{error}"));
    let options = journal::Options { limit_bytes: 1 << 30, segment_bytes: 16 << 10 };
    let (journal, recovered) = Journal::open(&folder.join("live/journal"), options).expect("the journal opens");
    (keys, journal, recovered)
}

/// What lives, by the public reads of the key store; each with the secret that belongs to it.
fn living(keys: &KeyStore) -> BTreeSet<Thing> {
    let (mut found, mut count) = (BTreeSet::new(), 0);
    let tenants: Vec<u16> = (0..3).filter(|number| keys.find_tenant(&format!("tenant {number}")).is_some()).collect();
    assert_eq!(tenants.len(), keys.tenants().len(), "a tenant that nobody made");
    for of in tenants {
        let secret = keys.tenant(tenant(of)).expect("reads").expect("lives").secret;
        assert_eq!(secret.expose(), &Thing::Tenant(of).secret());
        found.insert(Thing::Tenant(of));
        let known = keys.subscribers(tenant(of));
        for number in of * SUBSCRIBERS..of * SUBSCRIBERS + 2 {
            let Some(holder) = keys.subscriber(tenant(of), subscriber(number)).expect("reads") else { continue };
            assert_eq!(holder.secret.expose(), &Thing::Subscriber(number).secret());
            assert!(known.contains(&(subscriber(number), format!("subscriber {number}"))));
            found.insert(Thing::Subscriber(number));
            count += 1;
            let facts = keys.facts_leaves(tenant(of), subscriber(number), None, 10_000).expect("reads");
            let leaves: BTreeMap<_, _> = facts.iter().map(|leaf| (leaf.recording, leaf)).collect();
            let numbers = leaves.keys().map(|handle| *known_names().handles.get(handle).expect("nobody made it"));
            let numbers: Vec<u16> = numbers.collect();
            for recording in numbers {
                let at = path(number, recording);
                if let Some(secret) = &leaves[&at.recording].facts {
                    assert_eq!(secret.expose(), &Thing::Facts(number, recording).secret());
                    let name = ValueName { row: row(recording), kind: Kind::Facts, suffix: Vec::new() };
                    let value = keys.value(&name).expect("reads").expect("facts that live have their value");
                    let value = envelope::Envelope::parse(&value).expect("an envelope").open(secret).expect("opens");
                    assert_eq!(value.as_slice(), format!("call {recording}").as_bytes());
                    found.insert(Thing::Facts(number, recording));
                }
                let leaf = keys.audio_leaf(at).expect("reads").expect("it is listed");
                if let Some(secret) = leaf.audio {
                    assert_eq!(secret.expose(), &audio(recording));
                    assert_eq!(leaf.objects, [object(recording)]);
                    found.insert(Thing::Audio(number, recording));
                }
            }
        }
    }
    let all: usize = (0..3).map(|of| keys.subscriber_count(tenant(of))).sum();
    assert_eq!(count, all, "a subscriber that nobody made");
    found
}

/// What the log tells, up to some point.
#[derive(Clone, Default)]
pub struct Told {
    begun: BTreeSet<usize>,
    /// Whether it happened.
    known: BTreeMap<usize, bool>,
    deleted: BTreeSet<String>,
}

impl Told {
    pub fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = || words[1].parse().expect("a number");
        match words[0] {
            "begin" => drop(self.begun.insert(number())),
            "ack" => drop(self.known.insert(number(), true)),
            "refused" => drop(self.known.insert(number(), false)),
            "settled" => drop(self.known.insert(number(), words[2] == "1")),
            "delete" => drop(self.deleted.insert(words[1].to_owned())),
            "opened" => {}
            _ => panic!("{line}"),
        }
    }

    /// Begun by a process that is gone, and nobody knows what came of it.
    fn unknown(&self) -> Vec<usize> {
        self.begun.iter().copied().filter(|number| !self.known.contains_key(number)).collect()
    }

    /// Whether every step was begun.
    pub fn is_over(&self) -> bool {
        self.begun.len() == steps().iter().map(Vec::len).sum::<usize>()
    }

    /// What was erased for certain.
    pub fn erased(&self) -> BTreeSet<Thing> {
        let (mut ever, mut living) = (BTreeSet::new(), BTreeSet::new());
        for (number, step) in steps().into_iter().flatten().enumerate() {
            // What comes into the world meanwhile may have been erased or not.
            if self.known.get(&number) == Some(&true) {
                step.apply(&mut living);
                ever.extend(step.adds());
            }
        }
        ever.difference(&living).copied().collect()
    }
}

/// What a look into an image came to.
pub struct Seen {
    /// What was made at some time and does not live.
    pub erased: BTreeSet<Thing>,
    pub living: BTreeSet<Thing>,
}

/// Opens an image with the code of the product, and judges it.
pub fn judge(folder: &Path, told: &Told) -> Seen {
    let (keys, journal, recovered) = open(folder);
    let living = living(&keys);
    let (mut expected, mut ever) = (BTreeSet::new(), BTreeSet::new());
    let all: Vec<Step> = steps().into_iter().flatten().collect();
    for (number, step) in all.iter().enumerate() {
        let happened = match (told.known.get(&number), told.begun.contains(&number)) {
            (Some(known), _) => *known,
            // Before or after: which one, its first part tells; that it is the whole, the comparison below.
            (None, true) => step.has_happened(&living).unwrap_or(false),
            (None, false) => false,
        };
        if happened {
            step.apply(&mut expected);
            ever.extend(step.adds());
        }
    }
    let odd: Vec<_> = living.symmetric_difference(&expected).collect();
    assert!(odd.is_empty(), "neither the state before nor the one after: {odd:?}");
    let erased: BTreeSet<Thing> = ever.difference(&living).copied().collect();
    judge_sweep(&keys, told, &erased);
    judge_journal(&journal, &recovered, told, &all, &living);
    Seen { erased, living }
}

/// Every object of what was erased is deleted, or handed out now; none of what lives is.
fn judge_sweep(keys: &KeyStore, told: &Told, erased: &BTreeSet<Thing>) {
    let runtime = runtime();
    let mut handed_out = BTreeSet::new();
    while let Some(step) = keys.next_doomed(3).expect("draws up a step") {
        handed_out.extend(step.objects.iter().map(ToString::to_string));
        runtime.block_on(keys.swept(step)).expect("ends a step");
    }
    let fallen = |thing: &Thing| match thing {
        Thing::Audio(_, number) => Some(object(*number).to_string()),
        _ => None,
    };
    let fallen: BTreeSet<String> = erased.iter().filter_map(fallen).collect();
    let gone: BTreeSet<String> = handed_out.union(&told.deleted).cloned().collect();
    assert!(fallen.is_subset(&gone), "objects that the sweeper does not find: {:?}", fallen.difference(&gone));
    assert!(gone.is_subset(&fallen), "objects of what lives: {:?}", gone.difference(&fallen));
}

/// Every acknowledged frame of what lives opens; whatever else is found is whole, too.
fn judge_journal(
    journal: &Journal,
    recovered: &journal::Recovered,
    told: &Told,
    all: &[Step],
    living: &BTreeSet<Thing>,
) {
    let mut found = BTreeSet::new();
    for (call, frames) in &recovered.calls {
        let number = *known_names().rows.get(call).expect("a frame of a recording");
        for frame in frames {
            let plain = journal.read(&Secret::from_bytes(&audio(number)), frame).expect("a frame that was found opens");
            let index = (0..100).find(|index| offset(number, *index) == frame.offset).expect("an offset");
            assert_eq!(plain.as_slice(), speech(number, index));
            found.insert((number, index));
        }
    }
    for (number, step) in all.iter().enumerate() {
        let Step::Frame(of, recording, frame) = step else { continue };
        let released = all.iter().enumerate().any(|(number, step)| {
            told.begun.contains(&number)
                && matches!(step, Step::Release(row, below) if row == recording && frame < below)
        });
        if told.known.get(&number) == Some(&true) && living.contains(&Thing::Audio(*of, *recording)) && !released {
            assert!(found.contains(&(*recording, *frame)), "frame {frame} of {recording} was acknowledged and is lost");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What the processes before have told.
pub fn told(folder: &Path) -> Told {
    let mut told = Told::default();
    std::fs::read_to_string(folder.join("acks")).unwrap_or_default().lines().for_each(|line| told.line(line));
    told
}

/// The recorded process: goes on where the one before it stopped, and stops after so many groups of steps.
pub fn run(folder: &Path, groups: usize) {
    let log = folder.join("acks");
    let told = told(folder);
    let file = File::options().create(true).append(true).open(&log).expect("the log");
    let say = Arc::new(move |line: String| (&file).write_all(format!("{line}\n").as_bytes()).expect("says"));
    let (keys, journal, _) = open(folder);
    say("opened".to_owned());
    let before = living(&keys);
    let all: Vec<Step> = steps().into_iter().flatten().collect();
    for number in told.unknown() {
        if let Some(happened) = all[number].has_happened(&before) {
            say(format!("settled {number} {}", u8::from(happened)));
        }
    }
    runtime().block_on(async {
        let mut writers: BTreeMap<u16, CallWriter> = BTreeMap::new();
        let (mut next, mut done) = (0, 0);
        for group in steps() {
            if done == groups {
                break;
            }
            done += usize::from(!told.begun.contains(&(next + group.len() - 1)));
            let mut waiting = tokio::task::JoinSet::new();
            for step in group {
                let number = next;
                next += 1;
                if told.begun.contains(&number) {
                    continue;
                }
                say(format!("begin {number}"));
                let (keys, say) = (keys.clone(), say.clone());
                match step {
                    Step::Sweep => {
                        while let Some(step) = keys.next_doomed(3).expect("draws up a step") {
                            step.objects.iter().for_each(|object| say(format!("delete {object}")));
                            keys.swept(step).await.expect("ends a step");
                        }
                        say(format!("ack {number}"));
                    }
                    Step::Frame(_, recording, frame) => {
                        let writer = writers
                            .entry(recording)
                            .or_insert_with(|| journal.call(row(recording), &Secret::from_bytes(&audio(recording))));
                        let (at, speech) = (offset(recording, frame), speech(recording, frame));
                        let pending = writer.enqueue(FrameKind::Audio, at, &speech).await.expect("queued");
                        waiting.spawn(async move {
                            let told = if pending.durable().await.is_ok() { "ack" } else { "refused" };
                            say(format!("{told} {number}"));
                        });
                    }
                    Step::Release(recording, below) => {
                        journal.release(row(recording), offset(recording, below));
                        say(format!("ack {number}"));
                    }
                    step => {
                        let mutation = Mutation::new(step.changes());
                        waiting.spawn(async move {
                            let told = match keys.commit(mutation).await {
                                Ok(_) => "ack",
                                Err(CommitError::Closed) => return,
                                Err(_) => "refused",
                            };
                            say(format!("{told} {number}"));
                        });
                    }
                }
            }
            while waiting.join_next().await.is_some() {}
        }
    });
}
