//! What an operator does with the key store's backup, on the node's own files: `backup create|list|verify` and `restore`.
//!
//! `create` opens the key store as `serve` does, so it wants the gateway stopped; a running one makes its backups by itself.
//! The others look at the buckets and at the slots, and `restore` writes nowhere but in the place of the key store.
//!
//! What a restore does not bring back: the journal (audio that was acknowledged as *journaled* only), the identities, the TLS
//! keys, and the key that signs checkpoints and receipts. That one is the operator's to keep, beside the identities: it lies
//! outside of `data`, nothing is sealed under it, and a new one breaks no receipt, which is verified with the public key that
//! was published when it was signed.

use super::{
    archive::Buckets,
    config::{Config, SlotsConfig},
    run, slots,
};
use crate::{
    domain::time::Clock,
    keys::{
        SlotError,
        backup::{
            ArchiveError, Backup, Options,
            restore::{self, Found, Reached, RestoreError},
        },
    },
    object::RegionConfig,
};
use anyhow::{Context as _, anyhow};
use indicatif::ProgressBar;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backup refuses.
    #[error(transparent)]
    Backup(#[from] RestoreError),
    /// The key store does not open.
    #[error(transparent)]
    Store(#[from] slots::Failed),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What sort of failure it is, for the exit status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It was asked for in the wrong place.
    Usage,
    /// The same may work later.
    Away,
    /// There is no backup.
    Unknown,
    /// It did not work.
    Failed,
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Backup(RestoreError::NotEmpty(_)) => Kind::Usage,
            Error::Backup(RestoreError::Archive(ArchiveError::Away(_)) | RestoreError::Slot(SlotError::Held))
            | Error::Store(slots::Failed::Running) => Kind::Away,
            Error::Backup(RestoreError::NoBackup) => Kind::Unknown,
            Error::Backup(_) | Error::Store(_) | Error::Other(_) => Kind::Failed,
        }
    }
}

/// What was restored or verified.
pub struct Outcome {
    /// What was read, and what was passed over.
    pub reached: Reached,
    /// How long it took.
    pub took: Duration,
}

struct Place {
    keys: PathBuf,
    slots: SlotsConfig,
    regions: Vec<RegionConfig>,
    options: Option<Options>,
}

impl Place {
    fn of(config: Config) -> anyhow::Result<Self> {
        let regions = run::backup_regions(&config.regions)?;
        Ok(Self { keys: config.keys, slots: config.slots, regions, options: config.backup })
    }
}

async fn blocking<T: Send + 'static>(
    config: Config,
    work: impl FnOnce(Place) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let place = Place::of(config)?;
    tokio::task::spawn_blocking(move || work(place)).await.map_err(|failed| Error::Other(failed.into()))?
}

/// Makes a base now.
///
/// # Errors
/// The gateway runs (it holds the slots); there is to be no backup; a store or object storage fails.
pub async fn create(config: Config) -> Result<u64, Error> {
    blocking(config, |place| {
        let options =
            place.options.ok_or_else(|| anyhow!("`backup.accept_none` says that there is to be no backup"))?;
        let archive = Box::new(Buckets::connect(place.regions)?);
        let options = Options { base_interval: Duration::ZERO, ..options };
        let backup = Backup { archive, clock: Clock::system(), options };
        let keys = slots::open(&place.keys, slots::slots(place.slots), Some(backup))?;
        if !keys.tend_backup() {
            let why = "see the log; try again".to_owned();
            return Err(Error::Backup(ArchiveError::Away(why).into()));
        }
        Ok(keys.commands())
    })
    .await
}

/// What there is, the newest state last; without a look at the slots.
///
/// # Errors
/// Object storage fails.
pub async fn list(config: Config) -> Result<Vec<Found>, Error> {
    blocking(config, |place| Ok(restore::list(&mut Buckets::connect(place.regions)?)?)).await
}

/// Reads the newest state that the slots open to its end, and opens its top with them.
///
/// # Errors
/// There is none, it is not whole, or too few slots are there.
pub async fn verify(config: Config) -> Result<Outcome, Error> {
    blocking(config, |place| {
        let (mut slots, mut archive) = (slots::slots(place.slots), Buckets::connect(place.regions)?);
        let began = Instant::now();
        let bar = ProgressBar::new_spinner().with_message("reading");
        let reached = restore::verify(&mut slots, &mut archive, &mut |read| bar.set_position(read.objects))?;
        bar.finish_and_clear();
        Ok(Outcome { reached, took: began.elapsed() })
    })
    .await
}

/// Builds the key store on this node from slots and buckets.
///
/// # Errors
/// There is one already; no state opens with what the slots hold; it is not whole.
pub async fn restore(config: Config) -> Result<Outcome, Error> {
    blocking(config, |place| {
        let (mut slots, mut archive) = (slots::slots(place.slots), Buckets::connect(place.regions)?);
        let parent = place.keys.parent().unwrap_or(&place.keys);
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let began = Instant::now();
        let bar = ProgressBar::new_spinner().with_message("restoring");
        let reached =
            restore::restore(&place.keys, &mut slots, &mut archive, &mut |read| bar.set_position(read.objects))?;
        bar.finish_and_clear();
        Ok(Outcome { reached, took: began.elapsed() })
    })
    .await
}
