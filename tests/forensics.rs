//! The yardstick is itself measured: `quietus-forensics` must find planted old versions in a log and in a table file, must
//! find survivors readable, and must find nothing of what was erased once the root of before is gone.

#[path = "forensics/world.rs"]
mod world;

use proptest::prelude::*;
use quietus::{
    crypto::{
        envelope::{self, Kind},
        random,
        secret::Secret,
    },
    forensics::{Error, Findings, Options, investigate, report},
    segment::seal_slice,
};
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};
use world::{Recording, World, copy};

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn options(world: &World, slot: PathBuf) -> Options {
    Options {
        keys: vec![world.path("keys"), world.path("journal")],
        slots: vec![slot],
        objects: vec![world.path("objects")],
        find: Vec::new(),
        exhaustive: false,
    }
}

fn lines(findings: &Findings) -> Vec<Value> {
    let mut out = Vec::new();
    report::json_lines(findings, true, &mut out).expect("writes to memory");
    let lines: Vec<Value> =
        String::from_utf8(out).expect("text").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.last().expect("a summary")["object"], Value::Null);
    lines
}

fn states(lines: &[Value], key: &str, value: &str, id: Option<(&str, &[u8])>) -> Vec<String> {
    lines
        .iter()
        .filter(|line| line[key] == value && id.is_none_or(|(field, id)| line[field] == hex(id)))
        .map(|line| line["state"].as_str().expect("a state").to_owned())
        .collect()
}

/// Everything about a recording is in one state.
fn assert_recording(lines: &[Value], recording: &Recording, state: &str) {
    assert_eq!(states(lines, "object", &hex(&recording.object), None), [state]);
    let row = Some(("row", recording.row.as_slice()));
    for value in ["entry", "facts", "slice row", "journal frame"] {
        assert_eq!(states(lines, "value", value, row), [state], "{value} of {}", recording.party);
    }
}

/// A store with three recordings of which the first and the last are erased, and the root of before.
fn with_erasures(facts_size: usize, between: fn(&World)) -> (World, [Recording; 2], Secret) {
    let mut world = World::new(["alice", "bob", "carol"].map(|party| Recording::new(party, facts_size)).into());
    world.write();
    between(&world);
    let before = world.root.duplicate();
    let carol = world.erase(2);
    let alice = world.erase(0);
    (world, [alice, carol], before)
}

fn check_both_slots(world: &World, erased: &[Recording; 2], before: &Secret) {
    let bob = &world.recordings[0];
    let present = world.slot("present", &[&world.root]);
    let found = lines(&investigate(&options(world, present.clone())).expect("it ran"));
    assert_recording(&found, bob, "readable");
    assert_eq!(
        found.iter().find(|line| line["object"] == hex(&bob.object)).expect("its line")["recording"],
        world.recording_id(bob).to_string()
    );
    erased.iter().for_each(|recording| assert_recording(&found, recording, "unreadable"));
    let summary = found.last().expect("a summary");
    assert_eq!((&summary["readable"], &summary["unreadable"]), (&1.into(), &2.into()));

    // The control: with the root of before, what was erased opens again.
    let aside = world.slot("aside", &[before]);
    let mut both = options(world, present);
    both.slots.push(aside);
    let found = lines(&investigate(&both).expect("it ran"));
    [bob, &erased[0], &erased[1]].iter().for_each(|recording| assert_recording(&found, recording, "readable"));
}

#[test]
fn old_versions_in_the_log_are_found() {
    let (mut world, erased, before) = with_erasures(10, |_| ());
    world.close_without(".sst");
    check_both_slots(&world, &erased, &before);
}

#[test]
fn old_versions_in_table_files_are_found() {
    let (mut world, erased, before) = with_erasures(10, World::flush);
    world.flush();
    world.close_without(".log");
    check_both_slots(&world, &erased, &before);
}

#[test]
fn a_value_that_spans_blocks_of_the_log_is_put_together() {
    let (mut world, erased, before) = with_erasures(100_000, |_| ());
    world.close_without(".sst");
    check_both_slots(&world, &erased, &before);
}

#[test]
fn copies_from_different_times_are_one_pool() {
    // The old pages are in one folder only, the slot's present root opens the other: nothing may follow. Then the root of
    // before turns up in a slot, at no place where a slot would have it.
    let (mut world, erased, before) = with_erasures(10, |world| copy(&world.path("keys"), &world.path("old")));
    world.flush();
    world.close_without(".log");
    let mut options = options(&world, world.slot("present", &[&world.root]));
    options.keys.push(world.path("old"));
    let found = lines(&investigate(&options).expect("it ran"));
    erased.iter().for_each(|recording| assert_recording(&found, recording, "unreadable"));
    let leaked = [b"\x07some bytes ".as_slice(), before.expose(), b"more"].concat();
    fs::write(world.path("present").join("leak"), leaked).expect("written");
    let found = lines(&investigate(&options).expect("it ran"));
    erased.iter().for_each(|recording| assert_recording(&found, recording, "readable"));
}

#[test]
fn names_and_audio_are_searched_in_what_opens_and_nowhere_else() {
    let (mut world, ..) = with_erasures(10, |_| ());
    world.close_without(".sst");
    let mut options = options(&world, world.slot("present", &[&world.root]));
    options.find = ["bob", "alice", "carol", "Acme Ltd", "+441632960001", "spoken by bob"].map(str::to_owned).into();
    let findings = investigate(&options).expect("it ran");
    let found: Vec<bool> = findings.needles.results().map(|(_, places)| !places.is_empty()).collect();
    assert_eq!(found, [true, false, false, true, true, true]);
    let places = findings.needles.results().next().expect("bob").1;
    assert_eq!(places.iter().copied().collect::<Vec<_>>(), ["audio", "facts", "journal frame"]);
    fs::write(world.path("keys").join("LOG.old"), "the call of alice").expect("written");
    let findings = investigate(&options).expect("it ran");
    let places = findings.needles.results().nth(1).expect("alice").1;
    assert_eq!(places.iter().copied().collect::<Vec<_>>(), ["raw bytes of a file"]);
}

#[test]
fn an_object_is_tried_with_every_secret_and_recognised_in_every_copy() {
    let mut world = World::new(vec![Recording::new("bob", 10)]);
    world.write();
    world.close_without(".sst");
    let bob = &world.recordings[0];
    let elsewhere = world.path("elsewhere");
    fs::create_dir(&elsewhere).expect("a new folder");
    let write = |name: &str, bytes: &[u8]| fs::write(elsewhere.join(name), bytes).expect("written");
    // Under an id that nothing names.
    write(&hex(&random::<16>()), &seal_slice(&bob.audio, 1, true, b"x").object);
    // Under a name that is no id: a copy of an object that is there, cut short.
    write(".tmp.upload", &bob.sealed_object[..1000]);
    // Sealed under a secret that exists, not whole.
    let damaged = seal_slice(&bob.audio, 1, true, &[0; 100]).object;
    write(&hex(&random::<16>()), &damaged[..150]);
    write("no-object", b"QT");
    let mut options = options(&world, world.slot("present", &[&world.root]));
    options.objects.push(elsewhere);
    let findings = investigate(&options).expect("it ran");
    assert_eq!(findings.objects.0.len(), 3);
    assert_eq!(findings.objects.0.iter().filter(|object| object.readable()).count(), 2);
    assert_eq!(findings.objects.0.iter().filter(|object| object.damaged()).count(), 1);
    let bobs = findings.objects.0.iter().find(|object| object.name == hex(&bob.object)).expect("listed");
    assert_eq!(bobs.copies, 2);
}

#[test]
fn exhaustive_tries_what_ids_do_not_lead_to() {
    let mut world = World::new(vec![Recording::new("bob", 10)]);
    world.write();
    world.close_without(".sst");
    // Facts in a row that is not theirs.
    let stray = envelope::seal(Kind::Facts, &world.recordings[0].facts, &random::<17>(), b"stray facts");
    fs::write(world.path("keys").join("stray"), stray).expect("written");
    let mut options = options(&world, world.slot("present", &[&world.root]));
    options.find = vec!["stray facts".into()];
    let met = |options: &Options| {
        let findings = investigate(options).expect("it ran");
        findings.needles.results().any(|(_, places)| !places.is_empty())
    };
    assert!(!met(&options));
    options.exhaustive = true;
    assert!(met(&options));
}

#[test]
fn what_opens_and_is_not_understood_is_an_error() {
    let mut world = World::new(vec![Recording::new("bob", 10)]);
    world.write();
    world.close_without(".sst");
    let id = quietus::crypto::label::derive::<16>(world.root.expose(), quietus::crypto::label::Label::RootId, &[]);
    let clear = [[0; 24].as_slice(), id.as_slice()].concat();
    let strange = envelope::seal(Kind::Top, &world.root, &clear, b"\x09 a level that does not exist");
    fs::write(world.path("keys").join("strange"), strange).expect("written");
    let outcome = investigate(&options(&world, world.slot("present", &[&world.root])));
    assert!(matches!(outcome, Err(Error::NotUnderstood(1))));
}

#[test]
fn a_client_id_needs_its_client() {
    let mut world = World::new(vec![Recording::new("bob", 10)]);
    world.write();
    world.close_without(".sst");
    let sealed = |row: &[u8], name: &str| {
        let client = envelope::seal(Kind::Client, &Secret::random(), &[row, &random::<17>()].concat(), b"");
        fs::write(world.path("keys").join(name), client).expect("written");
    };
    sealed(&world.period.0, "of a period that is there");
    sealed(&random::<16>(), "of a period that is not");
    let found = lines(&investigate(&options(&world, world.slot("present", &[&world.root]))).expect("it ran"));
    let mut found = states(&found, "value", "client id", None);
    found.sort();
    assert_eq!(found, ["unreadable", "unreadable-without-client-id"]);
}

fn forensics(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quietus-forensics")).args(arguments).output().expect("the binary runs")
}

#[test]
fn the_command_line_is_that_of_the_interface_page() {
    let (mut world, erased, _) = with_erasures(10, |_| ());
    world.close_without(".sst");
    let paths = ["keys", "journal", "objects"].map(|name| world.path(name).to_string_lossy().into_owned());
    let slot = world.slot("present", &[&world.root]).to_string_lossy().into_owned();
    let common = ["--keys", &paths[0], &paths[1], "--slot", &slot, "--objects", &paths[2]];
    let names = world.path("names");
    fs::write(&names, "bob\nalice\n").expect("written");
    let find = format!("@{}", names.display());

    let output = forensics(&[&common[..], &["--json", "--find", &find]].concat());
    assert!(output.status.success() && output.stderr.is_empty());
    let lines: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3 + 2 + 1);
    assert_eq!(lines[3]["found"], true);
    assert_eq!(lines[4]["found"], false);
    assert_eq!(lines[5], serde_json::json!({"readable": 1, "unreadable": 2}));

    let output = forensics(&common);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("object"), "{said}");

    assert_eq!(forensics(&["--json"]).status.code(), Some(2));
    assert_eq!(forensics(&["--keys", "/nowhere/at/all"]).status.code(), Some(1));
    let id = world.recording_id(&erased[0]).to_string();
    assert_eq!(forensics(&[&common[..], &["--export-key", &id]].concat()).status.code(), Some(1));
}

#[test]
fn an_exported_key_opens_the_object_in_a_reader_that_is_not_ours() {
    let mut world = World::new(vec![Recording::new("bob", 10)]);
    world.write();
    world.close_without(".sst");
    let bob = &world.recordings[0];
    let paths = ["keys", "objects"].map(|name| world.path(name).to_string_lossy().into_owned());
    let slot = world.slot("present", &[&world.root]).to_string_lossy().into_owned();
    let common = ["--keys", &paths[0], "--slot", &slot, "--objects", &paths[1], "--export-key"];
    for wanted in [world.recording_id(bob).to_string(), hex(&bob.object)] {
        let output = forensics(&[&common[..], &[&wanted]].concat());
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), hex(bob.audio.expose()));
    }
    let output = forensics(&[&common[..], &[&hex(&bob.object), "--json"]].concat());
    let exported: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(exported["slices"][0]["object"], hex(&bob.object));
    let reader = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reader/slice_reader.py");
    let python = std::env::var_os("QUIETUS_PYTHON").unwrap_or_else(|| "python3".into());
    let audio = Command::new(python)
        .arg(reader)
        .args(["open", "--secret", exported["audio_secret"].as_str().expect("a secret")])
        .arg(world.path("objects").join(hex(&bob.object)))
        .output()
        .expect("python3 is there (`make deps` sees to it)");
    assert!(audio.stdout.starts_with(b"audio of bob"), "{}", String::from_utf8_lossy(&audio.stderr));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_damage_makes_it_panic_or_find_what_was_erased(
        keep in 0.0..1.0_f64,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
    ) {
        static WORLD: std::sync::LazyLock<(std::sync::Mutex<World>, [Recording; 2])> = std::sync::LazyLock::new(|| {
            let (mut world, erased, _) = with_erasures(50_000, |_| ());
            world.close_without(".sst");
            world.slot("present", &[&world.root]);
            (std::sync::Mutex::new(world), erased)
        });
        let world = WORLD.0.lock().expect("no other case panicked");
        let damaged = tempfile::tempdir().expect("a temporary folder");
        for folder in ["keys", "journal", "objects"] {
            copy(&world.path(folder), &damaged.path().join(folder));
            for entry in fs::read_dir(damaged.path().join(folder)).expect("a folder") {
                let path = entry.expect("an entry").path();
                let mut bytes = fs::read(&path).expect("a file");
                bytes.truncate((bytes.len() as f64 * keep) as usize);
                for (at, byte) in &flips {
                    if !bytes.is_empty() {
                        let at = at.index(bytes.len());
                        bytes[at] = *byte;
                    }
                }
                fs::write(&path, bytes).expect("written");
            }
        }
        let findings = investigate(&Options {
            keys: vec![damaged.path().join("keys"), damaged.path().join("journal")],
            slots: vec![world.path("present")],
            objects: vec![damaged.path().join("objects")],
            find: vec!["alice".into(), "carol".into()],
            exhaustive: true,
        }).expect("it ran");
        let found = lines(&findings);
        prop_assert!(findings.needles.results().all(|(_, places)| places.is_empty()));
        for recording in &WORLD.1 {
            prop_assert!(!states(&found, "object", &hex(&recording.object), None).contains(&"readable".into()));
        }
    }
}
