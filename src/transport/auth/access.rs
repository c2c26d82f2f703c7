//! Who may ask for what: decided by the Cedar policies in `policies/access`, which are readable, shipped with the program,
//! and validated against their schema before anything is served.
//!
//! - What is asked: may this identity, in this role, do this [`Action`] in this group? Nothing about tenants is asked here:
//!   whose data a request may touch is the caller's [`crate::vault::Scope`], which the vault applies to names and ids
//!   alike. A rule about tenants would have to know whose a recording is before the caller may know that it exists.
//! - A gateway may add policies of its own. They can only take away: a `permit` among them is refused at the start. So no
//!   configuration gives anybody more than `quietus.cedar`, and the vault asks for a permission of the customer besides.
//! - A policy that cannot be evaluated denies. (Cedar itself would skip it, and a `forbid` that is skipped permits.)
//! - Nothing is cached: a decision takes less than the request's cryptography, and a cache of names would remember
//!   names that were erased.

use super::{Denied, Role};
use cedar_policy::{
    Authorizer, Context, Decision, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy, PolicyId,
    PolicySet, Request, RestrictedExpression, Schema, ValidationMode, Validator, ffi::DetailedError,
};
use std::{
    collections::{HashMap, HashSet},
    str::FromStr as _,
    sync::LazyLock,
};

/// The policies that every gateway has.
const SHIPPED: &str = include_str!("../../../policies/access/quietus.cedar");
/// What a policy may speak of.
const SCHEMA: &str = include_str!("../../../policies/access/quietus.cedarschema");

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What can be asked for: one per group of RPCs.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        pub enum Action { $($(#[$doc])* $name),* }

        impl Action {
            /// All of them.
            pub const ALL: &[Action] = &[$(Action::$name),*];
        }
    };
}

actions! {
    /// Take a recording in.
    Record,
    /// See one recording's facts.
    Show,
    /// See when and why one recording goes.
    Explain,
    /// See a tenant's recordings.
    List,
    /// Hear a recording. The vault asks for more: whose it is, and for staff the customer's permission.
    Play,
    /// Forget.
    Erase,
    /// Bind other subscribers to a recording.
    BindParties,
    /// Correct what is known about a recording.
    Correct,
    /// Make a tenant.
    CreateTenant,
    /// See tenants and what is counted of them.
    ReadTenant,
    /// Close or restrict a tenant; ask for its purge.
    ChangeTenant,
    /// Approve or withdraw what another asked for: a purge, a close without grace.
    ApproveTransition,
    /// See a subscriber's state.
    ReadSubscriber,
    /// Deactivate, restrict, block a subscriber.
    ChangeSubscriber,
    /// Take a subscriber's consent back, or give it again.
    WithdrawConsent,
    /// See what rules stand, and what they would do to how many.
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
}

/// A policy that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}, line {line}: {reason}")]
pub struct PolicyError {
    /// Which file.
    pub file: String,
    /// Where in it.
    pub line: usize,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// One who asks, as policies see it.
pub struct Principal<'a> {
    /// `ROLE/NAME`.
    pub name: &'a str,
    /// In which role it asks.
    pub role: Role,
    /// Tenants in reach; none of them named where it is every tenant.
    pub tenants: Option<&'a [String]>,
    /// Acts for somebody else.
    pub delegated: bool,
}

/// The decisions of one gateway.
pub struct Access {
    policies: PolicySet,
    authorizer: Authorizer,
    group: EntityUid,
}

static TYPES: LazyLock<[EntityTypeName; 4]> = LazyLock::new(|| {
    ["Quietus::Identity", "Quietus::Role", "Quietus::Group", "Quietus::Action"]
        .map(|name| EntityTypeName::from_str(name).expect("a literal that parses"))
});

fn uid(kind: usize, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(TYPES[kind].clone(), EntityId::new(id))
}

impl Access {
    /// The shipped policies, and those of this gateway: names of files and what stands in them.
    pub fn new(group: &str, own: &[(String, String)]) -> Result<Self, PolicyError> {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| {
            let reason = format!("{error}");
            PolicyError { file: "quietus.cedarschema".into(), line: 1, reason }
        })?;
        let validator = Validator::new(schema);
        let mut policies = PolicySet::new();
        let shipped = ("quietus.cedar".to_owned(), SHIPPED.to_owned());
        for (index, (file, text)) in std::iter::once(&shipped).chain(own).enumerate() {
            for policy in read(&validator, file, text)? {
                if index > 0 && policy.effect() == Effect::Permit {
                    let reason = "a policy of your own can only take away: write `forbid`, or leave it out".to_owned();
                    return Err(PolicyError { file: file.clone(), line: line_of(text, &policy), reason });
                }
                let named = policy.annotation("id").map_or_else(|| policy.id().to_string(), str::to_owned);
                let id = if index == 0 { named } else { format!("{file}: {named}") };
                let line = line_of(text, &policy);
                policies.add(policy.new_id(PolicyId::new(id))).map_err(|error| PolicyError {
                    file: file.clone(),
                    line,
                    reason: error.to_string(),
                })?;
            }
        }
        Ok(Self { policies, authorizer: Authorizer::new(), group: uid(2, group) })
    }

    /// The shipped policies alone.
    pub fn shipped(group: &str) -> Self {
        Self::new(group, &[]).expect("the shipped policies are valid; a test holds them to it")
    }

    /// The decision. What is missing is told in the words of the shipped table, which everybody may read.
    pub fn decide(&self, who: &Principal<'_>, action: Action) -> Result<(), Denied> {
        let failed = || Denied::Role { missing: "a decision; the gateway's access policies fail".to_owned() };
        let (request, entities) = self.request(who, action).ok_or_else(failed)?;
        let response = self.authorizer.is_authorized(&request, &self.policies, &entities);
        if response.diagnostics().errors().next().is_some() {
            return Err(failed());
        }
        if response.decision() == Decision::Allow {
            return Ok(());
        }
        let by = response.diagnostics().reason().next().map(ToString::to_string);
        Err(Denied::Role {
            missing: match by {
                Some(policy) => format!("the access policy {policy:?} forbids {action:?} to {}", role_name(who.role)),
                None => format!("{action:?} takes one of the roles {}", self.roles(action).join(", ")),
            },
        })
    }

    fn request(&self, who: &Principal<'_>, action: Action) -> Option<(Request, Entities)> {
        let (principal, role) = (uid(0, who.name), uid(1, role_name(who.role)));
        let tenants = who.tenants.unwrap_or_default();
        let tenants = tenants.iter().map(|name| RestrictedExpression::new_string(name.clone()));
        let attributes = HashMap::from([
            ("tenants".to_owned(), RestrictedExpression::new_set(tenants)),
            ("everywhere".to_owned(), RestrictedExpression::new_bool(who.tenants.is_none())),
            ("delegated".to_owned(), RestrictedExpression::new_bool(who.delegated)),
        ]);
        let identity = Entity::new(principal.clone(), attributes, HashSet::from([role])).ok()?;
        let entities = Entities::from_entities([identity], None).ok()?;
        let action = uid(3, &format!("{action:?}"));
        let request = Request::new(principal, action, self.group.clone(), Context::empty(), None).ok()?;
        Some((request, entities))
    }

    /// Which roles an action takes.
    fn roles(&self, action: Action) -> Vec<&'static str> {
        let allows = |role: &Role| {
            let who = Principal { name: role_name(*role), role: *role, tenants: Some(&[]), delegated: false };
            self.request(&who, action).is_some_and(|(request, entities)| {
                self.authorizer.is_authorized(&request, &self.policies, &entities).decision() == Decision::Allow
            })
        };
        // The developer exists in `quietus dev` only, and is no remedy.
        ROLES.iter().filter(|role| **role != Role::Developer && allows(role)).map(|role| role_name(*role)).collect()
    }
}

/// Who can ask. The gateway itself does not.
pub const ROLES: [Role; 8] = [
    Role::Switch,
    Role::Admin,
    Role::Staff,
    Role::Subscriber,
    Role::Auditor,
    Role::Operator,
    Role::ApiKey,
    Role::Developer,
];

/// A role as policies and documents write it.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Switch => "switch",
        Role::Admin => "admin",
        Role::Staff => "staff",
        Role::Subscriber => "subscriber",
        Role::Auditor => "auditor",
        Role::Operator => "operator",
        Role::ApiKey => "api-key",
        Role::Developer => "developer",
        Role::Gateway => "gateway",
    }
}

/// Parses and validates one file.
fn read(validator: &Validator, file: &str, text: &str) -> Result<Vec<Policy>, PolicyError> {
    let refuse = |line, reason| PolicyError { file: file.to_owned(), line, reason };
    let set = PolicySet::from_str(text).map_err(|error| {
        let error = DetailedError::from(&error);
        let at = error.source_locations.first().map_or(0, |label| label.loc.start);
        refuse(line_at(text, at), error.message)
    })?;
    if set.templates().next().is_some() {
        return Err(refuse(1, "a policy with `?principal` or `?resource` never applies; name whom it is about".into()));
    }
    let result = validator.validate(&set, ValidationMode::Strict);
    if let Some(error) = result.validation_errors().next() {
        let error = DetailedError::from(error);
        let at = error.source_locations.first().map_or(0, |label| label.loc.start);
        let help = error.help.map(|help| format!(" ({help})")).unwrap_or_default();
        return Err(refuse(line_at(text, at), format!("{}{help}", error.message)));
    }
    // A policy that can never apply was meant to do something.
    if let Some(warning) = result.validation_warnings().next() {
        let warning = DetailedError::from(warning);
        let at = warning.source_locations.first().map_or(0, |label| label.loc.start);
        return Err(refuse(line_at(text, at), warning.message));
    }
    Ok(set.policies().cloned().collect())
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn line_of(text: &str, policy: &Policy) -> usize {
    line_at(text, text.find(&policy.to_string()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(role: Role) -> Principal<'static> {
        Principal { name: role_name(role), role, tenants: Some(&[]), delegated: false }
    }

    fn own(text: &str) -> Result<Access, PolicyError> {
        Access::new("g", &[("own.cedar".into(), text.into())])
    }

    /// docs/access.md says who may what; each cell of its table is a test.
    #[test]
    fn the_table_in_the_docs_is_what_is_decided() {
        let page = include_str!("../../../docs/access.md");
        let cells = |line: &str| -> Vec<String> {
            line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
        };
        let mut lines = page.lines().skip_while(|line| !line.starts_with("| action |"));
        let roles = cells(lines.next().expect("the table"));
        let access = Access::shipped("g");
        let mut seen = Vec::new();
        for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
            let row = cells(line);
            let action = Action::ALL.iter().find(|action| format!("{action:?}") == row[0]).expect("an action");
            for (column, role) in ROLES.iter().enumerate() {
                assert_eq!(roles[column + 1], role_name(*role), "the order of the columns");
                let expected = match row[column + 1].as_str() {
                    "yes" => true,
                    "" => false,
                    other => panic!("{other:?} in the row of {action:?}"),
                };
                let decided = access.decide(&who(*role), *action);
                assert_eq!(decided.is_ok(), expected, "{role:?} {action:?}: {decided:?}");
                let mut delegate = who(*role);
                delegate.delegated = true;
                let decides = matches!(
                    action,
                    Action::DecidePermission | Action::ApproveTransition | Action::ManageKeys | Action::ManageSwitches
                );
                let allowed = access.decide(&delegate, *action).is_ok();
                assert_eq!(allowed, expected && !decides, "{role:?} {action:?} for somebody else");
            }
            seen.push(*action);
        }
        assert_eq!(seen, Action::ALL, "a row for each action, in their order");
    }

    #[test]
    fn nobody_may_anything_in_the_role_of_the_gateway_itself() {
        let access = Access::shipped("g");
        for action in Action::ALL {
            assert!(access.decide(&who(Role::Gateway), *action).is_err(), "{action:?}");
        }
    }

    #[test]
    fn a_denial_tells_what_is_missing() {
        let denied = Access::shipped("g").decide(&who(Role::Operator), Action::Erase).expect_err("denied");
        assert_eq!(denied.to_string(), "not permitted: Erase takes one of the roles admin, api-key");
    }

    #[test]
    fn a_policy_of_ones_own_takes_away() {
        let access = own("@id(\"no-keys-at-night\")\nforbid (principal in Quietus::Role::\"api-key\", \
                          action == Quietus::Action::\"Erase\", resource);")
        .expect("good");
        let denied = access.decide(&who(Role::ApiKey), Action::Erase).expect_err("taken away");
        assert!(denied.to_string().contains("own.cedar: no-keys-at-night"), "{denied}");
        assert!(access.decide(&who(Role::ApiKey), Action::Record).is_ok());
        assert!(access.decide(&who(Role::Admin), Action::Erase).is_ok());
        let narrow = own("forbid (principal, action, resource) when { principal.tenants.contains(\"acme\") };");
        let narrow = narrow.expect("good");
        let acme = ["acme".to_owned()];
        assert!(narrow.decide(&Principal { tenants: Some(&acme), ..who(Role::Admin) }, Action::List).is_err());
        assert!(narrow.decide(&who(Role::Admin), Action::List).is_ok());
    }

    #[test]
    fn a_policy_that_permits_everything_to_staff_is_refused_with_file_and_line() {
        let error =
            own("\n\npermit (principal in Quietus::Role::\"staff\", action, resource);").err().expect("refused");
        assert_eq!((error.file.as_str(), error.line), ("own.cedar", 3));
        assert!(error.reason.contains("only take away"), "{error}");
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused_with_its_line() {
        for (text, line) in [
            ("// one\nforbid (principal, action, resource", 2),
            ("// one\n\nforbid (principal, action == Quietus::Action::\"Fly\", resource);", 3),
            ("forbid (principal, action, resource)\nwhen { principal.colour == \"red\" };", 2),
            ("forbid (principal in Quietus::Tenant::\"acme\", action, resource);", 1),
            ("forbid (principal == ?principal, action, resource);", 1),
            ("\nforbid (principal, action, resource) when { false };", 2),
        ] {
            let error = own(text).err().unwrap_or_else(|| panic!("{text} is taken"));
            assert_eq!((error.file.as_str(), error.line), ("own.cedar", line), "{text}: {error}");
        }
    }

    #[test]
    fn a_policy_that_fails_when_it_is_asked_denies() {
        let overflow = "forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 };";
        // Whether validation or evaluation notices, nobody gets through.
        match own(overflow) {
            Err(_) => {}
            Ok(access) => assert!(access.decide(&who(Role::Admin), Action::List).is_err()),
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_names_change_no_decision(name in ".{0,80}", tenant in ".{0,40}") {
            let access = Access::shipped("g");
            let tenants = [tenant];
            let of = |role| Principal { name: &name, role, tenants: Some(&tenants), delegated: false };
            assert!(access.decide(&of(Role::Admin), Action::Erase).is_ok());
            assert!(access.decide(&of(Role::Staff), Action::Erase).is_err());
        }

        #[test]
        fn hostile_policies_are_refused_without_a_panic(text in ".{0,200}") {
            let _ = own(&text);
        }
    }
}
