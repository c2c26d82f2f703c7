//! The attacker of the design's section 1, on the key store: any bytes that were ever written, and some keys; what follows?

use super::super::{
    page::{Append, Clear, Entry, Leaf, Level, Link, Recording, TOP, decode_appends, decode_body},
    veil::Veil,
};
use crate::{
    crypto::{
        envelope::{Envelope, Kind, MAGIC},
        label::{Label, derive},
        secret::Secret,
    },
    domain::id::{PageId, RowId, SubscriberHandle},
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
    /// Stable secrets by the handle of their subscriber.
    accounts: HashMap<SubscriberHandle, HashSet<Key>>,
    wrapped: Vec<WrappedLeaf>,
}

/// A wrapped secret that was met: for whom, and what lies in the page.
struct WrappedLeaf {
    row: RowId,
    /// None where the page was reached from below its owner.
    owner: Option<SubscriberHandle>,
    parties: Vec<SubscriberHandle>,
    sealed: Vec<u8>,
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

    pub fn closure(&self, start: Vec<(PageId, Key)>) -> Reach {
        let mut reach = Reach::default();
        let veil = Veil::new();
        let mut work: Vec<_> = start.into_iter().map(|(page, key)| (page, key, None)).collect();
        while let Some((page, key, owner)) = work.pop() {
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
                        if let Append::Insert(entry) | Append::Replace(entry) = append {
                            learn(&entry, owner, &mut reach, &mut work);
                        }
                    }
                } else {
                    for entry in decode_body(&body, &clear.items, Some(&veil)).expect("a page decodes").1 {
                        learn(&entry, owner, &mut reach, &mut work);
                    }
                }
            }
        }
        reach.unwrap_all();
        reach
    }
}

impl Reach {
    /// Every wrapped secret with every combination of stable secrets that are known of those who are bound.
    fn unwrap_all(&mut self) {
        for WrappedLeaf { row, owner, parties, sealed } in std::mem::take(&mut self.wrapped) {
            let Some(owner) = owner else { continue };
            let mut bound = [&parties[..], &[owner]].concat();
            bound.sort();
            let mut joined: Vec<Vec<u8>> = vec![Vec::new()];
            for subscriber in bound {
                let known = self.accounts.get(&subscriber).into_iter().flatten();
                joined = known.flat_map(|key| joined.iter().map(move |joined| [&joined[..], key].concat())).collect();
            }
            for secrets in joined {
                let key = Secret::from_bytes(&derive(&secrets, Label::Parties, &[&row.0]));
                if let Ok(plain) = Envelope::parse(&sealed).expect("it was decoded").open(&key) {
                    self.secrets.insert(plain.as_slice().try_into().expect("a secret"));
                }
            }
        }
    }
}

type Work = Vec<(PageId, Key, Option<SubscriberHandle>)>;

fn learn(entry: &Entry, owner: Option<SubscriberHandle>, reach: &mut Reach, work: &mut Work) {
    let mut follow = |link: &Link, owner| work.push((link.id, *link.key.expose(), owner));
    match entry {
        Entry::Branch { child, .. } => follow(child, owner),
        Entry::Tenant(account) | Entry::Subscriber(account) => {
            let handle = SubscriberHandle(account.handle);
            follow(&account.subtree, matches!(entry, Entry::Subscriber(_)).then_some(handle));
            reach.secrets.insert(*account.secret.expose());
            reach.names.insert(account.name.as_str().to_owned());
            reach.accounts.entry(handle).or_default().insert(*account.secret.expose());
        }
        Entry::Period(_, secret) => drop(reach.secrets.insert(*secret.expose())),
        Entry::Recording(recording) => learn_leaves(recording, owner, reach),
        Entry::Bound(_) => {}
    }
}

fn learn_leaves(recording: &Recording, owner: Option<SubscriberHandle>, reach: &mut Reach) {
    for leaf in [&recording.audio, &recording.facts].into_iter().flatten() {
        match leaf {
            Leaf::Plain(secret) => drop(reach.secrets.insert(*secret.open().expect("a veil of our own").expose())),
            Leaf::Wrapped(wrapped) => reach.wrapped.push(WrappedLeaf {
                row: recording.row,
                owner,
                parties: recording.ties().parties.clone(),
                sealed: wrapped.to_vec(),
            }),
        }
    }
}
