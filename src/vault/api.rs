//! What goes in and out of the vault: plain types, no transport, no storage.

use super::{ExpiryStatus, PolicySource};
use crate::{
    domain::{
        basis::{Announcement, Basis, Evidence, Footing},
        id::{ReceiptId, RecordingId},
        pause::PauseReason,
        retention::Jurisdiction,
        time::{Day, Timestamp},
    },
    keys::{SlotsReport, backup::BackupStatus},
};
use std::collections::BTreeMap;

/// Whose data a caller may reach. What lies outside is *unknown*, never *forbidden*.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Every tenant of the group.
    All,
    /// These tenants, by name.
    Tenants(Vec<String>),
    /// One subscriber of one tenant: somebody who hears their own.
    Own {
        /// The tenant, by name.
        tenant: String,
        /// The subscriber, by name.
        subscriber: String,
    },
}

impl Scope {
    /// Whether something of this tenant lies inside.
    pub fn contains(&self, tenant: &str) -> bool {
        match self {
            Scope::All => true,
            Scope::Tenants(names) => names.iter().any(|name| name == tenant),
            Scope::Own { tenant: own, .. } => own == tenant,
        }
    }

    /// Whether a subscriber of a tenant lies inside.
    pub fn reaches(&self, tenant: &str, subscriber: &str) -> bool {
        match self {
            Scope::Own { subscriber: own, .. } => self.contains(tenant) && own == subscriber,
            Scope::All | Scope::Tenants(_) => self.contains(tenant),
        }
    }
}

/// What somebody is to the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum ActorRole {
    /// A softswitch.
    Switch,
    /// A tenant's own administrator; with every tenant in scope, the provider's administration of tenants.
    Admin,
    /// The provider's people: they never hear a recording without the customer's permission, whatever their scope.
    Staff,
    /// Somebody whose calls are recorded, and who hears their own.
    Subscriber,
    /// Looks at what was done.
    Auditor,
    /// Runs the gateway.
    Operator,
    /// A program of a tenant, by its API key.
    ApiKey,
    /// All of it, in `quietus dev` only.
    Developer,
    /// The gateway itself: expiry, housekeeping. Nobody can log in as this.
    Gateway,
}

/// Who does something. The log names it.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Who really acts: `staff/sam`.
    pub name: String,
    /// For whom, where the one who acts was delegated: `admin/anna`.
    pub on_behalf_of: Option<String>,
    /// What the actor is; under a delegation the lesser of the two.
    pub role: ActorRole,
    /// Whose data it reaches.
    pub scope: Scope,
    /// Role Subscriber: the own name within the tenant.
    pub subscriber: Option<String>,
}

impl Actor {
    /// The gateway itself, for what nobody asked for: expiry, sweeping, housekeeping.
    pub fn gateway() -> Self {
        Self {
            name: "gateway".to_owned(),
            on_behalf_of: None,
            role: ActorRole::Gateway,
            scope: Scope::All,
            subscriber: None,
        }
    }
}

/// Where the second copy goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Residency {
    /// One copy, in the home region.
    HomeOnly,
    /// One copy in each of the group's regions.
    Both,
}

/// What a tenant is created from.
pub struct NewTenant {
    /// 1 to 64 characters: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// A region of the group.
    pub home: String,
    /// Where copies go.
    pub residency: Residency,
    /// The retention policy.
    pub policy: PolicySource,
}

/// A tenant as it is shown.
#[derive(Debug)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Home region.
    pub home: String,
    /// Where copies go.
    pub residency: Residency,
    /// Name of the retention policy.
    pub policy: String,
    /// When it was created.
    pub created: Timestamp,
    /// Subscribers it has now.
    pub subscribers: u64,
    /// Open, closed, or on its way to being purged.
    pub state: TenantState,
    /// Kept, and neither played nor exported nor expired.
    pub restricted: bool,
    /// A close or purge that was asked for.
    pub transition: Option<Transition>,
}

/// Where a tenant's account stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TenantState {
    /// Takes recordings.
    Open,
    /// Takes none; the rest is as before until the policy's time has come.
    Closed {
        /// When the account was closed.
        at: Timestamp,
    },
    /// Everything that may go has gone or is going; what a floor or hold keeps follows by itself.
    Purging {
        /// When the account was closed.
        at: Timestamp,
    },
}

/// A close or purge that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transition {
    /// What was asked for.
    pub action: TransitionAction,
    /// Who asked.
    pub asked_by: String,
    /// When.
    pub asked: Timestamp,
    /// Who approved; none while a second person must.
    pub approved_by: Option<String>,
    /// When it runs; none while it is not approved.
    pub runs: Option<Timestamp>,
    /// Names the receipt that a purge will have.
    pub receipt: Option<ReceiptId>,
}

/// What a [`Transition`] does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransitionAction {
    /// Gives it a policy that makes things due, or asks less of a purge.
    SetPolicy,
    /// Closes an account whose policy leaves no grace.
    Close,
    /// Forgets the tenant.
    Purge,
}

/// What kind of thing was recorded. The numbers are those of the wire and of what is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A call.
    Call = 1,
    /// A voicemail.
    Voicemail = 2,
    /// A transcript.
    Transcript = 3,
    /// A video.
    Video = 4,
    /// A message.
    Message = 5,
    /// Uploaded media.
    Media = 6,
    /// Login, usage and connection data.
    Connection = 7,
}

/// How a recording arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// From a file that the sender keeps until *stored*.
    Spooled,
    /// As it is spoken; the sender keeps nothing.
    Live,
}

/// How far a recording got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Takes audio.
    Open,
    /// Its stream ended without Finish.
    Partial,
    /// Finished.
    Complete,
}

/// What the switch states about a call.
#[derive(Clone, Default)]
pub struct StatedFacts {
    /// Who took part.
    pub parties: Vec<String>,
    /// The switch's own call id.
    pub call_id: String,
    /// Anything else, by name.
    pub labels: BTreeMap<String, String>,
    /// Why it is recorded.
    pub purpose: String,
}

/// Under which law and on what basis the switch says that it records.
#[derive(Clone, Default)]
pub struct StatedBasis {
    /// Under whose law.
    pub jurisdiction: Option<Jurisdiction>,
    /// Why it may be recorded.
    pub basis: Option<Basis>,
    /// What was played.
    pub announcement: Option<Announcement>,
    /// Who agreed or was told.
    pub evidence: Vec<Evidence>,
}

/// What a recording hangs together with.
#[derive(Clone, Default)]
pub struct StatedTies {
    /// Other subscribers of the tenant, by name; provisioned like the subscriber itself.
    pub bound: Vec<String>,
    /// The recording it was made from: one of the same subscriber.
    pub parent: Option<RecordingId>,
}

/// First message of a recording.
pub struct Open {
    /// Tenant, by name.
    pub tenant: String,
    /// Subscriber, by name; provisioned at its first recording.
    pub subscriber: String,
    /// What it is.
    pub kind: Kind,
    /// How it arrives.
    pub mode: Mode,
    /// RFC 6838 media type.
    pub media_type: String,
    /// At least 16 random bytes that the client drew.
    pub client_id: Vec<u8>,
    /// When the call began. Must be stated.
    pub start: Option<Timestamp>,
    /// Bytes to come, where known.
    pub length_hint: Option<u64>,
    /// What the switch states.
    pub facts: StatedFacts,
    /// Why it may be recorded.
    pub basis: StatedBasis,
    /// What it hangs together with.
    pub ties: StatedTies,
}

/// Last message of a recording.
pub struct Finish {
    /// Bytes of the whole recording.
    pub length: u64,
    /// SHA-256 of the whole recording.
    pub sha256: Option<[u8; 32]>,
    /// When the call ended; none means now.
    pub end: Option<Timestamp>,
}

/// The answer to [`Open`].
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The recording's id; its create is durable.
    pub id: RecordingId,
    /// Everything below is kept.
    pub resume_offset: u64,
    /// An earlier stream finished it.
    pub already_finished: bool,
}

/// A recording that takes no audio for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paused {
    /// Bytes of the recording before the pause. All of them are kept.
    pub offset: u64,
    /// When it began.
    pub since: Timestamp,
    /// Why.
    pub reason: PauseReason,
}

/// A stretch of a call that was not recorded.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gap {
    /// Bytes of the recording before it.
    pub offset: u64,
    /// Seconds of audio before it, where the media type tells.
    pub seconds: Option<f64>,
    /// How long it lasted; none while it lasts.
    pub length_ms: Option<u64>,
    /// Why.
    pub reason: PauseReason,
}

/// The two watermarks, and how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that survive loss of the process and of power.
    pub journaled: u64,
    /// Bytes that lie sealed in object storage, their key synced on this node and, where there is a backup, in it.
    pub stored: u64,
    /// There is a backup.
    pub backed_up: bool,
    /// Finish itself is in the journal (live mode).
    pub finish_journaled: bool,
    /// Everything is stored.
    pub finished: Option<Finished>,
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Bytes of the whole recording.
    pub length: u64,
    /// Its keys are in the backup.
    pub backed_up: bool,
    /// A live recording whose stated length or digest is not that of what arrived.
    pub mismatch: bool,
}

/// What is known about a recording.
pub struct Recording {
    /// Its id.
    pub id: RecordingId,
    /// Tenant's name.
    pub tenant: String,
    /// Subscriber's name.
    pub subscriber: String,
    /// None once erased.
    pub facts: Option<Facts>,
    /// False once erased.
    pub audio_present: bool,
    /// Under whose law it was recorded.
    pub jurisdiction: Option<Jurisdiction>,
    /// What it rests on.
    pub footing: Option<Footing>,
}

/// The facts of a recording.
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// What the switch stated.
    pub stated: StatedFacts,
    /// When the call began.
    pub start: Timestamp,
    /// When it ended; none while it runs.
    pub end: Option<Timestamp>,
    /// Bytes so far.
    pub length: u64,
    /// Of the audio, where the media type tells.
    pub duration_seconds: Option<f64>,
    /// How long it was paused; told at its end.
    pub paused_seconds: f64,
    /// How far it got.
    pub state: State,
    /// See [`Finished::mismatch`].
    pub mismatch: bool,
}

/// What part of a recording to play.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PlayRange {
    /// From a byte to a byte (exclusive); no end means to the end.
    Bytes {
        /// First byte.
        start: u64,
        /// Behind the last byte.
        end: Option<u64>,
    },
    /// From a second to a second; no end means to the end.
    Time {
        /// Where to begin.
        from: f64,
        /// Where to stop.
        to: Option<f64>,
    },
}

/// What a playback will deliver.
#[derive(Clone, Debug)]
pub struct PlayInfo {
    /// RFC 6838 media type.
    pub media_type: String,
    /// Bytes of the whole recording so far.
    pub total_length: u64,
    /// Bytes that follow.
    pub length: u64,
    /// Where the first of them lies.
    pub start: u64,
    /// False while running or partial.
    pub complete: bool,
    /// Where the whole recording was paused, in order.
    pub gaps: Vec<Gap>,
}

/// Which leaf of a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Audio and facts.
    Both,
    /// Audio alone.
    Audio,
    /// Facts alone.
    Facts,
}

/// What to erase.
pub enum Target {
    /// A recording or a part of it.
    Recording(RecordingId, Part),
    /// A subscriber and everything below.
    Subscriber {
        /// Tenant, by name.
        tenant: String,
        /// Subscriber, by name.
        subscriber: String,
        /// Refuse future recordings of this name; see `vault::states` for what that remembers.
        block: bool,
    },
    /// A tenant and everything below. The caller has repeated its name.
    Tenant {
        /// By name.
        tenant: String,
    },
}

/// An erasure that is done.
pub struct Erasure {
    /// The root of before has been destroyed. False where nothing was left to erase, or it is sealed.
    pub destroyed: bool,
    /// A root of before is not destroyed yet: the backup's object storage is away, or too many shares are left in slots that
    /// are.
    pub sealed: bool,
    /// Generation of the root that was destroyed.
    pub generation_from: u64,
    /// Generation of the root that took its place.
    pub generation_to: u64,
    /// What the slot declares about forgetting.
    pub slot_forgets: String,
    /// Names the receipt.
    pub receipt: ReceiptId,
    /// The receipt file; empty while it is sealed.
    pub receipt_file: String,
    /// Opens the receipt's commitment. Nobody keeps it but who gets this.
    pub opening: [u8; 32],
    /// The text that the receipt commits to.
    pub scope: String,
}

/// Without the opening and the names in the scope: they belong to whoever asked.
impl std::fmt::Debug for Erasure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Erasure({} to {}, receipt {})", self.generation_from, self.generation_to, self.receipt)
    }
}

/// Counters of a day.
pub struct StatisticsRow {
    /// The day.
    pub day: Day,
    /// What was recorded.
    pub kind: Kind,
    /// Where its first copy went.
    pub region: String,
    /// How many.
    pub recordings: u64,
    /// How long in all, where media types tell.
    pub seconds: f64,
    /// How large in all.
    pub bytes: u64,
}

/// What waits and how much room is left.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Erased scopes whose ciphertext is still being removed.
    pub sweeps_pending: u64,
    /// Receipts whose ciphertext should be gone by now.
    pub receipts_overdue: u64,
    /// Copies to a second region that wait.
    pub replications_pending: u64,
    /// Recordings that take audio now.
    pub recordings_open: u64,
    /// Bytes in the journal.
    pub journal_bytes: u64,
    /// Bytes at which new live calls are refused.
    pub journal_limit_bytes: u64,
    /// Generation of the present root.
    pub generation: u64,
    /// What the slots declare, all together.
    pub slot_forgets: String,
    /// How each of them stands.
    pub slots: SlotsReport,
    /// What the runner has done, and what it could not do.
    pub expiry: ExpiryStatus,
    /// Holds.
    pub holds: u64,
    /// Holds past their review date.
    pub holds_overdue: u64,
    /// Erasures and expiries that wait for a hold.
    pub parked: u64,
    /// Closes and purges that wait.
    pub transitions: u64,
    /// How the backup stands; none where there is none.
    pub backup: Option<BackupStatus>,
    /// Something that was erased is sealed, and not destroyed yet.
    pub erasures_sealed: bool,
    /// Since when the oldest erasure waits: queued, under way, or sealed and not destroyed yet; none: none waits.
    pub erasures_waiting_since: Option<Timestamp>,
}

/// The receipt of an erasure that waits. Until it runs, no receipt has this id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Promised {
    /// Its id.
    pub id: ReceiptId,
    /// What will open its commitment, where that is not what the caller sent: the gateway drew it, or whoever asked first.
    pub opening: Option<[u8; 32]>,
}

/// Without the opening.
impl std::fmt::Debug for Promised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Promised({})", self.id)
    }
}

/// A date as a sentence ends with it.
struct Until(Option<Timestamp>);

impl std::fmt::Display for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.map(|until| jiff::Timestamp::from_millisecond(until.0)) {
            Some(Ok(until)) => write!(f, " until {until}"),
            Some(Err(_)) => f.write_str(" for ever"),
            None => Ok(()),
        }
    }
}

/// Why the vault did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field is wrong.
    #[error("{field}: {remedy}")]
    Invalid {
        /// The field's name on the wire.
        field: &'static str,
        /// What to send instead. Never repeats the value.
        remedy: String,
    },
    /// No such thing, or not this caller's.
    #[error("unknown {what}")]
    Unknown {
        /// `tenant`, `subscriber`, `recording`, `API key`, `switch`.
        what: &'static str,
    },
    /// Its key has been destroyed.
    #[error("erased: its key has been destroyed")]
    Erased,
    /// The name is taken.
    #[error("the name is taken")]
    Exists,
    /// A second stream feeds the same recording.
    #[error("another stream took this recording over")]
    TakenOver,
    /// The bytes that arrived are not those that Finish states; nothing was kept.
    #[error(
        "{field} stated at Finish is not that of the {received} bytes that arrived; nothing was kept, send it again"
    )]
    Mismatch {
        /// `length` or `sha256`.
        field: &'static str,
        /// Bytes that arrived.
        received: u64,
    },
    /// The journal is at its limit: new live calls are refused so that running ones are not harmed.
    #[error("the journal is full because object storage is behind; try again later or at another node")]
    JournalFull,
    /// As many playbacks run as the gateway has room for.
    #[error("too many playbacks at one time; try again in a moment")]
    Busy,
    /// A listener took nothing for minutes.
    #[error("nothing was taken for too long; ask again for the rest")]
    Idle,
    /// Object storage did not answer well.
    #[error("object storage is not available: {0}")]
    Storage(String),
    /// The bytes in storage are not those that were sealed. An attack or a broken disk.
    #[error("the stored bytes fail authentication: {0}")]
    Corrupt(String),
    /// A time range of a media type that does not tell its rate.
    #[error("this media type does not tell its rate; ask for bytes")]
    NoRate,
    /// The range lies outside of what is there.
    #[error("the range lies outside of the recording's {total} bytes")]
    OutOfRange {
        /// Bytes that are there.
        total: u64,
    },
    /// Who asks lacks something.
    #[error("not permitted: {missing}")]
    NotPermitted {
        /// What is missing; nothing about what exists.
        missing: String,
    },
    /// A rule does not let it happen.
    #[error("refused: {why}")]
    Refused {
        /// Which rule, and what to do.
        why: String,
    },
    /// It waits, and happens by itself afterwards.
    #[error("parked: waits for {by}{}", Until(*until))]
    Parked {
        /// A hold, an approval, a cooling-off time.
        by: String,
        /// When the waiting ends, where that is known.
        until: Option<Timestamp>,
        /// The receipt that it will have; none where what waits erases nothing itself.
        receipt: Option<Promised>,
    },
    /// A statutory minimum refuses the erasure.
    #[error("refused by a floor{}: {ground}", Until(Some(*until)))]
    Floor {
        /// From when on it may go.
        until: Timestamp,
        /// The law or duty.
        ground: String,
    },
    /// It is restricted: kept, and not used.
    #[error("restricted: it is kept, and neither played nor exported nor erased until the restriction is lifted")]
    Restricted,
    /// The gateway is stopping.
    #[error("the gateway is stopping; try again at once")]
    Stopping,
    /// Something broke inside.
    #[error("internal: {0}")]
    Internal(String),
}
