//! The policies that ship with the gateway: `policies/presets`, a readable page each.

use super::{Outline, Policy, PolicyError};

/// A policy that ships.
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// The page.
    pub text: &'static str,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        &[$(Preset { name: $name, text: include_str!(concat!("../../../policies/presets/", $name, ".toml")) }),*]
    };
}

/// All of them, by name.
pub const ALL: &[Preset] = presets![
    "broadcloud",
    "circleloop",
    "cloudtalk",
    "customer-notice",
    "dev",
    "eu-mifid",
    "germany",
    "uk-mifid",
    "vclerk",
];

/// The one of this name.
pub fn find(name: &str) -> Option<&'static Preset> {
    ALL.iter().find(|preset| preset.name == name)
}

/// Their names, for people.
pub fn names() -> String {
    ALL.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
}

impl Preset {
    /// What it is for and which parameter it takes.
    ///
    /// # Errors
    /// None: a test reads every page.
    pub fn outline(&self) -> Result<Outline, PolicyError> {
        Policy::outline(self.text)
    }
}
