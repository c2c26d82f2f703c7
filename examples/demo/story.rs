//! The demo, step by step. A step tells what it did in plain lines and fails at the first thing that is not so.

use crate::{
    copies::{self, Amount},
    findings::{Findings, Loot},
    gateway::{Client, ERASED, FAILED, Gateway, NOT_PERMITTED, UNKNOWN},
    recordings::{Library, Recorder, Recording, Subscriber, TENANT},
    speech,
};
use anyhow::{Context as _, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How many subscribers.
const SUBSCRIBERS: usize = 6;
/// The one that is erased.
const ERASED_SUBSCRIBER: usize = 2;
/// One who stays, and loses a single recording.
const OTHER_SUBSCRIBER: usize = 4;
/// Of whose call that single recording is; nobody else has it.
const SINGLE: usize = 9;
/// Calls of each subscriber that come live; the others are spooled files.
const LIVE: usize = 12;
/// Bytes of the receipt that are altered, one at a time.
const ALTERED: usize = 12;
/// The two long calls.
const LONG_SECONDS: u64 = 1200;
/// A file in the working folder that says that it is ours to clear.
const MARK: &str = "made-by-make-demo";

struct Stage {
    folder: PathBuf,
    data: PathBuf,
    log: PathBuf,
    people: Vec<Subscriber>,
    single: Subscriber,
    started: Instant,
}

/// Tells it all.
pub fn tell(folder: &Path) -> anyhow::Result<()> {
    let stage = Stage::set(folder)?;
    step(1, "A gateway starts");
    let gateway = Gateway::start(&stage.data, &stage.log)?;
    let client = gateway.client().clone();
    client.run(&["tenant", "create", TENANT, "--home", "eu-west-2", "--residency", "both"])?;
    say("`quietus dev`: TLS 1.3, and an S3 server of its own for London (eu-west-2) and Dublin (eu-west-1).");
    say(&format!(
        "Tenant `{TENANT}` lives in London and keeps a copy in Dublin. Everything lies in {}.",
        folder.display()
    ));

    let (mut library, calls) = stage.record(&client)?;
    stage.listen(&client, &calls.kept, &library)?;
    stage.permit(&client, &calls.kept)?;
    stage.copy(&client, "second")?;
    stage.erase(&client, &mut library, calls)?;
    gateway.stop()?;
    stage.verify(&client)?;
    stage.attack(&library)?;
    stage.start_again(&library)?;

    println!("\nEverything was as it should be, in {}.", seconds(stage.started.elapsed()));
    println!("The folders are still there to be looked at: {}. `rm -r` it when you are done.", folder.display());
    Ok(())
}

/// The recordings that the story comes back to.
struct Calls {
    /// Long, and stays.
    kept: Recording,
    /// Goes alone.
    single: Recording,
    /// Goes with its subscriber.
    subscriber: Vec<Recording>,
}

impl Stage {
    fn set(folder: &Path) -> anyhow::Result<Self> {
        if folder.exists() {
            // Somebody's own folder is not cleared because its name was typed here.
            ensure!(folder.join(MARK).exists(), "{} exists and was not made by the demo", folder.display());
            std::fs::remove_dir_all(folder)?;
        }
        let names = folder.join("names");
        std::fs::create_dir_all(&names)?;
        std::fs::write(folder.join(MARK), "")?;
        let people = (0..SUBSCRIBERS).map(|index| Subscriber::new(index, &names)).collect::<Result<Vec<_>, _>>()?;
        let single = Subscriber::new(SINGLE, &names)?.called_from(&people[OTHER_SUBSCRIBER]);
        Ok(Self {
            folder: folder.to_owned(),
            data: folder.join("gateway"),
            log: folder.join("gateway.log"),
            people,
            single,
            started: Instant::now(),
        })
    }

    fn record(&self, client: &Client) -> anyhow::Result<(Library, Calls)> {
        step(2, "Calls come in");
        let started = Instant::now();
        let prompts = speech::prompts()?;
        let long = self.folder.join("long-call.wav");
        let long_bytes = speech::join(&prompts, LONG_SECONDS, &long)?.len() as u64;
        // The last one is the single recording that will go.
        let (single, prompts) = prompts.split_last().context("no speech")?;

        let mut bytes = 2 * long_bytes;
        for path in prompts.iter().chain([single]) {
            bytes += std::fs::metadata(path)?.len();
        }
        let bar = bar(bytes);
        let stored = |recording: &Recording| bar.inc(recording.bytes);
        let mut library = Library::default();
        let mut going = Vec::new();
        let mut counts = [0; 2];
        for (index, person) in self.people.iter().enumerate() {
            let own: Vec<PathBuf> = prompts.iter().skip(index).step_by(SUBSCRIBERS).cloned().collect();
            let (spooled, live) = own.split_at(own.len() - LIVE);
            for (is_live, files) in [(false, spooled), (true, live)] {
                counts[usize::from(is_live)] += files.len();
                let recordings = Recorder::start(client, person, is_live, files)?.finish(stored)?;
                if index == ERASED_SUBSCRIBER { &mut going } else { &mut library.kept }.extend(recordings);
            }
        }
        let one = |whose, file: &Path| -> anyhow::Result<Recording> {
            let recordings = Recorder::start(client, whose, false, &[file.to_owned()])?.finish(stored)?;
            recordings.into_iter().next().context("no recording")
        };
        let kept = one(&self.people[0], &long)?;
        let single = one(&self.single, single)?;

        // While a long call of the subscriber who will be erased is in the journal, somebody copies the disk.
        let mut call = Recorder::start(client, &self.people[ERASED_SUBSCRIBER], true, std::slice::from_ref(&long))?;
        client.wait_for("journal_bytes", |bytes| bytes > 0)?;
        let early = self.take("first")?;
        // A machine may be too fast for it.
        let when = if call.is_running()? { "While a live call was running" } else { "Right after a live call" };
        going.extend(call.finish(stored)?);
        bar.finish_and_clear();
        client.wait_for("replications_pending", |pending| pending == 0)?;

        let count = library.kept.len() + going.len() + 2;
        let took = started.elapsed();
        say(&format!(
            "{count} recordings of {SUBSCRIBERS} subscribers: {} spooled files, {} live calls; {} of speech, {}, in {}.",
            counts[0] + 2,
            counts[1] + 1,
            length(bytes.saturating_sub(speech::HEADER * count as u64) / speech::BYTES_PER_SECOND),
            mib(bytes),
            seconds(took),
        ));
        say("Each lies sealed in London and, copied as sealed bytes, in Dublin.");
        say(&format!("{when}, a thief copied the disk for the first time: {}.", amount(early)));
        let subscriber = going;
        Ok((library, Calls { kept, single, subscriber }))
    }

    fn listen(&self, client: &Client, call: &Recording, library: &Library) -> anyhow::Result<()> {
        step(3, "Somebody listens");
        let sent = std::fs::read(&call.file)?;
        let heard = self.play(client, &call.id, &[])?;
        ensure!(heard == sent, "what was played is not what was recorded");
        say(&format!(
            "A call of {} was played back: bit for bit the {} that were sent.",
            length(LONG_SECONDS),
            mib(call.bytes)
        ));

        let (from, to) = (600, 605);
        let started = Instant::now();
        let heard = self.play(client, &call.id, &["--from", &from.to_string(), "--to", &to.to_string()])?;
        let at = |second: u64| (speech::HEADER + second * speech::BYTES_PER_SECOND) as usize;
        let wanted = &sent[at(from)..at(to)];
        ensure!(heard.ends_with(wanted) && heard.len() < wanted.len() + 256, "seconds {from} to {to} are others");
        say(&format!(
            "Its seconds {from} to {to} alone came in {}, as a WAV file of their own with the same samples.",
            seconds(started.elapsed())
        ));
        let other = library.kept.iter().step_by(40).collect::<Vec<_>>();
        for recording in &other {
            let same = self.play(client, &recording.id, &[])? == std::fs::read(&recording.file)?;
            ensure!(same, "what was played is not what was recorded");
        }
        say(&format!("{} other recordings, one of every 40, are the same bit for bit too.", other.len()));
        Ok(())
    }

    /// The provider's staff hear what the customer lets them hear, and the log tells it.
    fn permit(&self, client: &Client, call: &Recording) -> anyhow::Result<()> {
        step(4, "The provider's staff ask before they listen");
        let [staff, customer, auditor] = ["staff", "customer", "auditor"].map(|who| client.as_who(who));
        let id = call.id.as_str();
        let file = self.folder.join("heard-by-staff.wav");
        let heard = file.display().to_string();
        let play = ["play", id, "-o", &heard, "--from", "600", "--to", "605"];
        let refused = |when: &str| -> anyhow::Result<()> {
            let status = staff.ask(&play)?.status;
            ensure!(status == NOT_PERMITTED, "{when} staff's `quietus play` ended with {status}");
            Ok(())
        };
        refused("without a permission")?;
        say(&format!("Staff try to play the long call: status {NOT_PERMITTED}, not permitted."));

        let words = ["--purpose", "crackling line", "--ticket", "T-4711", "--for", "2h"];
        let asked = staff.run(&[&["permission", "request", "--recording", id], &words[..]].concat())?;
        let permission = asked.one()["id"].as_str().context("a request has an id")?.to_owned();
        let inbox = customer.run(&["inbox", "list", TENANT])?;
        ensure!(inbox.lines.iter().any(|item| item["id"] == permission), "the request is not in the customer's inbox");
        let status = staff.ask(&["permission", "grant", &permission])?.status;
        ensure!(status == NOT_PERMITTED, "staff who grant themselves a permission end with {status}");
        say(
            "They ask, for two hours and a ticket. The customer finds it in the inbox; staff cannot grant it themselves.",
        );

        customer.run(&["permission", "grant", &permission, "--for", "30m"])?;
        staff.run(&play)?;
        let sent = std::fs::read(&call.file)?;
        let at = |second: u64| (speech::HEADER + second * speech::BYTES_PER_SECOND) as usize;
        ensure!(std::fs::read(&file)?.ends_with(&sent[at(600)..at(605)]), "staff heard something else");
        say("The customer grants half an hour, and staff hear what was recorded.");
        let revoking = customer.run(&["permission", "revoke", &permission])?.took;
        refused("after the revocation")?;
        say(&format!(
            "The customer takes it back, answered after {}: status {NOT_PERMITTED} again.",
            seconds(revoking)
        ));

        let told = auditor.run(&["audit", "tail", "--recording", id])?;
        let mut told: Vec<_> = told.lines.iter().skip_while(|entry| entry["outcome"] != "refused").collect();
        told.truncate(5);
        say("What an auditor reads of it in the log (`quietus audit tail`):");
        let wanted = [
            ("staff/dev", "play", "refused"),
            ("staff/dev", "permission.request", "done"),
            ("admin/customer", "permission.grant", "done"),
            ("staff/dev", "play", "done"),
            ("admin/customer", "permission.revoke", "done"),
        ];
        ensure!(told.len() == wanted.len(), "the log does not tell all of it");
        for (entry, (actor, action, outcome)) in told.iter().zip(wanted) {
            let is = |field: &str, value: &str| entry[field] == value;
            let named = is("actor", actor) && is("action", action) && is("outcome", outcome);
            // The one that was refused rests on nothing.
            ensure!(named && (outcome == "refused" || is("reference", &permission)), "the log tells it otherwise");
            let time = entry["time"].as_str().context("an entry has a time")?;
            println!("      {time:<25} {actor:<15} {action:<18} {outcome}");
        }
        Ok(())
    }

    fn play(&self, client: &Client, id: &str, range: &[&str]) -> anyhow::Result<Vec<u8>> {
        let file = self.folder.join("heard.wav");
        let path = file.display().to_string();
        client.run(&[&["play", id, "-o", &path], range].concat())?;
        Ok(std::fs::read(&file)?)
    }

    fn copy(&self, client: &Client, name: &str) -> anyhow::Result<()> {
        step(5, "Everything is copied, while the gateway runs");
        client.wait_for("recordings_open", |open| open == 0)?;
        let taken = self.take(name)?;
        say(&format!("Key store, journal and all objects of both regions: {}.", amount(taken)));
        say("For the control in step 9 only, the root slot too: the one secret that a thief must not get in time.");
        Ok(())
    }

    /// Copies everything there is.
    fn take(&self, name: &str) -> anyhow::Result<Amount> {
        let mut amount = Amount::default();
        let to = self.folder.join("copies").join(name);
        for part in ["keys", "journal", "s3"] {
            amount += copies::copy(&self.data.join(part), &to.join(part))?;
        }
        copies::copy(&self.data.join("slot"), &to.join("slot"))?;
        Ok(amount)
    }

    fn erase(&self, client: &Client, library: &mut Library, calls: Calls) -> anyhow::Result<()> {
        step(6, "One subscriber and one single recording are erased");
        let Calls { kept, single, subscriber } = calls;
        library.kept.push(kept);
        let before: Amount = self.objects()?;
        let idle = client.run(&["status"])?.took;
        let whose = &self.people[ERASED_SUBSCRIBER];
        let receipt = self.receipt().display().to_string();
        let answer = client.run(&["erase", "subscriber", &whose.name_argument(), "--receipt", &receipt])?;
        ensure!(answer.one()["outcome"] == "erased", "the gateway does not say that the subscriber is erased");
        say(&format!("The subscriber with {} recordings: answered after {}.", subscriber.len(), seconds(answer.took)));
        let answer = client.run(&["erase", "recording", &single.id])?;
        ensure!(answer.one()["outcome"] == "erased", "the gateway does not say that the recording is erased");
        say(&format!("One recording of somebody else: answered after {}.", seconds(answer.took)));
        say(&format!(
            "(Of both, {} is what any command takes: starting, TLS, certificates. `quietus status` was measured.)",
            seconds(idle)
        ));
        library.erased.extend(subscriber);
        library.erased.push(single);
        let swept = client.wait_for("sweeps_pending", |pending| pending == 0)?;
        let after = self.objects()?;
        say(&format!(
            "Their ciphertext was gone from both regions {} later: {} objects, {}.",
            seconds(swept),
            before.files.saturating_sub(after.files),
            mib(before.bytes.saturating_sub(after.bytes)),
        ));
        self.ask_for_the_erased(client, library)
    }

    fn receipt(&self) -> PathBuf {
        self.folder.join("receipt.txt")
    }

    /// The receipt of the subscriber's erasure, by the public key alone.
    fn verify(&self, client: &Client) -> anyhow::Result<()> {
        step(7, "The receipt is verified, with the gateway stopped");
        let (file, key) = (self.receipt(), client.verifier_key().display().to_string());
        let path = file.display().to_string();
        let (opening, scope) = (format!("{path}.opening"), self.people[ERASED_SUBSCRIBER].receipt_scope()?);
        let verify = ["receipt", "verify", &path, "--key", &key];
        let held = client.run(&verify)?;
        let said = held.one();
        ensure!(said["state"] == "destroyed" && said["about"] == "subscriber", "the receipt states something else");
        say(&format!(
            "It holds: a subscriber, destroyed with root generation {}; entry {} of the log of {}.",
            said["generation_from"], said["log_index"], said["log_size"]
        ));
        let opened = client.run(&[&verify[..], &["--opening", &opening, "--scope", &scope]].concat())?;
        ensure!(opened.one()["scope_opened"] == true, "the receipt is not about this subscriber");
        let another = self.people[OTHER_SUBSCRIBER].receipt_scope()?;
        let other = client.ask(&[&verify[..], &["--opening", &opening, "--scope", &another]].concat())?;
        ensure!(other.status == FAILED, "the receipt is taken for another subscriber's");
        say("With the 32 bytes that the client drew it shows whose erasure it is, and nobody else's.");

        let good = std::fs::read(&file)?;
        let altered = self.folder.join("altered-receipt.txt");
        let altered_path = altered.display().to_string();
        let places: Vec<usize> = (0..good.len()).step_by(good.len().div_ceil(ALTERED)).collect();
        for &place in &places {
            let mut bytes = good.clone();
            bytes[place] ^= 1;
            std::fs::write(&altered, bytes)?;
            let status = client.ask(&["receipt", "verify", &altered_path, "--key", &key])?.status;
            ensure!(status == FAILED, "with byte {place} altered it ended with {status}");
        }
        say(&format!("With one byte altered it fails, at each of the {} places that were tried.", places.len()));
        Ok(())
    }

    /// What the gateway says of them.
    fn ask_for_the_erased(&self, client: &Client, library: &Library) -> anyhow::Result<()> {
        let file = self.folder.join("heard.wav").display().to_string();
        for recording in &library.erased {
            let answer = client.ask(&["play", &recording.id, "-o", &file])?;
            ensure!(answer.status == ERASED, "play of an erased recording ended with {}", answer.status);
        }
        let first = library.erased.first().context("nothing was erased")?;
        // Two characters exchanged: well formed, and its check no longer fits.
        let mut invented = first.id.clone().into_bytes();
        let other = (1..20).find(|&at| invented[at] != invented[0]).context("an id of one character")?;
        invented.swap(0, other);
        let answer = client.ask(&["show", &String::from_utf8(invented)?])?;
        ensure!(answer.status == UNKNOWN, "an invented id ended with {}", answer.status);
        let number = self.people[ERASED_SUBSCRIBER].number_argument();
        let answer = client.ask(&["list", "--tenant", TENANT, "--subscriber", &number])?;
        ensure!(answer.status == UNKNOWN, "list of an erased subscriber ended with {}", answer.status);
        say(&format!(
            "`quietus play` of any of their {} ids now ends with status {ERASED}: erased.",
            library.erased.len()
        ));
        say(&format!("An id that was never given out, and the subscriber's number: status {UNKNOWN}, unknown."));
        Ok(())
    }

    fn objects(&self) -> anyhow::Result<Amount> {
        let mut amount = Amount::default();
        for path in copies::files(&self.data.join("s3"))? {
            // What goes meanwhile is gone.
            if let Ok(metadata) = std::fs::metadata(&path) {
                amount += Amount { files: 1, bytes: metadata.len() };
            }
        }
        Ok(amount)
    }

    fn attack(&self, library: &Library) -> anyhow::Result<()> {
        step(8, "The attack");
        say("The gateway has been stopped. What follows is the work of somebody who has files, and nothing else.");
        let strings = self.folder.join("names/looked-for");
        let whose = &self.people[ERASED_SUBSCRIBER];
        let gone = [&whose.number, &whose.party, &whose.call_id, &self.single.party, &self.single.call_id];
        let here: Vec<&String> = (self.people.iter().enumerate())
            .filter(|(index, _)| *index != ERASED_SUBSCRIBER)
            .flat_map(|(_, person)| [&person.number, &person.party, &person.call_id])
            .collect();
        let lines: Vec<&str> = gone.iter().chain(&here).map(|string| string.as_str()).collect();
        std::fs::write(&strings, lines.join("\n"))?;

        let copies = ["first", "second"].map(|name| self.folder.join("copies").join(name));
        let places = [&copies[0], &copies[1], &self.data];
        let keys: Vec<_> = places.iter().flat_map(|place| [place.join("keys"), place.join("journal")]).collect();
        let objects: Vec<_> = places.iter().map(|place| place.join("s3")).collect();
        let present = self.data.join("slot");
        let with = |slots: &[PathBuf]| Findings::of(&Loot { keys: &keys, slots, objects: &objects, strings: &strings });
        let attack = with(std::slice::from_ref(&present))?;
        let control = with(&[present.clone(), copies[1].join("slot")])?;

        say("quietus-forensics carves the raw bytes of all three key stores and journals (both copies and the");
        say("present one), takes the present root slot, and tries every object that ever was in either region.");
        let [kept, erased] = [&library.kept, &library.erased].map(|part| Library::ids(part));
        println!();
        table("", ["readable", "unreadable"]);
        let mut counted = [[0_u64; 2]; 2];
        for (object, recording) in &control.readable {
            counted[usize::from(erased.contains(recording))][usize::from(attack.unreadable.contains(object))] += 1;
        }
        table("objects of what stays", counted[0].map(|count| count.to_string()));
        table("objects of what was erased", counted[1].map(|count| count.to_string()));
        let frames = attack.count("journal frame");
        table("journal frames", frames.map(|count| count.to_string()));
        table("facts, every version of them", attack.count("facts").map(|count| count.to_string()));
        println!();
        judge(&attack, &kept, &erased)?;
        ensure!(
            counted[0][1] == 0 && counted[1][0] == 0 && attack.unreadable.len() as u64 == counted[1][1],
            "an object that should open does not, or the other way round"
        );
        say(&format!(
            "No object of the {} erased recordings opens, and all of the {} others do.",
            erased.len(),
            kept.len()
        ));
        ensure!(
            frames[1] > 0,
            "the copies hold no journal frame of what was erased, so that nothing was shown of them"
        );

        for string in gone {
            ensure!(attack.places(string)?.is_empty(), "a name that was erased is still found");
        }
        for string in &here {
            let places = attack.places(string)?;
            ensure!(!places.is_empty(), "a name that was not erased is not found");
            ensure!(!places.iter().any(|place| place.starts_with("raw")), "a name stands unsealed in a file");
        }
        say("The erased numbers, parties and call ids are in nothing that opens; those of the others are.");
        let log = std::fs::read_to_string(&self.log)?;
        ensure!(!lines.iter().any(|string| log.contains(string)), "a name stands in the gateway's log");
        say("None of them stands unsealed in any file, nor in the gateway's log.");
        say(&format!("That took {}.", seconds(attack.took)));

        step(9, "The control: could that test fail at all?");
        let all: BTreeSet<String> = kept.union(&erased).cloned().collect();
        judge(&control, &all, &BTreeSet::new())?;
        for string in gone.iter().chain(&here) {
            ensure!(!control.places(string)?.is_empty(), "with the old slot a name is not found");
        }
        say(&format!(
            "The same once more with the root slot of before: all {} recordings open, the erased ones and their",
            all.len()
        ));
        say("names too. The 32 bytes that the erasures destroyed were all that stood in between.");
        Ok(())
    }

    fn start_again(&self, library: &Library) -> anyhow::Result<()> {
        step(10, "The gateway starts again on the same folder");
        let gateway = Gateway::start(&self.data, &self.log)?;
        let client = gateway.client();
        let listed = client.run(&["list", "--tenant", TENANT])?;
        let found: BTreeSet<String> =
            listed.lines.iter().filter_map(|line| line["id"].as_str()).map(str::to_owned).collect();
        ensure!(found == Library::ids(&library.kept), "the list is not what was kept");
        let call = library.kept.last().context("nothing was kept")?;
        ensure!(
            self.play(client, &call.id, &[])? == std::fs::read(&call.file)?,
            "what is played is not what was recorded"
        );
        self.ask_again(client, library)?;
        gateway.stop()?;
        say(&format!("It lists exactly the {} recordings that stay, plays the long call bit for bit,", found.len()));
        say("and what was erased is still erased.");
        Ok(())
    }

    fn ask_again(&self, client: &Client, library: &Library) -> anyhow::Result<()> {
        for recording in [library.erased.first(), library.erased.last()].into_iter().flatten() {
            let status = client.ask(&["show", &recording.id])?.status;
            ensure!(status == ERASED, "after a restart an erased recording ended with {status}");
        }
        Ok(())
    }
}

/// Whether exactly these recordings open: all objects of each, and nothing whatever of the others.
fn judge(findings: &Findings, open: &BTreeSet<String>, shut: &BTreeSet<String>) -> anyhow::Result<()> {
    let heard: BTreeSet<String> = findings.readable.values().cloned().collect();
    if let Some(recording) = findings.recordings.intersection(shut).next() {
        bail!("recording {recording} was erased, and something of it opens");
    }
    let missing = open.difference(&heard).count();
    ensure!(missing == 0, "{missing} recordings that were not erased do not open");
    let strange = heard.difference(open).count();
    ensure!(strange == 0, "{strange} recordings open that nobody made");
    ensure!(!shut.is_empty() || findings.unreadable.is_empty(), "{} objects do not open", findings.unreadable.len());
    Ok(())
}

fn step(number: u32, title: &str) {
    println!("\n{number}. {title}");
}

fn say(line: &str) {
    println!("   {line}");
}

fn table(name: &str, cells: [impl std::fmt::Display; 2]) {
    println!("   {name:<30}{:>10}{:>13}", cells[0], cells[1]);
}

fn bar(bytes: u64) -> ProgressBar {
    // It shows itself on a terminal only.
    let bar = ProgressBar::new(bytes);
    match ProgressStyle::with_template("   {bar:40} {bytes} of {total_bytes} stored, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        short if short < 1.0 => format!("{:.0} ms", short * 1e3),
        long => format!("{long:.1} s"),
    }
}

fn length(seconds: u64) -> String {
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn amount(amount: Amount) -> String {
    format!("{} files, {}", amount.files, mib(amount.bytes))
}
