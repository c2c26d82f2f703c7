//! What must hold between the rules of one policy, so that a verdict is never ambiguous and nothing stays for ever.
//!
//! - No two `keep` rules of the same rank can match the same. Nor two `basis` rules of one jurisdiction.
//! - A `not_after` lies at least a margin after its event, and not within a `not_before` or a floor of the same event;
//!   where a floor may last longer, the rule says so.
//! - A `not_before` after a close or a deactivation stands beside promises after the same event only: another promise would
//!   fall due while the event has not happened.
//! - A rule whose times can never apply in the states it names, or that another always goes before, is a mistake.
//! - What a rule governs in one state, some rule governs in every state; and once its account is closed, everything is due
//!   at some time.

use super::{Category, Event, FloorRule, Jurisdiction, Keep, Part, Policy, PolicyError, When, verdict::governing};
use std::collections::BTreeSet;

pub(super) fn check(policy: &Policy) -> Result<(), PolicyError> {
    if policy.keep.is_empty() {
        return Err(error(0, "keep", "write at least one `[[keep]]` rule: without one nothing can be taken in"));
    }
    ties(policy)?;
    for rule in &policy.keep {
        times(policy, rule)?;
        for floor in policy.floors.iter().filter(|floor| floor.reach.meets(&rule.reach)) {
            outlasted(policy, rule, floor)?;
        }
    }
    governed(policy)
}

fn error(line: u32, field: &str, remedy: impl ToString) -> PolicyError {
    PolicyError { line, field: field.to_owned(), remedy: remedy.to_string() }
}

fn ties(policy: &Policy) -> Result<(), PolicyError> {
    for (at, rule) in policy.keep.iter().enumerate() {
        let tied = |other: &&Keep| other.reach.rank() == rule.reach.rank() && other.reach.meets(&rule.reach);
        if let Some(other) = policy.keep[..at].iter().find(tied) {
            let remedy = format!(
                "this rule and the one at line {} match the same and neither is more specific; name other parts, \
                 categories, jurisdictions or states in one of them",
                other.line
            );
            return Err(error(rule.line, "keep", remedy));
        }
    }
    for (at, rule) in policy.basis.iter().enumerate() {
        let tied = |other: &&super::BasisLine| match (rule.jurisdictions.is_empty(), other.jurisdictions.is_empty()) {
            (true, true) => true,
            (false, false) => rule.jurisdictions.iter().any(|it| other.jurisdictions.contains(it)),
            _ => false,
        };
        if let Some(other) = policy.basis[..at].iter().find(tied) {
            let remedy = format!("the rule at line {} is about the same jurisdiction; join them", other.line);
            return Err(error(rule.line, "basis", remedy));
        }
    }
    Ok(())
}

/// The times of one rule against its states, the margin and each other.
fn times(policy: &Policy, rule: &Keep) -> Result<(), PolicyError> {
    let states = rule.reach.states;
    for when in rule.not_before.iter().chain(&rule.not_after) {
        let never = match when {
            When::After(_, Event::Close) => states.closed == Some(false),
            When::After(_, Event::Deactivation) => states.deactivated == Some(false),
            _ => false,
        };
        // A rule for an open account governs no longer when its close would start the time.
        if never {
            let remedy = format!("`{when}` never applies in the states that `while` names; change one of them");
            return Err(error(rule.line, "keep.while", remedy));
        }
    }
    for when in &rule.not_after {
        if let When::After(length, _) = when
            && length.surely_beyond(policy.margin) < 0
        {
            let remedy = format!(
                "`{when}` lies within the margin of {}; say at least that, or a smaller `margin`",
                policy.margin
            );
            return Err(error(rule.line, "keep.not_after", remedy));
        }
        if let Some(before @ When::After(_, event @ (Event::Close | Event::Deactivation))) = rule.not_before
            && !matches!(when, When::After(_, other) if *other == event)
        {
            let remedy = format!(
                "`{when}` may come while `{before}` still waits to happen, and then one of them is broken; let both hang on \
                 the same event"
            );
            return Err(error(rule.line, "keep.not_before", remedy));
        }
        if let Some(before) = rule.not_before
            && ahead(before, *when).is_some_and(|minutes| minutes < margin(policy))
        {
            let remedy = format!("`{when}` does not lie a margin of {} after `{before}`", policy.margin);
            return Err(error(rule.line, "keep.not_after", remedy));
        }
    }
    Ok(())
}

/// Refuses a promise that a floor may outlast, unless its rule yields.
fn outlasted(policy: &Policy, rule: &Keep, floor: &FloorRule) -> Result<(), PolicyError> {
    let safe = |when: &When| ahead(floor.keep_at_least, *when).is_some_and(|minutes| minutes >= margin(policy));
    match rule.not_after.iter().find(|when| !safe(when)) {
        Some(when) if !rule.yields_to_floor => {
            let remedy = format!(
                "the floor at line {} may last longer than `{when}` less the margin of {}; say a later time, or \
                 `yields_to_floor = true`: then the floor wins",
                floor.line, policy.margin
            );
            Err(error(rule.line, "keep.not_after", remedy))
        }
        _ => Ok(()),
    }
}

/// Minutes by which one moment lies after another, at least; none where they hang on different things.
fn ahead(earlier: When, later: When) -> Option<i64> {
    match (earlier, later) {
        (When::After(earlier, event), When::After(later, other)) if event == other => {
            Some(later.surely_beyond(earlier))
        }
        (When::On(earlier), When::On(later)) => {
            Some((super::time::midnight(later).0 - super::time::midnight(earlier).0) / 60_000)
        }
        _ => None,
    }
}

fn margin(policy: &Policy) -> i64 {
    policy.margin.fixed().map_or(0, i64::from)
}

/// Every combination that matters: each jurisdiction that a rule names and one that none names.
fn governed(policy: &Policy) -> Result<(), PolicyError> {
    let named: BTreeSet<Jurisdiction> = policy.keep.iter().flat_map(|rule| rule.reach.jurisdictions.clone()).collect();
    let jurisdictions: Vec<Option<Jurisdiction>> = [None].into_iter().chain(named.into_iter().map(Some)).collect();
    let mut used = BTreeSet::new();
    for (category, part) in Category::ALL.into_iter().flat_map(|category| Part::ALL.map(|part| (category, part))) {
        for jurisdiction in &jurisdictions {
            let states = [(false, false), (false, true), (true, false), (true, true)];
            let covering: Vec<&Keep> =
                policy.keep.iter().filter(|rule| rule.reach.covers(category, part, *jurisdiction)).collect();
            let rules =
                states.map(|(closed, deactivated)| (closed, governing(covering.iter().copied(), closed, deactivated)));
            let Some(some) = rules.iter().find_map(|(_, rule)| *rule) else { continue };
            let about = match jurisdiction {
                Some(jurisdiction) => format!("the {} of a {} in {jurisdiction}", part.word(), category.word()),
                None => format!("the {} of a {}", part.word(), category.word()),
            };
            for (closed, rule) in rules {
                let Some(rule) = rule else {
                    let remedy = format!("{about} is governed by this rule in some states and by none in others");
                    return Err(error(some.line, "keep.while", remedy));
                };
                used.insert(rule.line);
                let ends = |when: &When| !matches!(when, When::After(_, Event::Deactivation));
                if closed && !rule.not_after.iter().any(ends) {
                    let remedy = format!(
                        "{about} would stay for ever once the account is closed; add a time after `end` or `close`"
                    );
                    return Err(error(rule.line, "keep.not_after", remedy));
                }
            }
        }
    }
    match policy.keep.iter().find(|rule| !used.contains(&rule.line)) {
        Some(rule) => Err(error(rule.line, "keep", "this rule never governs: more specific ones always go before it")),
        None => Ok(()),
    }
}
