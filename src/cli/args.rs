//! What may be typed. Names, numbers, ids and words about somebody may be `@FILE` or `-` everywhere; see [`super::names`].

use super::{
    hold::HoldCommand,
    pauses,
    stats::StatsCommand,
    subscriber::{RecordingCommand, SubscriberCommand},
};
use crate::domain::pause::{DiscardReason, PauseReason};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// A call-recording storage gateway that forgets on demand.
#[derive(Parser)]
#[command(name = "quietus", version, propagate_version = true)]
pub struct Arguments {
    /// How to reach the gateway.
    #[arg(
        long,
        global = true,
        env = "QUIETUS_PROFILE",
        default_value = ".quietus/client/profile.toml",
        value_name = "FILE"
    )]
    pub profile: PathBuf,
    /// HTTP/2 or HTTP/3, whatever the profile says.
    #[arg(long, global = true, env = "QUIETUS_TRANSPORT")]
    pub transport: Option<Transport>,
    /// One JSON object, or one per line.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What a connection is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/3 over QUIC.
    H3,
}

/// What to do with backups.
#[derive(Subcommand)]
pub enum BackupCommand {
    /// Make a whole copy now; the gateway must be stopped. A running one makes its own.
    Create {
        /// The configuration file of `serve`.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show what lies in the buckets.
    List {
        /// The configuration file of `serve`.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Read the newest backup that the slot opens to its end, and check that it is whole.
    Verify {
        /// The configuration file of `serve`.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Serve everything from one process and one folder, for trying and for tests.
    Dev {
        /// The folder; made where it does not exist.
        #[arg(long, default_value = ".quietus", value_name = "DIR")]
        data: PathBuf,
        /// Address for TCP and UDP; port 0 takes any that is free.
        #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
        listen: SocketAddr,
        /// Take the time from this file, read anew at each look: milliseconds since 1970, and in a second line, where
        /// there is one, what a second clock says. For rehearsing months in seconds.
        #[arg(long, value_name = "FILE")]
        clock: Option<PathBuf>,
    },
    /// Serve with a configuration file.
    Serve {
        /// The file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make, list and verify backups of the key store, on the node's own files.
    Backup {
        /// What to do.
        #[command(subcommand)]
        command: BackupCommand,
    },
    /// Build the key store on this node from its slot and the backup in the buckets.
    Restore {
        /// The configuration file of `serve`.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Look at configuration files.
    Config {
        /// What to do with one.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// The slots that share the root, on the node's own files; the gateway must be stopped.
    Slot {
        /// What to do with them.
        #[command(subcommand)]
        command: SlotCommand,
    },
    /// Make, show and purge tenants.
    Tenant {
        /// What to do with one.
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Say how long recordings are kept, and why something goes when it goes.
    Policy {
        /// What to do.
        #[command(subcommand)]
        command: super::policy::PolicyCommand,
    },
    /// Store recordings; prints their ids.
    Record(Box<Record>),
    /// List recordings.
    List(List),
    /// Show what is known about a recording.
    Show {
        /// Its id.
        id: String,
        /// The support system's number: staff must say for which ticket they look.
        #[arg(long)]
        ticket: Option<String>,
    },
    /// Fetch a recording's audio.
    Play(Play),
    /// Show, deactivate and restrict subscribers.
    Subscriber {
        /// What to do with one.
        #[command(subcommand)]
        command: SubscriberCommand,
    },
    /// Restrict recordings.
    Recording {
        /// What to do with one.
        #[command(subcommand)]
        command: RecordingCommand,
    },
    /// Keep what must be kept although it is erased or expires.
    Hold {
        /// What to do.
        #[command(subcommand)]
        command: HoldCommand,
    },
    /// Show what is counted of tenants that are gone.
    Stats {
        /// What.
        #[command(subcommand)]
        command: StatsCommand,
    },
    /// Forget, for good.
    Erase {
        /// Erase nothing, and say what the erasure would meet.
        #[arg(long, global = true)]
        dry_run: bool,
        /// What.
        #[command(subcommand)]
        command: EraseCommand,
    },
    /// Let the provider's staff listen, or not.
    Permission {
        /// What to do.
        #[command(subcommand)]
        command: super::permission::PermissionCommand,
    },
    /// What the gateway has to tell a tenant.
    Inbox {
        /// What to do.
        #[command(subcommand)]
        command: super::inbox::InboxCommand,
    },
    /// Keys by which a tenant's programs get in.
    Apikey {
        /// What to do with one.
        #[command(subcommand)]
        command: super::apikey::ApikeyCommand,
    },
    /// Switches that may record for a tenant.
    Switch {
        /// What to do with one.
        #[command(subcommand)]
        command: super::switch::SwitchCommand,
    },
    /// What was done, and whether the log that says so holds.
    Audit {
        /// What to do with it.
        #[command(subcommand)]
        command: super::audit::AuditCommand,
    },
    /// What was erased: signed statements, verified offline.
    Receipt {
        /// What to do with one.
        #[command(subcommand)]
        command: super::receipt::ReceiptCommand,
    },
    /// Show what waits and how much room is left.
    Status,
}

/// `quietus config …`
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Tell what is wrong with a file.
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// `quietus tenant …`
#[derive(Subcommand)]
pub enum TenantCommand {
    /// Make a tenant.
    Create {
        /// Its name.
        name: String,
        /// Its home region, e.g. eu-west-2.
        #[arg(long, value_name = "REGION")]
        home: String,
        /// Whether a second region keeps a copy.
        #[arg(long, value_enum, default_value = "home-only")]
        residency: Residency,
        /// Its retention policy: the name of a preset (`quietus policy presets`), or a file.
        #[arg(long, default_value = "dev")]
        policy: String,
        /// The policy's parameter, for one that takes it: 90d.
        #[arg(long, value_name = "LENGTH")]
        keep: Option<String>,
    },
    /// Show a tenant and what is counted of it.
    Show {
        /// Its name.
        name: String,
    },
    /// List the tenants.
    List,
    /// Close a tenant's account: no new recording, and the policy's grace runs.
    Close {
        /// Its name.
        name: String,
        /// Its name again, where the policy makes anything due at once.
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
    /// Approve a close or purge that somebody else asked for.
    Approve {
        /// Its name.
        name: String,
    },
    /// Take back a close or purge that waits.
    Withdraw {
        /// Its name.
        name: String,
    },
    /// Keep everything of a tenant, and neither play, export, expire nor erase it.
    Restrict {
        /// Its name.
        name: String,
    },
    /// Lift a restriction.
    Unrestrict {
        /// Its name.
        name: String,
    },
    /// Show what keeps a tenant's recordings: holds, floors, restrictions.
    Standing {
        /// Its name.
        name: String,
    },
    /// Erase a tenant and everything below it.
    Purge {
        /// Its name.
        name: String,
        /// Its name again.
        #[arg(long, value_name = "NAME")]
        confirm: String,
        /// Where to write the receipt; its opening goes into FILE.opening.
        #[arg(long, value_name = "FILE")]
        receipt: Option<PathBuf>,
    },
}

/// Where copies go.
#[derive(Clone, Copy, ValueEnum)]
pub enum Residency {
    /// One copy, in the home region.
    HomeOnly,
    /// One copy in each region of the group.
    Both,
}

/// `quietus record …`
#[derive(Args)]
pub struct Record {
    /// Whose recordings.
    #[arg(long)]
    pub tenant: String,
    /// Of which subscriber; provisioned at its first recording.
    #[arg(long)]
    pub subscriber: String,
    /// What they are.
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Stream as a call that is being spoken: small frames, through the journal.
    #[arg(long)]
    pub live: bool,
    /// Leave these seconds of each file out, as a pause of its call; may be repeated.
    #[arg(long = "pause", value_name = "FROM..TO", requires = "live", value_parser = pauses::stretch)]
    pub pauses: Vec<pauses::Stretch>,
    /// Why it is paused: payment-card, privacy, customer-request, other.
    #[arg(long, value_name = "REASON", default_value = "payment-card", value_parser = pauses::reason)]
    pub pause_reason: PauseReason,
    /// Throw each recording away at the end of its file: no-consent, customer-request, privacy, mistake, other.
    #[arg(long, value_name = "REASON", requires = "live", value_parser = discard_reason)]
    pub discard: Option<DiscardReason>,
    /// Media type of all files; otherwise told by each file's header or ending.
    #[arg(long, value_name = "TYPE")]
    pub media_type: Option<String>,
    /// When the call began, e.g. 2026-11-22T10:00:00Z; otherwise now.
    #[arg(long, value_name = "TIME")]
    pub start: Option<jiff::Timestamp>,
    /// Who took part; may be repeated.
    #[arg(long = "party", value_name = "NAME")]
    pub parties: Vec<String>,
    /// The switch's own call id.
    #[arg(long, value_name = "ID")]
    pub call_id: Option<String>,
    /// Anything else; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// Why it is recorded.
    #[arg(long)]
    pub purpose: Option<String>,
    /// What allows it: `consent`, `contract`, `legal-obligation` or `legitimate-interest`.
    #[arg(long)]
    pub basis: Option<String>,
    /// The country under whose law it is recorded, e.g. DE.
    #[arg(long, value_name = "COUNTRY")]
    pub jurisdiction: Option<String>,
    /// The prompt that was played, by the switch's name of it.
    #[arg(long, value_name = "PROMPT")]
    pub announcement: Option<String>,
    /// Its language, e.g. de-AT.
    #[arg(long, value_name = "TAG", requires = "announcement")]
    pub announcement_language: Option<String>,
    /// When it was played: milliseconds from the start of the recording, below 0 before it began.
    #[arg(long, value_name = "MS", requires = "announcement", allow_negative_numbers = true, default_value_t = 0)]
    pub announcement_offset: i64,
    /// Who agreed or was told: JSON, [{"party": …, "how": "dtmf|spoken|written|announced", "at": TIME, "reference": …}].
    #[arg(long, value_name = "JSON")]
    pub evidence: Option<String>,
    /// Another subscriber of the tenant who took part; may be repeated.
    #[arg(long = "bind", value_name = "NAME")]
    pub bound: Vec<String>,
    /// The recording that it was made from.
    #[arg(long, value_name = "ID")]
    pub parent: Option<String>,
    /// Files at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Give a file up after so many seconds without progress.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub patience: u64,
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

fn discard_reason(word: &str) -> Result<DiscardReason, String> {
    DiscardReason::from_word(word).ok_or_else(|| format!("one of {}", DiscardReason::words()))
}

/// What was recorded.
#[derive(Clone, Copy, ValueEnum)]
pub enum Kind {
    /// A call.
    Call,
    /// A voicemail.
    Voicemail,
    /// A transcript.
    Transcript,
    /// A video.
    Video,
    /// A message.
    Message,
    /// Uploaded media.
    Media,
    /// Login, usage and connection data.
    Connection,
}

/// `quietus slot …`
#[derive(Subcommand)]
pub enum SlotCommand {
    /// Make the key store and share its first root among the slots.
    Init {
        /// The gateway's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say which slots are there, what they declare, how many more may be lost, and what is left of old roots.
    Status {
        /// The gateway's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Share a fresh root without one slot, and wipe that slot where it is there.
    Retire {
        /// The gateway's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The slot's number, as `slot status` shows it.
        number: u8,
    },
    /// Share a fresh root among the slots of the configuration: empty ones join, those that it does not list any more
    /// are retired, and its threshold holds.
    Migrate {
        /// The gateway's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

impl SlotCommand {
    /// The gateway's configuration.
    pub fn config(&self) -> &Path {
        match self {
            Self::Init { config }
            | Self::Status { config }
            | Self::Retire { config, .. }
            | Self::Migrate { config } => config,
        }
    }
}

/// `quietus list …`
#[derive(Args)]
pub struct List {
    /// Whose recordings.
    #[arg(long)]
    pub tenant: String,
    /// Of which subscriber.
    #[arg(long)]
    pub subscriber: Option<String>,
    /// The support system's number: staff must say for which ticket they look.
    #[arg(long)]
    pub ticket: Option<String>,
}

/// `quietus play …`
#[derive(Args)]
pub struct Play {
    /// The recording's id.
    pub id: String,
    /// Where to write; otherwise standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// From this second on.
    #[arg(long, value_name = "SECONDS", conflicts_with = "bytes")]
    pub from: Option<f64>,
    /// To this second.
    #[arg(long, value_name = "SECONDS", conflicts_with = "bytes")]
    pub to: Option<f64>,
    /// Bytes FIRST-LAST, counted from 0, both included; LAST may be left out.
    #[arg(long, value_name = "FIRST-LAST")]
    pub bytes: Option<String>,
    /// To keep a copy: staff need a permission to download. Without it staff hear it, and it takes a part of its length.
    #[arg(long)]
    pub download: bool,
    /// Print a URL that an audio player can use instead, within a minute.
    #[arg(long, conflicts_with_all = ["output", "from", "to", "bytes", "download"])]
    pub url: bool,
}

/// `quietus erase …`
#[derive(Subcommand)]
pub enum EraseCommand {
    /// A recording, or a part of it.
    Recording {
        /// Its id.
        id: String,
        /// Only its audio, or only its facts.
        #[arg(long, value_enum)]
        part: Option<Part>,
        /// Where to write the receipt; its opening goes into FILE.opening.
        #[arg(long, value_name = "FILE")]
        receipt: Option<PathBuf>,
    },
    /// A subscriber and everything below.
    Subscriber {
        /// TENANT/NAME.
        name: String,
        /// Calls of this name that come later: `continue` takes them under fresh keys, `block` refuses them and remembers a
        /// keyed hash of the name.
        #[arg(long, value_enum, default_value = "continue")]
        future: Future,
        /// Where to write the receipt; its opening goes into FILE.opening.
        #[arg(long, value_name = "FILE")]
        receipt: Option<PathBuf>,
    },
    /// A tenant and everything below.
    Tenant {
        /// Its name.
        name: String,
        /// Its name again: everything below it goes for good. Not needed with --dry-run.
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
        /// Where to write the receipt; its opening goes into FILE.opening.
        #[arg(long, value_name = "FILE")]
        receipt: Option<PathBuf>,
    },
}

/// What happens to later calls of an erased subscriber's name.
#[derive(Clone, Copy, ValueEnum)]
pub enum Future {
    /// They are taken, and nothing remembers that there was such a subscriber.
    Continue,
    /// They are refused.
    Block,
}

/// A part of a recording.
#[derive(Clone, Copy, ValueEnum)]
pub enum Part {
    /// What was heard.
    Audio,
    /// What is known about it.
    Facts,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_are_well_formed() {
        Arguments::command().debug_assert();
    }

    /// The lines of the interface page that exist so far.
    #[test]
    fn the_interface_page_parses() {
        for line in [
            "quietus dev --data DIR",
            "quietus serve --config FILE",
            "quietus config check FILE",
            "quietus slot init --config FILE",
            "quietus slot status --config FILE --json",
            "quietus slot retire --config FILE 2",
            "quietus slot migrate --config FILE",
            "quietus tenant create acme --home eu-west-2 --residency home-only --policy uk-mifid",
            "quietus tenant create acme --home eu-west-2 --policy customer-notice --keep 90d",
            "quietus policy presets",
            "quietus policy check FILE",
            "quietus policy explain ID --ticket T-1",
            "quietus policy dry-run acme FILE --keep 90d",
            "quietus policy set acme vclerk --keep 90d",
            "quietus policy show acme --json",
            "quietus dev --data DIR --clock FILE",
            "quietus tenant show acme",
            "quietus tenant list --json",
            "quietus tenant purge acme --confirm acme",
            "quietus tenant purge acme --confirm acme --receipt r.txt",
            "quietus tenant close acme",
            "quietus tenant close acme --confirm acme",
            "quietus tenant approve acme",
            "quietus tenant withdraw acme",
            "quietus subscriber show acme/+441 --ticket T-1",
            "quietus subscriber deactivate acme/@number",
            "quietus subscriber restrict acme/+441",
            "quietus subscriber unrestrict acme/-",
            "quietus recording restrict ID",
            "quietus recording basis ID --json",
            "quietus recording bind ID --party @number --party +442",
            "quietus recording correct ID --party @number --call-id c-1 --label k=v --purpose p",
            "quietus recording correct ID --no-parties --no-labels",
            "quietus subscriber withdraw-consent acme/@number",
            "quietus subscriber give-consent acme/+441 --json",
            "quietus record --tenant a --subscriber - --kind call --basis consent --jurisdiction DE --announcement p \
             --announcement-language de --announcement-offset -500 --evidence @evidence.json --bind +442 a.wav",
            "quietus record --tenant a --subscriber s --kind transcript --parent ID a.txt",
            "quietus hold place --tenant acme --everything --ground g --authority a --review 2027-01-01T00:00:00Z",
            "quietus hold place --recording ID --ground g --authority a --review 2027-01-01T00:00:00Z",
            "quietus hold place --tenant a --number @n --from 2026-01-01T00:00:00Z --ground g --authority a --review 2027-01-01T00:00:00Z",
            "quietus hold list --parked --json",
            "quietus hold review ID --next 2027-01-01T00:00:00Z",
            "quietus hold lift ID",
            "quietus stats anonymous",
            "quietus erase tenant acme --dry-run",
            "quietus erase subscriber acme/+441 --future block",
            "quietus record --tenant acme --subscriber @number --kind call --live a.wav b.wav",
            "quietus record --tenant acme --subscriber - --kind voicemail a.wav",
            "quietus record --tenant a --subscriber b --kind call --live --pause 1..2 --pause 3..4 --pause-reason privacy a.wav",
            "quietus record --tenant a --subscriber b --kind call --live --discard no-consent a.wav",
            "quietus list --tenant acme --subscriber +441",
            "quietus show ID --json",
            "quietus play ID -o out.wav --from 1.5 --to 3",
            "quietus play ID --bytes 0-99 --profile p.toml",
            "quietus erase recording ID --part audio",
            "quietus erase subscriber acme/+441",
            "quietus erase tenant acme --confirm acme --receipt r.txt",
            "quietus apikey create acme --name crm --role admin",
            "quietus apikey create acme --name crm --role switch --own @secret",
            "quietus apikey create @tenant --name crm --role auditor --own-sha256 00",
            "quietus apikey list acme",
            "quietus apikey revoke acme ID",
            "quietus apikey report acme ID --json",
            "quietus switch enrol acme pbx-1 --max-recordings 40",
            "quietus switch list acme --json",
            "quietus switch revoke acme pbx-1",
            "quietus permission request --recording ID --purpose fault --ticket T-1 --for 2h",
            "quietus permission request --subscriber acme/+441 --purpose fault --ticket T-1 --for 7d --download --later-calls",
            "quietus permission grant ID",
            "quietus permission grant ID --recording ID --for 30m --listen-only --without-later-calls",
            "quietus permission deny ID",
            "quietus permission revoke ID",
            "quietus permission list --tenant acme --waiting --json",
            "quietus inbox list acme",
            "quietus inbox ack acme ID ID",
            "quietus inbox webhook set acme https://example.com/hook",
            "quietus show ID --ticket T-1",
            "quietus play ID --url",
            "quietus erase subscriber acme/@number --receipt r.txt",
            "quietus receipt verify r.txt --key quietus/uk-eu+01020304+AQ==",
            "quietus receipt verify r.txt --key audit.vkey --opening r.txt.opening --scope @scope",
            "quietus receipt show ID -o r.txt",
            "quietus receipt list --tenant acme --open",
            "quietus audit tail --tenant acme -n 20",
            "quietus audit tail --subscriber acme/+441 --json",
            "quietus audit tail --recording ID --after 17",
            "quietus audit verify --key audit.vkey --tenant acme",
            "quietus status --json --transport h3",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "quietus",
            "quietus hold place --ground g --authority a --review 2027-01-01T00:00:00Z",
            "quietus record --tenant a --kind call x.wav",
            "quietus record --tenant a --subscriber b --kind call --pause 1..2 a.wav",
            "quietus record --tenant a --subscriber b --kind call --live --pause-reason her-card a.wav",
            "quietus play ID --from 1 --bytes 0-1",
            "quietus recording bind ID",
            "quietus recording correct ID --party a --no-parties",
            "quietus permission grant ID --recording ID --tenant acme",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
