//! A search for what must be nowhere, in each form in which a program would write it.

#![allow(dead_code)]

use memchr::memmem::Finder;
use std::path::Path;

/// What must be nowhere, by name and form.
pub struct Traces(Vec<(String, Finder<'static>)>);

impl Traces {
    pub fn of(secrets: &[(&str, &[u8])]) -> Self {
        let mut traces = Vec::new();
        for (name, secret) in secrets {
            let wide = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
                secret.iter().flat_map(|byte| order(u16::from(*byte))).collect()
            };
            let hex = data_encoding::HEXLOWER.encode(secret);
            let mut forms = vec![
                ("bytes", secret.to_vec()),
                ("UTF-16LE", wide(u16::to_le_bytes)),
                ("UTF-16BE", wide(u16::to_be_bytes)),
                ("hex", hex.clone().into_bytes()),
                ("HEX", hex.to_uppercase().into_bytes()),
            ];
            // Base64 of a larger whole: each of the three places it may begin at, without the letters that its
            // neighbours have a part in.
            for place in 0..3 {
                let whole: Vec<u8> = std::iter::repeat_n(0, place).chain(secret.iter().copied()).collect();
                for (form, encoding) in
                    [("base64", data_encoding::BASE64_NOPAD), ("base64url", data_encoding::BASE64URL_NOPAD)]
                {
                    let text = encoding.encode(&whole);
                    let clean = &text[(place * 8).div_ceil(6)..whole.len() * 8 / 6];
                    forms.push((form, clean.as_bytes().to_vec()));
                }
            }
            for (form, needle) in forms {
                traces.push((format!("{name} as {form}"), Finder::new(&needle).into_owned()));
            }
        }
        Self(traces)
    }

    /// What is there, and where.
    pub fn found(&self, bytes: &[u8]) -> Vec<(&str, usize)> {
        self.0.iter().filter_map(|(what, finder)| Some((what.as_str(), finder.find(bytes)?))).collect()
    }

    pub fn search(&self, place: &str, bytes: &[u8]) {
        if let Some((what, at)) = self.found(bytes).first() {
            let around = &bytes[at.saturating_sub(200)..bytes.len().min(at + 200)];
            panic!("{what} in {place} at {at}: {}", String::from_utf8_lossy(around));
        }
    }

    /// Contents and names of all files. Gives how many there were.
    pub fn search_folder(&self, folder: &Path) -> usize {
        let mut files = 0;
        for entry in std::fs::read_dir(folder).expect("reads") {
            let path = entry.expect("an entry").path();
            self.search("a file's name", path.as_os_str().as_encoded_bytes());
            if path.is_dir() {
                files += self.search_folder(&path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                self.search(&path.display().to_string(), &bytes);
                files += 1;
            }
        }
        files
    }
}
