//! The S3 side: sealed slices in one bucket per region, through `aws-sdk-s3` and nothing else.
//!
//! - [`client`]: one region's client: TLS, credentials, timeouts, what is learned of a bucket at the start.
//! - [`remove`]: removing an object with every version and delete marker.
//! - [`named`]: objects with names of their own, the backup's.
//! - [`fault`]: what the SDK says, told apart into [`StoreError`].
//! - [`date`]: what time a store says it is, which bears witness for our own clock.
//! - [`embedded`]: an S3 server in this process, for `quietus dev` and tests. It is reached like any other.
//!
//! It does not know what an object holds, does not decide which region one goes to, and keeps no list of objects.
//!
//! # What holds
//! - An object's name is its random id: 32 hexadecimal digits behind the bucket's prefix. Nothing else is told to S3: no
//!   metadata, no tags, no content type of ours.
//! - A put is one request, repeated whole with the same bytes; there are no multipart uploads to abort.
//! - Only TLS, but for a server on this machine's loopback that a test asks for by name.
//! - An answer holds exactly the bytes that were asked for, or is an error. Sealed bytes are not checked here for being the
//!   right ones: the seal does that.
//! - Attempts, their time, and the size of answers are bounded.
//! - Errors carry S3's code and status, never its message: messages repeat access keys and signed strings.
//!
//! # What is assumed of a store
//! A put that was answered is durable and is read by every later get (S3 has been strongly consistent since 2020). Removal
//! is checked by asking again, so that nothing is assumed of it. A late retry of a put may arrive after a removal: the vault
//! keeps the two apart (an object is claimed while it is put).

mod client;
mod date;
pub mod embedded;
mod fault;
mod named;
mod remove;

use crate::domain::{id::ObjectId, time::Timestamp};
use bytes::{Bytes, BytesMut};
use client::Region;
use fault::Verb;
use std::{ops::Range, sync::Arc, time::Duration};
use zeroize::Zeroizing;

pub(crate) use client::is_loopback;
pub use embedded::Embedded;

/// Most bytes of one get.
pub const MAX_GET: u64 = 64 << 20;
/// Attempts of reading an answer's body, each a request with its own retries.
const BODY_ATTEMPTS: usize = 3;

/// An access key. Where none is given, the SDK's own chain is asked (environment, profile, web identity, instance role).
pub struct Credentials {
    /// Names the key.
    pub access_key: String,
    /// Proves it.
    pub secret_key: Zeroizing<String>,
}

impl Credentials {
    /// A second copy, for another region of the same server.
    pub fn duplicate(&self) -> Self {
        Self { access_key: self.access_key.clone(), secret_key: self.secret_key.clone() }
    }
}

/// One region and its bucket.
pub struct RegionConfig {
    /// Name of the region, `eu-west-2`. What S3 signatures carry.
    pub name: String,
    /// The bucket.
    pub bucket: String,
    /// Put before every object's name; empty, or letters, digits, `-`, `_`, `.` and `/`, with a `/` at the end.
    pub prefix: String,
    /// Where S3 is; AWS's own endpoint of the region when none.
    pub endpoint: Option<String>,
    /// Who we are.
    pub credentials: Option<Credentials>,
    /// Bucket in the path, not in the host name.
    pub path_style: bool,
    /// Trust these certificate authorities and no others (PEM).
    pub ca_pem: Option<Vec<u8>>,
    /// Plain HTTP is allowed, on loopback only. For tests.
    pub allow_http: bool,
    /// Create the bucket where it is missing. For development and tests.
    pub create_bucket: bool,
}

impl RegionConfig {
    /// AWS, or what speaks like it: TLS, the platform's authorities, credentials from the SDK's chain.
    pub fn new(name: impl Into<String>, bucket: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            bucket: bucket.into(),
            prefix: String::new(),
            endpoint: None,
            credentials: None,
            path_style: false,
            ca_pem: None,
            allow_http: false,
            create_bucket: false,
        }
    }
}

/// The store cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration contradicts itself or what we allow.
    #[error("region {region}: {problem}")]
    Config {
        /// Which region.
        region: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The bucket answers and refuses.
    #[error("region {region}: the bucket cannot be used: {error}")]
    Bucket {
        /// Which region.
        region: String,
        /// What S3 said.
        error: StoreError,
    },
}

/// An operation on an object failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("the object is not there")]
    NotFound,
    /// The store is away, slow or overloaded; the same again may succeed later.
    #[error("object storage is not available: {0}")]
    Unavailable(String),
    /// The store refuses, or answers something else than was asked; somebody has to look.
    #[error("object storage refused: {0}")]
    Refused(String),
}

/// The buckets of a group. Clones are the same store.
#[derive(Clone)]
pub struct ObjectStore(Arc<[Region]>);

impl ObjectStore {
    /// Prepares every region and looks at its bucket. A region that is away now is no error: it is looked at again when it
    /// is used, so that a gateway can start, and take live calls, while S3 is away.
    pub async fn connect(regions: Vec<RegionConfig>) -> Result<Self, ConnectError> {
        let mut connected: Vec<Region> = Vec::with_capacity(regions.len());
        for config in regions {
            if connected.iter().any(|region| region.name == config.name) {
                return Err(ConnectError::Config { region: config.name, problem: "the region is named twice" });
            }
            connected.push(Region::connect(config).await?);
        }
        Ok(Self(connected.into()))
    }

    /// Names of the regions, in the order of the configuration.
    pub fn regions(&self) -> Vec<String> {
        self.0.iter().map(|region| region.name.clone()).collect()
    }

    fn region(&self, name: &str) -> Result<&Region, StoreError> {
        self.0
            .iter()
            .find(|region| region.name == name)
            .ok_or_else(|| StoreError::Refused(format!("no region {name:?} is configured")))
    }

    /// Puts an object. Ids are random and are put once, so that nothing is overwritten but by a retry with the same bytes.
    pub async fn put(&self, region: &str, id: ObjectId, body: Bytes) -> Result<(), StoreError> {
        let region = self.region(region)?;
        region.put(region.key(id), body).await
    }

    /// Gets exactly `range` of an object.
    pub async fn get(&self, region: &str, id: ObjectId, range: Range<u64>) -> Result<Bytes, StoreError> {
        let region = self.region(region)?;
        let len = range.end.saturating_sub(range.start);
        if len == 0 {
            return Ok(Bytes::new());
        }
        if len > MAX_GET {
            return Err(StoreError::Refused(format!("a get of {len} bytes is over the bound")));
        }
        let mut attempt = 1;
        loop {
            match Self::get_once(region, &region.key(id), &range, len).await {
                // The answer began and broke off: the SDK's own retries end with the headers.
                Err(StoreError::Unavailable(_)) if attempt < BODY_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn get_once(region: &Region, key: &str, range: &Range<u64>, len: u64) -> Result<Bytes, StoreError> {
        let timeout = client::attempt_timeout(len);
        let mut answer = region
            .client
            .get_object()
            .bucket(&region.bucket)
            .key(key)
            .range(format!("bytes={}-{}", range.start, range.end - 1))
            .customize()
            .config_override(client::with_attempt_timeout(timeout))
            .send()
            .await
            .map_err(|error| fault::store_error(Verb::Get, error))?;
        let expected = format!("bytes {}-{}/", range.start, range.end - 1);
        if !answer.content_range().is_some_and(|said| said.starts_with(&expected)) {
            return Err(StoreError::Refused("the answer holds another range than was asked for".to_owned()));
        }
        let mut bytes = BytesMut::with_capacity(len as usize);
        let body = async {
            while let Some(chunk) = answer.body.next().await {
                let chunk = chunk.map_err(|_| StoreError::Unavailable("the answer broke off".to_owned()))?;
                if (bytes.len() + chunk.len()) as u64 > len {
                    return Err(StoreError::Refused("the answer is longer than was asked for".to_owned()));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(())
        };
        match tokio::time::timeout(timeout, body).await {
            Err(_) => Err(StoreError::Unavailable("the answer took too long".to_owned())),
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) if bytes.len() as u64 == len => Ok(bytes.freeze()),
            Ok(Ok(())) => Err(StoreError::Unavailable("the answer is shorter than was asked for".to_owned())),
        }
    }

    /// An object's size; none if it is not there.
    pub async fn size(&self, region: &str, id: ObjectId) -> Result<Option<u64>, StoreError> {
        let region = self.region(region)?;
        region.size_of(&region.key(id)).await
    }

    /// What time the stores say it is now, each that answers. A store that refuses the request tells it too: one that takes
    /// our clock for wrong refuses every request.
    pub async fn dates(&self) -> Vec<Timestamp> {
        let mut dates = Vec::new();
        for region in self.0.iter() {
            region.dates.forget();
            let _refusals_are_answers = region.client.head_bucket().bucket(&region.bucket).send().await;
            dates.extend(region.dates.last());
        }
        dates
    }

    /// Removes objects: every version and every delete marker where the bucket keeps versions. Asks again afterwards, and
    /// succeeds only when nothing of them is there. What is not there is fine. On an error, some may be gone.
    pub async fn remove(&self, region: &str, ids: &[ObjectId]) -> Result<(), StoreError> {
        let region = self.region(region)?;
        remove::remove(region, ids.iter().map(|id| region.key(*id)).collect()).await
    }
}

impl Region {
    fn key(&self, id: ObjectId) -> String {
        format!("{}{id}", self.prefix)
    }

    async fn size_of(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let answer = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        match answer.map_err(|error| fault::store_error(Verb::Head, error)) {
            Ok(head) => match head.content_length().and_then(|len| u64::try_from(len).ok()) {
                Some(len) => Ok(Some(len)),
                None => Err(StoreError::Refused("the answer tells no size".to_owned())),
            },
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
