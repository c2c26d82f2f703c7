//! Why a running recording is paused, and why it is thrown away: words of short lists, which tell of nobody, so that they may
//! stand where they outlive the call (the evidence part of the audit log).
//!
//! Words and numbers are never reused; new ones may be added at the end.

macro_rules! reasons {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $reason:ident = $number:literal $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* $reason = $number,)*
        }

        impl $name {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[$name] = &[$($name::$reason,)*];

            /// The word on the wire.
            pub fn word(self) -> &'static str {
                match self { $($name::$reason => $word,)* }
            }

            /// Reads the word back. Whoever gives none means `other`.
            pub fn from_word(word: &str) -> Option<Self> {
                let word = if word.is_empty() { "other" } else { word };
                Self::ALL.iter().copied().find(|reason| reason.word() == word)
            }

            /// All words, for whoever sent another one.
            pub fn words() -> String {
                Self::ALL.iter().map(|reason| reason.word()).collect::<Vec<_>>().join(", ")
            }
        }
    };
}

reasons! {
    /// Why a recording is paused.
    PauseReason {
        /// A card number is read out.
        PaymentCard = 1 "payment-card",
        /// Something is said that is nobody else's business.
        Privacy = 2 "privacy",
        /// Whoever is recorded asked for it.
        CustomerRequest = 3 "customer-request",
        /// Anything else.
        Other = 4 "other",
    }
}

impl PauseReason {
    /// From the number in sealed values.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| *reason as u32 == number)
    }
}

reasons! {
    /// Why a recording is thrown away while it runs.
    DiscardReason {
        /// It may not be recorded.
        NoConsent = 1 "no-consent",
        /// Whoever is recorded asked for it.
        CustomerRequest = 2 "customer-request",
        /// Something was said that is nobody else's business.
        Privacy = 3 "privacy",
        /// It was begun by mistake.
        Mistake = 4 "mistake",
        /// Anything else.
        Other = 5 "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_read_back_and_nothing_else_does() {
        for (at, reason) in PauseReason::ALL.iter().enumerate() {
            assert_eq!(PauseReason::from_word(reason.word()), Some(*reason));
            assert_eq!(PauseReason::from_number(at as u32 + 1), Some(*reason), "numbers are never left out nor reused");
        }
        for reason in DiscardReason::ALL {
            assert_eq!(DiscardReason::from_word(reason.word()), Some(*reason));
        }
        assert_eq!(PauseReason::from_word(""), Some(PauseReason::Other));
        assert_eq!((PauseReason::from_word("a card of theirs"), PauseReason::from_number(0)), (None, None));
        assert_eq!(DiscardReason::words(), "no-consent, customer-request, privacy, mistake, other");
    }
}
