//! `quietus dev`: the whole product in one process on one folder.
//!
//! The same code as `quietus serve`: the object store is an S3 server of its own on the loopback, reached through the
//! AWS SDK over TLS like any other. What differs is where the parts come from, and that the slot lies beside the key
//! store: fine for trying, and the reason why a dev folder guarantees nothing once it has been copied.

use super::{
    config::{SlotConfig, SlotsConfig},
    dev_files::{DevFiles, GROUP},
    rehearsal,
    run::{self, Parts, Sockets},
    signing_key, swap,
    who::Who,
};
use crate::{
    domain::time::Clock,
    journal,
    keys::backup,
    object::{
        RegionConfig,
        embedded::{Certificate, Embedded},
    },
    transport::Limits,
    vault::{VaultConfig, WebhookConfig},
};
use anyhow::{Context as _, bail};
use std::{
    fs::{File, TryLockError},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    sync::Arc,
};

/// The regions of the group.
const REGIONS: [&str; 2] = ["eu-west-2", "eu-west-1"];

/// Serves a folder until a signal; with a clock file, by the time that it says.
pub async fn dev(dir: &Path, listen: SocketAddr, clock: Option<&Path>) -> anyhow::Result<()> {
    let clock = clock.map_or(Ok(Clock::system()), rehearsal::clock)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make {}", dir.display()))?;
    let _lock = lock(dir)?;
    swap::warn();
    let sockets = Sockets::bind(listen, true)?;
    let files = DevFiles::prepare(dir)?;
    let who = Who::new(GROUP, &dir.join("tls").join("identities.toml"), None, Vec::new(), true)?;
    let ca = files.tls.client_ca.clone().unwrap_or_default();
    let certificate = Certificate { chain_pem: &files.tls.certificate, key_pem: &files.tls.key, ca_pem: &ca };
    let embedded = Embedded::start(&dir.join("s3"), &REGIONS, certificate).await.context("the embedded S3 server")?;
    let profile = files.write_profiles(sockets.address.port())?;
    let key = signing_key::find_or_make(&dir.join("tls").join("audit.key"), GROUP)?;
    files.write_verifier_key(&key.verifier().to_string())?;
    let beside = |region: RegionConfig| RegionConfig {
        bucket: format!("{}-backup", region.bucket),
        create_bucket: true,
        ..region
    };
    let backup = embedded.region_configs().into_iter().map(beside).collect();
    let parts = Parts {
        keys: dir.join("keys"),
        journal: dir.join("journal"),
        slots: SlotsConfig::single(SlotConfig::File(dir.join("slot").join("root"))),
        journal_options: journal::Options::default(),
        regions: embedded.region_configs(),
        backup: Some((backup, backup::Options::default())),
        vault: VaultConfig {
            group: GROUP.into(),
            signing_key: Some(Arc::new(key)),
            // A receiver that is tried out runs on this machine, with the certificate in DIR/tls.
            webhook: WebhookConfig { ca_pem: Some(ca.clone()), allow_private: true },
            ..VaultConfig::default()
        },
        tls: files.tls,
        who,
        limits: Limits::default(),
        clock,
    };
    let port = sockets.address.port();
    let line = format!("ready https://localhost:{port} data {} profile {}", dir.display(), profile.display());
    let ready = || run::say(&line);
    run::run(parts, sockets, ready).await
}

/// Two processes on one folder would each take the other's writes for corruption.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another quietus serves {}; stop it, or take another --data", dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_on_the_same_folder_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let held = lock(dir.path()).expect("first");
        assert!(lock(dir.path()).err().is_some_and(|error| error.to_string().contains("another quietus")));
        drop(held);
        assert!(lock(dir.path()).is_ok());
    }
}
