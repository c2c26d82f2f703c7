//! The slots of a configuration, and what an operator does with them on the node's own files (`quietus slot …`).
//!
//! Every command opens the key store and its backup as a start of the gateway does, so it wants the gateway stopped, and does to
//! the slots what a start does: whoever comes back is wiped and gets its share. Changing the set of slots is a rotation.

use super::{
    archive::Buckets,
    config::{Config, Pin, SlotConfig, SlotsConfig},
    run,
};
use crate::{
    domain::time::Clock,
    keys::{
        CommitError, FileSlot, KeyStore, ModuleToken, OpenError, Opener, Pkcs11Slot, Reshare, Settings, Slot,
        SlotError, Slots, SlotsReport, backup::Backup,
    },
};
use std::{
    path::Path,
    sync::{Arc, Mutex},
};
use zeroize::Zeroizing;

/// What an operator asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Make key store and slots, where there are none.
    Init,
    /// Say how the slots stand.
    Status,
    /// Share the root anew without this slot.
    Retire(u8),
    /// Share the root anew among the slots of the configuration.
    Migrate,
}

/// Why it was not done. Nothing was changed, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The gateway holds the files.
    #[error("a gateway runs on these files: stop it first, or ask it with `quietus status`")]
    Running,
    /// There is something already, or nothing yet.
    #[error("{0}")]
    Refused(String),
    /// The key store does not open.
    #[error("{0}")]
    Open(OpenError),
    /// The root could not be shared anew.
    #[error("{0}")]
    Commit(CommitError),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The slots of a configuration; opened when the key store is.
pub fn slots(config: SlotsConfig) -> Slots {
    let member = |member: SlotConfig| (member.path().display().to_string(), opener(member));
    Slots::several(config.threshold, config.members.into_iter().map(member).collect())
}

fn opener(slot: SlotConfig) -> Opener {
    match slot {
        // Anew each time: another file may lie there, of a volume that was mounted meanwhile. The token is kept: it is asked
        // once with a PIN that it refuses.
        SlotConfig::File(path) => Box::new(move || Ok(Box::new(FileSlot::open(&path)?))),
        SlotConfig::Pkcs11 { path, module, token, pin, forgets } => {
            let mut kept: Option<Arc<Mutex<ModuleToken>>> = None;
            Box::new(move || {
                let token = match &kept {
                    Some(token) => token.clone(),
                    None => {
                        let token = ModuleToken::load(&module, &token, read(&pin)?)?;
                        kept.insert(Arc::new(Mutex::new(token))).clone()
                    }
                };
                Ok(Box::new(Pkcs11Slot::open(&path, Box::new(token), forgets)?) as Box<dyn Slot>)
            })
        }
    }
}

fn read(pin: &Pin) -> Result<Zeroizing<String>, SlotError> {
    match pin {
        Pin::Given(pin) => Ok(pin.clone()),
        Pin::File(file) => {
            let unreadable = |error| SlotError::Io(format!("cannot read `slot.pin_file` {}: {error}", file.display()));
            let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(unreadable)?;
            Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
    }
}

/// Does it, and says how the slots stand then.
///
/// # Errors
/// See [`Failed`].
pub async fn run(config: Config, asked: Asked) -> Result<SlotsReport, Failed> {
    let there = KeyStore::exists(&config.keys);
    let refused = |what: &str, remedy: &str| {
        Failed::Refused(format!("there is {what} key store in {}: {remedy}", config.keys.display()))
    };
    match (asked, there) {
        (Asked::Init, true) => return Err(refused("a", "`slot migrate` changes its slots")),
        (Asked::Status | Asked::Retire(_) | Asked::Migrate, false) => {
            return Err(refused(
                "no",
                "`slot init` makes a new one; where slots or buckets hold one, `restore` brings it back",
            ));
        }
        _ => {}
    }
    if matches!(asked, Asked::Init | Asked::Migrate) && !config.allow_same_filesystem {
        config.slots.bare_files().try_for_each(|slot| run::refuse_same_filesystem(slot, &config.keys))?;
    }
    let regions = run::backup_regions(&config.regions)?;
    let open = move || {
        let backup = match config.backup {
            Some(options) => {
                let archive = Box::new(Buckets::connect(regions)?);
                Some(Backup { archive, clock: Clock::system(), options })
            }
            None => None,
        };
        open(&config.keys, slots(config.slots), backup)
    };
    let keys = tokio::task::spawn_blocking(open).await.map_err(anyhow::Error::from)??;
    let change = match asked {
        Asked::Init | Asked::Status => None,
        Asked::Retire(number) => Some(Reshare::Retire(number)),
        Asked::Migrate => Some(Reshare::Match),
    };
    if let Some(change) = change {
        keys.reshare(change).await.map_err(Failed::Commit)?;
    }
    let report = keys.slots();
    // It joins threads that may wait for object storage.
    tokio::task::spawn_blocking(move || drop(keys)).await.map_err(anyhow::Error::from)?;
    Ok(report)
}

/// The key store, for a command beside which no gateway runs.
pub(super) fn open(keys: &Path, slots: Slots, backup: Option<Backup>) -> Result<KeyStore, Failed> {
    KeyStore::open_with(keys, slots, backup, Settings::default()).map_err(|error| match error {
        OpenError::InUse | OpenError::Slot(SlotError::Held) => Failed::Running,
        error => Failed::Open(error),
    })
}
