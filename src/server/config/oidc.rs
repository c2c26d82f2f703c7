//! `[[oidc]]`: issuers whose signed tokens are taken.

use super::{Check, ConfigError, is_plain};
use crate::{
    transport::auth::{
        Role,
        oidc::{Claims, Settings},
    },
    vault::Scope,
};
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};
use toml::Spanned;

/// Issuers of one gateway.
const MAX_ISSUERS: usize = 16;

/// An issuer, and the file of its server's CA, which is yet to be read.
pub struct IssuerFile {
    /// Everything else.
    pub settings: Settings,
    /// The CA, where it is not a public one.
    pub ca: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIssuer {
    name: Spanned<String>,
    issuer: Spanned<String>,
    audience: Spanned<Vec<String>>,
    jwks: Option<Spanned<String>>,
    ca: Option<PathBuf>,
    algorithms: Option<Spanned<Vec<String>>>,
    leeway_seconds: Option<Spanned<u64>>,
    max_token_age_seconds: Option<Spanned<u64>>,
    keys_last_seconds: Option<Spanned<u64>>,
    tenants: Spanned<Vec<String>>,
    roles: Spanned<BTreeMap<String, String>>,
    claims: RawClaims,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClaims {
    #[serde(default = "sub")]
    name: String,
    role: Spanned<String>,
    tenants: Option<String>,
    subscriber: Option<String>,
}

fn sub() -> String {
    "sub".to_owned()
}

impl Check<'_> {
    pub(super) fn issuers(&self, raw: Vec<RawIssuer>) -> Result<Vec<IssuerFile>, ConfigError> {
        let (mut names, mut issuers) = (BTreeSet::new(), BTreeSet::new());
        let mut files = Vec::new();
        for raw in raw {
            self.that(files.len() < MAX_ISSUERS, &raw.name, "oidc", "fewer issuers")?;
            let fresh = names.insert(raw.name.get_ref().clone());
            self.that(fresh, &raw.name, "oidc.name", "this name is given twice")?;
            let fresh = issuers.insert(raw.issuer.get_ref().clone());
            self.that(fresh, &raw.issuer, "oidc.issuer", "this issuer is listed twice")?;
            files.push(self.issuer(raw)?);
        }
        Ok(files)
    }

    fn issuer(&self, raw: RawIssuer) -> Result<IssuerFile, ConfigError> {
        self.that(is_plain(raw.name.get_ref()), &raw.name, "oidc.name", "letters, digits, `-`, `_`, `.` and `+`")?;
        let https = |url: &Spanned<String>| url.get_ref().starts_with("https://");
        self.that(https(&raw.issuer), &raw.issuer, "oidc.issuer", "an https:// URL, as in the claim `iss`")?;
        if let Some(jwks) = &raw.jwks {
            self.that(https(jwks), jwks, "oidc.jwks", "an https:// URL")?;
        }
        let named = !raw.audience.get_ref().is_empty() && raw.audience.get_ref().iter().all(|text| !text.is_empty());
        self.that(named, &raw.audience, "oidc.audience", "at least one audience, as in the claim `aud`")?;
        let some = !raw.tenants.get_ref().is_empty();
        let remedy = "the tenants that this issuer may speak for, or [\"*\"]";
        self.that(some, &raw.tenants, "oidc.tenants", remedy)?;
        self.that(!raw.claims.role.get_ref().is_empty(), &raw.claims.role, "oidc.claims.role", "the name of a claim")?;
        self.that(!raw.roles.get_ref().is_empty(), &raw.roles, "oidc.roles", "at least one value and its role")?;
        let mut roles = BTreeMap::new();
        for (value, name) in raw.roles.get_ref() {
            let remedy = "one of staff, admin, subscriber, auditor, operator";
            let role = role(name).ok_or_else(|| self.refuse(&raw.roles, "oidc.roles", remedy))?;
            roles.insert(value.clone(), role);
        }
        let subscribers = roles.values().any(|role| *role == Role::Subscriber);
        let remedy = "a role that is `subscriber` needs oidc.claims.subscriber";
        self.that(!subscribers || raw.claims.subscriber.is_some(), &raw.roles, "oidc.roles", remedy)?;
        let algorithms = match &raw.algorithms {
            None => vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
            Some(names) => self.algorithms(names)?,
        };
        let seconds = |field, value: &Option<_>, range, default| {
            self.number(field, value, range, default).map(Duration::from_secs)
        };
        let everywhere = raw.tenants.get_ref().iter().any(|tenant| tenant == "*");
        let settings = Settings {
            leeway: seconds("oidc.leeway_seconds", &raw.leeway_seconds, 0..=300, 30)?,
            max_age: seconds("oidc.max_token_age_seconds", &raw.max_token_age_seconds, 60..=86_400, 3600)?,
            keys_last: seconds("oidc.keys_last_seconds", &raw.keys_last_seconds, 60..=604_800, 3600)?,
            name: raw.name.into_inner(),
            issuer: raw.issuer.into_inner(),
            audiences: raw.audience.into_inner(),
            jwks: raw.jwks.map(Spanned::into_inner),
            ca_pem: None,
            algorithms,
            tenants: if everywhere { Scope::All } else { Scope::Tenants(raw.tenants.into_inner()) },
            roles,
            claims: Claims {
                name: raw.claims.name,
                role: raw.claims.role.into_inner(),
                tenants: raw.claims.tenants,
                subscriber: raw.claims.subscriber,
            },
        };
        Ok(IssuerFile { settings, ca: raw.ca })
    }

    fn algorithms(&self, names: &Spanned<Vec<String>>) -> Result<Vec<Algorithm>, ConfigError> {
        let remedy = "some of RS256, PS256, ES256, ES384, EdDSA";
        self.that(!names.get_ref().is_empty(), names, "oidc.algorithms", remedy)?;
        let algorithm = |name: &String| match name.as_str() {
            "RS256" => Ok(Algorithm::RS256),
            "PS256" => Ok(Algorithm::PS256),
            "ES256" => Ok(Algorithm::ES256),
            "ES384" => Ok(Algorithm::ES384),
            "EdDSA" => Ok(Algorithm::EdDSA),
            _ => Err(self.refuse(names, "oidc.algorithms", remedy)),
        };
        names.get_ref().iter().map(algorithm).collect()
    }
}

/// The roles that an issuer can give. A switch has a certificate, a program a key, and a developer is in `quietus dev` only.
fn role(name: &str) -> Option<Role> {
    Some(match name {
        "staff" => Role::Staff,
        "admin" => Role::Admin,
        "subscriber" => Role::Subscriber,
        "auditor" => Role::Auditor,
        "operator" => Role::Operator,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    const EXAMPLE: &str = include_str!("../../../infra/quietus.example.toml");

    const ISSUER: &str = r#"
[[oidc]]
name = "corp"
issuer = "https://login.example.org"
audience = ["quietus"]
tenants = ["*"]
roles = { support = "staff", customers = "subscriber" }
claims = { role = "groups", tenants = "tenants", subscriber = "number" }
"#;

    fn refusal(from: &str, to: &str) -> String {
        assert!(ISSUER.contains(from), "{from}");
        let text = format!("{EXAMPLE}{}", ISSUER.replace(from, to));
        Config::parse(&text, |_| None).err().expect("refused").to_string()
    }

    #[test]
    fn an_issuer_needs_little_and_has_good_defaults() {
        let config = Config::parse(&format!("{EXAMPLE}{ISSUER}"), |_| None).expect("good");
        let settings = &config.issuers[0].settings;
        assert_eq!(settings.algorithms.len(), 3);
        assert_eq!(settings.max_age.as_secs(), 3600);
        assert_eq!(settings.claims.name, "sub");
    }

    #[test]
    fn what_is_wrong_with_an_issuer_is_named_with_its_line() {
        for (from, to, field) in [
            ("https://login", "http://login", "oidc.issuer"),
            ("[\"quietus\"]", "[]", "oidc.audience"),
            ("[\"*\"]", "[]", "oidc.tenants"),
            ("\"staff\"", "\"switch\"", "oidc.roles"),
            ("\"staff\"", "\"developer\"", "oidc.roles"),
            (", subscriber = \"number\"", "", "oidc.roles"),
            ("name = \"corp\"", "name = \"co rp\"", "oidc.name"),
            ("tenants = [\"*\"]", "tenants = [\"*\"]\nalgorithms = [\"HS256\"]", "oidc.algorithms"),
            ("tenants = [\"*\"]", "tenants = [\"*\"]\nalgorithms = [\"none\"]", "oidc.algorithms"),
            ("tenants = [\"*\"]", "tenants = [\"*\"]\nleeway_seconds = 3000", "oidc.leeway_seconds"),
        ] {
            let refused = refusal(from, to);
            assert!(refused.contains(field) && refused.starts_with("line "), "{refused}");
        }
        assert!(refusal("audience", "audiences").contains("audiences"));
    }
}
