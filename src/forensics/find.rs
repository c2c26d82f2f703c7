//! Strings that are looked for in everything that could be opened, and in the raw bytes of files as they are.

use memchr::memmem::Finder;
use std::collections::BTreeSet;

/// The strings, and where each was met.
pub struct Needles {
    needles: Vec<(Finder<'static>, String)>,
    met: Vec<BTreeSet<&'static str>>,
    longest: usize,
}

impl Needles {
    /// For these strings; empty ones are left out.
    pub fn new(strings: &[String]) -> Self {
        let needles: Vec<_> = strings
            .iter()
            .filter(|string| !string.is_empty())
            .map(|string| (Finder::new(string.as_bytes()).into_owned(), string.clone()))
            .collect();
        let longest = needles.iter().map(|(_, string)| string.len()).max().unwrap_or(0);
        Self { met: vec![BTreeSet::new(); needles.len()], needles, longest }
    }

    /// Bytes of the longest string.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Looks through opened bytes.
    pub fn search(&mut self, place: &'static str, bytes: &[u8]) {
        for ((finder, _), met) in self.needles.iter().zip(&mut self.met) {
            if !met.contains(place) && finder.find(bytes).is_some() {
                met.insert(place);
            }
        }
    }

    /// Each string and the kinds of places where it was met.
    pub fn results(&self) -> impl Iterator<Item = (&str, &BTreeSet<&'static str>)> {
        self.needles.iter().map(|(_, string)| string.as_str()).zip(&self.met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_met_where_it_is_and_nowhere_else() {
        let mut needles = Needles::new(&["alice".into(), String::new(), "bob".into()]);
        needles.search("facts", b"call of alice and carol");
        needles.search("name", b"carol");
        let results: Vec<_> = needles.results().map(|(string, met)| (string, met.len())).collect();
        assert_eq!(results, [("alice", 1), ("bob", 0)]);
        assert_eq!(needles.longest(), 5);
    }
}
