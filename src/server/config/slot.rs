//! `[slot]`: where the root is kept.

use super::{Check, ConfigError};
use crate::keys::Forgets;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::Spanned;
use zeroize::Zeroizing;

/// Where the environment has the PIN of a token.
const PIN_VARIABLE: &str = "QUIETUS_SLOT_PIN";
/// Longest time after which backups of a token may expire.
const MAX_DAYS: u32 = 3650;

/// The root slot.
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
pub enum Pin {
    /// A file holds it.
    File(PathBuf),
    /// From the environment.
    Given(Zeroizing<String>),
}

impl SlotConfig {
    /// The file that roots lie in as they are; none where they are sealed in a token.
    pub fn bare_file(&self) -> Option<&Path> {
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
    kind: Kind,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) allow_same_filesystem: bool,
    #[serde(default)]
    pub(super) accept_total_loss: bool,
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
    pub(super) fn slot(
        &self,
        raw: Spanned<RawSlot>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<SlotConfig, ConfigError> {
        let whole = Spanned::new(raw.span(), ());
        let RawSlot { kind, path, allow_same_filesystem, module, token, pin_file, forgets, .. } = raw.into_inner();
        if kind == Kind::File {
            let of_tokens = "only with kind = \"pkcs11\"";
            self.absent(module, "slot.module", of_tokens)?;
            self.absent(token, "slot.token", of_tokens)?;
            self.absent(pin_file, "slot.pin_file", of_tokens)?;
            self.absent(forgets, "slot.forgets", "only with kind = \"pkcs11\": what a file forgets is known")?;
            return Ok(SlotConfig::File(path));
        }
        let remedy = "not with kind = \"pkcs11\": the file holds nothing that opens without the token";
        self.that(!allow_same_filesystem, &whole, "slot.allow_same_filesystem", remedy)?;
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
        Config::parse(&text, environment).map(|config| config.slot).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_wants_a_module_a_label_and_a_pin() {
        let refused = |fields: &str| parse(fields, None).err().expect("refused");
        assert!(refused("kind = \"pkcs11\"").contains("slot.module"));
        assert!(refused("kind = \"pkcs11\"\nmodule = \"m\"").contains("slot.token"));
        assert!(refused(TOKEN).contains("slot.pin_file"));
        assert!(refused(&format!("{TOKEN}\npin_file = \"p\"\npin = \"1234\"")).contains("unknown field"));
        assert!(refused(&format!("{TOKEN}\nallow_same_filesystem = true")).contains("slot.allow_same_filesystem"));
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
