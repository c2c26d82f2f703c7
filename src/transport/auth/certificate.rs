//! The name in a client certificate: one URI `quietus://GROUP/ROLE/NAME` among its subject alternative names.
//!
//! TLS has verified the certificate against the configured CA before this reads it. Two names of ours in one certificate
//! are none: whichever we took, the other reading would be somebody else.

use super::known::role_of;

/// What a client certificate says about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// There is none.
    Absent,
    /// There is one, without exactly one name of ours in it.
    Other,
    /// `quietus://GROUP/ROLE/NAME`.
    Named {
        /// The group.
        group: String,
        /// `ROLE/NAME`.
        name: String,
    },
}

impl CertificateName {
    /// Reads a certificate that TLS has verified already.
    pub fn of(der: Option<&[u8]>) -> Self {
        let Some(der) = der else { return Self::Absent };
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else { return Self::Other };
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return Self::Other };
        let mut ours = names.value.general_names.iter().filter_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => uri.strip_prefix("quietus://"),
            _ => None,
        });
        // Two names in one certificate: whichever we took, the other reading would be somebody else.
        match (ours.next(), ours.next()) {
            (Some(one), None) => Self::from_uri(one),
            _ => Self::Other,
        }
    }

    fn from_uri(rest: &str) -> Self {
        match rest.split_once('/') {
            Some((group, name)) if !group.is_empty() && role_of(name).is_some() => {
                Self::Named { group: group.into(), name: name.into() }
            }
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A certificate with these names.
    pub fn certificate(uris: &[&str]) -> CertificateName {
        let mut params = rcgen::CertificateParams::default();
        let name = |uri: &&str| rcgen::SanType::URI((*uri).try_into().expect("ascii"));
        params.subject_alt_names = uris.iter().map(name).collect();
        let key = rcgen::KeyPair::generate().expect("key");
        CertificateName::of(Some(params.self_signed(&key).expect("certificate").der()))
    }

    #[test]
    fn a_name_is_read_where_it_is_the_only_one() {
        let named = CertificateName::Named { group: "uk+eu".into(), name: "switch/pbx-1".into() };
        assert_eq!(certificate(&["quietus://uk+eu/switch/pbx-1"]), named);
        assert_eq!(certificate(&["quietus://uk+eu/switch/pbx-1", "https://example.com/"]), named);
        for other in [
            &["quietus://uk+eu/switch/pbx-1", "quietus://uk+eu/admin/anna"][..],
            &["quietus://uk+eu/root/pbx-1"],
            &["quietus://uk+eu/gateway/x"],
            &["quietus://uk+eu/switch/"],
            &["quietus://uk+eu/switch/a/b"],
            &["quietus:///switch/a"],
            &["https://uk+eu/switch/pbx-1"],
        ] {
            assert_eq!(certificate(other), CertificateName::Other, "{other:?}");
        }
        assert_eq!(CertificateName::of(None), CertificateName::Absent);
    }

    proptest::proptest! {
        #[test]
        fn hostile_certificates_are_nobody(bytes: Vec<u8>) {
            assert_eq!(CertificateName::of(Some(&bytes)), CertificateName::Other);
        }
    }
}
