//! The slots of a configuration, and what an operator does with them on the node's own files (`quietus slot …`).
//!
//! Every command opens the key store as a start of the gateway does, so it wants the gateway stopped, and does to the slots what a
//! start does: whoever comes back is wiped and gets its share. Changing the set of slots is a rotation.

use super::config::{Config, SlotFiles};
use crate::{
    domain::time::Clock,
    keys::{
        CommitError, FileSlot, KeyStore, OpenError, Opener, Reshare, Settings, Slot, SlotError, Slots, SlotsReport,
    },
};
use std::path::Path;

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
}

/// The slots of a configuration; opened when the key store is.
pub fn slots(files: &SlotFiles) -> Slots {
    let slot = |path: &std::path::PathBuf| {
        let (name, path) = (path.display().to_string(), path.clone());
        let open: Opener = Box::new(move || FileSlot::open(&path).map(|slot| Box::new(slot) as Box<dyn Slot>));
        (name, open)
    };
    Slots::several(files.threshold, files.paths.iter().map(slot).collect())
}

/// Does it, and says how the slots stand then.
///
/// # Errors
/// See [`Failed`].
pub async fn run(config: &Config, asked: Asked) -> Result<SlotsReport, Failed> {
    let there = KeyStore::exists(&config.keys);
    if asked == Asked::Init && there {
        let text = format!("there is a key store in {}: `slot migrate` changes its slots", config.keys.display());
        return Err(Failed::Refused(text));
    }
    if asked != Asked::Init && !there {
        let text = format!("there is no key store in {}: `slot init` makes one", config.keys.display());
        return Err(Failed::Refused(text));
    }
    let keys = open(&config.keys, &config.slots)?;
    match asked {
        Asked::Init | Asked::Status => {}
        Asked::Retire(number) => drop(keys.reshare(Reshare::Retire(number)).await.map_err(Failed::Commit)?),
        Asked::Migrate => drop(keys.reshare(Reshare::Match).await.map_err(Failed::Commit)?),
    }
    Ok(keys.slots())
}

fn open(keys: &Path, files: &SlotFiles) -> Result<KeyStore, Failed> {
    let settings = Settings { clock: Clock::system(), ..Settings::default() };
    KeyStore::open_with(keys, slots(files), settings).map_err(|error| match error {
        OpenError::InUse | OpenError::Slot(SlotError::Held) => Failed::Running,
        error => Failed::Open(error),
    })
}
