//! Object storage in memory, for the backup.

use super::super::backup::{Archive, ArchiveError, Backup, Options};
use crate::domain::time::Clock;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// Object storage in memory, with everything that was ever put.
#[derive(Clone, Default)]
pub struct Storage(Arc<Mutex<Objects>>);

#[derive(Default)]
pub struct Objects {
    pub objects: BTreeMap<String, Vec<u8>>,
    pub ever: Vec<Vec<u8>>,
    pub away: bool,
    /// The next put arrives and its answer does not.
    pub mute: bool,
    /// It goes away with the next answer that is lost.
    pub leaving: bool,
    /// It can be read, and takes nothing.
    pub full: bool,
    /// It says what is there, and gives nothing.
    pub lists_only: bool,
}

impl Storage {
    pub fn lock(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().expect("no test panics with it")
    }

    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// A backup here, that waits for nothing.
    pub fn backup(&self, clock: &Clock) -> Backup {
        let options = Options {
            tick: Duration::ZERO,
            // Whoever waits in vain is told by the failure, not by the time.
            patience: Duration::from_secs(60),
            retry: Duration::from_millis(5),
            ..Options::default()
        };
        Backup { archive: Box::new(self.clone()), clock: clock.clone(), options }
    }

    pub fn names(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }
}

impl Archive for Storage {
    fn list(&mut self, prefix: &str, after: &str) -> Result<Vec<String>, ArchiveError> {
        let objects = self.lock();
        if objects.away {
            return Err(ArchiveError::Away("a test".to_owned()));
        }
        let names = objects.objects.keys().filter(|name| name.starts_with(prefix) && name.as_str() > after);
        Ok(names.cloned().collect())
    }

    fn put(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        let mut objects = self.lock();
        if objects.away {
            return Err(ArchiveError::Away("a test".to_owned()));
        }
        if objects.full {
            return Err(ArchiveError::Away("a test".to_owned()));
        }
        objects.ever.push(bytes.clone());
        if let Some(before) = objects.objects.insert(name.to_owned(), bytes.clone()) {
            assert!(before == bytes, "a name is put again with the same bytes only");
        }
        if std::mem::take(&mut objects.mute) {
            objects.away |= std::mem::take(&mut objects.leaving);
            return Err(ArchiveError::Away("a test".to_owned()));
        }
        Ok(())
    }

    fn get(&mut self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let objects = self.lock();
        if objects.away || objects.lists_only {
            return Err(ArchiveError::Away("a test".to_owned()));
        }
        objects.objects.get(name).cloned().ok_or(ArchiveError::Missing)
    }

    fn remove(&mut self, names: &[String]) -> Result<(), ArchiveError> {
        let mut objects = self.lock();
        for name in names {
            objects.objects.remove(name);
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }
}
