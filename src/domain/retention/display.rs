//! A policy as it was understood: TOML with its parameters in place, which reads back as the same policy.

use super::{Approval, Basis, BasisLine, Category, FloorRule, Jurisdiction, Keep, Part, PartyRule, Policy, Reach};
use std::fmt;

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "name = {}", quoted(&self.name))?;
        if !self.summary.is_empty() {
            writeln!(f, "summary = {}", quoted(&self.summary))?;
        }
        writeln!(f, "margin = \"{}\"", self.margin)?;
        let parties = match self.parties {
            PartyRule::Owner => "owner",
            PartyRule::Any => "any",
        };
        writeln!(f, "parties = \"{parties}\"")?;
        writeln!(f, "sweep_deadline = \"{}\"", self.sweep_deadline)?;
        let approval = match self.purge.approval {
            Approval::Confirm => "confirm",
            Approval::SecondPerson => "second-person",
        };
        writeln!(f, "\n[purge]\napproval = \"{approval}\"\ncooling_off = \"{}\"", self.purge.cooling_off)?;
        if self.subscribers_decide {
            writeln!(f, "\n[permission]\nsubscribers_decide = true")?;
        }
        self.basis.iter().try_for_each(|rule| write!(f, "{rule}"))?;
        self.keep.iter().try_for_each(|rule| write!(f, "{rule}"))?;
        self.floors.iter().try_for_each(|rule| write!(f, "{rule}"))
    }
}

impl fmt::Display for BasisLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[[basis]]")?;
        list(f, "jurisdiction", &self.jurisdictions, Jurisdiction::to_string)?;
        list(f, "required", &self.rule.required, |basis: &Basis| basis.word().to_owned())?;
        if self.rule.evidence_of_all_parties {
            writeln!(f, "evidence = \"all-parties\"")?;
        }
        if self.rule.announcement {
            writeln!(f, "announcement = \"required\"")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.parts.as_slice() {
            [Part::Audio] => "audio",
            [Part::Facts] => "facts",
            _ => "both",
        };
        writeln!(f, "what = \"{what}\"")?;
        list(f, "category", &self.categories, |category: &Category| category.word().to_owned())?;
        list(f, "jurisdiction", &self.jurisdictions, Jurisdiction::to_string)?;
        let account = self.states.closed.map(|closed| if closed { "account closed" } else { "account open" });
        let subscriber = |gone| if gone { "subscriber deactivated" } else { "subscriber active" };
        let terms: Vec<&str> = account.into_iter().chain(self.states.deactivated.map(subscriber)).collect();
        if !terms.is_empty() {
            writeln!(f, "while = \"{}\"", terms.join(" and "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n[[keep]]\n{}", self.reach)?;
        if let Some(when) = self.not_before {
            writeln!(f, "not_before = \"{when}\"")?;
        }
        list(f, "not_after", &self.not_after, ToString::to_string)?;
        if self.yields_to_floor {
            writeln!(f, "yields_to_floor = true")?;
        }
        Ok(())
    }
}

impl fmt::Display for FloorRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n[[floor]]\n{}", self.reach)?;
        writeln!(f, "keep_at_least = \"{}\"\nground = {}", self.keep_at_least, quoted(&self.ground))
    }
}

fn list<T>(f: &mut fmt::Formatter<'_>, key: &str, items: &[T], word: impl Fn(&T) -> String) -> fmt::Result {
    let words: Vec<String> = items.iter().map(|item| quoted(&word(item))).collect();
    match words.as_slice() {
        [] => Ok(()),
        [one] => writeln!(f, "{key} = {one}"),
        many => writeln!(f, "{key} = [{}]", many.join(", ")),
    }
}

/// A TOML basic string. Control characters were refused when the text was read.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
