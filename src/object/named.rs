//! Objects with names of their own: the backup's. Whatever is said of slices holds of them too; only that they are named by
//! what they hold, can be listed, and lie behind the bucket's prefix like the others.

use super::{
    BODY_ATTEMPTS, MAX_GET, ObjectStore, Region, StoreError, client,
    fault::{self, Verb},
    remove,
};
use bytes::Bytes;

/// Most pages of one listing, each of up to 1000 names.
const PAGES: usize = 100_000;

impl ObjectStore {
    /// Puts an object. A name is put once, so that nothing is overwritten but by a retry with the same bytes.
    pub async fn put_named(&self, region: &str, name: &str, body: Bytes) -> Result<(), StoreError> {
        let region = self.region(region)?;
        region.put(format!("{}{name}", region.prefix), body).await
    }

    /// Gets a whole object, of [`MAX_GET`] bytes at most.
    pub async fn get_named(&self, region: &str, name: &str) -> Result<Bytes, StoreError> {
        let region = self.region(region)?;
        let key = format!("{}{name}", region.prefix);
        let len = region.size_of(&key).await?.ok_or(StoreError::NotFound)?;
        if len == 0 || len > MAX_GET {
            return Err(StoreError::Refused(format!("an object of {len} bytes is none of ours")));
        }
        let mut attempt = 1;
        loop {
            match Self::get_once(region, &key, &(0..len), len).await {
                Err(StoreError::Unavailable(_)) if attempt < BODY_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// Names that begin with `prefix` and lie behind `after`, in order.
    pub async fn list_named(&self, region: &str, prefix: &str, after: &str) -> Result<Vec<String>, StoreError> {
        let region = self.region(region)?;
        let start = (!after.is_empty()).then(|| format!("{}{after}", region.prefix));
        let (mut names, mut token) = (Vec::new(), None);
        for _ in 0..PAGES {
            let page = region
                .client
                .list_objects_v2()
                .bucket(&region.bucket)
                .prefix(format!("{}{prefix}", region.prefix))
                .set_start_after(start.clone())
                .set_continuation_token(token)
                .send()
                .await
                .map_err(|error| fault::store_error(Verb::List, error))?;
            let keys = page.contents().iter().filter_map(|object| object.key());
            names.extend(keys.filter_map(|key| key.strip_prefix(&region.prefix)).map(str::to_owned));
            token = page.next_continuation_token().map(str::to_owned);
            if page.is_truncated() != Some(true) || token.is_none() {
                return Ok(names);
            }
        }
        Err(StoreError::Refused("a listing does not end".to_owned()))
    }

    /// Removes objects with all their versions, as [`ObjectStore::remove`] does.
    pub async fn remove_named(&self, region: &str, names: &[String]) -> Result<(), StoreError> {
        let region = self.region(region)?;
        remove::remove(region, names.iter().map(|name| format!("{}{name}", region.prefix)).collect()).await
    }
}

impl Region {
    pub(super) async fn put(&self, key: String, body: Bytes) -> Result<(), StoreError> {
        let timeout = client::attempt_timeout(body.len() as u64);
        let request = self.client.put_object().bucket(&self.bucket).key(key).body(body.into()).customize();
        // What TLS already protects on the way need not be hashed for the signature too: that hash is what a put costs.
        let request = if self.tls { request.disable_payload_signing() } else { request };
        request
            .config_override(client::with_attempt_timeout(timeout))
            .send()
            .await
            .map(drop)
            .map_err(|error| fault::store_error(Verb::Put, error))
    }
}
