//! What a token of an OpenID Connect issuer says, and whom it makes of its holder. Pure: keys come in, an answer goes out.
//!
//! # What is checked, in this order
//! 1. The header: a known algorithm of this issuer's list, no `crit`, a type that is an access or an ID token.
//! 2. The signature, under a key that the issuer published for this very algorithm: a key never serves two families, so a
//!    public key is never taken for a shared secret.
//! 3. `iss` and `aud` are ours, `exp` lies ahead, `nbf` behind, `iat` is there and not older than the set age.
//! 4. The claims, as configured: which role, which tenants, which subscriber. A token that names two roles, or a tenant
//!    that this issuer may not speak for, is refused whole.
//!
//! # Delegation (`act`, RFC 8693)
//! `sub` is the one in whose place somebody acts, and `act.sub` is who really acts. The log names the latter and says for
//! whom. Who acts has no more rights than either of the two: both roles must be allowed, the reach is that of `sub`, and
//! where one of them is staff the vault takes the actor for staff. Else a member of staff who stands in for a customer's
//! user would hear recordings without the customer's permission. The same holds of an administrator or subscriber whose own
//! claims name no tenant, or not each of those that `sub` reaches: such an administrator is the provider's. So `act` must name the role of who acts, in the same
//! claim; a token whose `act` does not is refused. Of a chain of delegations the last link counts, as the RFC has it.

use super::{Denied, Role, jws};
use crate::{domain::time::Timestamp, vault::Scope};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};

/// Bounds a token: header fields together have at most 16 KiB.
pub const MAX_TOKEN: usize = 12 << 10;
/// Bounds the keys of an issuer.
const MAX_KEYS: usize = 64;
/// Bounds a name that an issuer gives.
const MAX_SUB: usize = 200;
/// Bounds a subscriber's name, as it is at Open.
const MAX_SUBSCRIBER: usize = 256;
/// Bounds the tenants of one token.
const MAX_TENANTS: usize = 256;

/// One issuer, and how its tokens are read.
pub struct Settings {
    /// Stands behind the names it gives: `staff/sam@NAME`. Tells them from those of other issuers and of the file.
    pub name: String,
    /// As in `iss`.
    pub issuer: String,
    /// Any of them must stand in `aud`.
    pub audiences: Vec<String>,
    /// Where its keys are; else by discovery.
    pub jwks: Option<String>,
    /// The CA of its server, where it is not a public one.
    pub ca_pem: Option<Vec<u8>>,
    /// What it may sign with.
    pub algorithms: Vec<Algorithm>,
    /// How far its clock may differ from ours.
    pub leeway: Duration,
    /// How long after `iat` a token is taken at most.
    pub max_age: Duration,
    /// How long its keys are trusted while it cannot be reached.
    pub keys_last: Duration,
    /// The tenants that it may speak for.
    pub tenants: Scope,
    /// What a value of the role claim means.
    pub roles: BTreeMap<String, Role>,
    /// Which claim says what.
    pub claims: Claims,
}

/// Names of claims. One that begins with `/` is a JSON pointer (RFC 6901).
pub struct Claims {
    /// Who it is.
    pub name: String,
    /// A value, or several, of which one is in [`Settings::roles`].
    pub role: String,
    /// Which tenants, among those of the issuer. None: all of those.
    pub tenants: Option<String>,
    /// Which subscriber, for that role.
    pub subscriber: Option<String>,
}

/// What is read of a token before its issuer is known.
pub struct Unverified {
    /// The algorithm of its header.
    pub algorithm: Algorithm,
    /// The name of its key.
    pub kid: Option<String>,
    /// Who claims to have issued it.
    pub issuer: String,
}

/// Who a token makes of its holder.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged {
    /// Who really acts.
    pub name: String,
    /// For whom.
    pub on_behalf_of: Option<String>,
    /// In which role.
    pub role: Role,
    /// The role of the other end of a delegation.
    pub besides: Option<Role>,
    /// Whose data.
    pub reach: Reach,
    /// The token is taken before this moment.
    pub until: Timestamp,
}

/// A scope that can be compared.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Reach {
    /// Every tenant.
    All,
    /// These.
    Tenants(Vec<String>),
    /// One subscriber of one tenant.
    Own(String, String),
}

impl From<Reach> for Scope {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::All => Scope::All,
            Reach::Tenants(names) => Scope::Tenants(names),
            Reach::Own(tenant, subscriber) => Scope::Own { tenant, subscriber },
        }
    }
}

/// Reads what tells which issuer and which key must be asked. None of it is trusted.
pub fn unverified(token: &str) -> Result<Unverified, Denied> {
    let strange = || Denied::Token("it is not a signed token");
    if token.len() > MAX_TOKEN {
        return Err(strange());
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| strange())?;
    if header.crit.is_some() || header.enc.is_some() {
        return Err(Denied::Token("its header asks for extensions that are not offered"));
    }
    let kinds = ["JWT", "at+jwt", "application/at+jwt"];
    if header.typ.as_ref().is_some_and(|typ| !kinds.iter().any(|kind| kind.eq_ignore_ascii_case(typ))) {
        return Err(Denied::Token("its type is not that of an access or ID token"));
    }
    let claims: Map<String, Value> = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| strange())?;
    let issuer = claims.get("iss").and_then(Value::as_str).ok_or(Denied::Token("it names no issuer"))?;
    Ok(Unverified { algorithm: header.alg, kid: header.kid, issuer: issuer.to_owned() })
}

/// A key of an issuer.
pub struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

/// The keys of an issuer, as it published them.
pub struct Keys(Vec<Key>);

impl Keys {
    /// Reads a JWK set (RFC 7517). Keys for other uses, of other kinds and for algorithms that are not in the list are
    /// passed over; a set without any key is an error.
    pub fn parse(json: &[u8], allowed: &[Algorithm]) -> Option<Self> {
        let set: JwkSet = serde_json::from_slice(json).ok()?;
        let keys: Vec<Key> = set.keys.iter().take(MAX_KEYS).filter_map(|jwk| key(jwk, allowed)).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The key of this name for this algorithm. A token without a key's name is taken where one key alone could be meant.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self
            .0
            .iter()
            .filter(|key| key.algorithms.contains(&algorithm) && (kid.is_none() || key.kid.as_deref() == kid));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Some(&key.decoding),
            _ => None,
        }
    }
}

fn key(jwk: &Jwk, allowed: &[Algorithm]) -> Option<Key> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let able: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[Algorithm::RS256, Algorithm::PS256],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        // Shared secrets have no place in a published set.
        _ => return None,
    };
    let stated = match jwk.common.key_algorithm {
        None => None,
        Some(stated) => Some(Algorithm::try_from(stated).ok()?),
    };
    let fits = |algorithm: &Algorithm| allowed.contains(algorithm) && stated.is_none_or(|stated| stated == *algorithm);
    let algorithms: Vec<Algorithm> = able.iter().copied().filter(fits).collect();
    if algorithms.is_empty() {
        return None;
    }
    Some(Key { kid: jwk.common.key_id.clone(), algorithms, decoding: DecodingKey::from_jwk(jwk).ok()? })
}

impl Settings {
    /// Who the holder of this token is at this moment.
    pub fn judge(
        &self,
        token: &str,
        algorithm: Algorithm,
        key: &DecodingKey,
        now: Timestamp,
    ) -> Result<Judged, Denied> {
        jws::install();
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&self.audiences);
        validation.set_required_spec_claims(&["iss", "aud", "exp"]);
        // Times are checked below, against a clock that is an argument.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation)
            .map_err(|error| Denied::Token(why(&error)))?
            .claims;
        let until = self.in_time(&claims, now)?;
        self.holder(&claims, until)
    }

    /// Whether the token's time is now, and when it is over.
    fn in_time(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, Denied> {
        let leeway = ms(self.leeway);
        let time = |claim: &'static str| {
            let seconds = claims.get(claim).map(|value| value.as_f64().filter(|s| s.is_finite()));
            match seconds {
                None => Ok(None),
                Some(Some(seconds)) => Ok(Some(Timestamp((seconds * 1000.0) as i64))),
                Some(None) => Err(Denied::Token("a time in it is no number")),
            }
        };
        let expires = time("exp")?.ok_or(Denied::Token("it does not say when it expires"))?;
        let issued = time("iat")?.ok_or(Denied::Token("it does not say when it was issued"))?;
        let (expires, too_old) = (expires.plus_ms(leeway), issued.plus_ms(ms(self.max_age)).plus_ms(leeway));
        if expires <= now {
            return Err(Denied::Token("it has expired"));
        }
        if time("nbf")?.is_some_and(|begins| begins.plus_ms(-leeway) > now) || issued.plus_ms(-leeway) > now {
            return Err(Denied::Token("its time has not come yet; compare the clocks"));
        }
        if too_old <= now {
            return Err(Denied::Token("it was issued too long ago"));
        }
        Ok(expires.min(too_old))
    }

    fn holder(&self, claims: &Map<String, Value>, until: Timestamp) -> Result<Judged, Denied> {
        let subject = Value::Object(claims.clone());
        let (name, role) = self.named(&subject)?;
        let reach = self.reach(&subject, role)?;
        let Some(act) = claims.get("act") else {
            return Ok(Judged { name, on_behalf_of: None, role, besides: None, reach, until });
        };
        if act.get("iss").is_some_and(|iss| iss.as_str() != Some(&self.issuer)) {
            return Err(Denied::Token("who acts is named by another issuer"));
        }
        let (actor, acting) = self.named(act)?;
        let staff = role == Role::Staff || acting == Role::Staff;
        let (role, besides) = if staff && role != Role::Staff { (acting, role) } else { (role, acting) };
        let (role, besides) = match (role, besides) {
            // What these two hear without asking is their own; who acts must be the customer's as well.
            (Role::Admin | Role::Subscriber, Role::Admin | Role::Subscriber) if !self.is_at_home(act, &reach) => {
                let lesser = if besides == Role::Subscriber { besides } else { role };
                (Role::Staff, lesser)
            }
            both => both,
        };
        // A subscriber's own things stay theirs whoever acts; the vault must not take somebody else for the subscriber.
        Ok(Judged { name: actor, on_behalf_of: Some(name), role, besides: Some(besides), reach, until })
    }

    /// Whether who acts reaches every tenant of a reach by name, by claims of its own.
    fn is_at_home(&self, act: &Value, reach: &Reach) -> bool {
        // Whose data it is says `sub`; of who acts only the tenants count.
        let Ok(Reach::Tenants(names)) = self.reach(act, Role::Admin) else { return false };
        match reach {
            Reach::All => false,
            Reach::Tenants(reached) => reached.iter().all(|name| names.contains(name)),
            Reach::Own(tenant, _) => names.contains(tenant),
        }
    }

    /// Name and role of whoever an object of claims is about.
    fn named(&self, claims: &Value) -> Result<(String, Role), Denied> {
        let sub = text(claims, &self.claims.name).ok_or(Denied::Token("it does not say who it is about"))?;
        if sub.is_empty() || sub.len() > MAX_SUB || !sub.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Denied::Token("the name in it cannot be used"));
        }
        let mut roles = Vec::new();
        for value in several(claims, &self.claims.role)? {
            if let Some(role) = self.roles.get(value).filter(|role| !roles.contains(*role)) {
                roles.push(*role);
            }
        }
        match roles.as_slice() {
            [role] => Ok((format!("{}/{sub}@{}", super::access::role_name(*role), self.name), *role)),
            [] => Err(Denied::Token("it gives its holder no role here")),
            _ => Err(Denied::Token("it gives its holder more than one role; have one issued for one of them")),
        }
    }

    fn reach(&self, claims: &Value, role: Role) -> Result<Reach, Denied> {
        let reach = match &self.claims.tenants {
            None => match &self.tenants {
                Scope::All => Reach::All,
                Scope::Tenants(names) => Reach::Tenants(names.clone()),
                Scope::Own { .. } => return Err(Denied::Token("its issuer speaks for no tenant")),
            },
            Some(claim) => {
                let names = several(claims, claim)?;
                let everywhere = names.contains(&"*");
                let foreign = names.iter().any(|name| *name != "*" && !self.tenants.contains(name));
                let all = matches!(self.tenants, Scope::All);
                if names.is_empty() || names.len() > MAX_TENANTS || foreign || (everywhere && !all) {
                    return Err(Denied::Token("it names no tenant, or one that its issuer does not speak for"));
                }
                match everywhere {
                    true => Reach::All,
                    false => Reach::Tenants(names.into_iter().map(str::to_owned).collect()),
                }
            }
        };
        if role != Role::Subscriber {
            return Ok(reach);
        }
        let claim = self.claims.subscriber.as_deref().ok_or(Denied::Token("no claim is set to name a subscriber"))?;
        let own = text(claims, claim).filter(|own| (1..=MAX_SUBSCRIBER).contains(&own.len()));
        match (reach, own) {
            (Reach::Tenants(names), Some(own)) if names.len() == 1 => Ok(Reach::Own(names[0].clone(), own.to_owned())),
            _ => Err(Denied::Token("a subscriber's token names one tenant and one subscriber")),
        }
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) }
}

fn text<'a>(claims: &'a Value, name: &str) -> Option<&'a str> {
    claim(claims, name).and_then(Value::as_str)
}

/// A string, or a list of strings.
fn several<'a>(claims: &'a Value, name: &str) -> Result<Vec<&'a str>, Denied> {
    match claim(claims, name) {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(many)) => many
            .iter()
            .map(|value| value.as_str().ok_or(Denied::Token("a list in it holds something else than text")))
            .collect(),
        Some(_) => Err(Denied::Token("a claim in it is neither text nor a list of texts")),
    }
}

fn why(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidAudience => "it is for somebody else",
        ErrorKind::InvalidIssuer => "its issuer is not known here",
        ErrorKind::MissingRequiredClaim(_) => "it lacks `iss`, `aud` or `exp`",
        _ => "its signature is not good",
    }
}
