//! What the audit log speaks of: the list of actions and how they ended, each with its word on the wire and its number in
//! sealed entries.
//!
//! Who acted and on what is not in here: that lies in the two sealed parts of an entry (`audit::leaf`). Words and numbers
//! are never reused; new ones may be added at the end.

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $number:literal $word:literal,)*) => {
        /// What was done, or asked for.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// Every action, in the order of their numbers.
            pub const ALL: &[Action] = &[$(Action::$name,)*];

            /// The word on the wire.
            pub fn word(self) -> &'static str {
                match self { $(Action::$name => $word,)* }
            }

            /// The number in a sealed entry.
            pub fn number(self) -> u32 {
                match self { $(Action::$name => $number,)* }
            }
        }
    };
}

actions! {
    /// A tenant was made.
    TenantCreate = 1 "tenant.create",
    /// A tenant's account was closed.
    TenantClose = 2 "tenant.close",
    /// What is known about a recording was corrected.
    FactsCorrect = 3 "facts.correct",
    /// A tenant and everything below was erased.
    TenantPurge = 4 "tenant.purge",
    /// A tenant was restricted.
    TenantRestrict = 5 "tenant.restrict",
    /// A tenant's restriction was lifted.
    TenantUnrestrict = 6 "tenant.unrestrict",
    /// A subscriber was deactivated.
    SubscriberDeactivate = 7 "subscriber.deactivate",
    /// Announcement and evidence of a recording were shown.
    BasisShow = 8 "basis.show",
    /// A subscriber was restricted.
    SubscriberRestrict = 9 "subscriber.restrict",
    /// A subscriber's restriction was lifted.
    SubscriberUnrestrict = 10 "subscriber.unrestrict",
    /// A recording was restricted.
    RecordingRestrict = 11 "recording.restrict",
    /// A recording's restriction was lifted.
    RecordingUnrestrict = 12 "recording.unrestrict",
    /// A tenant's retention policy was set.
    PolicySet = 13 "policy.set",
    /// A hold was placed.
    HoldPlace = 14 "hold.place",
    /// A hold was lifted.
    HoldLift = 15 "hold.lift",
    /// A hold's review date was moved.
    HoldReview = 16 "hold.review",
    /// Staff asked to listen.
    PermissionRequest = 17 "permission.request",
    /// The customer allowed it.
    PermissionGrant = 18 "permission.grant",
    /// The customer refused.
    PermissionDeny = 19 "permission.deny",
    /// The customer took it back.
    PermissionRevoke = 20 "permission.revoke",
    /// A permission ran out.
    PermissionExpire = 21 "permission.expire",
    /// A recording was heard.
    Play = 22 "play",
    /// What is known about recordings or a subscriber was shown, or that there is none of this name.
    FactsShow = 23 "facts.show",
    /// Somebody asked for an erasure that a rule refused.
    EraseRequest = 24 "erase.request",
    /// An erasure or expiry waits for a hold.
    ErasePark = 25 "erase.park",
    /// Something was erased.
    EraseDone = 26 "erase.done",
    /// What was due was erased.
    ExpireBatch = 27 "expire.batch",
    /// An API key was made.
    ApikeyCreate = 28 "apikey.create",
    /// An API key was revoked.
    ApikeyRevoke = 29 "apikey.revoke",
    /// A switch was enrolled.
    SwitchEnrol = 30 "switch.enrol",
    /// A switch was revoked.
    SwitchRevoke = 31 "switch.revoke",
    /// A running recording was paused.
    RecordingPause = 32 "recording.pause",
    /// A paused recording went on.
    RecordingResume = 33 "recording.resume",
    /// A running recording was thrown away.
    RecordingDiscard = 34 "recording.discard",
    /// Consent was withdrawn.
    ConsentWithdraw = 35 "consent.withdraw",
    /// Further parties were bound to a recording.
    PartiesBind = 36 "parties.bind",
    /// A ticket to listen by URL was issued.
    TicketIssue = 37 "ticket.issue",
    /// A close or purge was approved.
    TransitionApprove = 38 "transition.approve",
    /// A close or purge was withdrawn.
    TransitionWithdraw = 39 "transition.withdraw",
    /// An erased subscriber's name may come again.
    SubscriberUnblock = 40 "subscriber.unblock",
    /// A close or purge was asked for, and waits.
    TransitionRequest = 41 "transition.request",
    /// A tenant said where it is told of its inbox.
    WebhookSet = 42 "webhook.set",
    /// A tenant's webhook was taken away.
    WebhookRemove = 43 "webhook.remove",
    /// Items were taken out of a tenant's inbox.
    InboxAcknowledge = 44 "inbox.acknowledge",
    /// Consent was given again.
    ConsentGive = 45 "consent.give",
}

impl Action {
    /// Reads the word back.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.word() == word)
    }

    /// Reads the number back.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.number() == number)
    }
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Outcome {
    /// It was done.
    Done,
    /// Whoever asked may not, or a rule forbids it.
    Refused,
    /// It waits.
    Parked,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 3] = [Outcome::Done, Outcome::Refused, Outcome::Parked];

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Parked => "parked",
        }
    }

    /// The number in a sealed entry.
    pub fn number(self) -> u32 {
        match self {
            Outcome::Done => 1,
            Outcome::Refused => 2,
            Outcome::Parked => 3,
        }
    }

    /// Reads the number back.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_read_back_and_meet_once() {
        for (at, action) in Action::ALL.iter().enumerate() {
            assert_eq!(Action::from_word(action.word()), Some(*action));
            assert_eq!(Action::from_number(action.number()), Some(*action));
            assert_eq!(action.number() as usize, at + 1, "numbers are never left out nor reused");
        }
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_number(outcome.number()), Some(outcome));
        }
        assert_eq!((Action::from_number(0), Outcome::from_number(0)), (None, None));
    }
}
