//! Who is asking, and what they may ask for.
//!
//! A caller proves a name, `ROLE/NAME`, in one of these ways:
//!
//! - a client certificate with the URI `quietus://GROUP/ROLE/NAME` ([`certificate`]), for a name that the identities file
//!   lists ([`known`]) or, for a switch, that a tenant has enrolled;
//! - a token whose hash stands in the identities file;
//! - an API key of a tenant, `qk_ID_SECRET`;
//! - a token signed by a configured OpenID Connect issuer ([`oidc`] judges it, [`issuer`] keeps the issuer's keys, [`jws`]
//!   verifies signatures).
//!
//! [`layer`] settles this once for each request, before a byte of its body is read. Then each handler asks
//! [`Identity::authorize`] what the role may do: policies in Cedar decide ([`access`]).
//!
//! - A request that carries a token is judged by the token alone, even on a connection with a certificate.
//! - A tenant outside of the caller's scope is *unknown*, never *forbidden*: that it exists is not told.
//! - What proved the name can be taken back or expire, and then the answers that still run are cut ([`Identity::proof`]).
//! - Under a delegation, and with an API key, two roles ask, and both must be allowed.

pub mod access;
pub mod certificate;
pub mod issuer;
pub mod jws;
pub mod known;
pub mod layer;
pub mod oidc;

pub use crate::vault::ActorRole as Role;
pub use access::{Access, Action};
pub use certificate::CertificateName;
pub use known::{EntriesError, Entry, Identities, TOKEN_LEN, token_hash};

use crate::{
    domain::time::Timestamp,
    vault::{Actor, Enrolment, Proof, Scope},
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Why somebody may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Neither certificate nor token.
    #[error("nobody is asking: connect with a client certificate or send a token")]
    Nobody,
    /// A certificate or token that means nothing here.
    #[error("the certificate or token is not known to this gateway")]
    NotKnown,
    /// A signed token that cannot be taken, for a reason that its holder can mend.
    #[error("the token is not accepted: {0}")]
    Token(&'static str),
    /// The issuer's keys cannot be had, so that nothing it signed can be judged.
    #[error("the issuer of this token cannot be reached to check it; try again later")]
    IssuerAway,
    /// What proved the name was taken back, or expired, while the request ran.
    #[error("the certificate, key or token was revoked or has expired")]
    Revoked,
    /// The role does not go that far.
    #[error("not permitted: {missing}")]
    Role {
        /// What would do.
        missing: String,
    },
    /// Staff hear a recording only when the customer lets them.
    #[error("the customer's permission is needed to hear this recording")]
    PermissionNeeded,
    /// A tenant that this caller does not see.
    #[error("unknown tenant")]
    Tenant,
    /// A subscriber that this caller does not see.
    #[error("unknown subscriber")]
    Subscriber,
    /// The switch feeds as many recordings as its enrolment allows.
    #[error("this switch feeds as many recordings as its enrolment allows; try again when one has ended")]
    SwitchBusy,
}

/// Somebody who proved a name.
#[derive(Clone)]
pub struct Identity {
    /// Who really acts: `ROLE/NAME`.
    pub name: String,
    /// For whom, under a delegation.
    pub on_behalf_of: Option<String>,
    /// In which role it acts.
    pub role: Role,
    /// The role that must be allowed besides: of the other end of a delegation, or that of an API key.
    pub besides: Option<Role>,
    /// Whose data it reaches.
    pub scope: Scope,
    /// Cancelled when what proved the name is taken back.
    pub alive: CancellationToken,
    /// When what proved the name ends by itself: a signed token.
    pub until: Option<Timestamp>,
    /// A switch's enrolments, a tenant each.
    pub enrolments: Arc<[Enrolment]>,
    /// Decides.
    pub access: Arc<Access>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({:?})", self.role)
    }
}

impl Identity {
    /// As the vault and its log know it.
    pub fn actor(&self) -> Actor {
        Actor {
            name: self.name.clone(),
            on_behalf_of: self.on_behalf_of.clone(),
            role: self.role,
            scope: self.scope.clone(),
            subscriber: match &self.scope {
                Scope::Own { subscriber, .. } => Some(subscriber.clone()),
                Scope::All | Scope::Tenants(_) => None,
            },
        }
    }

    /// What everything that this identity begins hangs on.
    pub fn proof(&self) -> Proof {
        Proof { alive: self.alive.clone(), until: self.until }
    }

    /// The one question. `tenant` is the one that the request names, where it names one.
    pub fn authorize(&self, action: Action, tenant: Option<&str>) -> Result<(), Denied> {
        let own;
        let tenants = match &self.scope {
            Scope::All => None,
            Scope::Tenants(names) => Some(names.as_slice()),
            Scope::Own { tenant, .. } => {
                own = [tenant.clone()];
                Some(own.as_slice())
            }
        };
        let delegated = self.on_behalf_of.is_some();
        for role in [Some(self.role), self.besides].into_iter().flatten() {
            self.access.decide(&access::Principal { name: &self.name, role, tenants, delegated }, action)?;
        }
        match tenant {
            Some(tenant) if !self.scope.contains(tenant) => Err(Denied::Tenant),
            _ => Ok(()),
        }
    }

    /// The subscriber that a request about some of a tenant's subscribers is about: the caller's own, where it reaches
    /// nobody else.
    pub fn subscriber<'a>(&'a self, asked: Option<&'a str>) -> Result<Option<&'a str>, Denied> {
        match &self.scope {
            Scope::Own { subscriber, .. } if asked.is_none_or(|asked| asked == subscriber) => Ok(Some(subscriber)),
            Scope::Own { .. } => Err(Denied::Subscriber),
            Scope::All | Scope::Tenants(_) => Ok(asked),
        }
    }

    /// Begins to feed a recording of a tenant, where the enrolment of a switch has room for one more.
    pub fn feed(&self, tenant: &str) -> Result<Feeding, Denied> {
        let Some(enrolment) = self.enrolments.iter().find(|enrolment| enrolment.tenant == tenant) else {
            return Ok(Feeding { proof: self.proof(), _room: None });
        };
        let room = enrolment.room.clone().try_acquire_owned().map_err(|_| Denied::SwitchBusy)?;
        let proof = Proof { alive: enrolment.alive.clone(), until: self.until };
        Ok(Feeding { proof, _room: Some(room) })
    }
}

/// A recording that is being fed: counts against the switch's limit until it is dropped.
pub struct Feeding {
    /// The enrolment, or what else let the caller feed.
    pub proof: Proof,
    _room: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// The token in an `authorization` header.
pub fn bearer(header: Option<&str>) -> Option<&str> {
    let (scheme, token) = header?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(role: Role, scope: Scope) -> Identity {
        Identity {
            name: "x/y".into(),
            on_behalf_of: None,
            role,
            besides: None,
            scope,
            alive: CancellationToken::new(),
            until: None,
            enrolments: Arc::from([]),
            access: Arc::new(Access::shipped("g")),
        }
    }

    #[test]
    fn a_foreign_tenant_is_unknown_not_forbidden() {
        let switch = identity(Role::Switch, Scope::Tenants(vec!["acme".into()]));
        assert_eq!(switch.authorize(Action::Record, Some("acme")), Ok(()));
        assert_eq!(switch.authorize(Action::Record, Some("other")), Err(Denied::Tenant));
    }

    #[test]
    fn what_the_role_may_not_is_refused_alike_whether_the_tenant_is_there_or_not() {
        let auditor = identity(Role::Auditor, Scope::Tenants(vec!["acme".into()]));
        let refused = auditor.authorize(Action::Erase, Some("acme"));
        assert!(matches!(refused, Err(Denied::Role { .. })));
        assert_eq!(auditor.authorize(Action::Erase, Some("other")), refused);
    }

    #[test]
    fn two_roles_must_both_be_allowed() {
        let mut key = identity(Role::ApiKey, Scope::Tenants(vec!["acme".into()]));
        key.besides = Some(Role::Switch);
        assert!(key.authorize(Action::Record, Some("acme")).is_ok());
        assert!(key.authorize(Action::Erase, Some("acme")).is_err(), "the key's role stops it");
        key.besides = Some(Role::Admin);
        assert!(key.authorize(Action::Erase, Some("acme")).is_ok());
        assert!(key.authorize(Action::ManageKeys, Some("acme")).is_err(), "what no key may");
    }

    #[test]
    fn a_subscriber_reaches_nobody_else() {
        let scope = Scope::Own { tenant: "acme".into(), subscriber: "maria".into() };
        let maria = identity(Role::Subscriber, scope);
        assert_eq!(maria.subscriber(None), Ok(Some("maria")));
        assert_eq!(maria.subscriber(Some("maria")), Ok(Some("maria")));
        assert_eq!(maria.subscriber(Some("otto")), Err(Denied::Subscriber));
        assert_eq!(maria.actor().subscriber.as_deref(), Some("maria"));
        assert_eq!(maria.authorize(Action::Show, Some("other")), Err(Denied::Tenant));
    }

    #[test]
    fn a_switch_feeds_no_more_than_its_enrolment_allows() {
        let mut switch = identity(Role::Switch, Scope::Tenants(vec!["acme".into(), "free".into()]));
        let room = Arc::new(tokio::sync::Semaphore::new(1));
        switch.enrolments = Arc::from([Enrolment { tenant: "acme".into(), alive: CancellationToken::new(), room }]);
        let first = switch.feed("acme").expect("room");
        assert_eq!(switch.feed("acme").err(), Some(Denied::SwitchBusy));
        assert!(switch.feed("free").is_ok(), "of another tenant, which set no limit");
        drop(first);
        assert!(switch.feed("acme").is_ok());
    }

    #[test]
    fn bearer_is_read_in_any_case() {
        assert_eq!(bearer(Some("Bearer abc")), Some("abc"));
        assert_eq!(bearer(Some("bearer abc ")), Some("abc"));
        assert_eq!(bearer(Some("Basic abc")), None);
        assert_eq!(bearer(None), None);
    }
}
