//! Why a request was refused, as one short word that machines rely on: the `reason` of gRPC `ErrorInfo`, of HTTP error
//! bodies, and what the exit status of a command is chosen by.
//!
//! The gateway and its clients share this list; the gRPC and HTTP codes beside it belong to the gateway alone
//! (`transport::error`).

/// The list. Words are never renamed; new ones may be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A field is wrong.
    Invalid,
    /// A range outside of what is there.
    OutOfRange,
    /// Nobody, or an unknown one, is asking.
    Unauthenticated,
    /// This one may not.
    NotPermitted,
    /// Its key has been destroyed.
    Erased,
    /// No such thing, or not this caller's.
    Unknown,
    /// The name is taken.
    Exists,
    /// Another stream feeds the recording.
    TakenOver,
    /// What arrived is not what Finish states.
    Mismatch,
    /// The stored bytes fail authentication.
    Corrupt,
    /// A rule does not let it happen: a closed account, a kind that no policy covers.
    Refused,
    /// It waits for a hold, an approval or a cooling-off time, and then happens by itself.
    Parked,
    /// A statutory minimum refuses the erasure until a date.
    Floor,
    /// It is restricted: kept, and not used.
    Restricted,
    /// The same request may succeed later.
    TryAgain,
    /// Something broke inside.
    Internal,
}

impl Reason {
    /// Every one of them.
    pub const ALL: [Reason; 16] = [
        Reason::Invalid,
        Reason::OutOfRange,
        Reason::Unauthenticated,
        Reason::NotPermitted,
        Reason::Erased,
        Reason::Unknown,
        Reason::Exists,
        Reason::TakenOver,
        Reason::Mismatch,
        Reason::Corrupt,
        Reason::Refused,
        Reason::Parked,
        Reason::Floor,
        Reason::Restricted,
        Reason::TryAgain,
        Reason::Internal,
    ];

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Invalid => "INVALID",
            Reason::OutOfRange => "OUT_OF_RANGE",
            Reason::Unauthenticated => "UNAUTHENTICATED",
            Reason::NotPermitted => "NOT_PERMITTED",
            Reason::Erased => "ERASED",
            Reason::Unknown => "UNKNOWN",
            Reason::Exists => "EXISTS",
            Reason::TakenOver => "TAKEN_OVER",
            Reason::Mismatch => "MISMATCH",
            Reason::Corrupt => "CORRUPT",
            Reason::Refused => "REFUSED",
            Reason::Parked => "PARKED",
            Reason::Floor => "FLOOR",
            Reason::Restricted => "RESTRICTED",
            Reason::TryAgain => "TRY_AGAIN",
            Reason::Internal => "INTERNAL",
        }
    }

    /// Reads the word back.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }

    /// What a command ends with: 1 failed, 2 wrong usage, 3 not permitted, 4 erased, 5 unknown, 6 parked or
    /// refused by a rule, 75 try again.
    pub fn exit_status(self) -> u8 {
        match self {
            Reason::Invalid | Reason::OutOfRange => 2,
            Reason::Unauthenticated | Reason::NotPermitted => 3,
            Reason::Erased => 4,
            Reason::Unknown => 5,
            Reason::Refused | Reason::Parked | Reason::Floor | Reason::Restricted => 6,
            Reason::TryAgain => 75,
            Reason::Exists | Reason::TakenOver | Reason::Mismatch | Reason::Corrupt | Reason::Internal => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.word()), Some(reason));
        }
        assert_eq!(Reason::from_word("erased"), None);
    }
}
