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
//! - `sealed N`: step N was acknowledged as sealed, and not yet as destroyed; `destroyed`: all that was is now;
//! - `backed`: the backup has everything that was acknowledged.
//!
//! Steps of one group are asked for at the same time, and touch nothing in common.
//!
//! There are two settings ([`Setting`]). In the second one slots are away and come back, are replaced and retired, and object
//! storage is away: a slot that is away fails every call, which is what the product sees of one. Object storage is a folder
//! whose files appear whole or not at all.

use super::site::{self, FIRST_SEATS, SLOTS, Setting, Site};
use quietus::{
    crypto::{
        envelope::{self, Kind},
        secret::Secret,
    },
    domain::id::{ObjectId, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
    journal::{self, CallWriter, FrameKind, Journal},
    keys::{Change, CommitError, Keeping, KeyStore, Mutation, Owner, Parts, RecordingPath, Reshare, ValueName},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
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
    /// A slot is away from now on, or back.
    Away(usize, bool),
    /// So is object storage.
    StorageAway(bool),
    /// These slots are configured, and share a fresh root.
    Seats(&'static [usize]),
    /// A slot shares the root no more.
    Retire(usize),
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
            _ => Vec::new(),
        }
    }

    /// Asked for again in the next life, where nobody knows what came of it.
    fn is_tried_again(&self) -> bool {
        matches!(self, Self::Seats(_) | Self::Retire(_))
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

/// Everything that is asked for, in order. Pages hold 128 entries and 16 appended rows, so that some split.
pub fn steps(setting: Setting) -> Vec<Vec<Step>> {
    match setting {
        Setting::Alone => alone(),
        Setting::Shared => shared(),
    }
}

fn alone() -> Vec<Vec<Step>> {
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
    // Again: it erases nothing, or what a process that died there had left.
    groups.push(vec![EraseSubscriber(0)]);
    groups
}

/// With slots that come and go, and object storage too.
fn shared() -> Vec<Vec<Step>> {
    use Step::*;
    let mut groups = vec![vec![Tenant(0)], vec![Tenant(1), Tenant(2)]];
    groups.push(vec![Subscriber(0), Subscriber(1), Subscriber(100), Subscriber(200)]);
    groups.push(vec![Recordings(0, 0..40), Recordings(1, 500..503), Recordings(100, 600..602)]);
    groups.push(vec![EraseRecording(0, 3), Frame(0, 0, 0)]);
    // One is away: its shares wait.
    groups.push(vec![Away(2, true)]);
    groups.push(vec![EraseRecording(0, 4), Recordings(1, 503..504)]);
    groups.push(vec![EraseAudio(0, 7), Recordings(100, 602..603)]);
    groups.push(vec![Away(2, false)]);
    groups.push(vec![EraseRecording(0, 5), Recordings(0, 40..150)]);
    // Two are: nothing is erased.
    groups.push(vec![Away(0, true), Away(1, true)]);
    groups.push(vec![EraseRecording(0, 30), Recordings(1, 504..505)]);
    groups.push(vec![Away(0, false), Away(1, false)]);
    groups.push(vec![EraseRecording(0, 120)]);
    // Sealed, until storage is back.
    groups.push(vec![StorageAway(true)]);
    groups.push(vec![EraseRecording(0, 61), Recordings(1, 505..506)]);
    groups.push(vec![Away(1, true)]);
    groups.push(vec![EraseRecording(0, 0), EraseRecording(1, 501)]);
    groups.push(vec![StorageAway(false), Away(1, false)]);
    groups.push(vec![EraseRecording(0, 64), Recordings(200, 700..702)]);
    // One is replaced, another one retired and taken back.
    groups.push(vec![Seats(&[0, 2, 3])]);
    groups.push(vec![EraseSubscriber(100), Frame(0, 1, 0)]);
    groups.push(vec![Sweep]);
    groups.push(vec![Retire(0)]);
    groups.push(vec![EraseRecording(0, 65)]);
    groups.push(vec![Seats(&[0, 2, 3])]);
    groups.push(vec![Away(3, true)]);
    for number in 150..162 {
        groups.push(vec![Recordings(0, number..number + 1)]);
        if number % 4 == 0 {
            groups.push(vec![EraseRecording(0, number - 50), Recordings(1, 400 + number..401 + number)]);
        }
    }
    groups.push(vec![Away(3, false)]);
    groups.push(vec![EraseTenant(2), EraseAudio(0, 62), Recordings(0, 190..193)]);
    groups.push(vec![EraseSubscriber(0), Subscriber(101)]);
    groups.push(vec![Sweep]);
    groups.push(vec![Recordings(101, 800..804)]);
    groups.push(vec![EraseRecording(101, 801)]);
    // Again: it erases nothing, or what a process that died there had left.
    groups.push(vec![EraseSubscriber(0)]);
    groups
}

/// Who is there, and what is configured, when a process starts behind so much.
fn site(told: &Told) -> Site {
    let mut site = Site::with(FIRST_SEATS);
    for (_, step) in told.steps().filter(|(number, _)| told.begun.contains(number)) {
        match step {
            Step::Away(at, away) => site.set_away(at, away),
            Step::StorageAway(away) => site.set_storage_away(away),
            Step::Seats(seats) => site.seats = seats.to_vec(),
            _ => {}
        }
    }
    // Nobody starts without two of them.
    if site.away() > 1 {
        (0..SLOTS).for_each(|at| site.set_away(at, false));
    }
    site
}

fn open_journal(folder: &Path) -> (Journal, journal::Recovered) {
    let options = journal::Options { limit_bytes: 1 << 30, segment_bytes: 16 << 10 };
    Journal::open(&folder.join("live/journal"), options).expect("the journal opens")
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
#[derive(Clone)]
pub struct Told {
    setting: Setting,
    begun: BTreeSet<usize>,
    /// A change of the slots was begun in one life and again in another.
    seats_were_left: bool,
    /// Whether it happened.
    known: BTreeMap<usize, bool>,
    /// Of what happened, that of which nobody was told that it is destroyed.
    sealed: BTreeSet<usize>,
    /// Of what happened, that which the backup is known to have.
    backed: BTreeSet<usize>,
    deleted: BTreeSet<String>,
}

impl Told {
    pub fn nothing(setting: Setting) -> Self {
        Self {
            setting,
            begun: BTreeSet::new(),
            seats_were_left: false,
            known: BTreeMap::new(),
            sealed: BTreeSet::new(),
            backed: BTreeSet::new(),
            deleted: BTreeSet::new(),
        }
    }

    pub fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = || words[1].parse().expect("a number");
        match words[0] {
            // Only what changes the slots is asked for again.
            "begin" => self.seats_were_left |= !self.begun.insert(number()),
            "ack" => drop(self.known.insert(number(), true)),
            "refused" => drop(self.known.insert(number(), false)),
            "settled" => {
                self.known.insert(number(), words[2] == "1");
                self.sealed.insert(number());
            }
            "sealed" => {
                self.known.insert(number(), true);
                self.sealed.insert(number());
            }
            "destroyed" => self.sealed.clear(),
            "backed" => self.backed = self.happened().collect(),
            "delete" => drop(self.deleted.insert(words[1].to_owned())),
            "opened" => {}
            _ => panic!("{line}"),
        }
    }

    /// Begun by a process that is gone, and nobody knows what came of it.
    fn unknown(&self) -> Vec<usize> {
        self.begun.iter().copied().filter(|number| !self.known.contains_key(number)).collect()
    }

    fn happened(&self) -> impl Iterator<Item = usize> {
        self.known.iter().filter(|(_, happened)| **happened).map(|(number, _)| *number)
    }

    /// Whether every step was begun.
    pub fn is_over(&self) -> bool {
        self.begun.len() == steps(self.setting).iter().map(Vec::len).sum::<usize>()
    }

    fn steps(&self) -> impl Iterator<Item = (usize, Step)> {
        steps(self.setting).into_iter().flatten().enumerate()
    }

    /// Whether there are more slots than are needed, as far as anybody was told.
    pub fn may_lose_a_slot(&self) -> bool {
        let mut may = self.setting == Setting::Shared && !self.known.is_empty();
        for (number, step) in self.steps().filter(|(number, _)| self.begun.contains(number)) {
            match step {
                Step::Seats(_) => may = self.known.get(&number) == Some(&true),
                Step::Retire(_) => may = false,
                _ => {}
            }
        }
        may
    }

    /// Whether a slot may have been announced that never said whether it took its share: it counts as left for good.
    pub fn may_have_lost_a_joiner(&self) -> bool {
        let unsure = |(number, step): (usize, Step)| {
            matches!(step, Step::Seats(_)) && self.begun.contains(&number) && self.known.get(&number) != Some(&true)
        };
        self.seats_were_left || self.steps().any(unsure)
    }

    /// What was erased, and is destroyed for certain.
    pub fn destroyed(&self) -> BTreeSet<Thing> {
        let (mut ever, mut left) = (BTreeSet::new(), BTreeSet::new());
        for (number, step) in self.steps() {
            // What comes into the world meanwhile may have been erased or not.
            if self.known.get(&number) == Some(&true) && !self.sealed.contains(&number) {
                step.apply(&mut left);
                ever.extend(step.adds());
            } else if self.begun.contains(&number) {
                left.extend(step.adds());
            }
        }
        ever.difference(&left).copied().collect()
    }

    /// What is in the backup for certain, and lives whatever has happened since.
    fn kept(&self) -> BTreeSet<Thing> {
        let mut kept = BTreeSet::new();
        for (number, step) in self.steps() {
            if self.backed.contains(&number) {
                step.apply(&mut kept);
            } else if self.begun.contains(&number) {
                kept.retain(|thing| !step.removes().iter().any(|gone| thing == gone || thing.is_below(*gone)));
            }
        }
        kept
    }
}

/// What a look into an image came to.
pub struct Seen {
    /// What was made at some time and does not live.
    pub erased: BTreeSet<Thing>,
    pub living: BTreeSet<Thing>,
}

/// Opens an image with the code of the product, and judges it. One slot may be lost.
pub fn judge(folder: &Path, told: &Told, lost: Option<usize>) -> Seen {
    let (site, runtime) = (left_by(told, lost), runtime());
    let keys = site.open(folder, told.setting).unwrap_or_else(|error| panic!("{error}"));
    let (journal, recovered) = open_journal(folder);
    let living = living(&keys);
    let (mut expected, mut ever) = (BTreeSet::new(), BTreeSet::new());
    let all: Vec<Step> = told.steps().map(|(_, step)| step).collect();
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
    // Where everybody is there, what was sealed is destroyed as soon as the backup has it.
    let destroyed = if lost.is_some() || told.may_have_lost_a_joiner() {
        keys.all_destroyed()
    } else {
        let destroyed = keys.destroyed(keys.commands());
        runtime.block_on(async { tokio::time::timeout(PATIENCE, destroyed).await }).expect("it becomes destroyed");
        true
    };
    Seen { erased: if destroyed { erased } else { told.destroyed() }, living }
}

/// Builds a lost node from what an image has of slots and bucket, and judges that. Says whether there was a backup.
pub fn judge_restored(folder: &Path, told: &Told, lost: Option<usize>) -> bool {
    let site = left_by(told, lost);
    match site.restore(folder) {
        // Of a first start that was not over.
        Err(_) if told.backed.is_empty() => return false,
        restored => restored.unwrap_or_else(|error| panic!("{error}")),
    }
    let keys = site.open(folder, told.setting).unwrap_or_else(|error| panic!("{error}"));
    let living = living(&keys);
    let lacking: Vec<_> = told.kept().difference(&living).copied().collect();
    assert!(lacking.is_empty(), "the backup had it: {lacking:?}");
    let back: Vec<_> = told.destroyed().intersection(&living).copied().collect();
    assert!(back.is_empty(), "destroyed, and the backup brings it back: {back:?}");
    true
}

/// Everybody is there, but for a slot that is lost.
fn left_by(told: &Told, lost: Option<usize>) -> Site {
    let site = Site::with(&site(told).seats);
    if let Some(lost) = lost {
        site.set_away(lost, true);
    }
    site
}

/// Until what must come has come.
const PATIENCE: Duration = Duration::from_secs(60);

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
pub fn told(folder: &Path, setting: Setting) -> Told {
    let mut told = Told::nothing(setting);
    std::fs::read_to_string(folder.join("acks")).unwrap_or_default().lines().for_each(|line| told.line(line));
    told
}

/// The recorded process: goes on where the one before it stopped, and stops after so many groups of steps.
pub fn run(folder: &Path, setting: Setting, groups: usize) {
    let log = folder.join("acks");
    let told = told(folder, setting);
    let file = File::options().create(true).append(true).open(&log).expect("the log");
    let say = Arc::new(move |line: String| (&file).write_all(format!("{line}\n").as_bytes()).expect("says"));
    let mut site = site(&told);
    let mut keys = site.open(folder, setting).unwrap_or_else(|error| panic!("{error}"));
    let (journal, _) = open_journal(folder);
    say("opened".to_owned());
    let before = living(&keys);
    let all: Vec<Step> = told.steps().map(|(_, step)| step).collect();
    for number in told.unknown() {
        if let Some(happened) = all[number].has_happened(&before) {
            say(format!("settled {number} {}", u8::from(happened)));
        }
    }
    runtime().block_on(async {
        let mut writers: BTreeMap<u16, CallWriter> = BTreeMap::new();
        let (mut next, mut done) = (0, 0);
        for group in steps(setting) {
            if done == groups {
                break;
            }
            done += usize::from(!told.begun.contains(&(next + group.len() - 1)));
            let mut waiting = tokio::task::JoinSet::new();
            for step in group {
                let number = next;
                next += 1;
                if told.begun.contains(&number) && (!step.is_tried_again() || told.known.contains_key(&number)) {
                    continue;
                }
                say(format!("begin {number}"));
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
                        let say = say.clone();
                        waiting.spawn(async move {
                            let told = if pending.durable().await.is_ok() { "ack" } else { "refused" };
                            say(format!("{told} {number}"));
                        });
                    }
                    Step::Release(recording, below) => {
                        journal.release(row(recording), offset(recording, below));
                        say(format!("ack {number}"));
                    }
                    Step::Away(at, away) => {
                        site.set_away(at, away);
                        say(format!("ack {number}"));
                    }
                    Step::StorageAway(away) => {
                        site.set_storage_away(away);
                        say(format!("ack {number}"));
                    }
                    Step::Seats(seats) => {
                        site.seats = seats.to_vec();
                        drop(keys);
                        keys = site.open(folder, setting).unwrap_or_else(|error| panic!("{error}"));
                        let shared = keys.reshare(Reshare::Match).await;
                        say(format!("{} {number}", if shared.is_ok() { "ack" } else { "refused" }));
                    }
                    Step::Retire(at) => {
                        let slots = keys.slots().slots;
                        let known = slots.iter().find(|slot| slot.name == site::name(at)).and_then(|slot| slot.number);
                        let retired = match known {
                            Some(slot) => keys.reshare(Reshare::Retire(slot)).await.is_ok(),
                            None => false,
                        };
                        say(format!("{} {number}", if retired { "ack" } else { "refused" }));
                    }
                    step => {
                        let (keys, say) = (keys.clone(), say.clone());
                        waiting.spawn(async move {
                            let told = match keys.commit(Mutation::new(step.changes())).await {
                                Ok(committed) if committed.destroyed || step.removes().is_empty() => "ack",
                                Ok(_) => "sealed",
                                Err(CommitError::Closed) => return,
                                Err(_) => "refused",
                            };
                            say(format!("{told} {number}"));
                        });
                    }
                }
            }
            while waiting.join_next().await.is_some() {}
            if site.storage_is_there() && keys.backed_up(keys.commands()).await {
                say("backed".to_owned());
            }
            if keys.all_destroyed() {
                say("destroyed".to_owned());
            }
        }
    });
}
