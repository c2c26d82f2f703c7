//! The certificates, tokens and profiles of `quietus dev`.
//!
//! ```text
//! DIR/tls/      server.pem server.key ca.pem identities.toml    for the gateway only, mode 0700; and audit.key
//! DIR/client/   ca.pem WHO.pem WHO.key WHO.token                one identity per role, and the customer
//!               profile.toml profile-h3.toml WHO.toml           how to connect; profile.toml is the developer
//!               audit.vkey                                      public key of checkpoints and receipts
//! ```
//!
//! Each role's identity reaches every tenant, which makes the administrator the provider's. The *customer* is an administrator
//! of one tenant, [`CUSTOMERS_TENANT`], whether it is there yet or not: the one who lets staff listen. There is no subscriber:
//! their names never lie in an identities file, so that one needs an OpenID Connect issuer.
//!
//! The CA's own key signs once and is forgotten: whoever copies DIR cannot make further identities. Both folders are
//! written beside their places and renamed, `client` last, so that a start that was killed half-way leaves either
//! everything or something that the next start makes anew. Profiles are rewritten at every start, since the port may
//! have changed.

use crate::{
    crypto,
    transport::{
        auth::{TOKEN_LEN, token_hash},
        tls::Material,
    },
};
use anyhow::Context as _;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// The group of `quietus dev`.
pub const GROUP: &str = "uk+eu";
/// The tenant that the customer is an administrator of.
pub const CUSTOMERS_TENANT: &str = "acme";
/// Name of the files, the identity, and its one tenant where it does not reach all. The first is the default.
const IDENTITIES: [(&str, &str, Option<&str>); 7] = [
    ("developer", "developer/dev", None),
    ("switch", "switch/dev", None),
    ("admin", "admin/dev", None),
    ("customer", "admin/customer", Some(CUSTOMERS_TENANT)),
    ("staff", "staff/dev", None),
    ("auditor", "auditor/dev", None),
    ("operator", "operator/dev", None),
];

/// What the gateway needs of them.
pub struct DevFiles {
    /// For the listeners.
    pub tls: Material,
    /// The identities file's text.
    pub identities: String,
    client: PathBuf,
}

impl DevFiles {
    /// Finds them, or makes them.
    pub fn prepare(dir: &Path) -> anyhow::Result<Self> {
        let (tls, client) = (dir.join("tls"), dir.join("client"));
        if !(tls.exists() && client.exists()) {
            make(&tls, &client).context("cannot make the dev certificates")?;
        }
        let material = Material::read(&tls.join("server.pem"), &tls.join("server.key"), Some(&tls.join("ca.pem")))?;
        let identities = fs::read_to_string(tls.join("identities.toml")).context("DIR/tls/identities.toml")?;
        Ok(Self { tls: material, identities, client })
    }

    /// Writes the public key of checkpoints and receipts.
    pub fn write_verifier_key(&self, key: &str) -> anyhow::Result<()> {
        let (path, beside) = (self.client.join("audit.vkey"), self.client.join("audit.vkey.new"));
        fs::write(&beside, format!("{key}\n"))?;
        Ok(fs::rename(&beside, &path)?)
    }

    /// Writes the profiles for a port.
    pub fn write_profiles(&self, port: u16) -> anyhow::Result<PathBuf> {
        let profile = |name: &str, who: &str, transport: &str| {
            let text = format!(
                "# Written by `quietus dev`. Paths are relative to this file.\n\
                 endpoint = \"https://localhost:{port}\"\ntransport = \"{transport}\"\nca = \"ca.pem\"\n\
                 certificate = \"{who}.pem\"\nkey = \"{who}.key\"\n"
            );
            let path = self.client.join(name);
            let beside = self.client.join(format!("{name}.new"));
            fs::write(&beside, text)?;
            fs::rename(&beside, &path).map(|()| path)
        };
        for (who, ..) in IDENTITIES {
            profile(&format!("{who}.toml"), who, "h2")?;
        }
        profile("profile-h3.toml", IDENTITIES[0].0, "h3")?;
        Ok(profile("profile.toml", IDENTITIES[0].0, "h2")?)
    }
}

fn make(tls: &Path, client: &Path) -> anyhow::Result<()> {
    let (new_tls, new_client) = (tls.with_extension("new"), client.with_extension("new"));
    for folder in [tls, client, &new_tls, &new_client] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    for folder in [&new_tls, &new_client] {
        fs::DirBuilder::new().mode(0o700).create(folder)?;
    }

    let (ca, issuer) = authority()?;
    write(&new_tls.join("ca.pem"), &ca, 0o644)?;
    write(&new_client.join("ca.pem"), &ca, 0o644)?;

    let mut server = params(ExtendedKeyUsagePurpose::ServerAuth, "quietus dev gateway");
    server.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    sign(server, &issuer, &new_tls, "server")?;

    let mut identities = String::from("# Who there is in `quietus dev`; tokens as hashes.\n");
    for (who, name, tenant) in IDENTITIES {
        let mut params = params(ExtendedKeyUsagePurpose::ClientAuth, who);
        params.subject_alt_names = vec![SanType::URI(format!("quietus://{GROUP}/{name}").try_into()?)];
        sign(params, &issuer, &new_client, who)?;
        let token = BASE64URL_NOPAD.encode(&crypto::random::<TOKEN_LEN>());
        write(&new_client.join(format!("{who}.token")), &token, 0o600)?;
        let (tenant, hash) = (tenant.unwrap_or("*"), HEXLOWER.encode(&token_hash(&token)));
        identities.push_str(&format!(
            "\n[[identity]]\nname = \"{name}\"\ntenants = [\"{tenant}\"]\ntoken_sha256 = \"{hash}\"\n"
        ));
    }
    write(&new_tls.join("identities.toml"), &identities, 0o600)?;
    fs::rename(&new_tls, tls)?;
    fs::rename(&new_client, client)?;
    Ok(())
}

fn authority() -> Result<(String, Issuer<'static, KeyPair>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    name(&mut params, "quietus dev CA");
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), Issuer::new(params, key)))
}

fn params(usage: ExtendedKeyUsagePurpose, common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![usage];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    name(&mut params, common_name);
    params
}

fn name(params: &mut CertificateParams, common_name: &str) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2050, 1, 1);
}

fn sign(params: CertificateParams, issuer: &Issuer<'static, KeyPair>, folder: &Path, name: &str) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    write(&folder.join(format!("{name}.pem")), &certificate.pem(), 0o644)?;
    let key = zeroize::Zeroizing::new(key.serialize_pem());
    write(&folder.join(format!("{name}.key")), &key, 0o600)
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        server::identities,
        transport::{
            auth::{Access, CertificateName, Identities},
            tls::server_config,
        },
    };
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

    #[test]
    fn certificates_and_tokens_name_the_same_identities_and_are_found_again() {
        let dir = tempfile::tempdir().expect("dir");
        let files = DevFiles::prepare(dir.path()).expect("made");
        server_config(&files.tls, &[b"h2"]).expect("usable");
        let known = Identities::new(GROUP.into(), Arc::new(Access::shipped(GROUP)), true);
        known.list(identities::parse(&files.identities).expect("good")).expect("good");
        for (who, name, _) in IDENTITIES {
            let client = dir.path().join("client");
            let der = CertificateDer::from_pem_file(client.join(format!("{who}.pem"))).expect("pem");
            let certificate = CertificateName::of(Some(&der));
            let by_certificate = known.by_name(known.certified(&certificate).expect("named")).expect("known");
            let token = fs::read_to_string(client.join(format!("{who}.token"))).expect("token");
            let by_token = known.by_token(&token).expect("known");
            assert_eq!((by_certificate.name.as_str(), by_token.name.as_str()), (name, name));
            assert!(by_token.scope.contains(CUSTOMERS_TENANT));
            assert_eq!(by_token.scope.contains("another"), name != "admin/customer", "{name}");
        }
        let again = DevFiles::prepare(dir.path()).expect("found");
        assert_eq!(again.tls.certificate, files.tls.certificate);
        assert_eq!(again.identities, files.identities);
    }

    #[test]
    fn keys_are_readable_by_their_owner_alone_and_the_ca_key_is_nowhere() {
        let dir = tempfile::tempdir().expect("dir");
        DevFiles::prepare(dir.path()).expect("made");
        let mut keys = 0;
        for folder in ["tls", "client"] {
            for entry in fs::read_dir(dir.path().join(folder)).expect("folder") {
                let path = entry.expect("entry").path();
                let text = fs::read_to_string(&path).expect("text");
                if text.contains("PRIVATE KEY") {
                    keys += 1;
                    assert_ne!(path.file_stem().and_then(|stem| stem.to_str()), Some("ca"));
                    assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
                }
            }
        }
        assert_eq!(keys, 1 + IDENTITIES.len());
    }

    #[test]
    fn a_start_that_was_killed_half_way_is_made_good() {
        let dir = tempfile::tempdir().expect("dir");
        DevFiles::prepare(dir.path()).expect("made");
        fs::remove_dir_all(dir.path().join("client")).expect("removed");
        fs::create_dir(dir.path().join("client.new")).expect("left over");
        let files = DevFiles::prepare(dir.path()).expect("made anew");
        assert!(files.write_profiles(1234).expect("written").exists());
    }
}
