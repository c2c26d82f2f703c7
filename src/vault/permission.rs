//! Permission to listen: asked for by staff, granted, denied and revoked by the customer.
//!
//! [`gate`] decides at every playback; [`registry`] finds a permission by its id; here it is asked for and decided. The rules
//! that need no storage are in [`crate::domain::permission`].
//!
//! # Where it lies (I10)
//!
//! One sealed row, under the secret of what it is about: of the tenant, of the subscriber, or of the recording's *audio*. So it
//! is gone with what it is about, and nothing that outlives a recording tells that somebody asked to hear it, why, or for
//! which ticket. What leads to it from outside (the inbox, the webhook, the evidence of a listening) carries the random id
//! alone. The row's name in clear carries another random number: with the id in it, an old copy of the key store would tie
//! the evidence to the rows of the recording. Nothing sealed under a tenant or subscriber lists the recordings below that
//! permissions were asked for; at a start they are found by a walk over the tree. A grant that is narrower than what was asked
//! for moves: the row of the grant lies under the secret of the narrower thing. What was asked was about the wider one.
//!
//! # Who decides
//!
//! The customer's authorised user: an administrator *whose scope names the tenant*. One who reaches every tenant is the
//! provider's administration; were it enough, the provider could let itself in. Where the tenant's policy says so, a subscriber
//! decides too about what is their own, and about nothing wider. Whoever asked cannot decide, neither in person nor through
//! somebody who acts for them. No setting changes this.
//!
//! # Revoking against playing
//!
//! A playback enters the sessions, looks for a grant, tells its session which grant it rests on, and looks again. A revocation is
//! committed first, then cuts the sessions that rest on the grant, and answers when they have left. So:
//! - the session told its grant before the cut looked: it is cut;
//! - it told it after the cut had looked: its second look comes after the commit, and finds the grant revoked.
//!
//! Either way nothing leaves after the revocation was answered but what the transport had taken already; how much that may
//! be is in `docs/permission.md`. Expiry needs no race: each playback watches the end of the grant it rests on.

mod gate;
mod registry;

pub(crate) use gate::{Grant, Pace};
pub(crate) use registry::{Registry, load};

use super::{
    Actor, ActorRole, Error, Inner, Scope, Vault,
    audit::{About, Detail, Event},
    inbox, recording_id,
    tenants::invalid,
    values,
};
use crate::{
    crypto::{envelope::Kind, random},
    domain::{
        audit::{Action, Outcome},
        id::{PermissionId, RecordingId, RowId, SubscriberHandle, TenantHandle},
        permission::{self, BadTerms, Level, Standing, State, Terms},
        time::Timestamp,
    },
    keys::{Change, CommitError, Holder, Mutation, Owner, RecordingPath},
    proto::stored,
};
use registry::Place;

/// Requests of a tenant that wait for it: beyond this its people have stopped looking.
const MAX_WAITING: usize = 200;

/// What a permission is about, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Over {
    /// One recording.
    Recording(RecordingId),
    /// A subscriber's recordings.
    Subscriber {
        /// Tenant, by name.
        tenant: String,
        /// Subscriber, by name.
        subscriber: String,
    },
    /// A tenant's recordings.
    Tenant {
        /// By name.
        tenant: String,
    },
}

/// What staff ask for.
pub struct NewPermission {
    /// What they want to hear.
    pub over: Over,
    /// Why.
    pub purpose: String,
    /// The support system's number.
    pub ticket: String,
    /// How far it goes.
    pub terms: Terms,
}

/// What the customer takes away from a request when granting it. `None` takes nothing away.
#[derive(Default)]
pub struct Narrower {
    /// Something within what was asked for.
    pub over: Option<Over>,
    /// Listening instead of downloading.
    pub level: Option<Level>,
    /// A shorter time.
    pub lasts_ms: Option<i64>,
    /// Only the calls there are.
    pub later_calls: Option<bool>,
}

/// A permission as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Permission {
    /// Random.
    pub id: PermissionId,
    /// What it is about.
    pub over: Over,
    /// The tenant's name.
    pub tenant: String,
    /// Why it was asked for.
    pub purpose: String,
    /// The support system's number.
    pub ticket: String,
    /// Who asked.
    pub asked_by: String,
    /// For whom, where somebody was delegated.
    pub asked_for: Option<String>,
    /// When.
    pub asked: Timestamp,
    /// What was asked for.
    pub wanted: Terms,
    /// How far it got, at the moment it is shown.
    pub state: State,
    /// Granted or denied: when, and by whom.
    pub decided: Option<(Timestamp, String)>,
    /// What was granted.
    pub granted: Option<Terms>,
    /// Where granted: good before this moment.
    pub until: Option<Timestamp>,
    /// Revoked, expired or lapsed: when.
    pub ended: Option<Timestamp>,
}

/// What a permission is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum At {
    Tenant(TenantHandle),
    Subscriber(TenantHandle, SubscriberHandle),
    Recording(RecordingPath),
}

impl At {
    fn tenant(self) -> TenantHandle {
        match self {
            At::Tenant(tenant) | At::Subscriber(tenant, _) => tenant,
            At::Recording(path) => path.tenant,
        }
    }

    fn owner(self) -> Owner {
        match self {
            At::Tenant(tenant) => Owner::Tenant(tenant),
            At::Subscriber(tenant, subscriber) => Owner::Subscriber(tenant, subscriber),
            At::Recording(path) => Owner::Audio(path),
        }
    }

    fn about(self) -> About {
        match self {
            At::Tenant(tenant) => About::Tenant(tenant),
            At::Subscriber(tenant, subscriber) => About::Subscriber(tenant, subscriber),
            At::Recording(path) => About::Audio(path),
        }
    }

    /// Whether `other` lies inside.
    fn contains(self, other: At) -> bool {
        match (self, other) {
            (At::Tenant(tenant), other) => tenant == other.tenant(),
            (At::Subscriber(tenant, subscriber), At::Recording(path)) => {
                (tenant, subscriber) == (path.tenant, path.subscriber)
            }
            (whole, part) => whole == part,
        }
    }
}

/// A permission's row, read.
struct Found {
    at: At,
    name: crate::keys::ValueName,
    holder: Holder,
    kept: stored::Permission,
}

impl Vault {
    /// Asks the customer. The request is in the tenant's inbox when this returns.
    ///
    /// # Errors
    /// `NotPermitted` for who is not staff; `Invalid` names the field; `Unknown`, `Erased`; `Busy` when too many wait.
    pub async fn request_permission(&self, actor: &Actor, new: NewPermission) -> Result<Permission, Error> {
        let inner = &self.0;
        inner.running()?;
        if !matches!(actor.role, ActorRole::Staff | ActorRole::Developer) {
            return Err(missing("only the provider's staff ask for permission; others hear their own"));
        }
        check_text("purpose", &new.purpose, permission::MAX_PURPOSE)?;
        check_text("ticket", &new.ticket, permission::MAX_TICKET)?;
        let wanted = new.terms.checked()?;
        let at = inner.reach(&actor.scope, &new.over)?;
        inner.permissions.loaded().await?;
        let _alone = inner.permissions.changing().await;
        if inner.permissions.waiting(at.tenant()) >= MAX_WAITING {
            return Err(Error::Busy);
        }
        let holder = inner.holder(at)?.ok_or(Error::Erased)?;
        let now = inner.clock.now();
        let kept = stored::Permission {
            id: random::<16>().to_vec(),
            purpose: new.purpose,
            ticket: new.ticket,
            asked_by: actor.name.clone(),
            asked_for: actor.on_behalf_of.clone().unwrap_or_default(),
            asked_ms: now.0,
            wanted: Some(keep(wanted)),
            state: State::Asked as u32,
            ..stored::Permission::default()
        };
        let found = Found { at, name: row_name(holder.row), holder, kept };
        let mut changes = inner.inbox_changes(at.tenant(), &inbox::Content::Permission(found.id()?)).await?;
        changes.extend(inner.permission_event(actor, Action::PermissionRequest, &found).await?);
        inner.put_permission(&found, changes).await?;
        inner.webhook_wake.notify_one();
        inner.permission_shown(&found, now)
    }

    /// Grants what was asked for, or a part of it.
    ///
    /// # Errors
    /// `Unknown`; `NotPermitted` for who is not the customer, or is the one who asked; `Refused` when it was decided before;
    /// `Invalid` names the field that is wider than what was asked for.
    pub async fn grant_permission(
        &self,
        actor: &Actor,
        id: PermissionId,
        narrower: Narrower,
    ) -> Result<Permission, Error> {
        let inner = &self.0;
        inner.running()?;
        inner.permissions.loaded().await?;
        let _alone = inner.permissions.changing().await;
        let now = inner.clock.now();
        let mut found = inner.to_decide(actor, id, now)?;
        let over = narrower.over.as_ref().map(|over| inner.reach(&actor.scope, over)).transpose()?;
        if over.is_some_and(|over| !found.at.contains(over)) {
            return Err(invalid("over", "name something within what was asked for".to_owned()));
        }
        let granted = found.wanted()?.narrowed(narrower.level, narrower.lasts_ms, narrower.later_calls)?;
        found.decide(State::Granted, actor, now);
        found.kept.granted = Some(keep(granted));
        found.kept.until_ms = now.plus_ms(granted.lasts_ms).0;
        let mut changes = inner.permission_event(actor, Action::PermissionGrant, &found).await?;
        if let Some(over) = over.filter(|over| *over != found.at) {
            changes.push(Change::DropValue { name: found.name });
            let holder = inner.holder(over)?.ok_or(Error::Erased)?;
            found = Found { at: over, name: row_name(holder.row), holder, kept: found.kept };
        }
        inner.put_permission(&found, changes).await?;
        inner.permission_shown(&found, now)
    }

    /// Says no.
    ///
    /// # Errors
    /// As for a grant.
    pub async fn deny_permission(&self, actor: &Actor, id: PermissionId) -> Result<Permission, Error> {
        let inner = &self.0;
        inner.running()?;
        inner.permissions.loaded().await?;
        let _alone = inner.permissions.changing().await;
        let now = inner.clock.now();
        let mut found = inner.to_decide(actor, id, now)?;
        found.decide(State::Denied, actor, now);
        let changes = inner.permission_event(actor, Action::PermissionDeny, &found).await?;
        inner.put_permission(&found, changes).await?;
        inner.permission_shown(&found, now)
    }

    /// Takes a grant back. Returns when every playback that rested on it has ended. Idempotent: one that has ended stays as
    /// it is.
    ///
    /// # Errors
    /// `Unknown`; `NotPermitted`; `Refused` for one that was never granted.
    pub async fn revoke_permission(&self, actor: &Actor, id: PermissionId) -> Result<Permission, Error> {
        let inner = &self.0;
        inner.running()?;
        inner.permissions.loaded().await?;
        let now = inner.clock.now();
        let shown = {
            let _alone = inner.permissions.changing().await;
            let mut found = inner.find_permission(&actor.scope, id)?;
            inner.may_decide(actor, found.at)?;
            match found.standing()?.at(now) {
                State::Granted => {
                    found.end(State::Revoked, &actor.name, now);
                    let changes = inner.permission_event(actor, Action::PermissionRevoke, &found).await?;
                    inner.put_permission(&found, changes).await?;
                }
                State::Asked => {
                    return Err(Error::Refused { why: "nothing has been granted yet; deny the request".to_owned() });
                }
                State::Denied | State::Revoked | State::Expired | State::Lapsed => {}
            }
            inner.permission_shown(&found, now)?
        };
        if inner.sessions.cut_grant(id).await {
            Ok(shown)
        } else {
            Err(Error::Internal("a playback did not end when its permission was revoked".to_owned()))
        }
    }

    /// One permission.
    ///
    /// # Errors
    /// `Unknown`.
    pub async fn permission(&self, actor: &Actor, id: PermissionId) -> Result<Permission, Error> {
        let inner = &self.0;
        inner.permissions.loaded().await?;
        let found = inner.find_permission(&actor.scope, id)?;
        if !sees(actor, &found) {
            return Err(Error::Unknown { what: "permission" });
        }
        inner.permission_shown(&found, inner.clock.now())
    }

    /// The permissions of a tenant that the caller may see, newest first; staff see their own.
    ///
    /// # Errors
    /// `Unknown` tenant.
    pub async fn permissions(&self, actor: &Actor, tenant: &str) -> Result<Vec<Permission>, Error> {
        let inner = &self.0;
        inner.permissions.loaded().await?;
        let (handle, now) = (inner.find_in(&actor.scope, tenant)?, inner.clock.now());
        let mut shown = Vec::new();
        for id in inner.permissions.of(handle) {
            match inner.find_permission(&actor.scope, id) {
                Ok(found) if sees(actor, &found) => shown.push(inner.permission_shown(&found, now)?),
                // Somebody else's, or of something that was erased since.
                Ok(_) | Err(Error::Unknown { .. } | Error::Erased) => {}
                Err(error) => return Err(error),
            }
        }
        shown.sort_by_key(|permission| std::cmp::Reverse((permission.asked, permission.id)));
        Ok(shown)
    }
}

impl Inner {
    /// A permission that waits, for somebody who may decide it.
    fn to_decide(&self, actor: &Actor, id: PermissionId, now: Timestamp) -> Result<Found, Error> {
        let found = self.find_permission(&actor.scope, id)?;
        self.may_decide(actor, found.at)?;
        let asked = [found.kept.asked_by.as_str(), found.kept.asked_for.as_str()].map(person);
        let decides = [actor.name.as_str(), actor.on_behalf_of.as_deref().unwrap_or_default()].map(person);
        if asked.iter().any(|asked| !asked.is_empty() && decides.contains(asked)) {
            return Err(missing("another person than the one who asked"));
        }
        let why = match found.standing()?.at(now) {
            State::Asked => return Ok(found),
            State::Granted => "it has been granted already; revoke it",
            State::Denied | State::Revoked => "it has been decided already; staff may ask again",
            State::Expired | State::Lapsed => "its time is over; staff may ask again",
        };
        Err(Error::Refused { why: why.to_owned() })
    }

    /// Whether somebody speaks for the customer: see the head of this file.
    pub(crate) fn may_decide(&self, actor: &Actor, at: At) -> Result<(), Error> {
        let tenant = self.keys.tenant_name(at.tenant()).ok_or(Error::Unknown { what: "tenant" })?;
        match (actor.role, &actor.scope) {
            (ActorRole::Developer, _) => Ok(()),
            (ActorRole::Admin, Scope::Tenants(names)) if names.contains(&tenant) => Ok(()),
            (ActorRole::Subscriber, Scope::Own { .. }) => self.subscriber_may_decide(actor, at, &tenant),
            _ => Err(missing(
                "an administrator of the tenant itself; one who reaches every tenant speaks for the provider",
            )),
        }
    }

    fn subscriber_may_decide(&self, actor: &Actor, at: At, tenant: &str) -> Result<(), Error> {
        let own = match at {
            At::Tenant(_) => false,
            At::Subscriber(handle, subscriber) => self.reaches(&actor.scope, handle, tenant, subscriber),
            At::Recording(path) => self.reaches(&actor.scope, path.tenant, tenant, path.subscriber),
        };
        if own && self.policy(at.tenant())?.subscribers_decide() {
            return Ok(());
        }
        Err(missing("an administrator of the tenant, or a policy that lets subscribers decide (`subscribers_decide`)"))
    }

    /// What a name or id leads to, within what the caller may reach.
    fn reach(&self, scope: &Scope, over: &Over) -> Result<At, Error> {
        match over {
            Over::Recording(id) => Ok(At::Recording(self.locate(scope, *id)?.path)),
            Over::Subscriber { tenant, subscriber } => {
                let handle = self.find_in(scope, tenant)?;
                let unknown = Error::Unknown { what: "subscriber" };
                match self.keys.find_subscriber(handle, subscriber) {
                    Some(found) if scope.reaches(tenant, subscriber) => Ok(At::Subscriber(handle, found)),
                    _ => Err(unknown),
                }
            }
            Over::Tenant { tenant } => Ok(At::Tenant(self.find_in(scope, tenant)?)),
        }
    }

    /// The row and secret that a permission about this lies under; none when it was erased.
    fn holder(&self, at: At) -> Result<Option<Holder>, Error> {
        Ok(match at {
            At::Tenant(tenant) => self.keys.tenant(tenant)?,
            At::Subscriber(tenant, subscriber) => self.keys.subscriber(tenant, subscriber)?,
            At::Recording(path) => {
                self.keys.audio_leaf(path)?.and_then(|leaf| Some(Holder { row: leaf.row, secret: leaf.audio? }))
            }
        })
    }

    /// Finds a permission that lies within a scope. What was erased, or is somebody else's, is unknown.
    fn find_permission(&self, scope: &Scope, id: PermissionId) -> Result<Found, Error> {
        let unknown = || Error::Unknown { what: "permission" };
        let Place { at, name, .. } = self.permissions.place(id).ok_or_else(unknown)?;
        let tenant = self.keys.tenant_name(at.tenant()).ok_or_else(unknown)?;
        let inside = match at {
            At::Tenant(_) => scope.contains(&tenant) && !matches!(scope, Scope::Own { .. }),
            At::Subscriber(handle, subscriber) => self.reaches(scope, handle, &tenant, subscriber),
            At::Recording(path) => self.reaches(scope, path.tenant, &tenant, path.subscriber),
        };
        let holder = self.holder(at)?.filter(|_| inside).ok_or_else(unknown)?;
        let envelope = self.keys.value(&name)?.ok_or_else(unknown)?;
        let kept = values::open(&envelope, &holder.secret, &name)?;
        Ok(Found { at, name, holder, kept })
    }

    /// Writes a permission and what belongs to it in one command, and remembers where it lies.
    async fn put_permission(&self, found: &Found, mut changes: Vec<Change>) -> Result<(), Error> {
        let envelope = values::seal(&found.kept, &found.holder.secret, &found.name);
        changes.push(Change::PutValue { owner: found.at.owner(), name: found.name.clone(), envelope });
        self.keys.commit(Mutation::new(changes)).await.map_err(|error| match error {
            CommitError::Gone => Error::Erased,
            other => other.into(),
        })?;
        self.permissions.put(
            found.id()?,
            Place {
                at: found.at,
                name: found.name.clone(),
                wakes: found.wakes()?,
                waits: found.kept.state == State::Asked as u32,
            },
        );
        Ok(())
    }

    /// The entry in the audit log, to go into the command that has the effect. Purpose and ticket lie in the permission.
    async fn permission_event(&self, actor: &Actor, action: Action, found: &Found) -> Result<Vec<Change>, Error> {
        let (about, id) = (found.at.about(), found.id()?);
        let event = Event { action, about, grant: Some(id.0), outcome: Outcome::Done, detail: Detail::default() };
        self.audit(actor, event).await
    }

    fn permission_shown(&self, found: &Found, now: Timestamp) -> Result<Permission, Error> {
        let unknown = || Error::Unknown { what: "permission" };
        let tenant = self.keys.tenant_name(found.at.tenant()).ok_or_else(unknown)?;
        let over = match found.at {
            At::Tenant(_) => Over::Tenant { tenant: tenant.clone() },
            At::Subscriber(handle, subscriber) => Over::Subscriber {
                tenant: tenant.clone(),
                subscriber: self.keys.subscriber_name(handle, subscriber).ok_or_else(unknown)?,
            },
            At::Recording(path) => {
                let secret = self.tenant_holder(path.tenant)?.secret;
                Over::Recording(recording_id::issue(&secret, path.subscriber, path.recording))
            }
        };
        let (kept, standing) = (&found.kept, found.standing()?);
        let state = standing.at(now);
        let moment = |ms: i64| (ms != 0).then_some(Timestamp(ms));
        Ok(Permission {
            id: found.id()?,
            over,
            tenant,
            purpose: kept.purpose.clone(),
            ticket: kept.ticket.clone(),
            asked_by: kept.asked_by.clone(),
            asked_for: Some(kept.asked_for.clone()).filter(|name| !name.is_empty()),
            asked: standing.asked,
            wanted: found.wanted()?,
            state,
            decided: moment(kept.decided_ms).map(|at| (at, kept.decided_by.clone())),
            granted: found.granted()?,
            until: standing.until,
            ended: moment(kept.ended_ms).or_else(|| standing.ends().filter(|_| state.has_ended())),
        })
    }

    /// What time does to permissions: what has run out is written so, and what ended long ago is let go of.
    pub(crate) async fn keep_permissions(&self) -> Result<(), Error> {
        if !self.permissions.is_loaded() {
            return Ok(());
        }
        let now = self.clock.now();
        for id in self.permissions.due(now) {
            let _alone = self.permissions.changing().await;
            let mut found = match self.find_permission(&Scope::All, id) {
                Ok(found) => found,
                Err(Error::Unknown { .. }) => {
                    self.permissions.forget(id);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (stored, state) = (found.standing()?.state, found.standing()?.at(now));
            if state != stored {
                found.end(state, "", now);
                let changes = self.permission_event(&Actor::gateway(), Action::PermissionExpire, &found).await?;
                match self.put_permission(&found, changes).await {
                    Ok(()) | Err(Error::Erased) => {}
                    Err(error) => return Err(error),
                }
            } else if now >= Timestamp(found.wakes()?) {
                self.keys.commit(Mutation::new(vec![Change::DropValue { name: found.name }])).await?;
                self.permissions.forget(id);
            }
        }
        Ok(())
    }
}

impl Found {
    fn id(&self) -> Result<PermissionId, Error> {
        PermissionId::from_slice(&self.kept.id).ok_or_else(damaged)
    }

    fn standing(&self) -> Result<Standing, Error> {
        standing(&self.kept)
    }

    fn wanted(&self) -> Result<Terms, Error> {
        read(self.kept.wanted.as_ref())?.ok_or_else(damaged)
    }

    fn granted(&self) -> Result<Option<Terms>, Error> {
        read(self.kept.granted.as_ref())
    }

    fn decide(&mut self, state: State, actor: &Actor, now: Timestamp) {
        self.kept.state = state as u32;
        self.kept.decided_ms = now.0;
        self.kept.decided_by = actor.name.clone();
    }

    fn end(&mut self, state: State, by: &str, now: Timestamp) {
        self.kept.state = state as u32;
        self.kept.ended_ms = now.0;
        self.kept.ended_by = by.to_owned();
    }

    /// When [`Inner::keep_permissions`] has to look at it.
    fn wakes(&self) -> Result<i64, Error> {
        wakes(&self.kept)
    }
}

fn wakes(kept: &stored::Permission) -> Result<i64, Error> {
    let over = kept.ended_ms.max(kept.decided_ms);
    Ok(standing(kept)?.ends().map_or(over.saturating_add(permission::SHOWN_MS), |ends| ends.0))
}

fn standing(kept: &stored::Permission) -> Result<Standing, Error> {
    Ok(Standing {
        state: State::from_number(kept.state).ok_or_else(damaged)?,
        asked: Timestamp(kept.asked_ms),
        until: (kept.until_ms != 0).then_some(Timestamp(kept.until_ms)),
    })
}

fn keep(terms: Terms) -> stored::PermissionTerms {
    stored::PermissionTerms { level: terms.level as u32, lasts_ms: terms.lasts_ms, later_calls: terms.later_calls }
}

fn read(kept: Option<&stored::PermissionTerms>) -> Result<Option<Terms>, Error> {
    kept.map(|kept| {
        let level = Level::from_number(kept.level).ok_or_else(damaged)?;
        Ok(Terms { level, lasts_ms: kept.lasts_ms, later_calls: kept.later_calls })
    })
    .transpose()
}

fn damaged() -> Error {
    Error::Corrupt("a permission row".to_owned())
}

/// A row of its own, under a name that tells nothing.
fn row_name(row: RowId) -> crate::keys::ValueName {
    values::name_with(row, Kind::Permission, &random::<16>())
}

/// Staff see what they asked for themselves; everybody else what lies within their scope, which the search has checked.
fn sees(actor: &Actor, found: &Found) -> bool {
    actor.role != ActorRole::Staff || actor.name == found.kept.asked_by
}

/// Who is behind a name. What a central issuer vouches for (`ROLE/SUBJECT@ISSUER`) is one person in every role; names of the
/// identities file are what that file makes them.
pub(crate) fn person(name: &str) -> &str {
    match name.split_once('/') {
        Some((_, subject)) if subject.contains('@') => subject,
        _ => name,
    }
}

pub(crate) fn missing(what: &str) -> Error {
    Error::NotPermitted { missing: what.to_owned() }
}

pub(crate) fn check_text(field: &'static str, text: &str, most: usize) -> Result<(), Error> {
    if text.trim().is_empty() || text.len() > most || text.chars().any(char::is_control) {
        return Err(invalid(field, format!("send 1 to {most} bytes of text without control characters")));
    }
    Ok(())
}

impl From<BadTerms> for Error {
    fn from(bad: BadTerms) -> Self {
        Error::Invalid { field: bad.field, remedy: bad.remedy.to_owned() }
    }
}
