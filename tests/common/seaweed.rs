//! A real S3 server for tests: SeaweedFS with versioned buckets, over TLS, in a temporary folder.
//!
//! `make deps` installs `weed`. It is looked for in `QUIETUS_WEED`, in the `PATH`, and in `~/.cache/quietus/venv/bin`; a
//! test that needs it fails without it. All tests of one binary share one server, which is killed when the last of them
//! lets go: it takes over ten seconds to stop on its own, and nothing in it is worth keeping.

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Region},
    types::{BucketVersioningStatus, VersioningConfiguration},
};
use aws_smithy_http_client::tls;
use quietus::{
    crypto::random,
    object::{Credentials, RegionConfig},
};
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longest wait for the server to be ready.
const START: Duration = Duration::from_secs(60);
/// Starts, should one of the ports be taken by somebody else meanwhile.
const STARTS: usize = 3;

/// The running server.
pub struct Seaweed {
    process: Child,
    https: u16,
    ca_pem: String,
    access_key: String,
    secret_key: String,
    _dir: TempDir,
}

impl Seaweed {
    /// The server that this binary's tests share. Blocks until it is ready.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Seaweed>> = Mutex::new(Weak::new());
        // A test that failed while it held the lock left nothing half done.
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start());
        *shared = Arc::downgrade(&started);
        started
    }

    fn start() -> Self {
        let mut log = String::new();
        for _ in 0..STARTS {
            match Self::try_start() {
                Ok(started) => return started,
                Err(said) => log = said,
            }
        }
        panic!("SeaweedFS does not start; it says:\n{log}");
    }

    fn try_start() -> Result<Self, String> {
        let dir = TempDir::new().expect("a folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
        let ca_pem = names.self_signed(&key).expect("a certificate").pem();
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let (access_key, secret_key) = (hex(&random::<10>()), hex(&random::<32>()));
        let identities = serde_json::json!({ "identities": [{
            "name": "admin",
            "credentials": [{ "accessKey": access_key, "secretKey": secret_key }],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }]});
        std::fs::write(path("s3.json"), identities.to_string()).expect("writes");
        std::fs::write(path("cert.pem"), &ca_pem).expect("writes");
        std::fs::write(path("key.pem"), key.serialize_pem()).expect("writes");
        std::fs::create_dir(path("data")).expect("creates");
        let log = std::fs::File::create(path("log")).expect("creates");
        let ports = free_ports();
        let [http, https, ..] = ports;
        let mut command = Command::new(weed());
        command
            .args(["-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=0"])
            .args(["-master.volumeSizeLimitMB=256", "-master.telemetry=false", "-filer", "-s3"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .arg(format!("-dir={}", path("data")))
            .arg(format!("-s3.config={}", path("s3.json")))
            .arg(format!("-s3.cert.file={}", path("cert.pem")))
            .arg(format!("-s3.key.file={}", path("key.pem")))
            .arg(format!("-s3.localSocket={}", path("s3.sock")))
            .arg(format!("-filer.localSocket={}", path("filer.sock")));
        let listeners = [
            "s3.port",
            "s3.port.https",
            "s3.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "master.port",
            "master.port.grpc",
        ];
        for (name, port) in listeners.iter().zip(ports) {
            command.arg(format!("-{name}={port}"));
        }
        let process = command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("another handle"))
            .stderr(log)
            .spawn()
            .expect("SeaweedFS (weed) is installed; `make deps` does it");
        // From here on dropping it kills the process.
        let mut started = Self { process, https, ca_pem, access_key, secret_key, _dir: dir };
        let deadline = Instant::now() + START;
        while !is_healthy(http) {
            let ended = started.process.try_wait().expect("a child of ours").is_some();
            if ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(started._dir.path().join("log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                return Err(lines[lines.len().saturating_sub(20)..].join("\n"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(started)
    }

    /// How the gateway reaches a bucket of this server, which it creates.
    pub fn region_config(&self, region: &str, bucket: &str) -> RegionConfig {
        RegionConfig {
            endpoint: Some(format!("https://127.0.0.1:{}", self.https)),
            credentials: Some(Credentials {
                access_key: self.access_key.clone(),
                secret_key: self.secret_key.clone().into(),
            }),
            path_style: true,
            ca_pem: Some(self.ca_pem.clone().into_bytes()),
            create_bucket: true,
            ..RegionConfig::new(region, bucket)
        }
    }

    /// The SDK itself, for what the gateway never does.
    pub fn client(&self) -> Client {
        let trust = tls::TrustStore::empty().with_pem_certificate(self.ca_pem.as_bytes());
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .tls_context(tls::TlsContext::builder().with_trust_store(trust).build().expect("a context"))
            .build_https();
        let credentials = aws_sdk_s3::config::Credentials::new(&self.access_key, &self.secret_key, None, None, "test");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-west-2"))
            .endpoint_url(format!("https://127.0.0.1:{}", self.https))
            .credentials_provider(credentials)
            .force_path_style(true)
            .http_client(http)
            .build();
        Client::from_conf(config)
    }

    /// Turns a bucket's versioning on, or suspends it.
    pub async fn set_versioning(&self, bucket: &str, status: BucketVersioningStatus) {
        let versioning = VersioningConfiguration::builder().status(status).build();
        let request = self.client().put_bucket_versioning().bucket(bucket).versioning_configuration(versioning);
        request.send().await.expect("versioning is set");
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn weed() -> PathBuf {
    if let Some(path) = std::env::var_os("QUIETUS_WEED") {
        return path.into();
    }
    let in_path =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let in_cache = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/quietus/venv/bin"));
    in_path
        .into_iter()
        .chain(in_cache)
        .map(|dir| dir.join("weed"))
        .find(|file| file.is_file())
        .expect("SeaweedFS (weed) is installed; `make deps` does it")
}

/// Ports that nobody listens on now.
fn free_ports() -> [u16; 9] {
    let held: [TcpListener; 9] =
        std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    held.each_ref().map(|listener| listener.local_addr().expect("an address").port())
}

fn is_healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        socket.read_exact(&mut answer)?;
        Ok(&answer == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
