//! `[slot]`: where the root is kept, or its shares.

use super::{Check, ConfigError};
use crate::keys::{Forgets, MAX_SLOTS};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use toml::Spanned;
use zeroize::Zeroizing;

/// Where the environment has the PIN of a token.
const PIN_VARIABLE: &str = "QUIETUS_SLOT_PIN";
/// Longest time after which backups of a token may expire.
const MAX_DAYS: u32 = 3650;

/// The slots.
pub struct SlotsConfig {
    /// How many of them give the root.
    pub threshold: u8,
    /// Each.
    pub members: Vec<SlotConfig>,
    /// At least so long between two rotations.
    pub min_rotation_interval: Duration,
}

impl SlotsConfig {
    /// One that holds the root.
    pub fn single(slot: SlotConfig) -> Self {
        Self { threshold: 1, members: vec![slot], min_rotation_interval: Duration::ZERO }
    }

    /// The files that roots or shares lie in as they are.
    pub fn bare_files(&self) -> impl Iterator<Item = &Path> {
        self.members.iter().filter_map(SlotConfig::bare_file)
    }
}

/// One slot.
#[derive(Clone)]
pub enum SlotConfig {
    /// In a file.
    File(PathBuf),
    /// In a PKCS#11 token.
    Pkcs11 {
        /// The file beside the token.
        path: PathBuf,
        /// The token maker's module.
        module: PathBuf,
        /// The token's label.
        token: String,
        /// How to log in.
        pin: Pin,
        /// What the operator declares about the token.
        forgets: Forgets,
    },
}

/// Where the PIN of a token comes from.
#[derive(Clone)]
pub enum Pin {
    /// A file holds it.
    File(PathBuf),
    /// From the environment.
    Given(Zeroizing<String>),
}

impl SlotConfig {
    /// Its file.
    pub fn path(&self) -> &Path {
        let (SlotConfig::File(path) | SlotConfig::Pkcs11 { path, .. }) = self;
        path
    }

    /// The file that roots lie in as they are; none where they are sealed in a token.
    fn bare_file(&self) -> Option<&Path> {
        match self {
            SlotConfig::File(path) => Some(path),
            SlotConfig::Pkcs11 { .. } => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSlot {
    #[serde(default)]
    member: Vec<Spanned<RawMember>>,
    threshold: Option<Spanned<u64>>,
    min_rotation_interval_seconds: Option<Spanned<u64>>,
    #[serde(default)]
    pub(super) allow_same_filesystem: bool,
    #[serde(default)]
    accept_total_loss: bool,
    // The only slot, where there are no members.
    #[serde(default)]
    kind: Kind,
    path: Option<Spanned<PathBuf>>,
    module: Option<Spanned<PathBuf>>,
    token: Option<Spanned<String>>,
    pin_file: Option<Spanned<PathBuf>>,
    forgets: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMember {
    #[serde(default)]
    kind: Kind,
    path: Spanned<PathBuf>,
    module: Option<Spanned<PathBuf>>,
    token: Option<Spanned<String>>,
    pin_file: Option<Spanned<PathBuf>>,
    forgets: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    File,
    Pkcs11,
}

impl Check<'_> {
    pub(super) fn slots(
        &self,
        raw: Spanned<RawSlot>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<SlotsConfig, ConfigError> {
        let whole = Spanned::new(raw.span(), ());
        let RawSlot { member, threshold, min_rotation_interval_seconds: interval, accept_total_loss, .. } =
            raw.get_ref();
        let several = !member.is_empty();
        let remedy = "either `path`, or `[[slot.member]]` sections with a path each";
        self.that(raw.get_ref().path.is_some() != several, &whole, "slot.path", remedy)?;
        let remedy = "how many members give the root; only with members";
        self.that(several == threshold.is_some(), &whole, "slot.threshold", remedy)?;
        let count = member.len().max(1) as u64;
        let few = count <= MAX_SLOTS as u64;
        self.that(few, &whole, "slot.member", &format!("at most {MAX_SLOTS} slots"))?;
        let needed = threshold.as_ref().map_or(1, |threshold| *threshold.get_ref());
        let remedy = "more than half of the members, else two halves could each go their way: 2 of 3, 3 of 5";
        self.that((count / 2 + 1..=count).contains(&needed), &whole, "slot.threshold", remedy)?;
        let remedy = "whoever loses one slot loses every recording: say `accept_total_loss = true` to accept that, or take \
                      2 of 3 (`[[slot.member]]`)";
        self.that(needed < count || *accept_total_loss, &whole, "slot.accept_total_loss", remedy)?;
        let interval = self.number("slot.min_rotation_interval_seconds", interval, 0..=86_400, 0)?;
        let raw = raw.into_inner();
        let allow_same_filesystem = raw.allow_same_filesystem;
        let remedy = "not beside `[[slot.member]]`: it belongs to a member";
        let RawSlot { member, kind, path, module, token, pin_file, forgets, .. } = raw;
        let members = match path {
            Some(path) => {
                vec![Spanned::new(whole.span(), RawMember { kind, path, module, token, pin_file, forgets })]
            }
            None => {
                self.absent(module, "slot.module", remedy)?;
                self.absent(token, "slot.token", remedy)?;
                self.absent(pin_file, "slot.pin_file", remedy)?;
                self.absent(forgets, "slot.forgets", remedy)?;
                self.that(kind == Kind::File, &whole, "slot.kind", remedy)?;
                member
            }
        };
        let mut slots: Vec<SlotConfig> = Vec::new();
        for member in members {
            let path = &member.get_ref().path;
            let twice = slots.iter().any(|slot| slot.path() == path.get_ref());
            self.that(!twice, path, "slot.member.path", "this path is listed twice")?;
            slots.push(self.slot(member, &environment)?);
        }
        let sealed = slots.iter().all(|slot| slot.bare_file().is_none());
        let remedy =
            "not where every slot has kind = \"pkcs11\": their files hold nothing that opens without the token";
        self.that(!(sealed && allow_same_filesystem), &whole, "slot.allow_same_filesystem", remedy)?;
        let min_rotation_interval = Duration::from_secs(interval);
        Ok(SlotsConfig { threshold: needed as u8, members: slots, min_rotation_interval })
    }

    fn slot(
        &self,
        raw: Spanned<RawMember>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<SlotConfig, ConfigError> {
        let whole = Spanned::new(raw.span(), ());
        let RawMember { kind, path, module, token, pin_file, forgets } = raw.into_inner();
        let path = path.into_inner();
        if kind == Kind::File {
            let of_tokens = "only with kind = \"pkcs11\"";
            self.absent(module, "slot.module", of_tokens)?;
            self.absent(token, "slot.token", of_tokens)?;
            self.absent(pin_file, "slot.pin_file", of_tokens)?;
            self.absent(forgets, "slot.forgets", "only with kind = \"pkcs11\": what a file forgets is known")?;
            return Ok(SlotConfig::File(path));
        }
        let wanted = |field, remedy| self.refuse(&whole, field, remedy);
        let module = module.ok_or_else(|| wanted("slot.module", "the path of the token maker's PKCS#11 module"))?;
        let token = token.ok_or_else(|| wanted("slot.token", "the token's label"))?;
        self.that((1..=32).contains(&token.get_ref().len()), &token, "slot.token", "a label of 1 to 32 bytes")?;
        let pin = match (pin_file, environment(PIN_VARIABLE)) {
            (Some(file), _) => Pin::File(file.into_inner()),
            (None, Some(pin)) => Pin::Given(Zeroizing::new(pin)),
            (None, None) => {
                let remedy = "a file that holds the token's PIN; or give it in the environment, QUIETUS_SLOT_PIN";
                return Err(wanted("slot.pin_file", remedy));
            }
        };
        let forgets = forgets.map_or(Ok(Forgets::BestEffort), |declared| {
            let remedy = "\"at-once\", \"best-effort\", or \"after 35d\" (1 to 3650 days), as long as a backup of the token may hold a key";
            declaration(declared.get_ref()).ok_or_else(|| self.refuse(&declared, "slot.forgets", remedy))
        })?;
        Ok(SlotConfig::Pkcs11 { path, module: module.into_inner(), token: token.into_inner(), pin, forgets })
    }

    fn absent<T>(&self, value: Option<Spanned<T>>, field: &'static str, remedy: &str) -> Result<(), ConfigError> {
        value.map_or(Ok(()), |value| Err(self.refuse(&value, field, remedy)))
    }
}

fn declaration(text: &str) -> Option<Forgets> {
    match text {
        "at-once" => Some(Forgets::AtOnce),
        "best-effort" => Some(Forgets::BestEffort),
        _ => {
            let days = text.strip_prefix("after ")?.strip_suffix('d')?.parse().ok()?;
            (1..=MAX_DAYS).contains(&days).then_some(Forgets::After { days })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Config, tests::EXAMPLE},
        *,
    };

    const TOKEN: &str = "kind = \"pkcs11\"\nmodule = \"/usr/lib/m.so\"\ntoken = \"t\"";

    fn parse(fields: &str, pin: Option<&str>) -> Result<SlotConfig, String> {
        let text = EXAMPLE.replacen("allow_same_filesystem = false", fields, 1);
        let environment = |name: &str| (name == PIN_VARIABLE).then(|| pin.map(str::to_owned)).flatten();
        let config = Config::parse(&text, environment).map_err(|error| error.to_string())?;
        Ok(config.slots.members.into_iter().next().expect("one"))
    }

    const MEMBERS: &str = "threshold = 2\n[[slot.member]]\npath = \"/a\"\n[[slot.member]]\npath = \"/b\"\n[[slot.member]]\n\
                           path = \"/c\"\n[audit]\nsigning_key = \"/k\"";

    fn with_slots(section: &str) -> Result<Config, String> {
        let (before, rest) = EXAMPLE.split_once("[slot]").expect("there");
        let (_, after) = rest.split_once("\n[").expect("another section");
        let text = format!("{before}[slot]\n{section}\n[{after}");
        Config::parse(&text, |name| (name == PIN_VARIABLE).then(|| "1234".to_owned()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_single_slot_must_be_accepted() {
        let refused = with_slots("path = \"/a\"").err().expect("refused");
        assert!(refused.contains("slot.accept_total_loss"), "{refused}");
        assert_eq!(with_slots("path = \"/a\"\naccept_total_loss = true").expect("good").slots.threshold, 1);
    }

    #[test]
    fn several_slots_need_no_total_loss_accepted() {
        let config = with_slots(&format!("min_rotation_interval_seconds = 60\n{MEMBERS}")).expect("good");
        assert_eq!((config.slots.threshold, config.slots.members.len()), (2, 3));
        assert_eq!(config.slots.min_rotation_interval.as_secs(), 60);
        let mixed = MEMBERS.replace("path = \"/b\"", &format!("path = \"/b\"\n{TOKEN}"));
        let config = with_slots(&mixed).expect("good");
        let bare: Vec<&Path> = config.slots.bare_files().collect();
        assert_eq!(bare, [Path::new("/a"), Path::new("/c")]);
    }

    #[test]
    fn slots_that_cannot_be_are_named() {
        for (from, to, field) in [
            ("threshold = 2", "threshold = 1", "slot.threshold"),
            ("threshold = 2", "threshold = 4", "slot.threshold"),
            ("threshold = 2", "", "slot.threshold"),
            ("threshold = 2", "threshold = 3", "slot.accept_total_loss"),
            ("threshold = 2", "threshold = 2\npath = \"/d\"", "slot.path"),
            ("threshold = 2", "threshold = 2\nmodule = \"/m\"", "slot.module"),
            ("threshold = 2", "threshold = 2\nkind = \"pkcs11\"", "slot.kind"),
            ("path = \"/b\"", "path = \"/a\"", "slot.member.path"),
            ("path = \"/b\"", "path = \"/b\"\ntoken = \"t\"", "slot.token"),
            (
                "threshold = 2",
                "threshold = 2\nmin_rotation_interval_seconds = 86401",
                "slot.min_rotation_interval_seconds",
            ),
            ("signing_key = \"/k\"", "", "audit.signing_key"),
            ("path = \"/b\"", "pathname = \"/b\"", "pathname"),
        ] {
            assert!(MEMBERS.contains(from), "{from}");
            let refused = with_slots(&MEMBERS.replace(from, to)).err().expect("refused");
            assert!(refused.contains(field) && refused.contains("line "), "{to}: {refused}");
        }
        assert!(with_slots("accept_total_loss = true").is_err());
    }

    #[test]
    fn a_token_wants_a_module_a_label_and_a_pin() {
        let refused = |fields: &str| parse(fields, None).err().expect("refused");
        assert!(refused("kind = \"pkcs11\"").contains("slot.module"));
        assert!(refused("kind = \"pkcs11\"\nmodule = \"m\"").contains("slot.token"));
        assert!(refused(TOKEN).contains("slot.pin_file"));
        assert!(refused(&format!("{TOKEN}\npin_file = \"p\"\npin = \"1234\"")).contains("unknown field"));
        assert!(
            refused(&format!("{TOKEN}\npin_file = \"p\"\nallow_same_filesystem = true"))
                .contains("slot.allow_same_filesystem")
        );
        assert!(refused("token = \"t\"").contains("slot.token: only with"));
        let file = format!("{TOKEN}\npin_file = \"/p\"");
        let both = parse(&file, Some("1234"));
        assert!(matches!(both, Ok(SlotConfig::Pkcs11 { pin: Pin::File(path), .. }) if path == Path::new("/p")));
        let given = parse(TOKEN, Some("1234"));
        assert!(matches!(given, Ok(SlotConfig::Pkcs11 { pin: Pin::Given(pin), .. }) if *pin == "1234"));
    }

    #[test]
    fn a_token_forgets_as_declared_and_else_by_best_effort() {
        let declared = |forgets: &str| match parse(&format!("{TOKEN}{forgets}"), Some("1234")) {
            Ok(SlotConfig::Pkcs11 { forgets, .. }) => Ok(forgets),
            Ok(SlotConfig::File(_)) => panic!("a file"),
            Err(error) => Err(error),
        };
        assert_eq!(declared(""), Ok(Forgets::BestEffort));
        assert_eq!(declared("\nforgets = \"at-once\""), Ok(Forgets::AtOnce));
        assert_eq!(declared("\nforgets = \"after 35d\""), Ok(Forgets::After { days: 35 }));
        for wrong in ["after 0d", "after 3651d", "after 35 d", "never", ""] {
            let error = declared(&format!("\nforgets = \"{wrong}\"")).expect_err("refused");
            assert!(error.contains("slot.forgets"), "{wrong}: {error}");
        }
    }
}
