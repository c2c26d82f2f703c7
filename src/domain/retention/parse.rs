//! TOML into a policy. Everything is bounded, nothing is guessed, and an error names line, field and remedy.

use super::{
    Approval, Basis, BasisLine, BasisRule, Category, FloorRule, Jurisdiction, Keep, Length, Part, PartyRule, Policy,
    PolicyError, PurgeRule, Reach, States, When, check,
};
use serde::Deserialize;
use std::{fmt, ops::Range, str::FromStr};
use toml::Spanned;

/// Most bytes in a policy.
pub const MAX_TEXT: usize = 64 << 10;
/// Most rules in a policy, `basis`, `keep` and `floor` together.
pub const MAX_RULES: usize = 200;
/// Most bytes in a summary or a ground.
const MAX_WORDS: usize = 200;
/// Most items in a list.
const MAX_LIST: usize = 60;
/// Stands for the parameter in a length.
const KEEP: &str = "{keep}";
/// Two days: enough for a slot that confirms a day late.
const MARGIN: Length = Length::minutes(48 * 60);
const SWEEP_DEADLINE: Length = Length::minutes(30 * 24 * 60);

/// What a policy leaves to the tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Parameters {
    /// Takes the place of `{keep}`.
    pub keep: Option<Length>,
}

/// A parameter that a policy declares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// None: it must be given.
    pub default: Option<Length>,
    /// Shortest.
    pub at_least: Option<Length>,
    /// Longest.
    pub at_most: Option<Length>,
}

/// What can be told of a policy before its parameters are known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outline {
    /// Its name.
    pub name: String,
    /// One sentence on what it is for.
    pub summary: String,
    /// The parameter `keep`, where it has one.
    pub keep: Option<Parameter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    name: Spanned<String>,
    summary: Option<Spanned<String>>,
    margin: Option<Spanned<String>>,
    parties: Spanned<String>,
    sweep_deadline: Option<Spanned<String>>,
    parameters: Option<RawParameters>,
    purge: Option<RawPurge>,
    #[serde(default)]
    permission: RawPermission,
    #[serde(default)]
    basis: Vec<Spanned<RawBasis>>,
    #[serde(default)]
    keep: Vec<Spanned<RawKeep>>,
    #[serde(default)]
    floor: Vec<Spanned<RawFloor>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawParameters {
    keep: Spanned<RawParameter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawParameter {
    #[serde(default)]
    required: bool,
    default: Option<Spanned<String>>,
    at_least: Option<Spanned<String>>,
    at_most: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPurge {
    approval: Option<Spanned<String>>,
    cooling_off: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawPermission {
    #[serde(default)]
    subscribers_decide: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBasis {
    jurisdiction: Option<Spanned<OneOrMany>>,
    required: Option<Spanned<OneOrMany>>,
    evidence: Option<Spanned<String>>,
    announcement: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKeep {
    what: Spanned<String>,
    category: Option<Spanned<OneOrMany>>,
    jurisdiction: Option<Spanned<OneOrMany>>,
    #[serde(rename = "while")]
    states: Option<Spanned<String>>,
    not_before: Option<Spanned<String>>,
    not_after: Spanned<OneOrMany>,
    #[serde(default)]
    yields_to_floor: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFloor {
    what: Spanned<String>,
    category: Option<Spanned<OneOrMany>>,
    jurisdiction: Option<Spanned<OneOrMany>>,
    keep_at_least: Spanned<String>,
    ground: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "write a text, or a list of texts")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn items(&self) -> &[String] {
        match self {
            OneOrMany::One(item) => std::slice::from_ref(item),
            OneOrMany::Many(items) => items,
        }
    }
}

/// A text and its places.
struct Reader<'a> {
    text: &'a str,
    keep: Option<Length>,
}

impl Policy {
    /// Reads and checks a policy.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(text: &str, parameters: Parameters) -> Result<Self, PolicyError> {
        let (raw, outline) = raw(text)?;
        let keep = outline.keep.as_ref().zip(raw.parameters.as_ref());
        let mut reader = Reader { text, keep: None };
        reader.keep = match keep {
            Some((declared, raw)) => Some(
                keep_of(declared, parameters.keep).map_err(|why| reader.error(&raw.keep, "parameters.keep", why))?,
            ),
            None if parameters.keep.is_some() => {
                return Err(nowhere("parameters.keep", "this policy takes no `keep`; leave it out"));
            }
            None => None,
        };
        let policy = reader.policy(raw, outline)?;
        check::check(&policy)?;
        Ok(policy)
    }

    /// What can be told of a policy before its parameters are known. Its rules are not checked.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn outline(text: &str) -> Result<Outline, PolicyError> {
        raw(text).map(|(_, outline)| outline)
    }
}

fn raw(text: &str) -> Result<(RawPolicy, Outline), PolicyError> {
    if text.len() > MAX_TEXT {
        return Err(nowhere("policy", "at most 64 KiB of text"));
    }
    let reader = Reader { text, keep: None };
    let raw: RawPolicy = toml::from_str(text).map_err(|error| reader.syntax(&error))?;
    let name = raw.name.get_ref();
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
        return Err(reader.error(&raw.name, "name", "write 1 to 64 letters, digits, `-`, `_` or `.`"));
    }
    let summary = raw.summary.as_ref().map(|it| reader.words(it, "summary")).transpose()?.unwrap_or_default();
    let keep = raw.parameters.as_ref().map(|raw| reader.declared(&raw.keep)).transpose()?;
    let outline = Outline { name: name.clone(), summary, keep };
    Ok((raw, outline))
}

fn nowhere(field: &str, remedy: impl fmt::Display) -> PolicyError {
    PolicyError { line: 0, field: field.to_owned(), remedy: remedy.to_string() }
}

/// The parameter's value, within its bounds.
fn keep_of(declared: &Parameter, given: Option<Length>) -> Result<Length, String> {
    let Some(keep) = given.or(declared.default) else {
        return Err(
            "this policy leaves it to you how long to keep: give `--keep LENGTH`, such as `--keep 90d`".to_owned()
        );
    };
    if let Some(least) = declared.at_least.filter(|least| keep.surely_beyond(*least) < 0) {
        return Err(format!("give at least {least}"));
    }
    if let Some(most) = declared.at_most.filter(|most| most.surely_beyond(keep) < 0) {
        return Err(format!("give at most {most}"));
    }
    Ok(keep)
}

impl Reader<'_> {
    fn line(&self, span: Range<usize>) -> u32 {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count() as u32
    }

    fn error<T>(&self, at: &Spanned<T>, field: &str, remedy: impl fmt::Display) -> PolicyError {
        PolicyError { line: self.line(at.span()), field: field.to_owned(), remedy: remedy.to_string() }
    }

    /// What the TOML reader refused. It names the field in its message where a field is missing or unknown; else the field
    /// is the key that the line begins with.
    fn syntax(&self, error: &toml::de::Error) -> PolicyError {
        let message = error.message().replace('\n', " ");
        let Some(span) = error.span() else { return nowhere("policy", message) };
        let line = self.line(span);
        let named = (message.contains("unknown field") || message.contains("missing field"))
            .then(|| message.split('`').nth(1))
            .flatten();
        let written = self.text.lines().nth(line.saturating_sub(1) as usize).and_then(|line| line.split_once('='));
        let field = named.or(written.map(|(key, _)| key.trim())).filter(|field| field.len() <= 64).unwrap_or("policy");
        PolicyError { line, field: field.to_owned(), remedy: message }
    }

    fn declared(&self, raw: &Spanned<RawParameter>) -> Result<Parameter, PolicyError> {
        let inner = raw.get_ref();
        let length =
            |value: &Option<Spanned<String>>, field| value.as_ref().map(|it| self.length(it, field)).transpose();
        let parameter = Parameter {
            default: length(&inner.default, "parameters.keep.default")?,
            at_least: length(&inner.at_least, "parameters.keep.at_least")?,
            at_most: length(&inner.at_most, "parameters.keep.at_most")?,
        };
        if inner.required == parameter.default.is_some() {
            let remedy = "say either `required = true` or a `default`";
            return Err(self.error(raw, "parameters.keep", remedy));
        }
        Ok(parameter)
    }

    fn policy(&self, raw: RawPolicy, outline: Outline) -> Result<Policy, PolicyError> {
        let rules = raw.basis.len() + raw.keep.len() + raw.floor.len();
        if rules > MAX_RULES {
            return Err(nowhere("policy", format!("write at most {MAX_RULES} rules")));
        }
        let parties = match raw.parties.get_ref().as_str() {
            "owner" => PartyRule::Owner,
            "any" => PartyRule::Any,
            _ => return Err(self.error(&raw.parties, "parties", "write `owner` or `any`")),
        };
        let (approval, cooling_off) = raw.purge.map_or((None, None), |purge| (purge.approval, purge.cooling_off));
        let approval = match approval.as_ref().map(|it| (it, it.get_ref().as_str())) {
            None | Some((_, "confirm")) => Approval::Confirm,
            Some((_, "second-person")) => Approval::SecondPerson,
            Some((at, _)) => return Err(self.error(at, "purge.approval", "write `confirm` or `second-person`")),
        };
        let fixed = |value: &Option<Spanned<String>>, field, default| match value {
            Some(value) => self.fixed(value, field),
            None => Ok(default),
        };
        Ok(Policy {
            name: outline.name,
            summary: outline.summary,
            margin: fixed(&raw.margin, "margin", MARGIN)?,
            parties,
            sweep_deadline: fixed(&raw.sweep_deadline, "sweep_deadline", SWEEP_DEADLINE)?,
            purge: PurgeRule { approval, cooling_off: fixed(&cooling_off, "purge.cooling_off", Length::default())? },
            subscribers_decide: raw.permission.subscribers_decide,
            basis: raw.basis.iter().map(|rule| self.basis(rule)).collect::<Result<_, _>>()?,
            keep: raw.keep.iter().map(|rule| self.keep(rule)).collect::<Result<_, _>>()?,
            floors: raw.floor.iter().map(|rule| self.floor(rule)).collect::<Result<_, _>>()?,
        })
    }

    fn basis(&self, rule: &Spanned<RawBasis>) -> Result<BasisLine, PolicyError> {
        let raw = rule.get_ref();
        let known = |word: &str| word.parse().ok();
        let remedy = format!("write any of {}", Basis::words());
        let evidence_of_all_parties = match raw.evidence.as_ref().map(|it| (it, it.get_ref().as_str())) {
            None | Some((_, "none")) => false,
            Some((_, "all-parties")) => true,
            Some((at, _)) => return Err(self.error(at, "basis.evidence", "write `all-parties` or `none`")),
        };
        let announcement = match raw.announcement.as_ref().map(|it| (it, it.get_ref().as_str())) {
            None | Some((_, "optional")) => false,
            Some((_, "required")) => true,
            Some((at, _)) => return Err(self.error(at, "basis.announcement", "write `required` or `optional`")),
        };
        let required = self.list(raw.required.as_ref(), "basis.required", known, &remedy)?;
        if evidence_of_all_parties && required.is_empty() {
            return Err(self.error(rule, "basis.required", "evidence is of a basis: say which must be stated"));
        }
        Ok(BasisLine {
            line: self.line(rule.span()),
            jurisdictions: self.jurisdictions(raw.jurisdiction.as_ref(), "basis.jurisdiction")?,
            rule: BasisRule { required, evidence_of_all_parties, announcement },
        })
    }

    fn keep(&self, rule: &Spanned<RawKeep>) -> Result<Keep, PolicyError> {
        let raw = rule.get_ref();
        let moment = |text: &str| self.substituted(text).and_then(|text| text.parse::<When>().ok());
        let not_after = self.list(Some(&raw.not_after), "keep.not_after", moment, &self.remedy())?;
        if not_after.is_empty() {
            return Err(self.error(&raw.not_after, "keep.not_after", "say when it must be gone"));
        }
        Ok(Keep {
            line: self.line(rule.span()),
            reach: Reach {
                parts: self.parts(&raw.what, "keep.what")?,
                categories: self.categories(raw.category.as_ref(), "keep.category")?,
                jurisdictions: self.jurisdictions(raw.jurisdiction.as_ref(), "keep.jurisdiction")?,
                states: raw.states.as_ref().map(|it| self.states(it)).transpose()?.unwrap_or_default(),
            },
            not_before: raw.not_before.as_ref().map(|it| self.moment(it, "keep.not_before")).transpose()?,
            not_after,
            yields_to_floor: raw.yields_to_floor,
        })
    }

    fn floor(&self, rule: &Spanned<RawFloor>) -> Result<FloorRule, PolicyError> {
        let raw = rule.get_ref();
        let keep_at_least = self.moment(&raw.keep_at_least, "floor.keep_at_least")?;
        if matches!(keep_at_least, When::After(_, event) if event != super::Event::End) {
            let remedy =
                "a floor hangs on the end of the call or on a date, so that a close neither starts nor ends it";
            return Err(self.error(&raw.keep_at_least, "floor.keep_at_least", remedy));
        }
        Ok(FloorRule {
            line: self.line(rule.span()),
            reach: Reach {
                parts: self.parts(&raw.what, "floor.what")?,
                categories: self.categories(raw.category.as_ref(), "floor.category")?,
                jurisdictions: self.jurisdictions(raw.jurisdiction.as_ref(), "floor.jurisdiction")?,
                states: States::default(),
            },
            keep_at_least,
            ground: self.words(&raw.ground, "floor.ground")?,
        })
    }

    fn parts(&self, what: &Spanned<String>, field: &str) -> Result<Vec<Part>, PolicyError> {
        match what.get_ref().as_str() {
            "audio" => Ok(vec![Part::Audio]),
            "facts" => Ok(vec![Part::Facts]),
            "both" => Ok(Part::ALL.to_vec()),
            _ => Err(self.error(what, field, "write `audio`, `facts` or `both`")),
        }
    }

    fn categories(&self, list: Option<&Spanned<OneOrMany>>, field: &str) -> Result<Vec<Category>, PolicyError> {
        let known = |word: &str| Category::ALL.into_iter().find(|category| category.word() == word);
        let remedy = format!("write any of {}", Category::ALL.map(|it| format!("`{}`", it.word())).join(", "));
        self.list(list, field, known, &remedy)
    }

    fn jurisdictions(&self, list: Option<&Spanned<OneOrMany>>, field: &str) -> Result<Vec<Jurisdiction>, PolicyError> {
        self.list(list, field, |word| word.parse().ok(), &super::NotAJurisdiction.to_string())
    }

    /// A list without repetition. One that is written and empty would match nothing where leaving it out matches all.
    fn list<T: PartialEq>(
        &self,
        list: Option<&Spanned<OneOrMany>>,
        field: &str,
        read: impl Fn(&str) -> Option<T>,
        remedy: &str,
    ) -> Result<Vec<T>, PolicyError> {
        let Some(list) = list else { return Ok(Vec::new()) };
        let texts = list.get_ref().items();
        if texts.is_empty() || texts.len() > MAX_LIST {
            return Err(self.error(list, field, format!("write 1 to {MAX_LIST} items, or leave it out for all")));
        }
        let mut items = Vec::new();
        for text in texts {
            let item = read(text).ok_or_else(|| self.error(list, field, remedy))?;
            if items.contains(&item) {
                return Err(self.error(list, field, "write each item once"));
            }
            items.push(item);
        }
        Ok(items)
    }

    fn states(&self, text: &Spanned<String>) -> Result<States, PolicyError> {
        let wrong = || {
            let remedy = "write `account open` or `account closed`, `subscriber active` or `subscriber deactivated`, \
                          or one of each joined by ` and `";
            self.error(text, "keep.while", remedy)
        };
        let mut states = States::default();
        for term in text.get_ref().split(" and ") {
            let (state, value) = match term.trim() {
                "account open" => (&mut states.closed, false),
                "account closed" => (&mut states.closed, true),
                "subscriber active" => (&mut states.deactivated, false),
                "subscriber deactivated" => (&mut states.deactivated, true),
                _ => return Err(wrong()),
            };
            if state.replace(value).is_some() {
                return Err(wrong());
            }
        }
        Ok(states)
    }

    /// The text with the parameter in place; none where there is no parameter to put.
    fn substituted(&self, text: &str) -> Option<String> {
        match self.keep {
            Some(keep) => Some(text.replace(KEEP, &keep.to_string())),
            None => (!text.contains(KEEP)).then(|| text.to_owned()),
        }
    }

    fn remedy(&self) -> String {
        let parameter = if self.keep.is_some() { "; `{keep}` stands for the parameter" } else { "" };
        format!("{}{parameter}", super::time::NotAMoment)
    }

    fn moment(&self, text: &Spanned<String>, field: &str) -> Result<When, PolicyError> {
        let moment = self.substituted(text.get_ref()).and_then(|text| text.parse().ok());
        moment.ok_or_else(|| self.error(text, field, self.remedy()))
    }

    fn length(&self, text: &Spanned<String>, field: &str) -> Result<Length, PolicyError> {
        Length::from_str(text.get_ref()).map_err(|why| self.error(text, field, why))
    }

    fn fixed(&self, text: &Spanned<String>, field: &str) -> Result<Length, PolicyError> {
        let length = self.length(text, field)?;
        match length.fixed() {
            Some(_) => Ok(length),
            None => Err(self.error(text, field, "write it in weeks, days, hours or minutes")),
        }
    }

    fn words(&self, text: &Spanned<String>, field: &str) -> Result<String, PolicyError> {
        let words = text.get_ref();
        if words.is_empty() || words.len() > MAX_WORDS || words.chars().any(char::is_control) {
            let remedy = format!("write 1 to {MAX_WORDS} bytes of text on one line");
            return Err(self.error(text, field, remedy));
        }
        Ok(words.clone())
    }
}
