//! An S3 server in this process, for `quietus dev` and for tests: s3s-fs on loopback, one port per region, TLS 1.3 only,
//! access keys drawn at every start. The gateway reaches it through `aws-sdk-s3` like any other S3.
//!
//! A region's bucket has the region's name and is a folder below the root, one file per object. It keeps no versions, does
//! not sync, and is no place for anything that must last. s3s-fs leaves small files beside the buckets for every
//! object that it deletes (a digest of the sealed bytes); they are dropped at the next start.

use super::{Credentials, RegionConfig};
use crate::crypto::random;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use s3s::{auth::SimpleAuth, service::S3Service, service::S3ServiceBuilder};
use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

/// Connections of one region at a time.
const CONNECTIONS: usize = 256;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The server's certificate. It must be valid for the address 127.0.0.1.
pub struct Certificate<'a> {
    /// The chain, the server's own first (PEM).
    pub chain_pem: &'a [u8],
    /// Its private key (PEM).
    pub key_pem: &'a [u8],
    /// The authority that clients trust (PEM).
    pub ca_pem: &'a [u8],
}

/// The embedded server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A folder or a port is refused.
    #[error("the embedded S3 server cannot start: {0}")]
    Io(#[from] io::Error),
    /// The certificate or its key cannot be used.
    #[error("the embedded S3 server's certificate cannot be used")]
    Certificate,
    /// s3s-fs refuses the folder.
    #[error("the embedded S3 server cannot use its folder")]
    Folder,
}

/// The running server. Dropping it stops it.
pub struct Embedded {
    regions: Vec<Listening>,
    credentials: Credentials,
    ca_pem: Vec<u8>,
}

struct Listening {
    name: String,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Embedded {
    /// Starts the server over `root`, one bucket and one port for each region.
    pub async fn start(root: &Path, regions: &[&str], certificate: Certificate<'_>) -> Result<Self, StartError> {
        for region in regions {
            std::fs::create_dir_all(root.join(region))?;
        }
        drop_leftovers(root)?;
        let acceptor = acceptor(&certificate)?;
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let credentials = Credentials {
            access_key: hex(&random::<10>()),
            secret_key: Zeroizing::new(hex(&*Zeroizing::new(random::<32>()))),
        };
        // One file system object for all regions: its temporary names are unique within one only.
        let files = s3s_fs::FileSystem::new(root).map_err(|_| StartError::Folder)?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(credentials.access_key.clone(), credentials.secret_key.to_string()));
        let service = builder.build();
        let mut listening = Vec::with_capacity(regions.len());
        for region in regions {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let address = listener.local_addr()?;
            let task = tokio::spawn(serve(listener, acceptor.clone(), service.clone()));
            listening.push(Listening { name: (*region).to_owned(), address, task });
        }
        Ok(Self { regions: listening, credentials, ca_pem: certificate.ca_pem.to_vec() })
    }

    /// How to reach each region.
    pub fn region_configs(&self) -> Vec<RegionConfig> {
        let config = |region: &Listening| RegionConfig {
            endpoint: Some(format!("https://{}", region.address)),
            credentials: Some(self.credentials.duplicate()),
            path_style: true,
            ca_pem: Some(self.ca_pem.clone()),
            ..RegionConfig::new(&region.name, &region.name)
        };
        self.regions.iter().map(config).collect()
    }

    /// Takes a region away: its port closes, its connections end. For tests.
    pub async fn stop(&mut self, region: &str) {
        for listening in self.regions.iter_mut().filter(|listening| listening.name == region) {
            listening.task.abort();
            // Cancelled is what it is meant to be; the port is closed once the task is gone.
            let _ = (&mut listening.task).await;
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        for region in &self.regions {
            region.task.abort();
        }
    }
}

fn acceptor(certificate: &Certificate<'_>) -> Result<TlsAcceptor, StartError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.chain_pem)
        .collect::<Result<_, _>>()
        .map_err(|_| StartError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem).map_err(|_| StartError::Certificate)?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|_| StartError::Certificate)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, service: S3Service) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // Connections end with this task: a join set aborts what is in it when dropped.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "the embedded S3 server could not take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, service) = (acceptor.clone(), service.clone());
        connections.spawn(async move {
            let _place = place;
            let _ = socket.set_nodelay(true);
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await else { return };
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection to the embedded S3 server broke");
            }
        });
    }
}

/// Drops what s3s-fs keeps beside its buckets about objects that are gone.
fn drop_leftovers(root: &Path) -> io::Result<()> {
    let mut buckets = HashSet::new();
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.file_type()?.is_dir() {
            buckets.insert(name);
        } else if let Some((bucket, key)) = described(&name) {
            kept.push((entry.path(), bucket, key));
        }
    }
    for (path, bucket, key) in kept {
        if buckets.contains(&bucket) && !root.join(&bucket).join(key).exists() {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Bucket and key in a file name of s3s-fs: `.bucket-BASE64URL.object-BASE64URL.internal.json`.
fn described(name: &str) -> Option<(String, String)> {
    let rest = name.strip_prefix(".bucket-")?;
    let rest = rest.strip_suffix(".internal.json").or_else(|| rest.strip_suffix(".metadata.json"))?;
    let (bucket, key) = rest.split_once(".object-")?;
    let text = |part: &str| String::from_utf8(data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).ok()?).ok();
    Some((text(bucket)?, text(key)?))
}
