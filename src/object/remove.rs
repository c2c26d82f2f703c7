//! Removing objects so that nothing of them is left: no version, no delete marker.
//!
//! Where versions can be listed, each object's are listed by its exact name and deleted one by one, and then listed again.
//! Deleting a version by its id leaves no marker. This is done whether or not the bucket is said to keep versions: it may
//! have done so before. Where the store knows no versions, a plain delete and a question for the object do.
//!
//! A version that appears while we delete (a put that was on its way) is found by the next round; after [`ROUNDS`] rounds
//! that each found something the caller is told. Removing what is not there succeeds, so that a sweep that was killed can
//! start over.

use super::{
    StoreError,
    client::{Region, Versions},
    fault::{self, Verb},
};
use std::collections::VecDeque;

/// Rounds of listing and deleting of one object.
const ROUNDS: usize = 4;
/// Objects that are removed at the same time.
const AT_ONCE: usize = 8;
/// Pages of versions of one object and round; a page has up to 1000. More are left to the next round.
const PAGES: usize = 16;

/// Removes what these keys name, prefix included.
pub(super) async fn remove(region: &Region, keys: Vec<String>) -> Result<(), StoreError> {
    let versions = region.versions().await?;
    let mut waiting = VecDeque::from(keys);
    let mut running = Vec::with_capacity(AT_ONCE);
    let mut outcome = Ok(());
    // A window of futures driven in this task: nothing runs on when the caller is dropped.
    loop {
        while running.len() < AT_ONCE
            && let Some(key) = waiting.pop_front()
        {
            running.push(Box::pin(remove_one(region, versions, key)));
        }
        if running.is_empty() {
            return outcome;
        }
        let (at, done) = first_of(&mut running).await;
        drop(running.swap_remove(at));
        if outcome.is_ok() && done.is_err() {
            waiting.clear();
            outcome = done;
        }
    }
}

/// The first of several futures that is done, and its place.
async fn first_of<F: Future + Unpin>(futures: &mut [F]) -> (usize, F::Output) {
    std::future::poll_fn(|context| {
        for (at, future) in futures.iter_mut().enumerate() {
            if let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready((at, output));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

async fn remove_one(region: &Region, versions: Versions, key: String) -> Result<(), StoreError> {
    match versions {
        Versions::Unknown => {
            delete(region, &key, None).await?;
            match region.size_of(&key).await? {
                None => Ok(()),
                Some(_) => Err(StoreError::Refused("delete: the object is still there".to_owned())),
            }
        }
        Versions::Listed => {
            for _ in 0..ROUNDS {
                let found = list(region, &key).await?;
                if found.is_empty() {
                    return Ok(());
                }
                for version in found {
                    delete(region, &key, Some(version)).await?;
                }
            }
            match list(region, &key).await?.is_empty() {
                true => Ok(()),
                false => Err(StoreError::Unavailable("delete: versions of the object keep appearing".to_owned())),
            }
        }
    }
}

/// Ids of all versions and delete markers of one object.
async fn list(region: &Region, key: &str) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    let mut marker: Option<(Option<String>, Option<String>)> = None;
    for _ in 0..PAGES {
        let (key_marker, version_marker) = marker.take().unwrap_or_default();
        let page = region
            .client
            .list_object_versions()
            .bucket(&region.bucket)
            .prefix(key)
            .set_key_marker(key_marker)
            .set_version_id_marker(version_marker)
            .send()
            .await
            .map_err(|error| fault::store_error(Verb::List, error))?;
        let versions = page.versions().iter().map(|version| (version.key(), version.version_id()));
        let markers = page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
        for (name, version) in versions.chain(markers) {
            if name == Some(key) {
                // S3 calls the version of an object that has none "null".
                found.push(version.filter(|version| !version.is_empty()).unwrap_or("null").to_owned());
            }
        }
        let next = (page.next_key_marker().map(str::to_owned), page.next_version_id_marker().map(str::to_owned));
        if page.is_truncated() != Some(true) || next.0.is_none() {
            break;
        }
        marker = Some(next);
    }
    Ok(found)
}

async fn delete(region: &Region, key: &str, version: Option<String>) -> Result<(), StoreError> {
    let null = version.as_deref() == Some("null");
    let request = region.client.delete_object().bucket(&region.bucket).key(key).set_version_id(version);
    match request.send().await.map_err(|error| fault::store_error(Verb::Delete, error)) {
        Ok(_) | Err(StoreError::NotFound) => Ok(()),
        // A store that lists "null" versions and does not take one back: the plain delete is the same there, and what it
        // leaves is seen by the next listing.
        Err(StoreError::Refused(_)) if null => region
            .client
            .delete_object()
            .bucket(&region.bucket)
            .key(key)
            .send()
            .await
            .map(drop)
            .map_err(|error| fault::store_error(Verb::Delete, error)),
        Err(error) => Err(error),
    }
}
