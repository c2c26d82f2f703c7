//! `quietus slot` and `quietus serve` on real slot files: made, lost, back, retired, migrated.

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/served.rs"]
mod served;

use serde_json::Value;
use served::World;
use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// A configuration with slots 2 of 3 in folders of their own.
async fn world() -> World {
    let world = World::new("[backup]\n").await;
    configure(&world, &["a", "b", "c"]);
    world
}

fn slot(world: &World, name: &str) -> PathBuf {
    world.data().join(format!("slot-{name}")).join("root")
}

/// Writes the slots into the configuration, in the place of those that are there.
fn configure(world: &World, slots: &[&str]) {
    let path = world.data().join("quietus.toml");
    let text = std::fs::read_to_string(&path).expect("written");
    let (before, rest) = text.split_once("[slot]").expect("there");
    let (_, after) = rest.split_once("[memory]").expect("there");
    let key = world.data().join("tls/audit.key");
    let mut section = "allow_same_filesystem = true\nthreshold = 2\n".to_owned();
    for name in slots {
        section.push_str(&format!("[[slot.member]]\npath = \"{}\"\n", slot(world, name).display()));
    }
    section.push_str(&format!("[audit]\nsigning_key = \"{}\"\n", key.display()));
    std::fs::write(&path, format!("{before}[slot]\n{section}[memory]{after}")).expect("written");
}

fn run(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quietus"));
    command.args(["--json", "slot"]).args(arguments);
    command.arg("--config").arg(world.data().join("quietus.toml")).output().expect("the process starts")
}

fn done(world: &World, arguments: &[&str]) -> Value {
    let output = run(world, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn refused(world: &World, arguments: &[&str], status: i32) -> String {
    let output = run(world, arguments);
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    text
}

fn states(report: &Value) -> Vec<(u64, String)> {
    let slots = report["slots"].as_array().expect("slots").iter();
    slots
        .map(|slot| (slot["number"].as_u64().unwrap_or(0), slot["state"].as_str().expect("a state").to_owned()))
        .collect()
}

fn erase(gateway: &gateway::Gateway, world: &World) {
    let root = world.data().join("client/root.toml");
    let run = |arguments: &[&str]| {
        let output = gateway.command(arguments).env("QUIETUS_PROFILE", &root).output().expect("starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let name = format!("t{}", quietus::crypto::random::<1>()[0]);
    run(&["tenant", "create", &name, "--home", "eu-west-2", "--policy", "customer-notice", "--keep", "90d"]);
    let answer = run(&["--json", "erase", "tenant", &name, "--confirm", &name]);
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(answer["outcome"], "erased");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_slot_grows_to_two_of_three() {
    let world = World::new("[backup]\n").await;
    let gateway = world.start();
    tokio::task::block_in_place(|| erase(&gateway, &world));
    assert!(gateway.stop().success());
    let only = slot(&world, "a");
    std::fs::create_dir_all(only.parent().expect("it has one")).expect("a folder");
    std::fs::rename(world.data().join("slot/root"), &only).expect("moved");
    configure(&world, &["a", "b", "c"]);
    // As long as the root is not shared, nobody is to think that it is.
    let serve = Command::new(env!("CARGO_BIN_EXE_quietus"))
        .args(["serve", "--config"])
        .arg(world.data().join("quietus.toml"))
        .output()
        .expect("the process starts");
    let told = String::from_utf8_lossy(&serve.stderr);
    assert!(!serve.status.success() && told.contains("slot migrate"), "{told}");
    let report = done(&world, &["migrate"]);
    assert_eq!((&report["threshold"], &report["losses_survivable"]), (&2.into(), &1.into()));
    assert_eq!(report["shares_left"], Value::Null);
    std::fs::remove_file(&only).expect("lost");
    let gateway = world.start();
    tokio::task::block_in_place(|| erase(&gateway, &world));
    assert!(gateway.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_made_lost_found_retired_and_migrated_by_command() {
    let world = world().await;
    assert!(refused(&world, &["status"], 6).contains("slot init"));
    let report = done(&world, &["init"]);
    assert_eq!((&report["threshold"], &report["of"], &report["losses_survivable"]), (&2.into(), &3.into(), &1.into()));
    assert!(refused(&world, &["init"], 6).contains("slot migrate"));

    // While a gateway runs, the files are its own.
    let gateway = world.start();
    assert!(refused(&world, &["status"], 75).contains("stop it first"));
    tokio::task::block_in_place(|| erase(&gateway, &world));
    assert!(gateway.stop().success());

    // One slot is away; erasing goes on, and is destroyed. When it is back it has its share soon, while the gateway runs.
    let (c, aside) = (slot(&world, "c"), world.aside("c"));
    std::fs::rename(&c, &aside).expect("moved away");
    let gateway = world.start();
    tokio::task::block_in_place(|| erase(&gateway, &world));
    let missing = |gateway: &gateway::Gateway| {
        let root = world.data().join("client/root.toml");
        let output = gateway.command(&["--json", "status"]).env("QUIETUS_PROFILE", &root).output().expect("starts");
        let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let slots = status["slots"].as_array().expect("slots").iter();
        (slots.filter(|slot| slot["matches"] == false).count(), output.status.code())
    };
    assert_eq!(
        tokio::task::block_in_place(|| missing(&gateway)),
        (2, Some(7)),
        "an empty place, and a number that no slot has"
    );
    std::fs::rename(&aside, &c).expect("back");
    let began = std::time::Instant::now();
    while tokio::task::block_in_place(|| missing(&gateway)) != (0, Some(0)) {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "it never got its share");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(gateway.stop().success());

    // Away again, then another one is lost: the share that waits saves everything.
    std::fs::rename(&c, &aside).expect("moved away");
    let gateway = world.start();
    tokio::task::block_in_place(|| erase(&gateway, &world));
    assert!(gateway.stop().success());
    let report = done(&world, &["status"]);
    assert_eq!((&report["losses_survivable"], &report["shares_left"]), (&0.into(), &Value::Null));
    std::fs::rename(&aside, &c).expect("back");
    std::fs::remove_file(slot(&world, "a")).expect("lost");
    let report = done(&world, &["status"]);
    assert_eq!(states(&report)[1..3], [(2, "matches".to_owned()), (3, "matches".to_owned())]);

    // The lost one is replaced: an empty slot at its path joins under a new number.
    let report = done(&world, &["migrate"]);
    assert_eq!(states(&report)[..3].iter().map(|(number, _)| *number).collect::<Vec<_>>(), [4, 2, 3]);
    assert_eq!(report["losses_survivable"], 1);

    // Retired: emptied, and the others are enough.
    let report = done(&world, &["retire", "2"]);
    assert!(std::fs::read(slot(&world, "b")).expect("reads").iter().all(|byte| *byte == 0));
    assert_eq!((&report["of"], &report["losses_survivable"]), (&2.into(), &0.into()));
    assert!(refused(&world, &["retire", "2"], 1).contains("no slot with this number"));
    configure(&world, &["a", "c"]);
    let text = std::fs::read_to_string(world.data().join("quietus.toml")).expect("reads");
    let accepted = text.replace("threshold = 2", "accept_total_loss = true\nthreshold = 2");
    std::fs::write(world.data().join("quietus.toml"), accepted).expect("writes");
    let gateway = world.start();
    tokio::task::block_in_place(|| erase(&gateway, &world));
    assert!(gateway.stop().success());

    // Fewer than are needed: named, and nothing is changed.
    std::fs::rename(&c, &aside).expect("moved away");
    let text = refused(&world, &["status"], 1);
    assert!(text.contains("2 slots are needed") && text.contains("1 match") && text.contains("is empty"), "{text}");
    std::fs::rename(&aside, &c).expect("back");
    done(&world, &["status"]);
}
