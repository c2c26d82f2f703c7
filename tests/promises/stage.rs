//! The stage on which a promise is played through: `quietus dev` on a clock file, the people around it, a thief who copies
//! the data folder, and the attacker who has all that the thief took.
//!
//! - *Time* moves by [`Stage::go_to`] alone, and [`Stage::noticed`] waits until the runner has been through all that is due
//!   by then. So "it still plays" is said of a gateway that has looked, and not of one that had no time to.
//! - *Who asks*: everything by the commands, as the person that a profile names. `CUSTOMER` administers the tenants of
//!   [`TENANTS`], `PROVIDER` all of them; what only `dev` lets in is not used.
//! - *What is left* is judged by [`Stage::assert_left`] on the bytes of every copy, with the slot as it is now, and then with
//!   the slot of before, which must open what is gone: else the attacker was blind.

use super::{
    gateway::Gateway,
    wire::{self, sound},
};
use http::Request;
use http_body_util::BodyExt as _;
use quietus::{
    cli::args::Transport,
    crypto::random,
    forensics::{Findings, Options, investigate},
    proto::v1,
    server::dev_files::DevFiles,
    transport::auth::token_hash,
};
use serde_json::Value;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Instant,
};
use tempfile::TempDir;
use tower::{Service as _, ServiceExt as _};

pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
/// What each preset takes off its promises, so that they are kept.
pub const MARGIN: i64 = 48 * HOUR;
/// Noon of a day in the middle of a year: 2026-06-15.
pub const NOON: i64 = 1_781_524_800_000;

/// The tenants of the customer.
pub const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
pub const CUSTOMER: &str = "owner";
/// Somebody else who administers the same tenants.
pub const SECOND: &str = "second";
/// The provider's administration: every tenant, and hears nobody.
pub const PROVIDER: &str = "admin";
pub const STAFF: &str = "staff";
pub const OPERATOR: &str = "operator";

pub const DONE: i32 = 0;
pub const USAGE: i32 = 2;
pub const NOT_PERMITTED: i32 = 3;
pub const ERASED: i32 = 4;
pub const UNKNOWN: i32 = 5;
pub const REFUSED: i32 = 6;
pub const OVERDUE: i32 = 7;

/// Whose recordings tell that the runner has looked. They are due when they have ended.
const CANARY: &str = "canary";
const CANARY_POLICY: &str = "name = \"canary\"\nsummary = \"Due at once\"\nmargin = \"0h\"\nparties = \"owner\"\n\
                             [[keep]]\nwhat = \"both\"\nnot_after = \"0h after end\"\n";
const PROMPTS: &str = "/usr/share/asterisk/sounds/en_US_f_Allison";

/// What is to be recorded.
#[derive(Clone)]
pub struct Take<'a> {
    pub tenant: &'a str,
    pub subscriber: &'a str,
    pub kind: &'a str,
    /// Further arguments of `quietus record`.
    pub more: &'a [&'a str],
}

impl<'a> Take<'a> {
    pub fn call(tenant: &'a str, subscriber: &'a str) -> Self {
        Self { tenant, subscriber, kind: "call", more: &[] }
    }

    pub fn kind(self, kind: &'a str) -> Self {
        Self { kind, ..self }
    }

    pub fn more(self, more: &'a [&'a str]) -> Self {
        Self { more, ..self }
    }
}

/// What was recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub id: String,
    pub audio: Vec<u8>,
    /// The call id in its facts: where it is found, the facts can be read.
    pub mark: String,
    /// When it began and ended, by the clock.
    pub at: i64,
}

/// What an attacker can still read of a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    Both,
    Audio,
    Facts,
    Nothing,
}

/// A thief's copy: key store, journal and objects, and aside the slot of that moment.
pub struct Theft {
    data: PathBuf,
    slot: PathBuf,
}

pub struct Stage {
    gateway: Option<Gateway>,
    clock: PathBuf,
    now: Cell<i64>,
    counter: Cell<u64>,
    thefts: RefCell<Vec<PathBuf>>,
    /// How much the process logs.
    log: &'static str,
    runtime: tokio::runtime::Runtime,
    /// Last: the process writes to it until it is dropped.
    dir: TempDir,
}

impl Stage {
    /// A gateway that serves, at noon.
    pub fn open() -> Self {
        Self::with("info", &TENANTS)
    }

    /// One whose customer has these tenants.
    pub fn with(log: &'static str, tenants: &[&str]) -> Self {
        let dir = TempDir::new().expect("a folder");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        DevFiles::prepare(&data).expect("certificates");
        for name in [CUSTOMER, SECOND] {
            introduce(&data, name, tenants);
        }
        let clock = dir.path().join("clock");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let mut stage = Self {
            gateway: None,
            clock,
            now: Cell::new(NOON),
            counter: Cell::new(0),
            thefts: RefCell::default(),
            log,
            runtime,
            dir,
        };
        stage.go_to(NOON);
        stage.start();
        std::fs::write(stage.path("canary.toml"), CANARY_POLICY).expect("written");
        stage.tenant(CANARY, &stage.path("canary.toml").display().to_string(), &[]);
        stage
    }

    fn start(&mut self) {
        let data = self.data();
        let mut command = Command::new(env!("CARGO_BIN_EXE_quietus"));
        command.env("QUIETUS_LOG", self.log).args(["dev", "--listen", "127.0.0.1:0"]);
        command.arg("--data").arg(&data).arg("--clock").arg(&self.clock);
        let gateway = Gateway::spawn(command, &data);
        for name in [CUSTOMER, SECOND] {
            let text = format!(
                "endpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\ntoken_file = \"{name}.token\"\n",
                gateway.port
            );
            std::fs::write(data.join("client").join(format!("{name}.toml")), text).expect("a profile");
        }
        self.gateway = Some(gateway);
    }

    /// Stops the process as it likes to be stopped.
    pub fn stop(&mut self) {
        assert!(self.gateway.take().expect("it serves").stop().success());
    }

    /// Stops it, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// Kills the process where it stands, and starts it again.
    pub fn kill(&mut self) {
        self.gateway.take().expect("it serves").kill();
        self.start();
    }

    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("it serves")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A file with a text, to be given as `@FILE`.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        format!("@{}", path.display())
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub fn link(&self, who: &str) -> quietus::cli::connect::Link {
        let _inside = self.runtime.enter();
        self.gateway().link(who, Transport::H2)
    }

    // Time.

    pub fn now(&self) -> i64 {
        self.now.get()
    }

    /// Moves the clock.
    pub fn go_to(&self, moment: i64) {
        let beside = self.clock.with_extension("new");
        std::fs::write(&beside, format!("{moment}\n")).expect("written");
        std::fs::rename(beside, &self.clock).expect("renamed");
        self.now.set(moment);
    }

    pub fn wait(&self, ms: i64) {
        self.go_to(self.now() + ms);
    }

    /// Waits until the runner has been through everything that is due now.
    ///
    /// A first recording that is due at once is gone in a round that began after the clock was moved; a second one, made
    /// then, in a round that began after the first round was over.
    pub fn noticed(&self) {
        for _ in 0..2 {
            let canary = self.record(&Take::call(CANARY, "bird"));
            self.until("the runner has looked", || self.status(PROVIDER, &["show", &canary.id]) == ERASED);
        }
    }

    /// Moves the clock, and waits until the runner has looked.
    pub fn noticed_at(&self, moment: i64) {
        self.go_to(moment);
        self.noticed();
    }

    /// Waits for a condition.
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(
                began.elapsed() < wire::WITHIN,
                "never: {what}; the state is {}; the log says: {}",
                String::from_utf8_lossy(&self.run(OPERATOR, &["status"]).stdout),
                self.gateway().log()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    // Who asks.

    /// Runs a command as somebody.
    pub fn run(&self, who: &str, arguments: &[&str]) -> Output {
        self.command(who, arguments).output().expect("the process starts")
    }

    pub fn command(&self, who: &str, arguments: &[&str]) -> Command {
        let mut command = self.gateway().command(arguments);
        command.env("QUIETUS_PROFILE", self.gateway().client_file(&format!("{who}.toml")));
        command
    }

    /// The exit status.
    pub fn status(&self, who: &str, arguments: &[&str]) -> i32 {
        self.run(who, arguments).status.code().expect("it was not killed")
    }

    /// What a command says when it is refused, which it must be with this status.
    pub fn refused(&self, who: &str, arguments: &[&str], status: i32) -> String {
        let output = self.run(who, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{who}: {arguments:?}: {said}");
        said
    }

    /// What a command prints, which must succeed.
    pub fn ok(&self, who: &str, arguments: &[&str]) -> String {
        let output = self.run(who, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{who}: {arguments:?}: {:?}: {said}", output.status.code());
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    /// The same as JSON lines.
    pub fn json(&self, who: &str, arguments: &[&str]) -> Vec<Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        self.ok(who, &arguments).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Makes a profile for whoever has a token or a key.
    pub fn holder(&self, name: &str, token: &str) {
        let port = self.gateway().port;
        let text = format!("endpoint = \"https://localhost:{port}\"\nca = \"ca.pem\"\ntoken = \"{token}\"\n");
        std::fs::write(self.gateway().client_file(&format!("{name}.toml")), text).expect("a profile");
    }

    // What there is.

    pub fn tenant(&self, name: &str, policy: &str, more: &[&str]) {
        let create = ["tenant", "create", name, "--home", "eu-west-2", "--policy", policy];
        self.ok(PROVIDER, &[&create, more].concat());
    }

    /// Records as the customer's switch would: the call ends now.
    pub fn record(&self, take: &Take) -> Recorded {
        let (recorded, output) = self.attempt(take);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "recording: {:?}: {said}", output.status.code());
        let id = String::from_utf8(output.stdout).expect("text").trim_end().to_owned();
        Recorded { id, ..recorded }
    }

    /// The same where it may be refused.
    pub fn attempt(&self, take: &Take) -> (Recorded, Output) {
        let number = self.counter.replace(self.counter.get() + 1);
        let audio = wav(number);
        let mark = format!("{number}-{}", data_encoding::HEXLOWER.encode(&random::<8>()));
        let file = self.path(&format!("{number}.wav"));
        std::fs::write(&file, &audio).expect("written");
        let start = jiff::Timestamp::from_millisecond(self.now()).expect("a moment").to_string();
        let file = file.display().to_string();
        let fixed = [
            "record",
            "--tenant",
            take.tenant,
            "--subscriber",
            take.subscriber,
            "--kind",
            take.kind,
            "--call-id",
            &mark,
            "--start",
            &start,
        ];
        let output = self.run(PROVIDER, &[&fixed, take.more, &[&file]].concat());
        (Recorded { id: String::new(), audio, mark, at: self.now() }, output)
    }

    /// Whether somebody hears all of a recording; the other way is that it is gone.
    pub fn plays_to(&self, who: &str, recorded: &Recorded) -> bool {
        let heard = self.path("heard");
        let output = self.run(who, &["play", &recorded.id, "-o", &heard.display().to_string()]);
        match output.status.code() {
            Some(DONE) => {
                assert!(
                    std::fs::read(&heard).expect("heard") == recorded.audio,
                    "{} is not what was sent",
                    recorded.id
                );
                true
            }
            Some(ERASED | UNKNOWN) => false,
            other => panic!("neither plays nor is gone: {other:?}: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    pub fn plays(&self, recorded: &Recorded) -> bool {
        self.plays_to(CUSTOMER, recorded)
    }

    /// The facts, while they are there.
    pub fn facts(&self, recorded: &Recorded) -> Option<Value> {
        let output = self.run(CUSTOMER, &["show", &recorded.id, "--json"]);
        match output.status.code() {
            Some(DONE) => {
                let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
                let facts = Some(shown["facts"].clone()).filter(|facts| !facts.is_null());
                assert!(facts.iter().all(|facts| facts["call_id"] == recorded.mark));
                facts
            }
            Some(ERASED | UNKNOWN) => None,
            other => panic!("neither shown nor gone: {other:?}: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// What the gateway itself says is left.
    pub fn left(&self, recorded: &Recorded) -> Left {
        match (self.plays(recorded), self.facts(recorded).is_some()) {
            (true, true) => Left::Both,
            (true, false) => Left::Audio,
            (false, true) => Left::Facts,
            (false, false) => Left::Nothing,
        }
    }

    /// When a part goes, and by when it must be gone, as the policy explains it.
    pub fn explained(&self, recorded: &Recorded, part: &str) -> (Option<i64>, Option<i64>) {
        let explained = self.json(CUSTOMER, &["policy", "explain", &recorded.id]).remove(0);
        let parts = explained["parts"].as_array().expect("parts");
        let part = parts.iter().find(|it| it["part"] == part).expect("the part");
        let moment = |name: &str| {
            part[name].as_str().map(|text| text.parse::<jiff::Timestamp>().expect("a moment").as_millisecond())
        };
        (moment("goes"), moment("not_after"))
    }

    /// Sees a recording through to the moment by which something of it must be gone: nothing goes a minute early, and it
    /// is gone a margin before the promise.
    pub fn goes_by(&self, recorded: &Recorded, promise: i64, before: Left, after: Left) {
        let aim = promise - MARGIN;
        for part in ["audio", "facts"] {
            let goes = matches!(
                (part, before, after),
                ("audio", Left::Both | Left::Audio, Left::Facts | Left::Nothing)
                    | ("facts", Left::Both | Left::Facts, Left::Audio | Left::Nothing)
            );
            if goes {
                assert_eq!(self.explained(recorded, part), (Some(aim), Some(promise)), "{part}");
            }
        }
        self.noticed_at(aim - MINUTE);
        assert_eq!(self.left(recorded), before, "early");
        self.go_to(aim);
        self.until("it is gone in time", || self.left(recorded) == after);
        self.nothing_is_late();
    }

    /// What the gateway counts; also while something is overdue.
    pub fn state(&self) -> Value {
        let output = self.run(OPERATOR, &["status", "--json"]);
        assert!(matches!(output.status.code(), Some(DONE | OVERDUE)), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    pub fn nothing_is_late(&self) {
        let status = self.state();
        assert_eq!((&status["expired_late"], &status["retention_late_recordings"]), (&0.into(), &0.into()));
    }

    /// Waits until nothing erased has ciphertext left, and every copy has been made.
    pub fn settled(&self) {
        self.until("it is swept and copied", || {
            let status = self.state();
            status["sweeps_pending"] == 0 && status["replications_pending"] == 0
        });
    }

    /// Names of a region's objects.
    pub fn objects(&self, region: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.data().join("s3").join(region)).expect("a bucket");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with('.')).collect()
    }

    /// What Prometheus sees.
    pub fn metrics(&self) -> String {
        let mut link = self.link(OPERATOR);
        self.block_on(async move {
            let request =
                Request::get("https://localhost/metrics").body(tonic::body::Body::empty()).expect("a request");
            let answer = link.ready().await.expect("ready").call(request).await.expect("an answer");
            assert_eq!(answer.status(), 200);
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            String::from_utf8(body.to_vec()).expect("text")
        })
    }

    // The thief and the attacker.

    /// Copies everything, the slot too.
    pub fn steal(&self) -> Theft {
        let number = self.thefts.borrow().len();
        let theft = Theft { data: self.path(&format!("theft-{number}")), slot: self.path(&format!("slot-{number}")) };
        for part in ["keys", "journal", "s3"] {
            copy_tree(&self.data().join(part), &theft.data.join(part));
        }
        copy_tree(&self.data().join("slot"), &theft.slot);
        self.thefts.borrow_mut().push(theft.data.clone());
        theft
    }

    /// What can be read of everything there is and was, with the slot as it is now and those that are put beside it.
    pub fn attack(&self, beside: &[&Theft], find: &[&str]) -> Findings {
        let thefts = self.thefts.borrow();
        let folders = || [self.data()].into_iter().chain(thefts.iter().cloned());
        let search = Options {
            keys: folders().flat_map(|folder| [folder.join("keys"), folder.join("journal")]).collect(),
            slots: [self.data().join("slot")]
                .into_iter()
                .chain(beside.iter().map(|theft| theft.slot.clone()))
                .collect(),
            objects: folders().map(|folder| folder.join("s3")).collect(),
            find: find.iter().map(|text| (*text).to_owned()).collect(),
            exhaustive: false,
        };
        investigate(&search).expect("it ran")
    }

    /// Judges by the bytes. What is gone opens with the slot of `before`, which was copied while it was there.
    pub fn assert_left(&self, before: &Theft, expected: &[(&Recorded, Left)]) {
        let marks: Vec<&str> = expected.iter().map(|(recorded, _)| recorded.mark.as_str()).collect();
        let now = self.attack(&[], &marks);
        let then = self.attack(&[before], &marks);
        for (recorded, left) in expected {
            assert_eq!(readable(&now, recorded), *left, "{}: read with the slot of now", recorded.id);
            assert_eq!(readable(&then, recorded), Left::Both, "{}: the control, with the slot of before", recorded.id);
        }
    }

    /// The same of words: of `gone` none is found and of `kept` each, and both with the slot of before.
    pub fn assert_words(&self, before: &Theft, gone: &[&str], kept: &[&str]) {
        let all = [gone, kept].concat();
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(found(&self.attack(&[], &all)), set(kept), "with the slot of now");
        assert_eq!(found(&self.attack(&[before], &all)), set(&all), "the control, with the slot of before");
    }
}

impl Drop for Stage {
    /// Where a test fails, its folder stays to be looked at.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
        }
    }
}

/// An administrator of the customer's, by token.
fn introduce(data: &Path, name: &str, tenants: &[&str]) {
    let token = data_encoding::BASE64URL_NOPAD.encode(&random::<32>());
    let hash = data_encoding::HEXLOWER.encode(&token_hash(&token));
    std::fs::write(data.join("client").join(format!("{name}.token")), &token).expect("written");
    let path = data.join("tls/identities.toml");
    let mut text = std::fs::read_to_string(&path).expect("identities");
    write!(text, "\n[[identity]]\nname = \"admin/{name}\"\ntenants = {tenants:?}\ntoken_sha256 = \"{hash}\"\n")
        .expect("written");
    std::fs::write(path, text).expect("written");
}

/// What an attacker reads of a recording.
fn readable(findings: &Findings, recorded: &Recorded) -> Left {
    let objects = &findings.objects.0;
    let audio = objects.iter().any(|object| object.recording().is_some_and(|id| id.to_string() == recorded.id));
    match (audio, found(findings).contains(&recorded.mark)) {
        (true, true) => Left::Both,
        (true, false) => Left::Audio,
        (false, true) => Left::Facts,
        (false, false) => Left::Nothing,
    }
}

/// Which of the strings that were looked for were found.
pub fn found(findings: &Findings) -> BTreeSet<String> {
    let results = findings.needles.results();
    results.filter(|(_, places)| !places.is_empty()).map(|(text, _)| text.to_owned()).collect()
}

/// Real speech where there is some, a prompt of a second or two; else noise in a WAV file.
fn wav(number: u64) -> Vec<u8> {
    let mut prompts: Vec<PathBuf> = std::fs::read_dir(PROMPTS)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "wav"))
        .filter(|path| path.metadata().is_ok_and(|data| (4_000..40_000).contains(&data.len())))
        .collect();
    prompts.sort();
    if !prompts.is_empty() {
        return std::fs::read(&prompts[number as usize % prompts.len()]).expect("reads");
    }
    let samples = sound(number, 8_000);
    let header = [
        b"RIFF".as_slice(),
        &8_036_u32.to_le_bytes(),
        b"WAVEfmt ",
        &16_u32.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &8_000_u32.to_le_bytes(),
        &16_000_u32.to_le_bytes(),
        &2_u16.to_le_bytes(),
        &16_u16.to_le_bytes(),
        b"data",
        &8_000_u32.to_le_bytes(),
    ];
    [header.concat(), samples].concat()
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("reads") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        // What the running process removed while it was copied.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            copy_tree(&entry.path(), &target);
        } else if let Err(error) = std::fs::copy(entry.path(), target) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

/// A call over the wire, as a switch makes it: fed by hand.
pub fn open(stage: &Stage, tenant: &str, subscriber: &str, mode: v1::Mode) -> v1::Open {
    v1::Open { subscriber: subscriber.into(), start_ms: stage.now(), ..wire::open(tenant, mode) }
}
