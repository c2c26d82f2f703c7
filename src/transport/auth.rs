//! Who is asking, and the one table of who may what.
//!
//! A caller is named `ROLE/NAME`. It proves the name by a client certificate with the URI `quietus://GROUP/ROLE/NAME` in
//! its subject alternative names, or by a token. The identities file says which tenants the name may reach and holds the
//! SHA-256 of its token; a certificate whose name is not in the file is nobody, so that taking a line out revokes it.
//!
//! - A token is 32 random bytes in base64url. Only its hash is kept, and compared in constant time: neither the file nor
//!   a stopwatch gives it away.
//! - A request that carries a token is judged by the token alone, even on a connection with a certificate.
//! - A tenant outside of the caller's scope is *unknown*, never *forbidden*: that it exists is not told.
//!
//! This module decides; it does not read files and does not log.

pub use crate::vault::ActorRole as Role;
use crate::vault::{Actor, Scope};
use ring::digest;
use std::collections::BTreeMap;
use subtle::ConstantTimeEq as _;

/// Bytes of randomness in a token.
pub const TOKEN_LEN: usize = 32;
/// Bounds the name of an identity.
const MAX_NAME: usize = 64;

/// What can be asked for: one per group of RPCs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Take a recording in.
    Record,
    /// See one recording's facts.
    Show,
    /// See a tenant's recordings.
    List,
    /// Hear a recording. The vault asks for more: whose it is, and for staff the customer's permission.
    Play,
    /// Forget.
    Erase,
    /// Bind other subscribers to a recording.
    BindParties,
    /// Make a tenant.
    CreateTenant,
    /// See tenants and what is counted of them.
    ReadTenant,
    /// Close, restrict, reopen a tenant; ask for its purge.
    ChangeTenant,
    /// Approve or withdraw what another asked for: a purge, a close without grace.
    ApproveTransition,
    /// See a subscriber's state.
    ReadSubscriber,
    /// Deactivate, restrict, block a subscriber.
    ChangeSubscriber,
    /// Take a subscriber's consent back.
    WithdrawConsent,
    /// See what rules stand, and what they would do.
    ReadPolicy,
    /// Change a tenant's rules.
    SetPolicy,
    /// Place a hold, review it.
    PlaceHold,
    /// Lift a hold.
    LiftHold,
    /// See holds and what waits for them.
    ReadHolds,
    /// Ask the customer for permission to hear.
    RequestPermission,
    /// Grant, deny, revoke a permission.
    DecidePermission,
    /// See permissions.
    ReadPermissions,
    /// Read the tenant's inbox.
    Inbox,
    /// See audit entries.
    ReadAudit,
    /// See checkpoints and proofs, which hold nothing of anybody.
    VerifyAudit,
    /// See receipts.
    ReadReceipts,
    /// Make, list, revoke API keys.
    ManageKeys,
    /// Enrol, list, revoke switches.
    ManageSwitches,
    /// See what waits.
    Status,
    /// Scrape metrics.
    Metrics,
    /// Say that the clock is right after it jumped.
    ConfirmClock,
}

/// Who may what.
fn permitted(action: Action) -> &'static [Role] {
    use Role::{Admin, ApiKey, Auditor, Developer, Operator, Staff, Subscriber, Switch};
    match action {
        Action::Record => &[Switch, Admin, ApiKey, Developer],
        Action::Show => &[Switch, Admin, Staff, Subscriber, ApiKey, Developer],
        Action::List => &[Switch, Admin, Staff, Subscriber, Auditor, ApiKey, Developer],
        Action::Play => &[Admin, Subscriber, ApiKey, Developer],
        Action::Erase => &[Admin, ApiKey, Developer],
        Action::BindParties => &[Switch, Admin, ApiKey, Developer],
        Action::CreateTenant | Action::ChangeTenant | Action::ApproveTransition => &[Admin, Developer],
        Action::ReadTenant | Action::ReadPolicy => &[Admin, Staff, Auditor, Operator, ApiKey, Developer],
        Action::ReadSubscriber => &[Admin, Staff, Subscriber, Auditor, ApiKey, Developer],
        Action::ChangeSubscriber => &[Admin, ApiKey, Developer],
        Action::WithdrawConsent => &[Admin, Subscriber, ApiKey, Developer],
        Action::SetPolicy | Action::PlaceHold | Action::LiftHold => &[Admin, Developer],
        Action::ReadHolds => &[Admin, Auditor, ApiKey, Developer],
        Action::RequestPermission => &[Staff, Developer],
        Action::DecidePermission => &[Admin, Subscriber, Developer],
        Action::ReadPermissions => &[Admin, Staff, Subscriber, Auditor, Developer],
        Action::Inbox => &[Admin, ApiKey, Developer],
        Action::ReadAudit => &[Admin, Auditor, Developer],
        Action::VerifyAudit => &[Admin, Staff, Auditor, Operator, ApiKey, Developer],
        Action::ReadReceipts => &[Admin, Auditor, ApiKey, Developer],
        Action::ManageKeys | Action::ManageSwitches => &[Admin, Developer],
        Action::Status => &[Admin, Operator, Developer],
        Action::Metrics | Action::ConfirmClock => &[Operator, Developer],
    }
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Neither certificate nor token.
    #[error("nobody is asking: connect with a client certificate or send a token")]
    Nobody,
    /// A certificate or token that means nothing here.
    #[error("the certificate or token is not known to this gateway")]
    NotKnown,
    /// The role does not go that far.
    #[error("this identity's role may not do that")]
    Role,
    /// Staff hear a recording only when the customer lets them.
    #[error("the customer's permission is needed to hear this recording")]
    PermissionNeeded,
    /// A tenant that this caller does not see.
    #[error("unknown tenant")]
    Tenant,
}

/// Somebody who proved a name.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `ROLE/NAME`.
    pub name: String,
    /// The part before the slash.
    pub role: Role,
    /// Whose data it reaches.
    pub scope: Scope,
}

impl Identity {
    /// As the vault and its log know it.
    pub fn actor(&self) -> Actor {
        Actor {
            name: self.name.clone(),
            on_behalf_of: None,
            role: self.role,
            scope: self.scope.clone(),
            subscriber: match &self.scope {
                Scope::Own { subscriber, .. } => Some(subscriber.clone()),
                Scope::All | Scope::Tenants(_) => None,
            },
        }
    }

    /// The one question. `tenant` is the one that the request names, where it names one.
    pub fn authorize(&self, action: Action, tenant: Option<&str>) -> Result<(), Denied> {
        if !permitted(action).contains(&self.role) {
            let permission = self.role == Role::Staff && action == Action::Play;
            return Err(if permission { Denied::PermissionNeeded } else { Denied::Role });
        }
        match tenant {
            Some(tenant) if !self.scope.contains(tenant) => Err(Denied::Tenant),
            _ => Ok(()),
        }
    }
}

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

/// The role in `ROLE/NAME`, if both parts are well formed.
pub fn role_of(name: &str) -> Option<Role> {
    let (role, rest) = name.split_once('/')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if rest.is_empty() || rest.len() > MAX_NAME || !rest.chars().all(plain) {
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
}

/// Who there is.
pub struct Identities {
    group: String,
    known: BTreeMap<String, Known>,
}

impl Identities {
    /// Takes the file's entries. Developers are let in by `quietus dev` only.
    pub fn new(group: String, entries: Vec<Entry>, developers: bool) -> Result<Self, EntriesError> {
        let mut known = BTreeMap::new();
        for Entry { name, scope, token } in entries {
            let Some(role) = role_of(&name) else { return Err(EntriesError::Name(name)) };
            if role == Role::Developer && !developers {
                return Err(EntriesError::Developer(name));
            }
            if known.insert(name.clone(), Known { role, scope, token }).is_some() {
                return Err(EntriesError::Twice(name));
            }
        }
        Ok(Self { group, known })
    }

    /// Who sends a request, by its token or by the connection's certificate.
    pub fn authenticate(&self, certificate: &CertificateName, token: Option<&str>) -> Result<Identity, Denied> {
        match (token, certificate) {
            (Some(token), _) => self.by_token(token),
            (None, CertificateName::Named { group, name }) if *group == self.group => {
                self.known.get(name).map(|known| identity(name, known)).ok_or(Denied::NotKnown)
            }
            (None, CertificateName::Absent) => Err(Denied::Nobody),
            (None, _) => Err(Denied::NotKnown),
        }
    }

    fn by_token(&self, token: &str) -> Result<Identity, Denied> {
        let hash = token_hash(token);
        let mut found = None;
        // Every entry is compared, so that the time taken tells nothing about which one it was.
        for (name, known) in &self.known {
            if known.token.is_some_and(|kept| bool::from(kept.ct_eq(&hash))) {
                found = Some((name, known));
            }
        }
        found.map(|(name, known)| identity(name, known)).ok_or(Denied::NotKnown)
    }
}

fn identity(name: &str, known: &Known) -> Identity {
    Identity { name: name.to_owned(), role: known.role, scope: known.scope.clone() }
}

/// What is kept of a token: SHA-256 of its text.
pub fn token_hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

/// The token in an `authorization` header.
pub fn bearer(header: Option<&str>) -> Option<&str> {
    let (scheme, token) = header?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities() -> Identities {
        let entry =
            |name: &str, scope, token: Option<&str>| Entry { name: name.into(), scope, token: token.map(token_hash) };
        Identities::new(
            "uk+eu".into(),
            vec![
                entry("switch/pbx-1", Scope::Tenants(vec!["acme".into()]), None),
                entry("admin/anna", Scope::All, Some("anna's token")),
                entry("staff/sam", Scope::All, Some("sam's token")),
            ],
            false,
        )
        .expect("entries")
    }

    fn certificate(uri: &str) -> CertificateName {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().expect("ascii"))];
        let key = rcgen::KeyPair::generate().expect("key");
        CertificateName::of(Some(params.self_signed(&key).expect("certificate").der()))
    }

    #[test]
    fn nobody_logs_in_as_the_gateway_itself() {
        assert_eq!(role_of("gateway/x"), None);
        assert_eq!(role_of("subscriber/x"), None, "a subscriber's name has no place in a file");
    }

    #[test]
    fn staff_are_told_that_the_customer_must_permit() {
        let sam = identities().authenticate(&CertificateName::Absent, Some("sam's token")).expect("known");
        assert_eq!(sam.authorize(Action::Play, None), Err(Denied::PermissionNeeded));
    }

    #[test]
    fn a_foreign_tenant_is_unknown_not_forbidden() {
        let switch = identities().authenticate(&certificate("quietus://uk+eu/switch/pbx-1"), None).expect("known");
        assert_eq!(switch.authorize(Action::Record, Some("acme")), Ok(()));
        assert_eq!(switch.authorize(Action::Record, Some("other")), Err(Denied::Tenant));
    }

    #[test]
    fn certificates_without_exactly_one_listed_name_are_nobody() {
        let identities = identities();
        let ask = |certificate: &CertificateName| identities.authenticate(certificate, None).map(|id| id.name);
        assert_eq!(ask(&certificate("quietus://uk+eu/switch/pbx-1")), Ok("switch/pbx-1".into()));
        for uri in [
            "quietus://uk+eu/switch/pbx-2",
            "quietus://us/switch/pbx-1",
            "quietus://uk+eu/root/pbx-1",
            "quietus://uk+eu/switch/",
            "quietus://uk+eu/switch/a/b",
            "https://uk+eu/switch/pbx-1",
        ] {
            assert_eq!(ask(&certificate(uri)), Err(Denied::NotKnown), "{uri}");
        }
        assert_eq!(ask(&CertificateName::of(Some(b"not a certificate"))), Err(Denied::NotKnown));
        assert_eq!(ask(&CertificateName::Absent), Err(Denied::Nobody));

        let mut two = rcgen::CertificateParams::default();
        two.subject_alt_names = ["quietus://uk+eu/switch/pbx-1", "quietus://uk+eu/admin/anna"]
            .map(|uri| rcgen::SanType::URI(uri.try_into().expect("ascii")))
            .into();
        let key = rcgen::KeyPair::generate().expect("key");
        let two = CertificateName::of(Some(two.self_signed(&key).expect("certificate").der()));
        assert_eq!(ask(&two), Err(Denied::NotKnown));
    }

    #[test]
    fn a_wrong_token_is_not_saved_by_a_good_certificate() {
        let good = certificate("quietus://uk+eu/admin/anna");
        assert!(identities().authenticate(&good, None).is_ok());
        assert_eq!(identities().authenticate(&good, Some("wrong")).map(|id| id.name), Err(Denied::NotKnown));
        assert_eq!(identities().authenticate(&good, Some("sam's token")).map(|id| id.name), Ok("staff/sam".into()));
    }

    #[test]
    fn a_developer_is_refused_outside_of_dev() {
        let entry = || vec![Entry { name: "developer/dev".into(), scope: Scope::All, token: None }];
        assert!(matches!(Identities::new("g".into(), entry(), false), Err(EntriesError::Developer(_))));
        assert!(Identities::new("g".into(), entry(), true).is_ok());
    }

    #[test]
    fn bearer_is_read_in_any_case() {
        assert_eq!(bearer(Some("Bearer abc")), Some("abc"));
        assert_eq!(bearer(Some("bearer abc ")), Some("abc"));
        assert_eq!(bearer(Some("Basic abc")), None);
        assert_eq!(bearer(None), None);
    }
}
