//! `quietus apikey`: keys by which a tenant's programs get in. A new key is printed once, on standard output, alone on its
//! line, so that it can go straight into a file.

use super::{
    audit,
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
};
use crate::proto::v1::{
    self, ApiKey, CreateApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest,
    api_key_service_client::ApiKeyServiceClient, create_api_key_request::Own,
};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

/// `quietus apikey …`
#[derive(Subcommand)]
pub enum ApikeyCommand {
    /// Make a key and print it, this once.
    Create {
        /// Whose.
        tenant: String,
        /// For people, to tell keys apart.
        #[arg(long)]
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        role: Role,
        /// A secret of your own, @FILE or - (standard input): 32 or more random characters.
        #[arg(long, value_name = "@FILE", conflicts_with = "own_sha256")]
        own: Option<String>,
        /// SHA-256 of a secret of your own, in hexadecimal; the secret then stays with you.
        #[arg(long, value_name = "HEX")]
        own_sha256: Option<String>,
    },
    /// List the keys of a tenant.
    List {
        /// Whose.
        tenant: String,
    },
    /// Take a key back, at once.
    Revoke {
        /// Whose.
        tenant: String,
        /// The key's id: what stands between the first and the second `_`.
        id: String,
    },
    /// Show everything that the audit log has of a key: what it made, heard, changed, and erased.
    Report {
        /// Whose.
        tenant: String,
        /// The key's id.
        id: String,
    },
}

/// What a key may do.
#[derive(Clone, Copy, ValueEnum)]
pub enum Role {
    /// What the tenant's administrator may, as far as a key may it.
    Admin,
    /// Deliver recordings.
    Switch,
    /// Look at what was done.
    Auditor,
}

/// Runs the command.
pub async fn run(link: Link, command: ApikeyCommand, output: Output) -> Result<(), Failure> {
    let mut client = ApiKeyServiceClient::new(link.clone());
    match command {
        ApikeyCommand::Create { tenant, name, role, own, own_sha256 } => {
            let role = match role {
                Role::Admin => v1::ApiKeyRole::Admin,
                Role::Switch => v1::ApiKeyRole::Switch,
                Role::Auditor => v1::ApiKeyRole::Auditor,
            };
            let own = match (own, own_sha256) {
                (Some(text), _) => Some(Own::Secret(own_secret(&text)?)),
                (None, Some(hex)) => {
                    let hash = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes());
                    let hash = hash.map_err(|_| Failure::usage("--own-sha256 takes 64 hexadecimal digits"))?;
                    Some(Own::SecretSha256(hash.into()))
                }
                (None, None) => None,
            };
            let (tenant, name) = (names::resolve(&tenant)?, names::resolve(&name)?);
            let made = client.create_api_key(CreateApiKeyRequest { tenant, name, role: role.into(), own });
            let made = made.await?.into_inner();
            let mut json = as_json(&made.key.unwrap_or_default());
            json["token"] = made.token.clone().into();
            output.one(json, || made.token)
        }
        ApikeyCommand::List { tenant } => {
            let request = ListApiKeysRequest { tenant: names::resolve(&tenant)? };
            let keys = client.list_api_keys(request).await?.into_inner().keys;
            if output.json {
                return keys.iter().try_for_each(|key| output.one(as_json(key), String::new));
            }
            let rows: Vec<_> = keys.iter().map(row).collect();
            output.table(&["ID", "NAME", "ROLE", "CREATED", "REVOKED"], &rows)
        }
        ApikeyCommand::Revoke { tenant, id } => {
            let request = RevokeApiKeyRequest { tenant: names::resolve(&tenant)?, id: names::resolve(&id)? };
            let key = client.revoke_api_key(request).await?.into_inner();
            output.one(as_json(&key), || format!("revoked: {}", key.id))
        }
        ApikeyCommand::Report { tenant, id } => {
            audit::report(link, names::resolve(&tenant)?, &format!("key/{}", names::resolve(&id)?), output).await
        }
    }
}

/// A secret has no place among the arguments of a process, which others on the machine can list.
fn own_secret(argument: &str) -> Result<String, Failure> {
    if argument != "-" && !argument.starts_with('@') {
        return Err(Failure::usage("--own takes @FILE, or - for standard input: arguments can be seen by others"));
    }
    names::resolve(argument)
}

fn role(key: &ApiKey) -> &'static str {
    match key.role() {
        v1::ApiKeyRole::Admin => "admin",
        v1::ApiKeyRole::Switch => "switch",
        v1::ApiKeyRole::Auditor => "auditor",
        v1::ApiKeyRole::Unspecified => "other",
    }
}

fn as_json(key: &ApiKey) -> Value {
    json!({
        "id": key.id, "name": key.name, "role": role(key),
        "created": moment(key.created_ms), "revoked": moment(key.revoked_ms),
    })
}

fn row(key: &ApiKey) -> Vec<String> {
    let at = |ms| moment(ms).unwrap_or_default();
    vec![key.id.clone(), key.name.clone(), role(key).into(), at(key.created_ms), at(key.revoked_ms)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_taken_from_the_arguments() {
        assert_eq!(own_secret("0f8a7d6e5c4b3a29181706f5e4d3c2b1").map_err(|failure| failure.status), Err(2));
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("secret");
        std::fs::write(&path, "0f8a7d6e\n").expect("written");
        assert_eq!(own_secret(&format!("@{}", path.display())).as_deref(), Ok("0f8a7d6e"));
    }
}
