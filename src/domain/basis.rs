//! On what basis a call may be recorded, and what is stated in support of it. Pure.
//!
//! A switch states a *basis* in one word, the *announcement* that was played, and *evidence*: who agreed or was told, how,
//! when, and where that can be looked up. Nothing here judges whether it is true; a policy may require that it is stated
//! ([`BasisRule`]), and [`Stated::lacks`] says what of it is missing.

use super::{party, retention::BasisRule, time::Timestamp};
use std::{collections::HashSet, fmt, str::FromStr};

/// Longest language tag: RFC 5646 asks for no more.
const MAX_TAG: usize = 35;

/// An enum whose values have a word on the wire.
macro_rules! words {
    ($(#[$about:meta])* $name:ident, $not:ident { $($(#[$doc:meta])* $value:ident = $number:literal $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* $value = $number,)*
        }

        impl $name {
            /// Every one of them.
            pub const ALL: &[$name] = &[$($name::$value,)*];

            /// The word on the wire.
            pub fn word(self) -> &'static str {
                match self { $($name::$value => $word,)* }
            }

            /// From the number of what is stored.
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| *value as u8 == number)
            }

            /// All words, as a sentence lists them.
            pub fn words() -> String {
                Self::ALL.iter().map(|value| format!("`{}`", value.word())).collect::<Vec<_>>().join(", ")
            }
        }

        /// The text is none of the words.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $not;

        impl fmt::Display for $not {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "write one of {}", $name::words())
            }
        }

        impl FromStr for $name {
            type Err = $not;

            fn from_str(text: &str) -> Result<Self, $not> {
                Self::ALL.iter().copied().find(|value| value.word() == text).ok_or($not)
            }
        }
    };
}

words! {
    /// Why a call may be recorded. The numbers are those in a recording's entry.
    Basis, NotABasis {
        /// Who is recorded agreed.
        Consent = 1 "consent",
        /// A contract with who is recorded needs it.
        Contract = 2 "contract",
        /// A law demands it.
        LegalObligation = 3 "legal-obligation",
        /// An interest that outweighs.
        LegitimateInterest = 4 "legitimate-interest",
    }
}

words! {
    /// How somebody agreed or was told. The numbers are those of what is sealed.
    How, NotAHow {
        /// By a key of the telephone.
        Dtmf = 1 "dtmf",
        /// In words, on the call.
        Spoken = 2 "spoken",
        /// In writing, electronically or on paper.
        Written = 3 "written",
        /// It was announced, and they stayed.
        Announced = 4 "announced",
    }
}

/// What a recording rests on, as its entry has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Footing {
    /// The basis that was stated.
    Stands(Basis),
    /// Consent that was withdrawn: it is to be erased.
    Withdrawn,
}

impl Footing {
    /// From the byte in an entry; none where no basis was stated.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            5 => Some(Footing::Withdrawn),
            other => Basis::from_number(other).map(Footing::Stands),
        }
    }

    /// The byte in an entry.
    pub fn number(self) -> u8 {
        match self {
            Footing::Stands(basis) => basis as u8,
            Footing::Withdrawn => 5,
        }
    }

    /// The basis that was stated.
    pub fn basis(self) -> Basis {
        match self {
            Footing::Stands(basis) => basis,
            Footing::Withdrawn => Basis::Consent,
        }
    }
}

/// A prompt that was played.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// The switch's name of it.
    pub prompt: String,
    /// BCP 47; empty where it is not stated.
    pub language: String,
    /// Milliseconds from the start of the recording; below 0 before it began.
    pub offset_ms: i64,
}

/// That somebody agreed or was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// Who.
    pub party: String,
    /// How.
    pub how: How,
    /// When.
    pub at: Timestamp,
    /// Where it can be looked up; may be empty.
    pub reference: String,
}

/// What a rule of a policy is held against.
pub struct Stated<'a> {
    /// The basis.
    pub basis: Option<Basis>,
    /// Whether an announcement is stated.
    pub announced: bool,
    /// Whom the evidence names.
    pub evidence: Vec<&'a str>,
    /// Everybody who took part.
    pub parties: Vec<&'a str>,
}

impl Stated<'_> {
    /// What is missing by a rule, naming nobody; none where nothing is.
    pub fn lacks(&self, rule: &BasisRule) -> Option<String> {
        if !rule.required.is_empty() && self.basis.is_none_or(|basis| !rule.required.contains(&basis)) {
            let words: Vec<_> = rule.required.iter().map(|basis| basis.word()).collect();
            return Some(format!("the basis {}, in facts.basis", words.join(" or ")));
        }
        if rule.announcement && !self.announced {
            return Some("an announcement, in announcement".to_owned());
        }
        if rule.evidence_of_all_parties {
            let named: HashSet<String> = self.evidence.iter().map(|party| party::plain(party)).collect();
            let parties: HashSet<String> = self.parties.iter().map(|party| party::plain(party)).collect();
            let missing = parties.difference(&named).count();
            if missing > 0 {
                return Some(format!("evidence of every party, in evidence; {missing} of {} lack it", parties.len()));
            }
        }
        None
    }
}

/// Whether a text has the form of a BCP 47 language tag (RFC 5646, section 2.1): a language of 2 to 8 letters, or `x` or `i`,
/// and subtags of 1 to 8 letters and digits. Whether the subtags are registered is not looked at.
pub fn is_language_tag(text: &str) -> bool {
    let mut subtags = text.split('-');
    let language = subtags.next().unwrap_or_default();
    let letters = language.bytes().all(|byte| byte.is_ascii_alphabetic());
    let rest: Vec<&str> = subtags.collect();
    let alone = matches!(language, "x" | "X" | "i" | "I") && !rest.is_empty();
    text.len() <= MAX_TAG
        && letters
        && ((2..=8).contains(&language.len()) || alone)
        && rest.iter().all(|tag| (1..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_read_back() {
        for basis in Basis::ALL {
            assert_eq!(basis.word().parse(), Ok(*basis));
            assert_eq!(Footing::from_number(*basis as u8), Some(Footing::Stands(*basis)));
        }
        for how in How::ALL {
            assert_eq!((how.word().parse(), How::from_number(*how as u8)), (Ok(*how), Some(*how)));
        }
        for footing in (0..=6).filter_map(Footing::from_number) {
            assert_eq!(Footing::from_number(footing.number()), Some(footing));
        }
        assert_eq!((Footing::from_number(0), Footing::from_number(6), How::from_number(0)), (None, None, None));
        assert_eq!("Consent".parse::<Basis>(), Err(NotABasis));
    }

    #[test]
    fn a_language_tag_has_its_form() {
        for tag in ["de", "de-AT", "sr-Latn-RS", "zh-yue-HK", "x-klingon", "es-419"] {
            assert!(is_language_tag(tag), "{tag}");
        }
        for wrong in ["", "d", "german-", "de_AT", "de--AT", "deutschland", "12", "x", "de-toolongsub", "de-ä"] {
            assert!(!is_language_tag(wrong), "{wrong}");
        }
        assert!(!is_language_tag(&["de"; 20].join("-")));
    }

    #[test]
    fn each_thing_that_a_rule_wants_may_lack() {
        let rule = BasisRule { required: vec![Basis::Consent], evidence_of_all_parties: true, announcement: true };
        let stated = |basis, announced, evidence: &[&'static str]| Stated {
            basis,
            announced,
            evidence: evidence.to_vec(),
            parties: vec!["+49301", "tel:+49-302", "0049 301"],
        };
        let lacks = |stated: Stated<'_>| stated.lacks(&rule).unwrap_or_default();
        let both: &[&str] = &["+49 301", "sip:+49302@pbx"];
        assert!(lacks(stated(None, true, both)).contains("facts.basis"));
        assert!(lacks(stated(Some(Basis::Contract), true, both)).contains("consent"));
        assert!(lacks(stated(Some(Basis::Consent), false, both)).contains("announcement"));
        let one = lacks(stated(Some(Basis::Consent), true, &both[1..]));
        assert!(one.contains("1 of 2") && !one.contains("301"), "{one}");
        assert_eq!(stated(Some(Basis::Consent), true, both).lacks(&rule), None);
        assert_eq!(stated(None, false, &[]).lacks(&BasisRule::default()), None);
    }

    proptest::proptest! {
        #[test]
        fn hostile_text_never_panics(text: String) {
            let _ = (is_language_tag(&text), text.parse::<Basis>(), text.parse::<How>());
        }
    }
}
