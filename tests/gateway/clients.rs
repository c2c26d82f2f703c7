//! A generated client in another language: `tests/clients/python_client.py` learns the services from reflection and drives
//! them over mutual TLS.

use super::gateway::Gateway;
use std::{path::PathBuf, process::Command};

/// The Python that `make deps` prepares with grpcio, grpcio-reflection and googleapis-common-protos.
fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("QUIETUS_PYTHON") {
        return python.into();
    }
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let prepared = home.join(".cache/quietus/venv/bin/python");
    if prepared.exists() { prepared } else { "python3".into() }
}

#[test]
fn a_client_in_python_that_learns_everything_from_reflection() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("data"));
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/python_client.py");
    let output = Command::new(python())
        .arg(script)
        .arg(format!("localhost:{}", gateway.port))
        .args(["ca.pem", "developer.pem", "developer.key"].map(|name| gateway.client_file(name)))
        .arg("python-tenant")
        .output()
        .expect("python is there; `make deps` prepares it, QUIETUS_PYTHON names another one");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("all of it went well"), "{said}");
}
