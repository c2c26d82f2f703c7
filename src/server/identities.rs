//! The identities file: who there is, what they may reach, and the hashes of their tokens.
//!
//! ```toml
//! [[identity]]
//! name = "switch/pbx-1"            # ROLE/NAME, as in the certificate's URI quietus://GROUP/ROLE/NAME
//! tenants = ["acme"]               # or ["*"] for every tenant of the group
//! token_sha256 = "9f86d08…"        # optional: SHA-256 of the token's text, in hexadecimal
//! ```

use crate::{transport::auth::Entry, vault::Scope};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    identity: Vec<RawEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    name: String,
    tenants: Vec<String>,
    token_sha256: Option<String>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentitiesError {
    /// Not the TOML above.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A hash that is none.
    #[error("identity {0:?}: token_sha256 has 64 hexadecimal digits")]
    Hash(String),
}

/// Reads the file's text.
pub fn parse(text: &str) -> Result<Vec<Entry>, IdentitiesError> {
    let raw: Raw = toml::from_str(text)?;
    raw.identity.into_iter().map(entry).collect()
}

fn entry(raw: RawEntry) -> Result<Entry, IdentitiesError> {
    let token = match &raw.token_sha256 {
        None => None,
        Some(hex) => {
            let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok();
            let hash = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            Some(hash.ok_or_else(|| IdentitiesError::Hash(raw.name.clone()))?)
        }
    };
    let everywhere = raw.tenants.iter().any(|tenant| tenant == "*");
    let scope = if everywhere { Scope::All } else { Scope::Tenants(raw.tenants) };
    Ok(Entry { name: raw.name, scope, token })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::auth::token_hash;

    #[test]
    fn a_token_stands_as_its_hash_and_a_star_reaches_every_tenant() {
        let hash = data_encoding::HEXLOWER.encode(&token_hash("open sesame"));
        let text = format!("[[identity]]\nname = \"admin/a\"\ntenants = [\"*\"]\ntoken_sha256 = \"{hash}\"\n");
        let entries = parse(&text).expect("good");
        assert_eq!(entries[0].token, Some(token_hash("open sesame")));
        assert!(entries[0].scope.contains("any"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| parse(text).err().expect("refused").to_string();
        assert!(error("[[identity]]\nname = \"admin/a\"\ntenant = []\n").contains("tenant"));
        assert!(
            error("[[identity]]\nname = \"admin/a\"\ntenants = []\ntoken_sha256 = \"12\"\n").contains("token_sha256")
        );
    }
}
