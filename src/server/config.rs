//! The configuration of `quietus serve`: the TOML file ([`Config::parse`]) and what it resolves to.
//!
//! Unknown fields are refused, and an error names its line and field. Everything that can be said wrong about the file
//! alone is said here, before anything is opened; whether files exist and where the slot lies is for `run`. The
//! environment comes in as a function, so that tests need none. Secrets are never in the file: it names files that hold
//! them, or they come from the environment.

mod oidc;
mod slot;

pub use oidc::IssuerFile;
pub use slot::{Pin, SlotConfig, SlotsConfig};

use crate::{
    journal,
    keys::backup,
    object::is_loopback,
    transport::Limits,
    vault::{VaultConfig, WebhookConfig},
};
use serde::Deserialize;
use std::{collections::BTreeSet, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};
use toml::Spanned;

/// What the gateway runs with.
pub struct Config {
    /// The group that owns key tree, journal and regions.
    pub group: String,
    /// The key store's folder.
    pub keys: PathBuf,
    /// The journal's folder.
    pub journal: PathBuf,
    /// The slots.
    pub slots: SlotsConfig,
    /// The file of the key that signs checkpoints and receipts; made where it is missing.
    pub signing_key: PathBuf,
    /// Where to listen: TCP for HTTP/2 and HTTP/1.1, and UDP for HTTP/3.
    pub listen: SocketAddr,
    /// Whether to serve HTTP/3.
    pub http3: bool,
    /// Certificates.
    pub tls: TlsFiles,
    /// The identities file.
    pub identities: PathBuf,
    /// Whose signed tokens are taken.
    pub issuers: Vec<IssuerFile>,
    /// The folder of this gateway's own access policies.
    pub access_policies: Option<PathBuf>,
    /// Object storage, home regions of tenants.
    pub regions: Vec<Region>,
    /// Bounds of the journal.
    pub journal_options: journal::Options,
    /// Bounds of the vault.
    pub vault: VaultConfig,
    /// Who signs the certificates of webhook receivers, where it is not a public authority.
    pub webhook_ca: Option<PathBuf>,
    /// Bounds of connections.
    pub limits: Limits,
    /// Whether the slot may lie on the key store's file system.
    pub allow_same_filesystem: bool,
    /// Whether memory may be written to a swap area.
    pub accept_swap: bool,
    /// Bounds of the backup; none where there is none, as was asked for in words.
    pub backup: Option<backup::Options>,
}

/// Certificates of the listener.
pub struct TlsFiles {
    /// The server's chain.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// Who signs client certificates.
    pub client_ca: Option<PathBuf>,
}

/// Regions of one group.
const MAX_REGIONS: usize = 2;

/// A region's bucket.
#[derive(Debug, PartialEq, Eq)]
pub struct Region {
    /// E.g. `eu-west-2`.
    pub name: String,
    /// The bucket.
    pub bucket: String,
    /// Where the S3 server is, where it is not AWS's own.
    pub endpoint: Option<String>,
    /// The bucket of the key store's backup, where it is not the same.
    pub backup_bucket: Option<String>,
    /// Whether buckets stand in the path.
    pub path_style: bool,
    /// Put before every object's name.
    pub prefix: String,
    /// Whether plain HTTP will do, on the loopback only.
    pub allow_http: bool,
    /// Whether to create a bucket that is missing.
    pub create_bucket: bool,
    /// The CA of that server, where it is not a public one.
    pub ca: Option<PathBuf>,
    /// Where access keys come from.
    pub credentials: Credentials,
}

/// Where a region's access keys come from.
#[derive(PartialEq, Eq)]
pub enum Credentials {
    /// The platform: instance role, web identity.
    Platform,
    /// A key id, and the file that holds the secret.
    File(String, PathBuf),
    /// A key id and the secret, from the environment.
    Given(String, String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Platform => "Platform",
            Self::File(..) => "File",
            Self::Given(..) => "Given",
        })
    }
}

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, an unknown field, a wrong type: the parser's words, which hold line and column.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A value that cannot be.
    #[error("line {line}: {field}: {remedy}")]
    Value {
        /// Where.
        line: usize,
        /// Which.
        field: &'static str,
        /// What to write instead.
        remedy: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    group: Spanned<String>,
    data: PathBuf,
    identities: PathBuf,
    listen: RawListen,
    tls: RawTls,
    slot: Spanned<slot::RawSlot>,
    backup: Option<Spanned<RawBackup>>,
    #[serde(default)]
    journal: RawJournal,
    #[serde(default)]
    memory: RawMemory,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    webhook: RawWebhook,
    #[serde(default)]
    audit: RawAudit,
    #[serde(default)]
    access: RawAccess,
    #[serde(default)]
    oidc: Vec<oidc::RawIssuer>,
    region: Spanned<Vec<RawRegion>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccess {
    policies: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListen {
    address: SocketAddr,
    #[serde(default = "yes")]
    http3: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBackup {
    #[serde(default)]
    accept_none: bool,
    keep_days: Option<Spanned<u64>>,
    base_hours: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawJournal {
    limit_mib: Option<Spanned<u64>>,
    segment_mib: Option<Spanned<u64>>,
    max_unstored_seconds: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMemory {
    #[serde(default)]
    accept_swap: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    memory_mib: Option<Spanned<u64>>,
    sender_timeout_seconds: Option<Spanned<u64>>,
    client_window_days: Option<Spanned<u64>>,
    anonymous_min_tenants: Option<Spanned<u64>>,
    connections: Option<Spanned<u64>>,
    streams_per_connection: Option<Spanned<u64>>,
    max_connection_age_seconds: Option<Spanned<u64>>,
    drain_seconds: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhook {
    ca: Option<PathBuf>,
    #[serde(default)]
    allow_private: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAudit {
    signing_key: Option<PathBuf>,
    evidence_years: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegion {
    name: Spanned<String>,
    bucket: Spanned<String>,
    backup_bucket: Option<String>,
    endpoint: Option<Spanned<String>>,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    path_style: bool,
    #[serde(default)]
    allow_http: bool,
    #[serde(default)]
    create_bucket: bool,
    ca: Option<PathBuf>,
    access_key_id: Option<Spanned<String>>,
    secret_access_key_file: Option<PathBuf>,
}

fn yes() -> bool {
    true
}

impl Config {
    /// Reads the file's text. `environment` gives variables by name.
    pub fn parse(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let raw: Raw = toml::from_str(text)?;
        let check = Check { text };
        check.that(is_plain(raw.group.get_ref()), &raw.group, "group", "letters, digits, `-`, `_`, `.` and `+`")?;
        let at = Spanned::new(raw.slot.span(), ());
        let allow_same_filesystem = raw.slot.get_ref().allow_same_filesystem;
        let slots = check.slots(raw.slot, &environment)?;
        let signing_key = match (raw.audit.signing_key, slots.members.as_slice()) {
            (Some(path), _) => path,
            (None, [only]) => only.path().with_file_name("audit.key"),
            (None, _) => {
                let remedy = "with several slots, say where the key that signs the audit log lies";
                return Err(check.refuse(&at, "audit.signing_key", remedy));
            }
        };
        let vault = VaultConfig::default();
        let limits = Limits::default();
        let options = journal::Options::default();
        let mib = |bytes: u64| bytes >> 20;
        let seconds = |field, value: &Option<_>, range, default: Duration| {
            check.number(field, value, range, default.as_secs()).map(Duration::from_secs)
        };
        let backup = check.backup(raw.backup)?;
        let regions = check.regions(raw.region, &environment)?;
        Ok(Self {
            keys: raw.data.join("keys"),
            journal: raw.data.join("journal"),
            slots,
            signing_key,
            allow_same_filesystem,
            accept_swap: raw.memory.accept_swap,
            backup,
            listen: raw.listen.address,
            http3: raw.listen.http3,
            tls: TlsFiles { certificate: raw.tls.certificate, key: raw.tls.key, client_ca: raw.tls.client_ca },
            identities: raw.identities,
            issuers: check.issuers(raw.oidc)?,
            access_policies: raw.access.policies,
            regions,
            journal_options: journal::Options {
                limit_bytes: check.number(
                    "journal.limit_mib",
                    &raw.journal.limit_mib,
                    64..=1 << 24,
                    mib(options.limit_bytes),
                )? << 20,
                segment_bytes: check.number(
                    "journal.segment_mib",
                    &raw.journal.segment_mib,
                    1..=1024,
                    mib(options.segment_bytes),
                )? << 20,
            },
            vault: VaultConfig {
                group: raw.group.get_ref().clone(),
                memory_budget: (check.number(
                    "limits.memory_mib",
                    &raw.limits.memory_mib,
                    64..=1 << 20,
                    mib(vault.memory_budget as u64),
                )? << 20) as usize,
                max_unstored: seconds(
                    "journal.max_unstored_seconds",
                    &raw.journal.max_unstored_seconds,
                    1..=86_400,
                    vault.max_unstored,
                )?,
                sender_timeout: seconds(
                    "limits.sender_timeout_seconds",
                    &raw.limits.sender_timeout_seconds,
                    1..=86_400,
                    vault.sender_timeout,
                )?,
                client_window_days: check.number(
                    "limits.client_window_days",
                    &raw.limits.client_window_days,
                    1..=365,
                    vault.client_window_days.into(),
                )? as u32,
                webhook: WebhookConfig { ca_pem: None, allow_private: raw.webhook.allow_private },
                min_tenants: check.number(
                    "limits.anonymous_min_tenants",
                    &raw.limits.anonymous_min_tenants,
                    2..=10_000,
                    vault.min_tenants.into(),
                )? as u32,
                evidence_years: check.number(
                    "audit.evidence_years",
                    &raw.audit.evidence_years,
                    1..=30,
                    vault.evidence_years.into(),
                )? as u32,
                ..vault
            },
            webhook_ca: raw.webhook.ca,
            limits: Limits {
                connections: check.number(
                    "limits.connections",
                    &raw.limits.connections,
                    1..=1 << 20,
                    limits.connections as u64,
                )? as usize,
                streams: check.number(
                    "limits.streams_per_connection",
                    &raw.limits.streams_per_connection,
                    1..=1 << 16,
                    limits.streams.into(),
                )? as u32,
                max_age: seconds(
                    "limits.max_connection_age_seconds",
                    &raw.limits.max_connection_age_seconds,
                    60..=86_400,
                    limits.max_age,
                )?,
                drain_grace: seconds("limits.drain_seconds", &raw.limits.drain_seconds, 1..=3600, limits.drain_grace)?,
                ..limits
            },
            group: raw.group.into_inner(),
        })
    }
}

struct Check<'a> {
    text: &'a str,
}

impl Check<'_> {
    fn that<T>(&self, holds: bool, at: &Spanned<T>, field: &'static str, remedy: &str) -> Result<(), ConfigError> {
        if holds { Ok(()) } else { Err(self.refuse(at, field, remedy)) }
    }

    fn refuse<T>(&self, at: &Spanned<T>, field: &'static str, remedy: &str) -> ConfigError {
        let before = self.text.as_bytes().iter().take(at.span().start);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        ConfigError::Value { line, field, remedy: remedy.to_owned() }
    }

    fn number(
        &self,
        field: &'static str,
        value: &Option<Spanned<u64>>,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, ConfigError> {
        let Some(value) = value else { return Ok(default) };
        let remedy = format!("a number from {} to {}", range.start(), range.end());
        self.that(range.contains(value.get_ref()), value, field, &remedy)?;
        Ok(*value.get_ref())
    }

    /// The backup: what is said of it, or that there is to be none.
    fn backup(&self, raw: Option<Spanned<RawBackup>>) -> Result<Option<backup::Options>, ConfigError> {
        let Some(raw) = raw else {
            let remedy = "say `[backup]` to keep the key store's backup in the regions' buckets, or `accept_none = true` \
                          below it: whoever loses the node then loses every recording";
            return Err(ConfigError::Value { line: 1, field: "backup", remedy: remedy.to_owned() });
        };
        let RawBackup { accept_none, keep_days, base_hours } = raw.get_ref();
        if *accept_none {
            let alone = keep_days.is_none() && base_hours.is_none();
            self.that(alone, &raw, "backup.accept_none", "nothing else is said of a backup that there is not")?;
            return Ok(None);
        }
        let options = backup::Options::default();
        let (days, hours) = (options.max_age.as_secs() / 86_400, options.base_interval.as_secs() / 3600);
        let days = self.number("backup.keep_days", keep_days, 1..=30, days)?;
        let hours = self.number("backup.base_hours", base_hours, 1..=24, hours)?;
        Ok(Some(backup::Options {
            max_age: Duration::from_secs(days * 86_400),
            base_interval: Duration::from_secs(hours * 3600),
            ..options
        }))
    }

    fn regions(
        &self,
        raw: Spanned<Vec<RawRegion>>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Region>, ConfigError> {
        self.that(!raw.get_ref().is_empty(), &raw, "region", "at least one region")?;
        let few = raw.get_ref().len() <= MAX_REGIONS;
        self.that(few, &raw, "region", "at most two regions: the queue of copies knows one place that lacks a copy")?;
        let mut names = BTreeSet::new();
        let mut regions = Vec::new();
        for region in raw.into_inner() {
            self.that(is_plain(region.name.get_ref()), &region.name, "region.name", "a region such as eu-west-2")?;
            let fresh = names.insert(region.name.get_ref().clone());
            self.that(fresh, &region.name, "region.name", "this region is listed twice")?;
            self.that(!region.bucket.get_ref().is_empty(), &region.bucket, "region.bucket", "the bucket's name")?;
            if let Some(endpoint) = &region.endpoint {
                let good =
                    endpoint.get_ref().parse::<http::Uri>().is_ok_and(|uri| match (uri.scheme_str(), uri.host()) {
                        (Some("https"), Some(_)) => true,
                        (Some("http"), Some(host)) => region.allow_http && is_loopback(host),
                        _ => false,
                    });
                let remedy = "an https:// URL (with allow_http = true, an http:// URL on the loopback)";
                self.that(good, endpoint, "region.endpoint", remedy)?;
            }
            let credentials = match (region.access_key_id, region.secret_access_key_file) {
                (Some(id), Some(file)) => Credentials::File(id.into_inner(), file),
                (Some(id), None) => {
                    let remedy = "secret_access_key_file must stand beside it";
                    return Err(self.refuse(&id, "region.access_key_id", remedy));
                }
                (None, _) => match (environment("AWS_ACCESS_KEY_ID"), environment("AWS_SECRET_ACCESS_KEY")) {
                    (Some(id), Some(secret)) => Credentials::Given(id, secret),
                    _ => Credentials::Platform,
                },
            };
            regions.push(Region {
                name: region.name.into_inner(),
                bucket: region.bucket.into_inner(),
                backup_bucket: region.backup_bucket,
                endpoint: region.endpoint.map(Spanned::into_inner),
                prefix: region.prefix,
                path_style: region.path_style,
                allow_http: region.allow_http,
                create_bucket: region.create_bucket,
                ca: region.ca,
                credentials,
            });
        }
        Ok(regions)
    }
}

fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const EXAMPLE: &str = include_str!("../../infra/quietus.example.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, |_| None)
    }

    fn refusal(from: &str, to: &str) -> String {
        assert!(EXAMPLE.contains(from), "{from}");
        parse(&EXAMPLE.replace(from, to)).err().expect("refused").to_string()
    }

    #[test]
    fn the_example_is_good() {
        let config = parse(EXAMPLE).expect("good");
        assert_eq!(config.group, "uk+eu");
        assert_eq!(
            config.regions.iter().map(|region| region.name.as_str()).collect::<Vec<_>>(),
            ["eu-west-2", "eu-west-1"]
        );
        assert_eq!(config.vault.group, "uk+eu");
        assert!(!config.allow_same_filesystem && !config.accept_swap && config.http3);
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line() {
        let error = refusal("http3 = true", "http4 = true");
        assert!(error.contains("http4") && error.contains("line "), "{error}");
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_line() {
        let line = EXAMPLE.lines().position(|line| line.starts_with("limit_mib")).expect("there") + 1;
        let from = EXAMPLE.lines().nth(line - 1).expect("there");
        let error = refusal(from, "limit_mib = 1");
        assert!(error.starts_with(&format!("line {line}: journal.limit_mib")), "{error}");
    }

    #[test]
    fn swap_is_accepted_in_words_only() {
        let with = |value: &str| parse(&format!("{EXAMPLE}\n[memory]\naccept_swap = {value}\n"));
        assert!(with("true").is_ok_and(|config| config.accept_swap));
        assert!(with("false").is_ok_and(|config| !config.accept_swap));
        assert!(with("1").is_err());
    }

    #[test]
    fn running_without_a_backup_must_be_said_in_words() {
        assert!(parse(EXAMPLE).expect("good").backup.is_some());
        assert!(refusal("[backup]", "").contains("accept_none"));
        let none = parse(&EXAMPLE.replace("[backup]", "[backup]\naccept_none = true")).expect("good");
        assert!(none.backup.is_none());
        assert!(refusal("[backup]", "[backup]\nkeep_days = 31").contains("backup.keep_days"));
        assert!(refusal("[backup]", "[backup]\naccept_none = true\nkeep_days = 3").contains("accept_none"));
    }

    #[test]
    fn a_plaintext_endpoint_and_a_region_listed_twice_are_refused() {
        let with = |line: &str| {
            let text = EXAMPLE.replace("name = \"eu-west-1\"", line);
            parse(&text).err().expect("refused").to_string()
        };
        assert!(with("name = \"eu-west-1\"\nendpoint = \"http://127.0.0.1:9000\"").contains("region.endpoint"));
        let beyond = "name = \"eu-west-1\"\nendpoint = \"http://s3.example.org\"\nallow_http = true";
        assert!(with(beyond).contains("region.endpoint"));
        assert!(with("name = \"eu-west-2\"").contains("twice"));
        assert!(with("name = \"eu-west-1\"\naccess_key_id = \"id\"").contains("secret_access_key_file"));
    }

    #[test]
    fn access_keys_come_from_the_environment_where_the_file_names_none() {
        let config = Config::parse(EXAMPLE, |name| Some(name.to_lowercase())).expect("good");
        let expected = Credentials::Given("aws_access_key_id".into(), "aws_secret_access_key".into());
        assert!(config.regions.iter().all(|region| region.credentials == expected));
    }

    proptest::proptest! {
        #[test]
        fn hostile_text_never_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
