//! The attacker of the design's section 1, on the key store: any bytes that were ever written, and some keys; what follows?

use super::super::{
    page::{Append, Clear, Entry, Level, Link, TOP, decode_appends, decode_body},
    veil::{Veil, Veiled},
};
use crate::{
    crypto::{
        envelope::{Envelope, Kind, MAGIC},
        secret::Secret,
    },
    domain::id::PageId,
};
use std::collections::{HashMap, HashSet};

pub type Key = [u8; 32];

/// Envelopes of pages, carved from bytes.
pub struct Haul {
    pages: HashMap<PageId, Vec<Vec<u8>>>,
}

/// What follows.
#[derive(Default)]
pub struct Reach {
    /// Stable secrets, secrets of periods, audio and facts.
    pub secrets: HashSet<Key>,
    pub names: HashSet<String>,
    pub pages: HashSet<(PageId, Key)>,
}

impl Haul {
    /// Looks for envelopes anywhere in the bytes, as forensics would: in rows, whole files and torn ones.
    pub fn carve(contents: &[Vec<u8>]) -> Self {
        let mut pages: HashMap<PageId, Vec<Vec<u8>>> = HashMap::new();
        let mut seen = HashSet::new();
        for content in contents {
            for at in 0..content.len().saturating_sub(MAGIC.len()) {
                if content[at..at + MAGIC.len()] != MAGIC {
                    continue;
                }
                let Ok((envelope, rest)) = Envelope::parse_prefix(&content[at..]) else { continue };
                if !matches!(envelope.kind, Kind::Top | Kind::Page | Kind::Append) {
                    continue;
                }
                let Ok(clear) = Clear::decode(envelope.clear, envelope.kind == Kind::Top) else { continue };
                let bytes = content[at..content.len() - rest.len()].to_vec();
                if seen.insert(bytes.clone()) {
                    pages.entry(clear.page).or_default().push(bytes);
                }
            }
        }
        Self { pages }
    }

    pub fn below_roots(&self, roots: &[Key]) -> Reach {
        self.closure(roots.iter().map(|root| (TOP, *root)).collect())
    }

    pub fn closure(&self, mut work: Vec<(PageId, Key)>) -> Reach {
        let mut reach = Reach::default();
        let veil = Veil::new();
        while let Some((page, key)) = work.pop() {
            if !reach.pages.insert((page, key)) {
                continue;
            }
            let secret = Secret::from_bytes(&key);
            for bytes in self.pages.get(&page).into_iter().flatten() {
                let envelope = Envelope::parse(bytes).expect("it was carved");
                let Ok(body) = envelope.open(&secret) else { continue };
                let clear = Clear::decode(envelope.clear, envelope.kind == Kind::Top).expect("it was carved");
                if envelope.kind == Kind::Append {
                    let levels = [Level::Branch, Level::Tenants, Level::Subscribers, Level::Recordings];
                    let appends = levels
                        .into_iter()
                        .find_map(|level| decode_appends(level, &body, &clear.items, Some(&veil)).ok());
                    for append in appends.expect("an appended row decodes") {
                        if let Append::Insert(entry) = append {
                            learn(&entry, &mut reach, &mut work);
                        }
                    }
                } else {
                    for entry in decode_body(&body, &clear.items, Some(&veil)).expect("a page decodes").1 {
                        learn(&entry, &mut reach, &mut work);
                    }
                }
            }
        }
        reach
    }
}

fn learn(entry: &Entry, reach: &mut Reach, work: &mut Vec<(PageId, Key)>) {
    let mut follow = |link: &Link| work.push((link.id, *link.key.expose()));
    match entry {
        Entry::Branch { child, .. } => follow(child),
        Entry::Tenant(account) | Entry::Subscriber(account) => {
            follow(&account.subtree);
            reach.secrets.insert(*account.secret.expose());
            reach.names.insert(account.name.as_str().to_owned());
        }
        Entry::Period(_, secret) => drop(reach.secrets.insert(*secret.expose())),
        Entry::Recording(recording) => {
            reach.secrets.extend(
                [&recording.audio, &recording.facts]
                    .into_iter()
                    .flatten()
                    .filter_map(Veiled::open)
                    .map(|key| *key.expose()),
            );
        }
    }
}
