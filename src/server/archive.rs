//! The backup's object storage: the buckets of a group's regions, as the key store's backup sees them.
//!
//! A runtime of its own, driven by whichever thread calls: the key store's threads wait for nothing else, and what the
//! gateway's runtime does holds none of them up.
//!
//! An object is put into every region that answers; one is enough for it to *be* in the backup, and what a region missed while
//! it was away is copied there when objects are next listed in full. A listing is that of all regions together, and an
//! object is got from the first that has it. A region that is away is told only when it is the last one.

use crate::{
    keys::backup::{Archive, ArchiveError, name},
    object::{ObjectStore, RegionConfig, StoreError},
};
use anyhow::Context as _;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// How long a region that was found away holds nobody up.
const REST: Duration = Duration::from_secs(30);

/// The buckets.
pub struct Buckets {
    objects: ObjectStore,
    regions: Vec<String>,
    /// When a region was last found away.
    away: Vec<Option<Instant>>,
    /// None only while it is dropped.
    runtime: Option<Runtime>,
}

impl Buckets {
    /// Looks at the buckets. Blocks; not to be called on a runtime's own threads.
    pub fn connect(regions: Vec<RegionConfig>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let objects = runtime.block_on(ObjectStore::connect(regions)).context("the backup's object storage")?;
        let regions = objects.regions();
        Ok(Self { away: vec![None; regions.len()], regions, objects, runtime: Some(runtime) })
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> Result<T, ArchiveError> {
        let runtime = self.runtime.as_ref().ok_or_else(|| ArchiveError::Away("it is closing".to_owned()))?;
        Ok(runtime.block_on(work))
    }

    /// Names in each region; none for one that is away.
    fn names(&self, prefix: &str, after: &str) -> Result<Vec<Option<BTreeSet<String>>>, ArchiveError> {
        let (mut all, mut failure) = (Vec::new(), None);
        for region in &self.regions {
            match self.block_on(self.objects.list_named(region, prefix, after))? {
                Ok(names) => all.push(Some(names.into_iter().collect())),
                Err(error) => {
                    failure = Some(error);
                    all.push(None);
                }
            }
        }
        match failure {
            Some(error) if all.iter().all(Option::is_none) => Err(away(error)),
            _ => Ok(all),
        }
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        // May happen on a thread of another runtime, where waiting for this one is forbidden.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn away(error: StoreError) -> ArchiveError {
    ArchiveError::Away(error.to_string())
}

impl Archive for Buckets {
    fn list(&mut self, prefix: &str, after: &str) -> Result<Vec<String>, ArchiveError> {
        let all = self.names(prefix, after)?;
        Ok(all.into_iter().flatten().flatten().collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn put(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        let body = bytes::Bytes::from(bytes);
        let (mut there, mut failure) = (false, None);
        // Those that were away a moment ago come last, and only if nobody else takes it.
        let rests = |away: &Option<Instant>| away.is_some_and(|since| since.elapsed() < REST);
        let mut order: Vec<usize> = (0..self.regions.len()).collect();
        order.sort_by_key(|at| rests(&self.away[*at]));
        for at in order {
            if there && rests(&self.away[at]) {
                continue;
            }
            match self.block_on(self.objects.put_named(&self.regions[at], name, body.clone()))? {
                Ok(()) => (there, self.away[at]) = (true, None),
                Err(error) => {
                    tracing::warn!(region = self.regions[at], %error, "a region lacks an object of the backup for now");
                    self.away[at] = Some(Instant::now());
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if !there => Err(away(error)),
            _ => Ok(()),
        }
    }

    fn get(&mut self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let mut failure = None;
        for region in &self.regions {
            match self.block_on(self.objects.get_named(region, name))? {
                Ok(bytes) => return Ok(bytes.into()),
                Err(StoreError::NotFound) => {}
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.map_or(ArchiveError::Missing, away))
    }

    fn remove(&mut self, names: &[String]) -> Result<(), ArchiveError> {
        let mut failure = None;
        for region in &self.regions {
            if let Err(error) = self.block_on(self.objects.remove_named(region, names))? {
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), |error| Err(away(error)))
    }

    fn heal(&mut self) -> Result<(), ArchiveError> {
        let all = self.names(name::PREFIX, "")?;
        let every: BTreeSet<String> = all.iter().flatten().flatten().cloned().collect();
        for (region, there) in self.regions.iter().zip(&all) {
            let Some(there) = there else { continue };
            for name in every.difference(there) {
                for other in self.regions.iter().filter(|other| *other != region) {
                    match self.block_on(self.objects.get_named(other, name))? {
                        Ok(bytes) => {
                            self.block_on(self.objects.put_named(region, name, bytes))?.map_err(away)?;
                            break;
                        }
                        Err(StoreError::NotFound) => {}
                        Err(error) => return Err(away(error)),
                    }
                }
            }
        }
        Ok(())
    }
}
