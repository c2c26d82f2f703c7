//! What a policy says about one part of one recording. The laws of a verdict are in the module doc above.

use super::{
    AccountState, Category, Event, Jurisdiction, Keep, Part, Policy, SubscriberState, When,
    time::{midnight, spoken},
};
use crate::domain::time::Timestamp;

/// How far a call is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallEnd {
    /// It still runs: nothing that hangs on its end is due, and floors count from no earlier than this.
    Running {
        /// A moment at which it ran.
        at: Timestamp,
    },
    /// It ended.
    Ended {
        /// When.
        at: Timestamp,
    },
}

impl CallEnd {
    /// The earliest that the end can be.
    fn earliest(self) -> Timestamp {
        match self {
            CallEnd::Running { at } | CallEnd::Ended { at } => at,
        }
    }
}

/// What a verdict is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// What it is.
    pub category: Category,
    /// Which leaf.
    pub part: Part,
    /// Where it was recorded, as stated.
    pub jurisdiction: Option<Jurisdiction>,
    /// When the call ended.
    pub end: CallEnd,
    /// What the account is in.
    pub account: AccountState,
    /// What the subscriber is in.
    pub subscriber: SubscriberState,
}

/// A statutory minimum: no erasure before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Floor {
    /// Until when.
    pub until: Timestamp,
    /// On what ground.
    pub ground: String,
}

/// What a policy says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The runner does not erase it before.
    pub not_before: Timestamp,
    /// The promise; none while nothing that would make it due has happened.
    pub not_after: Option<Timestamp>,
    /// When the runner erases it.
    pub aim: Option<Timestamp>,
    /// Nobody erases it before.
    pub floor: Option<Floor>,
    /// Line of the governing rule.
    pub line: u32,
    /// Why, in one readable clause.
    pub says: String,
}

impl Policy {
    /// What it says about one part of a recording; none where no rule governs it.
    pub fn verdict(&self, subject: &Subject) -> Option<Verdict> {
        let rule = governing(
            self.keep.iter().filter(|it| it.reach.covers(subject.category, subject.part, subject.jurisdiction)),
            matches!(subject.account, AccountState::Closed { .. }),
            matches!(subject.subscriber, SubscriberState::Deactivated { .. }),
        )?;
        let floor = self.floor(subject);
        // Where its event has not happened, that of no promise has either: `check` sees to it.
        let not_before = rule.not_before.and_then(|when| subject.moment(when, true));
        let not_before = not_before.into_iter().chain([subject.end.earliest()]).max()?;
        let promise = rule
            .not_after
            .iter()
            .filter_map(|when| subject.moment(*when, false).map(|moment| (moment, *when)))
            .min_by_key(|(moment, _)| *moment);
        let earliest = floor.iter().map(|floor| floor.until).chain([not_before]).max()?;
        let aim = promise.map(|(moment, _)| self.margin.before(moment).max(earliest));
        let not_after = promise.zip(aim).map(|((moment, _), aim)| moment.max(self.margin.after(aim)));
        let says = self.clause(rule, promise, aim, floor.as_ref());
        Some(Verdict { not_before, not_after, aim, floor, line: rule.line, says })
    }

    fn floor(&self, subject: &Subject) -> Option<Floor> {
        self.floors
            .iter()
            .filter(|floor| floor.reach.covers(subject.category, subject.part, subject.jurisdiction))
            .filter_map(|floor| {
                let until = subject.moment(floor.keep_at_least, true)?;
                Some(Floor { until, ground: floor.ground.clone() })
            })
            .max_by_key(|floor| floor.until)
    }

    fn clause(
        &self,
        rule: &Keep,
        promise: Option<(Timestamp, When)>,
        aim: Option<Timestamp>,
        floor: Option<&Floor>,
    ) -> String {
        let place = format!("line {} of policy {}", rule.line, self.name);
        let mut says = match promise.zip(aim) {
            Some(((moment, when), aim)) => {
                let mut says = format!("goes at {}", spoken(aim));
                if self.margin.after(aim) > moment {
                    says.push_str(&format!(", later than the {} that `{when}` promises", spoken(moment)));
                } else {
                    says.push_str(&format!(", and by {} at the latest: `{when}`", spoken(moment)));
                }
                says
            }
            None => {
                let times: Vec<String> = rule.not_after.iter().map(|when| format!("`{when}`")).collect();
                format!("is kept, since nothing that it waits for has happened: {}", times.join(" or "))
            }
        };
        says.push_str(&format!(" ({place})"));
        if let Some(floor) = floor {
            says.push_str(&format!("; it may not be erased before {}: {}", spoken(floor.until), floor.ground));
        }
        says
    }
}

/// The most specific of the rules that cover something, in a state; `check` made sure that there is only one.
pub(super) fn governing<'a>(
    rules: impl Iterator<Item = &'a Keep>,
    closed: bool,
    deactivated: bool,
) -> Option<&'a Keep> {
    rules.filter(|rule| rule.reach.states.matches(closed, deactivated)).max_by_key(|rule| rule.reach.rank())
}

impl Subject {
    /// The moment that a rule names; none where its event has not happened. A minimum counts from the earliest moment at
    /// which a running call can end, a maximum not before it has ended.
    fn moment(&self, when: When, minimum: bool) -> Option<Timestamp> {
        match when {
            When::On(date) => Some(midnight(date)),
            When::After(length, Event::End) => match self.end {
                CallEnd::Ended { at } => Some(length.after(at)),
                CallEnd::Running { at } => minimum.then(|| length.after(at)),
            },
            When::After(length, Event::Close) => match self.account {
                AccountState::Closed { at } => Some(length.after(at)),
                AccountState::Open => None,
            },
            When::After(length, Event::Deactivation) => match self.subscriber {
                SubscriberState::Deactivated { at } => Some(length.after(at)),
                SubscriberState::Active => None,
            },
        }
    }
}
