//! One region's client: how it is built from configuration, and what is learned of its bucket.

use super::{CONNECT_TIMEOUT, ConnectError, RegionConfig, StoreError, date::Dates, fault, fault::Verb};
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Builder, Credentials, RequestChecksumCalculation, ResponseChecksumValidation,
        SharedHttpClient, retry::RetryConfig, timeout::TimeoutConfig,
    },
    types::{BucketLocationConstraint, CreateBucketConfiguration},
};
use aws_smithy_http_client::tls;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::{net::IpAddr, time::Duration};
use tokio::sync::OnceCell;

/// Attempts of one request, the first included.
const ATTEMPTS: u32 = 4;
/// An attempt may always take this long, and a second more for each [`SLOWEST`] bytes.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Bytes a second below which a transfer counts as stuck.
const SLOWEST: u64 = 256 << 10;

/// Whether a bucket's versions can be listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Versions {
    /// They can; they are, at every removal, whether the bucket keeps versions today or not.
    Listed,
    /// The store knows no versions at all.
    Unknown,
}

pub(super) struct Region {
    pub name: String,
    pub bucket: String,
    pub prefix: String,
    pub client: Client,
    pub tls: bool,
    pub dates: Dates,
    versions: OnceCell<Versions>,
}

/// How long one attempt may take for so many bytes.
pub(super) fn attempt_timeout(bytes: u64) -> Duration {
    ATTEMPT + Duration::from_secs(bytes / SLOWEST)
}

pub(super) fn with_attempt_timeout(timeout: Duration) -> Builder {
    Builder::new().timeout_config(timeouts(timeout))
}

fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(attempt).build()
}

impl Region {
    pub async fn connect(config: RegionConfig) -> Result<Self, ConnectError> {
        let tls = check(&config).map_err(|problem| ConnectError::Config { region: config.name.clone(), problem })?;
        let dates = Dates::default();
        let region = Self {
            client: client(&config, dates.clone()).await,
            name: config.name,
            bucket: config.bucket,
            prefix: config.prefix,
            tls,
            dates,
            versions: OnceCell::new(),
        };
        let looked = async {
            region.look_at_bucket(config.create_bucket).await?;
            region.versions().await
        };
        match looked.await {
            Ok(versions) => tracing::info!(region = region.name, ?versions, "object storage is there"),
            Err(error @ StoreError::Unavailable(_)) => {
                tracing::warn!(region = region.name, %error, "object storage is away; going on without it for now");
            }
            Err(error) => return Err(ConnectError::Bucket { region: region.name, error }),
        }
        Ok(region)
    }

    async fn look_at_bucket(&self, create: bool) -> Result<(), StoreError> {
        let head = self.client.head_bucket().bucket(&self.bucket).send().await;
        match head.map_err(|error| fault::store_error(Verb::Bucket, error)) {
            Err(StoreError::NotFound) if create => {
                let mut request = self.client.create_bucket().bucket(&self.bucket);
                // The one region that must not be named when a bucket is created in it.
                if self.name != "us-east-1" {
                    let constraint = BucketLocationConstraint::from(self.name.as_str());
                    let location = CreateBucketConfiguration::builder().location_constraint(constraint).build();
                    request = request.create_bucket_configuration(location);
                }
                request.send().await.map(drop).map_err(|error| fault::store_error(Verb::Bucket, error))
            }
            Err(StoreError::NotFound) => Err(StoreError::Refused("there is no such bucket".to_owned())),
            other => other.map(drop),
        }
    }

    /// Whether versions can be listed; learned once. A store that knows them but does not let us list them is refused: an
    /// erasure's leftovers could not be found there.
    pub async fn versions(&self) -> Result<Versions, StoreError> {
        let learn = async || {
            let request = self.client.list_object_versions().bucket(&self.bucket).prefix(&self.prefix).max_keys(1);
            match request.send().await {
                Ok(_) => Ok(Versions::Listed),
                Err(error) if fault::is_not_implemented(&error) => Ok(Versions::Unknown),
                Err(error) => match fault::store_error(Verb::List, error) {
                    StoreError::NotFound => Err(StoreError::Refused("there is no such bucket".to_owned())),
                    error => Err(error),
                },
            }
        };
        self.versions.get_or_try_init(learn).await.copied()
    }
}

/// Refuses what must not be used. Tells whether the region is reached over TLS.
fn check(config: &RegionConfig) -> Result<bool, &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if !config.prefix.is_empty() && (!config.prefix.ends_with('/') || !config.prefix.bytes().all(plain)) {
        return Err("a prefix has letters, digits, '-', '_', '.', '/', and ends with '/'");
    }
    if config.name.is_empty() || config.bucket.is_empty() {
        return Err("a region has a name and a bucket");
    }
    if let Some(pem) = &config.ca_pem {
        let mut authorities = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| "the certificate authorities are not PEM")?;
            authorities.add(certificate).map_err(|_| "a certificate authority cannot be used")?;
        }
        if authorities.is_empty() {
            return Err("there is no certificate authority in the PEM");
        }
    }
    let Some(endpoint) = &config.endpoint else { return Ok(true) };
    let uri: http::Uri = endpoint.parse().map_err(|_| "the endpoint is not a URL")?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(true),
        (Some("http"), Some(host)) if config.allow_http && is_loopback(host) => Ok(false),
        _ => Err("the endpoint must be https"),
    }
}

/// Whether a host is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn client(config: &RegionConfig, dates: Dates) -> Client {
    let http = http_client(config.ca_pem.as_deref());
    let region = aws_sdk_s3::config::Region::new(config.name.clone());
    let mut builder = match &config.credentials {
        Some(key) => aws_sdk_s3::Config::builder().credentials_provider(Credentials::new(
            key.access_key.clone(),
            key.secret_key.to_string(),
            None,
            None,
            "quietus",
        )),
        None => {
            let shared = aws_config::defaults(BehaviorVersion::v2026_01_12())
                .region(region.clone())
                .http_client(http.clone())
                .load()
                .await;
            aws_sdk_s3::config::Builder::from(&shared)
        }
    };
    let retries = RetryConfig::standard()
        .with_max_attempts(ATTEMPTS)
        .with_initial_backoff(Duration::from_millis(100))
        .with_max_backoff(Duration::from_secs(2));
    builder.set_endpoint_url(config.endpoint.clone());
    let config = builder
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(region)
        .http_client(http)
        .force_path_style(config.path_style)
        .retry_config(retries)
        .interceptor(dates)
        .timeout_config(timeouts(ATTEMPT))
        // Every byte is sealed and on its way in TLS: another checksum would only cost.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}

fn http_client(ca_pem: Option<&[u8]>) -> SharedHttpClient {
    let trust = match ca_pem {
        Some(pem) => tls::TrustStore::empty().with_pem_certificate(pem),
        None => tls::TrustStore::default(),
    };
    let context = tls::TlsContext::builder().with_trust_store(trust).build().unwrap_or_default();
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(context)
        .build_https()
}
