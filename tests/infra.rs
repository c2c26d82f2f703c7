//! What is shipped to run quietus, checked as far as that works on any machine: the Terraform by a parser
//! (`tests/infra/check.py`, see there), the systemd unit by its own text. Where `terraform` and `systemd-analyze` are
//! installed they are asked as well.

use std::{
    collections::HashMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The interpreter that `make deps` prepared.
fn python() -> OsString {
    let prepared = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/quietus/venv/bin/python"));
    std::env::var_os("QUIETUS_PYTHON")
        .or_else(|| prepared.filter(|path| path.is_file()).map(Into::into))
        .unwrap_or_else(|| "python3".into())
}

/// None where the program is not installed.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_terraform_says_what_the_design_says() {
    let mut command = Command::new(python());
    let output =
        run(command.arg(root("tests/infra/check.py")).arg(root("infra/terraform"))).expect("python is installed");
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_terraform_is_formatted() {
    let mut command = Command::new("terraform");
    command.env("CHECKPOINT_DISABLE", "1").env("TF_CLI_CONFIG_FILE", "/dev/null");
    if let Some(output) = run(command.args(["fmt", "-check", "-diff", "-recursive"]).arg(root("infra/terraform"))) {
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn the_unit_keeps_the_process_to_itself() {
    let unit = std::fs::read_to_string(root("infra/systemd/quietus.service")).expect("reads");
    let settings: HashMap<&str, &str> =
        unit.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    for (name, value) in [
        ("Type", "exec"),
        ("User", "quietus"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        // I1: neither core dumps nor swap get what is in memory.
        ("LimitCORE", "0"),
        ("MemorySwapMax", "0"),
        ("LimitMEMLOCK", "infinity"),
        ("StateDirectory", "quietus"),
        ("StateDirectoryMode", "0700"),
        ("UMask", "0077"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        // A start over an empty folder where the slot should be would look like a lost root.
        ("AssertPathIsMountPoint", "/mnt/quietus-slot"),
    ] {
        assert_eq!(settings.get(name), Some(&value), "{name}");
    }
    assert!(!unit.contains("quietus-forensics ") && !unit.contains("Environment="), "no second binary, no secret here");
}

#[test]
fn systemd_takes_the_unit_and_finds_it_tight() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("quietus.service");
    let unit = std::fs::read_to_string(root("infra/systemd/quietus.service")).expect("reads");
    // The gateway is not installed here; everything else about the unit is checked as it is.
    std::fs::write(&copy, unit.replace("=/usr/bin/quietus ", "=/bin/true ")).expect("writes");
    if let Some(output) = run(Command::new("systemd-analyze").arg("verify").arg(&copy)) {
        let said = text(&output);
        assert!(output.status.success() && !said.contains("Unknown key"), "{said}");
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager", "--threshold=15"]).arg(&copy);
        let output = run(&mut security).expect("was there a moment ago");
        assert!(output.status.success(), "{}", text(&output));
    }
}
