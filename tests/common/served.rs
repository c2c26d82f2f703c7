//! `quietus serve` on a temporary folder, with object storage that the test holds in its hand: an embedded S3 server that
//! outlives every gateway, behind proxies that can be cut.

#![allow(dead_code)]

use super::gateway::Gateway;
use quietus::{
    object::{Embedded, RegionConfig, embedded::Certificate},
    server::dev_files::{DevFiles, GROUP},
};
use std::{fmt::Write as _, net::SocketAddr, path::PathBuf, process::Command};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Home regions, in the order of their proxies.
pub const REGIONS: [&str; 2] = ["eu-west-2", "eu-west-1"];

/// Everything around a gateway. It may be started, killed and started again.
pub struct World {
    dir: TempDir,
    files: DevFiles,
    storage: Option<Embedded>,
    /// In front of each region, in the order of [`REGIONS`].
    pub proxies: Vec<Proxy>,
}

impl World {
    /// Storage of its own. `settings` are whole TOML sections, `[limits]` and `[journal]`.
    pub async fn new(settings: &str) -> Self {
        let dir = TempDir::new().expect("a folder");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        let files = DevFiles::prepare(&data).expect("certificates");
        let ca = files.tls.client_ca.clone().expect("a CA");
        let certificate = Certificate { chain_pem: &files.tls.certificate, key_pem: &files.tls.key, ca_pem: &ca };
        let storage = Embedded::start(&dir.path().join("s3"), &REGIONS, certificate).await.expect("storage");
        let regions = storage.region_configs();
        let mut world = Self { dir, files, storage: Some(storage), proxies: Vec::new() };
        world.configure(regions, settings).await;
        world
    }

    /// Over storage that somebody else runs.
    pub async fn over(regions: Vec<RegionConfig>, settings: &str) -> Self {
        let dir = TempDir::new().expect("a folder");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        let files = DevFiles::prepare(&data).expect("certificates");
        let mut world = Self { dir, files, storage: None, proxies: Vec::new() };
        world.configure(regions, settings).await;
        world
    }

    async fn configure(&mut self, regions: Vec<RegionConfig>, settings: &str) {
        let data = self.data();
        // The identities of `quietus dev`, with a switch that reaches one tenant and an administrator of the customers that
        // tests make, who may hear what is theirs. In the place of the one that only `dev` lets in, and with its token, the
        // provider's administrator, who reaches every tenant.
        let all = std::fs::read_to_string(data.join("tls/identities.toml")).expect("identities");
        let kept: Vec<String> = all
            .split("[[identity]]")
            .skip(1)
            .map(|entry| {
                let reach = match entry {
                    switch if switch.contains("switch/") => "[\"acme\"]",
                    admin if admin.contains("admin/") => "[\"acme\", \"globex\", \"other\"]",
                    _ => "[\"*\"]",
                };
                format!("[[identity]]{}", entry.replace("[\"*\"]", reach).replace("developer/dev", "admin/root"))
            })
            .collect();
        std::fs::write(data.join("identities.toml"), kept.concat()).expect("written");
        let at = |name: &str| data.join(name).display().to_string();
        let backup = if settings.contains("[backup]") { "" } else { "[backup]\naccept_none = true" };
        let mut text = format!(
            "group = \"{GROUP}\"\ndata = \"{}\"\nidentities = \"{}\"\n[listen]\naddress = \"127.0.0.1:0\"\n[tls]\n\
             certificate = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\n[slot]\npath = \"{}\"\n\
             allow_same_filesystem = true\naccept_total_loss = true\n[memory]\naccept_swap = true\n{backup}\n{settings}\n",
            data.display(),
            at("identities.toml"),
            at("tls/server.pem"),
            at("tls/server.key"),
            at("tls/ca.pem"),
            at("slot/root"),
        );
        std::fs::create_dir_all(data.join("slot")).expect("a folder");
        for region in regions {
            let endpoint = region.endpoint.expect("an endpoint");
            let target: SocketAddr = endpoint.trim_start_matches("https://").parse().expect("an address");
            let proxy = Proxy::before(target).await;
            let keys = region.credentials.expect("keys");
            let (ca, secret) = (at(&format!("{}-ca.pem", region.name)), at(&format!("{}.secret", region.name)));
            std::fs::write(&ca, region.ca_pem.expect("a CA")).expect("written");
            std::fs::write(&secret, keys.secret_key.as_bytes()).expect("written");
            write!(
                text,
                "[[region]]\nname = \"{}\"\nbucket = \"{}\"\nendpoint = \"https://127.0.0.1:{}\"\npath_style = true\n\
                 create_bucket = {}\nca = \"{ca}\"\naccess_key_id = \"{}\"\nsecret_access_key_file = \"{secret}\"\n",
                region.name, region.bucket, proxy.port, region.create_bucket, keys.access_key
            )
            .expect("written");
            self.proxies.push(proxy);
        }
        std::fs::write(data.join("quietus.toml"), text).expect("written");
    }

    /// Starts a gateway on the folder.
    pub fn start(&self) -> Gateway {
        self.try_start(&[]).unwrap_or_else(|log| panic!("no ready line; the log says: {log}"))
    }

    /// Starts a gateway with these in its environment; gives its log where it ends before it serves.
    pub fn try_start(&self, environment: &[(&str, String)]) -> Result<Gateway, String> {
        let data = self.data();
        let mut command = Command::new(env!("CARGO_BIN_EXE_quietus"));
        command.args(["serve", "--config"]).arg(data.join("quietus.toml"));
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let gateway = tokio::task::block_in_place(|| Gateway::try_spawn(command, &data))?;
        self.files.write_profiles(gateway.port).expect("profiles");
        let root = format!(
            "endpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\ntoken_file = \"developer.token\"\n",
            gateway.port
        );
        std::fs::write(data.join("client/root.toml"), root).expect("a profile");
        Ok(gateway)
    }

    /// Holds keys, journal, slot, client files.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A folder beside it, for copies.
    pub fn aside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the embedded server keeps a region's objects.
    pub fn bucket(&self, region: &str) -> PathBuf {
        self.dir.path().join("s3").join(region)
    }

    /// Names of a region's objects.
    pub fn objects(&self, region: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.bucket(region)).expect("a bucket");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }
}

/// What a proxy does with connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Open,
    Cut,
    Stalled,
}

/// Passes connections on until it is cut or stalled.
pub struct Proxy {
    port: u16,
    line: watch::Sender<Line>,
}

impl Proxy {
    async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (line, state) = watch::channel(Line::Open);
        tokio::spawn(async move {
            while let Ok((mut inbound, _)) = listener.accept().await {
                let mut state = state.clone();
                if *state.borrow() == Line::Cut {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(mut outbound) = TcpStream::connect(target).await else { return };
                    if *state.borrow() == Line::Open {
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound) => return,
                            _ = state.wait_for(|line| *line != Line::Open) => {}
                        }
                    }
                    // A stalled line stays up, and says nothing until it is mended; then it is gone.
                    let _ = state.wait_for(|line| *line != Line::Stalled).await;
                });
            }
        });
        Self { port, line }
    }

    /// Ends every connection and refuses new ones.
    pub fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    /// Takes connections and keeps them, but passes nothing on.
    pub fn stall(&self) {
        self.line.send_replace(Line::Stalled);
    }

    /// Passes new ones on again.
    pub fn mend(&self) {
        self.line.send_replace(Line::Open);
    }
}
