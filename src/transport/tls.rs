//! The one TLS policy: TLS 1.3 only, `ring` as the provider, no early data, no session tickets, client certificates
//! verified where one is shown.
//!
//! Why: the guarantee of erasure covers every byte of connections that have ended. TLS 1.3 has forward secrecy in every
//! suite; early data and resumption would tie a later connection to secrets of an earlier one; and a connection's own
//! secrets go when it ends, which its maximum age makes sure of.

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use std::{path::Path, sync::Arc};

/// Certificates or keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or nothing in it.
    #[error("{what}: not PEM, or nothing usable in it")]
    Pem {
        /// Which of the files.
        what: &'static str,
    },
    /// rustls refuses them.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
    /// The CA for client certificates cannot be used.
    #[error("the CA for client certificates: {0}")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
}

/// What the gateway shows and whom it believes, in PEM. The key is wiped when this is dropped.
pub struct Material {
    /// The server's chain, its own certificate first.
    pub certificate: Vec<u8>,
    /// The server's private key.
    pub key: zeroize::Zeroizing<Vec<u8>>,
    /// Who signs client certificates. None: nobody is believed by certificate.
    pub client_ca: Option<Vec<u8>>,
}

impl Material {
    /// Reads the files.
    pub fn read(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| TlsError::Read { path: path.display().to_string(), error })
        };
        Ok(Self {
            certificate: read(certificate)?,
            key: read(key)?.into(),
            client_ca: client_ca.map(read).transpose()?,
        })
    }
}

/// The server's side of TLS for some application protocols (`h2`, `http/1.1`; `h3`).
pub fn server_config(material: &Material, protocols: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates("certificate", &material.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key).map_err(|_| TlsError::Pem { what: "key" })?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
    let builder = match &material.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots("client_ca", ca)?);
            // Callers without a certificate may still hold a token; `auth` decides.
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, provider).allow_unauthenticated().build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// A chain or a set of CAs from PEM.
fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or(TlsError::Pem { what })
}

fn roots(what: &'static str, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material() -> Material {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("self-signed");
        Material {
            certificate: cert.pem().into(),
            key: signing_key.serialize_pem().into_bytes().into(),
            client_ca: Some(cert.pem().into()),
        }
    }

    #[test]
    fn nothing_of_a_connection_outlives_it() {
        let config = server_config(&material(), &[b"h2"]).expect("config");
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.session_storage.can_cache());
        assert_eq!(config.alpn_protocols, [b"h2".to_vec()]);
    }

    #[test]
    fn tls_1_2_is_refused() {
        let server = Arc::new(server_config(&material(), &[]).expect("config"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = |version: &'static rustls::SupportedProtocolVersion| {
            let roots = roots("ca", &material().certificate).expect("roots");
            let config = rustls::ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[version])
                .expect("version")
                .with_root_certificates(roots)
                .with_no_client_auth();
            let mut hello = Vec::new();
            let name = "localhost".try_into().expect("name");
            let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("client");
            client.write_tls(&mut hello).expect("hello");
            let mut server = rustls::ServerConnection::new(server.clone()).expect("server");
            server.read_tls(&mut hello.as_slice()).expect("read");
            server.process_new_packets().map(|_| ())
        };
        assert!(client(&rustls::version::TLS12).is_err());
        assert!(client(&TLS13).is_ok());
    }

    #[test]
    fn empty_or_broken_pem_is_an_error_that_names_the_file() {
        for what in ["certificate", "key", "client_ca"] {
            let mut material = material();
            match what {
                "certificate" => material.certificate = b"nothing".to_vec(),
                "key" => material.key = b"nothing".to_vec().into(),
                _ => material.client_ca = Some(Vec::new()),
            }
            let error = server_config(&material, &[]).expect_err("refused");
            assert!(error.to_string().starts_with(what), "{error}");
        }
    }
}
