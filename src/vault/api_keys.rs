//! API keys: how a tenant's programs prove who they are.
//!
//! A key is `qk_ID_SECRET`. The id is random and names the row, so that a key is found without a scan and the row tells
//! nothing. Of the secret a salted hash is kept, under the tenant's stable secret; the key itself stands in one answer and
//! nowhere else.
//!
//! # Why SHA-256 and not a slow hash
//! A slow hash defends secrets that can be guessed. A drawn one has 256 random bits, which no speed of guessing reaches. For
//! a tenant's own secret the gateway asks for 32 characters or more that look random, and refuses others. A slow hash would
//! also be a lever: each request with a made-up key would cost the gateway what it was meant to cost an attacker. The hash
//! is `SHA-256(salt ‖ SHA-256(secret))`, so that a tenant may hand over the inner hash alone. (Then nobody but the tenant
//! can say whether the secret looks random.)
//!
//! # The index
//! A map in memory from ids to hashes, rebuilt at the start. A key is in it if and only if its row says that it is not
//! revoked: a row is durable before it gets in, and the answer to a revocation waits until it is out. It lets go of a
//! tenant's keys when the tenant is erased ([`ApiKeys::forget`]), and never looks at a tenant that is gone.
//!
//! Every id that is not in the index, and every wrong secret, reads the same.

use super::{
    Actor, ActorRole, Error, Inner, Vault,
    audit::{About, Detail, Event},
    tenants::invalid,
    values,
};
use crate::{
    crypto::{envelope, random},
    domain::{
        audit::{Action, Outcome},
        id::{ApiKeyId, TenantHandle},
        time::Timestamp,
    },
    keys::{Change, KeyStore, Mutation, Owner},
    proto::stored,
};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest;
use std::{
    collections::{HashMap, HashSet},
    sync::{PoisonError, RwLock},
};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// Keys of one tenant, revoked ones included.
const MAX_KEYS: usize = 1000;
/// Characters of a tenant's own secret.
const OWN: std::ops::RangeInclusive<usize> = 32..=256;
/// Least of what an own secret must hold by the frequencies of its own characters. Sixteen random bytes in hexadecimal
/// have about 115, one draw in ten thousand has less than 96, and none of 400,000 drawn had less than 88.
const OWN_BITS: f64 = 80.0;

impl ApiKeyId {
    /// What every key begins with.
    pub const PREFIX: &'static str = "qk_";
}

/// What a key may do, of what any key may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyRole {
    /// What the tenant's administrator may.
    Admin = 1,
    /// Deliver recordings.
    Switch = 2,
    /// Look at what was done.
    Auditor = 3,
}

impl KeyRole {
    fn from_number(number: u32) -> Option<Self> {
        [Self::Admin, Self::Switch, Self::Auditor].into_iter().find(|role| *role as u32 == number)
    }

    /// The role that must be allowed besides that of a key.
    pub fn actor_role(self) -> ActorRole {
        match self {
            Self::Admin => ActorRole::Admin,
            Self::Switch => ActorRole::Switch,
            Self::Auditor => ActorRole::Auditor,
        }
    }
}

/// Where a key's secret comes from.
pub enum KeySecret {
    /// The gateway draws it.
    Drawn,
    /// It is the tenant's own.
    Own(Zeroizing<String>),
    /// SHA-256 of the tenant's own.
    OwnHash([u8; 32]),
}

/// What a key is made from.
pub struct NewApiKey {
    /// Whose.
    pub tenant: String,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: KeyRole,
    /// Where its secret comes from.
    pub secret: KeySecret,
}

/// A key as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: KeyRole,
    /// When it was made.
    pub created: Timestamp,
    /// When it was taken back.
    pub revoked: Option<Timestamp>,
}

/// Whoever holds a key.
#[derive(Debug)]
pub struct KeyHolder {
    /// `key/ID`.
    pub name: String,
    /// Whose key.
    pub tenant: String,
    /// What it may do.
    pub role: KeyRole,
    /// Cancelled when it is revoked.
    pub alive: CancellationToken,
}

struct Live {
    tenant: TenantHandle,
    role: KeyRole,
    salt: [u8; 16],
    hash: [u8; 32],
    alive: CancellationToken,
}

/// The keys that open.
#[derive(Default)]
pub(crate) struct ApiKeys(RwLock<HashMap<ApiKeyId, Live>>);

impl ApiKeys {
    /// Reads every tenant's keys.
    pub fn load(keys: &KeyStore) -> Result<Self, Error> {
        let mut live = HashMap::new();
        for (tenant, _) in keys.tenants() {
            let Some(holder) = keys.tenant(tenant)? else { continue };
            let rows = values::read_all::<stored::ApiKey>(keys, holder.row, envelope::Kind::ApiKey, &holder.secret)?;
            for (suffix, row) in rows {
                if row.revoked_ms == 0 {
                    let wrong = || Error::Corrupt("an API key's row".to_owned());
                    let id = ApiKeyId::from_slice(&suffix).ok_or_else(wrong)?;
                    let entry = Live {
                        tenant,
                        role: KeyRole::from_number(row.role).ok_or_else(wrong)?,
                        salt: row.salt.as_slice().try_into().map_err(|_| wrong())?,
                        hash: row.hash.as_slice().try_into().map_err(|_| wrong())?,
                        alive: CancellationToken::new(),
                    };
                    live.insert(id, entry);
                }
            }
        }
        Ok(Self(RwLock::new(live)))
    }

    fn insert(&self, id: ApiKeyId, live: Live) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, live);
    }

    fn remove(&self, id: ApiKeyId) {
        if let Some(live) = self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&id) {
            live.alive.cancel();
        }
    }

    /// Lets go of the keys of a tenant that was erased.
    pub fn forget(&self, tenant: TenantHandle) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|_, live| {
            let stays = live.tenant != tenant;
            if !stays {
                live.alive.cancel();
            }
            stays
        });
    }
}

impl Vault {
    /// Who holds this key; none where it is not a key that opens.
    pub fn api_key(&self, token: &str) -> Option<KeyHolder> {
        let (id, secret) = token.strip_prefix(ApiKeyId::PREFIX)?.split_once('_')?;
        let id = ApiKeyId::from_slice(&HEXLOWER.decode(id.as_bytes()).ok()?)?;
        let live = self.0.api_keys.0.read().unwrap_or_else(PoisonError::into_inner);
        let live = live.get(&id)?;
        let hash = salted(&live.salt, &sha256(&[secret.as_bytes()]));
        if !bool::from(hash.ct_eq(&live.hash)) {
            return None;
        }
        let tenant = self.0.keys.tenant_name(live.tenant)?;
        Some(KeyHolder { name: format!("key/{id}"), tenant, role: live.role, alive: live.alive.clone() })
    }

    /// Makes a key. The second part is the key itself, as far as the gateway knows it.
    ///
    /// # Errors
    /// `Unknown` tenant; `Invalid` names the field.
    pub async fn create_api_key(&self, actor: &Actor, new: NewApiKey) -> Result<(ApiKey, Zeroizing<String>), Error> {
        let inner = &self.0;
        inner.running()?;
        let tenant = inner.find_in(&actor.scope, &new.tenant)?;
        check_name(&new.name)?;
        let (text, inner_hash) = match new.secret {
            KeySecret::Drawn => {
                let drawn = Zeroizing::new(random::<32>());
                let text = Zeroizing::new(BASE64URL_NOPAD.encode(drawn.as_slice()));
                let hash = sha256(&[text.as_bytes()]);
                (text, hash)
            }
            KeySecret::Own(text) => {
                check_own(&text)?;
                let hash = sha256(&[text.as_bytes()]);
                (text, hash)
            }
            KeySecret::OwnHash(hash) => (Zeroizing::default(), hash),
        };
        let holder = inner.tenant_holder(tenant)?;
        if inner.keys.values(holder.row, envelope::Kind::ApiKey)?.len() >= MAX_KEYS {
            return Err(invalid("tenant", format!("has {MAX_KEYS} keys; that is the most")));
        }
        let (id, salt) = (ApiKeyId(random()), random::<16>());
        let hash = salted(&salt, &inner_hash);
        let created = inner.clock.now();
        let row = stored::ApiKey {
            name: new.name.clone(),
            role: new.role as u32,
            salt: salt.to_vec(),
            hash: hash.to_vec(),
            created_ms: created.0,
            revoked_ms: 0,
        };
        inner.put_key(actor, tenant, id, &row).await?;
        inner.api_keys.insert(id, Live { tenant, role: new.role, salt, hash, alive: CancellationToken::new() });
        if inner.keys.tenant_name(tenant).is_none() {
            // The tenant was erased between the two; nobody else would take the key out of the index.
            inner.api_keys.forget(tenant);
            return Err(Error::Unknown { what: "tenant" });
        }
        let token = Zeroizing::new(format!("{}{id}_{}", ApiKeyId::PREFIX, text.as_str()));
        Ok((ApiKey { id, name: new.name, role: new.role, created, revoked: None }, token))
    }

    /// The keys of a tenant, oldest first.
    ///
    /// # Errors
    /// `Unknown` tenant.
    pub fn api_keys(&self, actor: &Actor, tenant: &str) -> Result<Vec<ApiKey>, Error> {
        let tenant = self.0.find_in(&actor.scope, tenant)?;
        let mut keys: Vec<ApiKey> =
            self.0.key_rows(tenant)?.into_iter().map(|(id, row)| shown(id, row)).collect::<Result<_, _>>()?;
        keys.sort_by_key(|key| (key.created, key.id));
        Ok(keys)
    }

    /// Takes a key back. It opens nothing from here on, and answers that it got and that still run are cut.
    ///
    /// # Errors
    /// `Unknown` tenant or key.
    pub async fn revoke_api_key(&self, actor: &Actor, tenant: &str, id: &str) -> Result<ApiKey, Error> {
        let inner = &self.0;
        inner.running()?;
        let tenant = inner.find_in(&actor.scope, tenant)?;
        let unknown = || Error::Unknown { what: "API key" };
        let id = HEXLOWER.decode(id.as_bytes()).ok().and_then(|id| ApiKeyId::from_slice(&id)).ok_or_else(unknown)?;
        let (_, mut row) = inner.key_rows(tenant)?.into_iter().find(|(found, _)| *found == id).ok_or_else(unknown)?;
        if row.revoked_ms == 0 {
            row.revoked_ms = inner.clock.now().0;
            row.salt.clear();
            row.hash.clear();
            inner.put_key(actor, tenant, id, &row).await?;
        }
        inner.api_keys.remove(id);
        shown(id, row)
    }
}

impl Inner {
    fn key_rows(&self, tenant: TenantHandle) -> Result<Vec<(ApiKeyId, stored::ApiKey)>, Error> {
        let holder = self.tenant_holder(tenant)?;
        let rows = values::read_all(&self.keys, holder.row, envelope::Kind::ApiKey, &holder.secret)?;
        rows.into_iter()
            .map(|(suffix, row)| {
                let id = ApiKeyId::from_slice(&suffix).ok_or_else(|| Error::Corrupt("an API key's row".to_owned()))?;
                Ok((id, row))
            })
            .collect()
    }

    /// Writes a key's row, and in the same command who made or revoked it.
    async fn put_key(
        &self,
        actor: &Actor,
        tenant: TenantHandle,
        id: ApiKeyId,
        row: &stored::ApiKey,
    ) -> Result<(), Error> {
        let holder = self.tenant_holder(tenant)?;
        let name = values::name_with(holder.row, envelope::Kind::ApiKey, &id.0);
        let envelope = values::seal_as(envelope::Kind::ApiKey, row, &holder.secret, &name);
        let action = if row.revoked_ms == 0 { Action::ApikeyCreate } else { Action::ApikeyRevoke };
        let notes = vec![("key", id.to_string()), ("name", row.name.clone())];
        let detail = Detail { notes, ..Detail::default() };
        let about = About::Tenant(tenant);
        let event = Event { action, about, grant: None, outcome: Outcome::Done, detail };
        let mut changes = vec![Change::PutValue { owner: Owner::Tenant(tenant), name, envelope }];
        changes.extend(self.audit(actor, event).await?);
        self.keys.commit(Mutation::new(changes)).await?;
        Ok(())
    }
}

fn shown(id: ApiKeyId, row: stored::ApiKey) -> Result<ApiKey, Error> {
    Ok(ApiKey {
        id,
        name: row.name,
        role: KeyRole::from_number(row.role).ok_or_else(|| Error::Corrupt("an API key's row".to_owned()))?,
        created: Timestamp(row.created_ms),
        revoked: (row.revoked_ms != 0).then_some(Timestamp(row.revoked_ms)),
    })
}

fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
        return Err(invalid("name", "send 1 to 64 bytes of text without control characters".to_owned()));
    }
    Ok(())
}

/// Whether a tenant's own secret looks random. A secret that looks random may yet be known to others; that a gateway cannot
/// tell.
fn check_own(secret: &str) -> Result<(), Error> {
    let visible = secret.bytes().all(|byte| byte.is_ascii_graphic());
    let distinct: HashSet<u8> = secret.bytes().collect();
    if !OWN.contains(&secret.len()) || !visible || repeats(secret.as_bytes()) || bits(secret.as_bytes()) < OWN_BITS {
        let remedy = format!(
            "send {} to {} visible ASCII characters drawn at random, without a pattern; {} different ones are too few",
            OWN.start(),
            OWN.end(),
            distinct.len()
        );
        return Err(invalid("secret", remedy));
    }
    Ok(())
}

/// Whether a text is a shorter one over and over.
fn repeats(text: &[u8]) -> bool {
    (1..=text.len() / 2).any(|period| text.iter().zip(&text[period..]).all(|(a, b)| a == b))
}

/// Length times the entropy of the characters' own frequencies.
fn bits(text: &[u8]) -> f64 {
    let mut counts = HashMap::new();
    for byte in text {
        *counts.entry(byte).or_insert(0u32) += 1;
    }
    let length = text.len() as f64;
    counts.values().map(|count| f64::from(*count) * (length / f64::from(*count)).log2()).sum()
}

fn salted(salt: &[u8], inner: &[u8]) -> [u8; 32] {
    sha256(&[salt, inner])
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_secret_must_look_random() {
        for _ in 0..50 {
            let drawn = random::<32>();
            assert!(check_own(&HEXLOWER.encode(&drawn)).is_ok());
            assert!(check_own(&HEXLOWER.encode(&drawn[..16])).is_ok(), "{:?}", HEXLOWER.encode(&drawn[..16]));
            assert!(check_own(&BASE64URL_NOPAD.encode(&drawn)).is_ok());
        }
        for poor in [
            "",
            "short",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "passwordpasswordpasswordpassword",
            "0123456789abcdef0123456789abcdef",
            "abcabcabcabcabcabcabcabcabcabcabcabcabcd",
            "with spaces 0f8a7d6e5c4b3a29181706f5e4d3c2b1",
            "ünïcödé-0f8a7d6e5c4b3a29181706f5e4d3c2b1",
        ] {
            assert!(check_own(poor).is_err(), "{poor}");
        }
        assert!(check_own(&"0f8a7d6e5c4b3a29".repeat(17)).is_err(), "too long, and it repeats");
    }

    #[test]
    fn a_hash_of_the_secret_and_the_secret_itself_come_to_the_same() {
        let inner = sha256(&[b"secret"]);
        assert_eq!(salted(b"salt", &inner), sha256(&[b"salt", &sha256(&[b"secret"])]));
        assert_ne!(salted(b"salt", &inner), salted(b"tlas", &inner));
    }
}
