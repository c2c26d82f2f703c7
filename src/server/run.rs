//! Composes the gateway, serves, drains.
//!
//! Start: TLS material and identities are read and the port is bound before anything that holds a secret is opened, so
//! that a typing error costs nothing; then slots, key store, journal, object storage, vault. `ready` is said when all of it
//! answers.
//!
//! SIGHUP reads the identities file again.
//!
//! Stop (SIGTERM or SIGINT): not ready → no new connections, GOAWAY on the others → the vault lets running sessions end
//! and closes → connections that are left are cut. A second signal ends the process at once; so may SIGKILL: nothing
//! that was acknowledged depends on a clean stop.

use super::{
    archive::Buckets,
    config::{Config, Credentials, SlotsConfig},
    signing_key, slots, swap,
    who::{self, Who},
};
use crate::{
    domain::time::Clock,
    journal::{self, Journal},
    keys::{
        KeyStore, Settings,
        backup::{self, Backup},
    },
    object::{self, ObjectStore, RegionConfig},
    transport::{
        self, Gateway, Limits, quic, serve,
        tls::{Material, server_config},
    },
    vault::{Vault, VaultConfig, WebhookConfig},
};
use anyhow::{Context as _, bail};
use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// Ports to try until one is free for TCP and UDP alike.
const PORT_ATTEMPTS: usize = 32;

/// Everything a gateway is composed of.
pub struct Parts {
    /// The key store's folder.
    pub keys: PathBuf,
    /// The journal's folder.
    pub journal: PathBuf,
    /// The slots.
    pub slots: SlotsConfig,
    /// Bounds of the journal.
    pub journal_options: journal::Options,
    /// Object storage.
    pub regions: Vec<RegionConfig>,
    /// Where the key store is backed up to, and its bounds; none: it is not.
    pub backup: Option<(Vec<RegionConfig>, backup::Options)>,
    /// Bounds of the vault.
    pub vault: VaultConfig,
    /// What the listeners show.
    pub tls: Material,
    /// Who there is, and what they may.
    pub who: Who,
    /// Bounds of connections.
    pub limits: Limits,
    /// Where the time comes from.
    pub clock: Clock,
}

/// The sockets: TCP, and UDP on the same port where HTTP/3 is served.
pub struct Sockets {
    tcp: TcpListener,
    udp: Option<UdpSocket>,
    /// Where they are bound.
    pub address: SocketAddr,
}

impl Sockets {
    /// Binds them. Port 0 finds one that is free for both.
    pub fn bind(listen: SocketAddr, http3: bool) -> anyhow::Result<Self> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let tcp = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
            let address = tcp.local_addr()?;
            let udp = if http3 { Some(UdpSocket::bind(address)) } else { None };
            match udp.transpose() {
                Ok(udp) => {
                    tcp.set_nonblocking(true)?;
                    return Ok(Self { tcp, udp, address });
                }
                // Port 0: somebody else has the UDP port that belongs to the TCP port we were given; take another.
                Err(_) if listen.port() == 0 && attempts < PORT_ATTEMPTS => {}
                Err(error) => return Err(error).with_context(|| format!("cannot listen on {address}, UDP")),
            }
        }
    }
}

/// `quietus serve`.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    swap::refuse(config.accept_swap)?;
    let tls = Material::read(&config.tls.certificate, &config.tls.key, config.tls.client_ca.as_deref())?;
    let who = Who::new(&config.group, &config.identities, config.access_policies.as_deref(), config.issuers, false)?;
    if !config.allow_same_filesystem {
        // One that is not there may be a volume that is not mounted; whatever makes a slot looks again.
        let first = !KeyStore::exists(&config.keys);
        let looked_at = config.slots.bare_files().filter(|slot| first || slot.exists());
        looked_at.into_iter().try_for_each(|slot| refuse_same_filesystem(slot, &config.keys))?;
    }
    let key = signing_key::find_or_make(&config.signing_key, &config.group)?;
    let sockets = Sockets::bind(config.listen, config.http3)?;
    let regions = config.regions.iter().map(region).collect::<anyhow::Result<_>>()?;
    let backup = config.backup.map(|options| anyhow::Ok((backup_regions(&config.regions)?, options))).transpose()?;
    if backup.is_none() {
        tracing::warn!("there is NO BACKUP of the key store: whoever loses this node loses every recording");
    }
    let webhook_ca =
        config.webhook_ca.map(|path| std::fs::read(&path).with_context(|| format!("cannot read {}", path.display())));
    let webhook = WebhookConfig { ca_pem: webhook_ca.transpose()?, ..config.vault.webhook };
    let parts = Parts {
        keys: config.keys,
        journal: config.journal,
        slots: config.slots,
        journal_options: config.journal_options,
        regions,
        backup,
        vault: VaultConfig { signing_key: Some(Arc::new(key)), webhook, ..config.vault },
        tls,
        who,
        limits: config.limits,
        clock: Clock::system(),
    };
    let address = sockets.address;
    run(parts, sockets, || say(&format!("ready https://{address}"))).await
}

/// The buckets of the backup.
pub(super) fn backup_regions(regions: &[super::config::Region]) -> anyhow::Result<Vec<RegionConfig>> {
    let bucket = |config: &super::config::Region| {
        let bucket = config.backup_bucket.clone().unwrap_or_else(|| config.bucket.clone());
        Ok(RegionConfig { bucket, ..region(config)? })
    };
    regions.iter().map(bucket).collect()
}

fn region(region: &super::config::Region) -> anyhow::Result<RegionConfig> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let keys = |access_key, secret_key| object::Credentials { access_key, secret_key: Zeroizing::new(secret_key) };
    let credentials = match &region.credentials {
        Credentials::Platform => None,
        Credentials::Given(id, secret) => Some(keys(id.clone(), secret.clone())),
        Credentials::File(id, path) => {
            let secret = String::from_utf8(read(path)?).with_context(|| format!("{}: not text", path.display()))?;
            Some(keys(id.clone(), secret.trim().to_owned()))
        }
    };
    Ok(RegionConfig {
        name: region.name.clone(),
        bucket: region.bucket.clone(),
        prefix: region.prefix.clone(),
        endpoint: region.endpoint.clone(),
        credentials,
        path_style: region.path_style,
        ca_pem: region.ca.as_ref().map(|path| read(path)).transpose()?,
        allow_http: region.allow_http,
        create_bucket: region.create_bucket,
    })
}

/// A slot inside of what backups and snapshots copy is no slot: old roots would live on in them.
pub(super) fn refuse_same_filesystem(slot: &Path, keys: &Path) -> anyhow::Result<()> {
    if device(slot)? == device(keys)? {
        bail!(
            "the slot {} lies on the key store's file system, so that a snapshot or backup of it keeps roots that were \
             destroyed; put it elsewhere, or say `slot.allow_same_filesystem = true`",
            slot.display()
        );
    }
    Ok(())
}

/// The file system that a path lies on, or will lie on.
fn device(path: &Path) -> anyhow::Result<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(std::fs::metadata(existing).with_context(|| format!("cannot look at {}", existing.display()))?.dev())
}

/// Opens everything, serves until a signal, drains. `ready` is called once when it serves.
pub async fn run(mut parts: Parts, sockets: Sockets, ready: impl FnOnce()) -> anyhow::Result<()> {
    let first = !KeyStore::exists(&parts.keys);
    let beside = |slot: &Path| anyhow::Ok((first || slot.exists()) && device(slot)? == device(&parts.keys)?);
    let beside: Vec<bool> = parts.slots.bare_files().map(beside).collect::<Result<_, _>>()?;
    parts.vault.slot_beside_store = beside.contains(&true);
    let tcp_tls = Arc::new(server_config(&parts.tls, &[b"h2", b"http/1.1"])?);
    let quic_tls = server_config(&parts.tls, &[b"h3"])?;
    let place = Place { slots: parts.slots, keys: parts.keys, journal: parts.journal, options: parts.journal_options };
    let backup = parts.backup.map(|(regions, options)| (regions, options, parts.clock.clone()));
    let stores = open_stores(place, parts.regions, backup, parts.clock.clone()).await?;
    let vault = Vault::open(parts.vault, stores.keys, stores.journal, stores.objects, parts.clock)?;

    let (serving, is_serving) = watch::channel(false);
    let Who { identities, issuers, file } = parts.who;
    let gateway = Gateway { vault: vault.clone(), identities: identities.clone(), issuers, ready: is_serving };
    let (router, health) = transport::router(gateway);
    let stop = CancellationToken::new();
    let listener = tokio::net::TcpListener::from_std(sockets.tcp)?;
    let mut listeners = tokio::task::JoinSet::new();
    if let Some(udp) = sockets.udp {
        let endpoint = quic::endpoint(udp, quic_tls, parts.limits)?;
        listeners.spawn(quic::serve(endpoint, router.clone(), parts.limits, stop.clone()));
    }
    listeners.spawn(serve::serve(listener, tcp_tls, router, parts.limits, stop.clone()));

    let mut stopping = Stopping::new()?;
    let rereading = tokio::spawn(who::read_again(signal(SignalKind::hangup())?, file, identities));
    health.set_serving(true).await;
    serving.send_replace(true);
    ready();
    tracing::info!("serving");

    stopping.asked().await;
    tracing::info!("draining");
    rereading.abort();
    serving.send_replace(false);
    health.set_serving(false).await;
    stop.cancel();
    let drained = async {
        vault.drain().await;
        while listeners.join_next().await.is_some() {}
    };
    tokio::select! {
        () = drained => tracing::info!("stopped"),
        () = stopping.asked() => bail!("stopped by a second signal before everything was drained"),
    }
    Ok(())
}

/// What the vault is opened over.
struct Stores {
    keys: KeyStore,
    journal: (Journal, journal::Recovered),
    objects: ObjectStore,
}

/// Where the stores lie.
struct Place {
    slots: SlotsConfig,
    keys: PathBuf,
    journal: PathBuf,
    options: journal::Options,
}

async fn open_stores(
    place: Place,
    regions: Vec<RegionConfig>,
    backup: Option<(Vec<RegionConfig>, backup::Options, Clock)>,
    clock: Clock,
) -> anyhow::Result<Stores> {
    let Place { slots, keys, journal, options } = place;
    let settings = Settings::spaced(slots.min_rotation_interval, clock);
    let threshold = slots.threshold;
    let objects = ObjectStore::connect(regions).await.context("object storage")?;
    // Opening reads and syncs files; nothing else runs yet that it could hold up.
    let stores = tokio::task::spawn_blocking(move || {
        let backup = backup.map(|(regions, options, clock)| {
            let archive = Box::new(Buckets::connect(regions)?);
            anyhow::Ok(Backup { archive, clock, options })
        });
        let keys = KeyStore::open_with(&keys, slots::slots(slots), backup.transpose()?, settings)
            .with_context(|| format!("the key store {}", keys.display()))?;
        let shared = keys.slots().k;
        if shared != threshold {
            let remedy = if threshold > shared {
                "`quietus slot migrate` shares it as the configuration says".to_owned()
            } else {
                format!("a threshold cannot become smaller; put `threshold = {shared}` back")
            };
            bail!("`slot.threshold` is {threshold}, and {shared} of the key store's slots give its root: {remedy}");
        }
        let journal = Journal::open(&journal, options).with_context(|| format!("the journal {}", journal.display()))?;
        anyhow::Ok((keys, journal))
    });
    let (keys, journal) = stores.await??;
    Ok(Stores { keys, journal, objects })
}

/// A line on standard output, for whoever waits for it. Nobody may be listening.
pub(super) fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The signals that ask the process to stop.
struct Stopping {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stopping {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_serves_tcp_and_udp() {
        let sockets = Sockets::bind("127.0.0.1:0".parse().expect("address"), true).expect("bound");
        let udp = sockets.udp.as_ref().and_then(|udp| udp.local_addr().ok());
        assert_eq!(udp, Some(sockets.address));
        assert!(Sockets::bind(sockets.address, true).is_err());
    }

    #[test]
    fn a_slot_beside_the_key_store_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let (slot, keys) = (dir.path().join("slot/root"), dir.path().join("keys"));
        assert!(refuse_same_filesystem(&slot, &keys).is_err());
        // /proc is a file system of its own wherever this runs.
        assert!(refuse_same_filesystem(Path::new("/proc/slot"), &keys).is_ok());
    }
}
