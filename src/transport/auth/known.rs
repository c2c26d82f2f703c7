//! Who there is by the identities file: names, what they reach, and the hashes of their tokens.
//!
//! - A token is 32 random bytes in base64url. Only its hash is kept, and compared in constant time: neither the file nor
//!   a stopwatch gives it away.
//! - A certificate whose name is not in the file is nobody, so that taking a line out revokes it. The file is read again
//!   when the gateway is told to ([`Identities::list`]); who was taken out, or is described otherwise now, is cut.
//! - Subscribers are not in the file: their names would lie on a disk in clear.
//!
//! This module decides; it does not read files and does not log.

use super::{Access, CertificateName, Denied, Identity, Role};
use crate::vault::Scope;
use ring::digest;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;

/// Bytes of randomness in a token.
pub const TOKEN_LEN: usize = 32;
/// Bounds the name of an identity.
const MAX_NAME: usize = 64;

/// The role in `ROLE/NAME` of a file or a certificate, if both parts are well formed.
pub fn role_of(name: &str) -> Option<Role> {
    let (role, rest) = name.split_once('/')?;
    if !is_plain(rest) {
        return None;
    }
    Some(match role {
        "switch" => Role::Switch,
        "admin" => Role::Admin,
        "staff" => Role::Staff,
        "auditor" => Role::Auditor,
        "operator" => Role::Operator,
        "developer" => Role::Developer,
        _ => return None,
    })
}

/// The part of a name behind the role.
pub fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(plain)
}

/// One line of the identities file.
pub struct Entry {
    /// `ROLE/NAME`.
    pub name: String,
    /// Whose data it reaches.
    pub scope: Scope,
    /// SHA-256 of its token, where it has one.
    pub token: Option<[u8; 32]>,
}

/// The identities file makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum EntriesError {
    /// Not `ROLE/NAME`.
    #[error("identity {0:?}: a name is ROLE/NAME, with one of the roles switch, admin, staff, auditor, operator")]
    Name(String),
    /// Twice.
    #[error("identity {0:?} is listed twice")]
    Twice(String),
    /// The role that may do everything.
    #[error("identity {0:?}: the role developer exists in `quietus dev` only")]
    Developer(String),
}

struct Known {
    role: Role,
    scope: Scope,
    token: Option<[u8; 32]>,
    alive: CancellationToken,
}

impl Known {
    fn is_as(&self, other: &Known) -> bool {
        let scopes = match (&self.scope, &other.scope) {
            (Scope::All, Scope::All) => true,
            (Scope::Tenants(ours), Scope::Tenants(theirs)) => ours == theirs,
            _ => false,
        };
        scopes && self.role == other.role && self.token == other.token
    }
}

/// Who there is.
pub struct Identities {
    group: String,
    developers: bool,
    access: Arc<Access>,
    known: RwLock<BTreeMap<String, Known>>,
}

impl Identities {
    /// Nobody yet. Developers are let in by `quietus dev` only.
    pub fn new(group: String, access: Arc<Access>, developers: bool) -> Self {
        Self { group, developers, access, known: RwLock::default() }
    }

    /// Takes the file's entries in the place of those before, and cuts whoever is not among them as before. On an error
    /// everything stays as it was.
    pub fn list(&self, entries: Vec<Entry>) -> Result<(), EntriesError> {
        let mut next = BTreeMap::new();
        for Entry { name, scope, token } in entries {
            let Some(role) = role_of(&name) else { return Err(EntriesError::Name(name)) };
            if role == Role::Developer && !self.developers {
                return Err(EntriesError::Developer(name));
            }
            let known = Known { role, scope, token, alive: CancellationToken::new() };
            if next.insert(name.clone(), known).is_some() {
                return Err(EntriesError::Twice(name));
            }
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for (name, before) in &*known {
            match next.get_mut(name) {
                Some(now) if now.is_as(before) => now.alive = before.alive.clone(),
                _ => before.alive.cancel(),
            }
        }
        *known = next;
        Ok(())
    }

    /// What decides for everybody.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The name that a connection's certificate proves within this group.
    pub fn certified<'a>(&self, certificate: &'a CertificateName) -> Result<&'a str, Denied> {
        match certificate {
            CertificateName::Named { group, name } if *group == self.group => Ok(name),
            CertificateName::Absent => Err(Denied::Nobody),
            CertificateName::Named { .. } | CertificateName::Other => Err(Denied::NotKnown),
        }
    }

    /// Who this name belongs to, where the file lists it.
    pub fn by_name(&self, name: &str) -> Option<Identity> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(name).map(|known| self.identity(name, known))
    }

    /// Who this token belongs to.
    pub fn by_token(&self, token: &str) -> Result<Identity, Denied> {
        let hash = token_hash(token);
        let all = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        // Every entry is compared, so that the time taken tells nothing about which one it was.
        for (name, known) in &*all {
            if known.token.is_some_and(|kept| bool::from(kept.ct_eq(&hash))) {
                found = Some((name, known));
            }
        }
        found.map(|(name, known)| self.identity(name, known)).ok_or(Denied::NotKnown)
    }

    fn identity(&self, name: &str, known: &Known) -> Identity {
        Identity {
            name: name.to_owned(),
            on_behalf_of: None,
            role: known.role,
            besides: None,
            scope: known.scope.clone(),
            alive: known.alive.clone(),
            until: None,
            enrolments: Arc::from([]),
            access: self.access.clone(),
        }
    }
}

/// What is kept of a token: SHA-256 of its text.
pub fn token_hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::{super::certificate::tests::certificate, *};

    fn entry(name: &str, scope: Scope, token: Option<&str>) -> Entry {
        Entry { name: name.into(), scope, token: token.map(token_hash) }
    }

    fn empty(developers: bool) -> Identities {
        Identities::new("uk+eu".into(), Arc::new(Access::shipped("uk+eu")), developers)
    }

    fn entries() -> Vec<Entry> {
        vec![
            entry("switch/pbx-1", Scope::Tenants(vec!["acme".into()]), None),
            entry("admin/anna", Scope::All, Some("anna's token")),
            entry("staff/sam", Scope::All, Some("sam's token")),
        ]
    }

    fn identities() -> Identities {
        let identities = empty(false);
        identities.list(entries()).expect("good");
        identities
    }

    #[test]
    fn certificates_without_exactly_one_listed_name_are_nobody() {
        let identities = identities();
        let ask = |uris: &[&str]| {
            let certificate = certificate(uris);
            let name = identities.certified(&certificate)?;
            identities.by_name(name).map(|identity| identity.name).ok_or(Denied::NotKnown)
        };
        assert_eq!(ask(&["quietus://uk+eu/switch/pbx-1"]), Ok("switch/pbx-1".into()));
        for uris in [
            &["quietus://uk+eu/switch/pbx-2"][..],
            &["quietus://us/switch/pbx-1"],
            &["quietus://uk+eu/root/pbx-1"],
            &["quietus://uk+eu/switch/pbx-1", "quietus://uk+eu/admin/anna"],
        ] {
            assert_eq!(ask(uris), Err(Denied::NotKnown), "{uris:?}");
        }
        assert_eq!(identities.certified(&CertificateName::Absent), Err(Denied::Nobody));
    }

    #[test]
    fn a_developer_is_refused_outside_of_dev() {
        let developer = || vec![entry("developer/dev", Scope::All, None)];
        assert!(matches!(empty(false).list(developer()), Err(EntriesError::Developer(_))));
        assert!(empty(true).list(developer()).is_ok());
    }

    #[test]
    fn nobody_is_the_gateway_itself_and_no_subscriber_lies_in_a_file() {
        for name in ["gateway/x", "subscriber/maria", "key/x", "api-key/x", "staff/", "staff/a b", "staff/a@b"] {
            assert!(
                matches!(empty(true).list(vec![entry(name, Scope::All, None)]), Err(EntriesError::Name(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn who_is_taken_out_of_the_file_or_changed_in_it_is_cut_and_nobody_else() {
        let identities = identities();
        let held = |name: &str| identities.by_name(name).expect("listed").alive;
        let (switch, anna, sam) = (held("switch/pbx-1"), held("admin/anna"), held("staff/sam"));
        let mut next = entries();
        next.remove(0);
        next[0].scope = Scope::Tenants(vec!["acme".into()]);
        identities.list(next).expect("good");
        assert!(switch.is_cancelled() && anna.is_cancelled() && !sam.is_cancelled());
        assert!(identities.by_name("switch/pbx-1").is_none());
        assert!(identities.by_token("anna's token").is_ok_and(|anna| !anna.scope.contains("other")));
        // A file that makes no sense changes nothing.
        assert!(identities.list(vec![entry("king/x", Scope::All, None)]).is_err());
        assert!(!sam.is_cancelled() && identities.by_name("staff/sam").is_some());
    }
}
