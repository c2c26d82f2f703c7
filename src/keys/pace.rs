//! How much of what is due goes into one rotation.
//!
//! What a rotation costs goes by the pages that it seals anew, not by what it erases: a page has some twenty recordings, and
//! one of them costs as much as all. [`KeyStore::due`](super::KeyStore::due) finds what is due in the order of the tree, so
//! what lies on one page comes together, and is taken together. So that whoever creates something waits for a bounded time,
//! a rotation is bounded by how long the ones before it took, on this machine and as busy as it is: where recordings lie
//! scattered it has few, where whole pages are due, hundreds.
//!
//! Below [`LEAST`] it does not go: there the syncs, whose number is fixed, are most of what a rotation takes, and smaller ones
//! would only be more.

use super::Due;
use std::time::Duration;

/// What a rotation should take, from when nobody may create to when everybody may: whoever comes at the worst moment waits for
/// the rest of one and for a whole one.
const AIM: Duration = Duration::from_millis(10);
/// Most recordings in one rotation: as many as a receipt lists at most.
const MOST_RECORDINGS: usize = 512;
/// What sealing a page anew costs, measured by what a recording on it does.
const PAGE: usize = 8;
/// The same for a tenant: its own pages, its entry in the log and its receipt.
const TENANT: usize = 4 * PAGE;
/// The least that goes into one rotation: sixteen scattered recordings of one tenant.
const LEAST: usize = TENANT + 16 * (PAGE + 1);
/// The most.
const MOST: usize = MOST_RECORDINGS * (TENANT + PAGE + 1);

/// The pace of one run.
pub struct Pace {
    /// What the next rotation may cost.
    allowed: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { allowed: LEAST }
    }
}

impl Pace {
    /// How many go into the next rotation, of what is due in the order of the tree: one at least, where there is one.
    pub fn next(&self, due: &[Due]) -> usize {
        let costs = pairs(due).take(MOST_RECORDINGS).scan(0, |cost, (before, next)| {
            *cost += added(before, next);
            Some(*cost)
        });
        let fit = costs.take_while(|cost| *cost <= self.allowed).count();
        fit.max(due.len().min(1))
    }

    /// What was taken, and how long it took.
    pub fn took(&mut self, taken: &[Due], time: Duration) {
        let cost: usize = pairs(taken).map(|(before, next)| added(before, next)).sum();
        // The rest of what was due: fast because there was little.
        if cost < self.allowed / 2 && time < AIM {
            return;
        }
        let fits = (cost as u128 * AIM.as_nanos() / time.as_nanos().max(1)).min(MOST as u128) as usize;
        self.allowed = fits.clamp(self.allowed / 2, self.allowed * 2).clamp(LEAST, MOST);
    }
}

/// Each with the one before it.
fn pairs(due: &[Due]) -> impl Iterator<Item = (Option<&Due>, &Due)> {
    std::iter::once(None).chain(due.iter().map(Some)).zip(due)
}

fn added(before: Option<&Due>, next: &Due) -> usize {
    let page = if before.is_some_and(|before| before.page == next.page) { 0 } else { PAGE };
    let tenant = if before.is_some_and(|before| before.at.tenant == next.at.tenant) { 0 } else { TENANT };
    1 + page + tenant
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::id::{PageId, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
        keys::{Keeping, RecordingEntry, RecordingPath},
    };

    /// So many on each of so many pages of one tenant.
    fn due(pages: u8, on_each: u8) -> Vec<Due> {
        let one = |page: u8, number: u8| Due {
            at: RecordingPath {
                tenant: TenantHandle([1; 8]),
                subscriber: SubscriberHandle([page; 8]),
                recording: RecordingHandle([number; 16]),
            },
            page: PageId([page; 16]),
            entry: RecordingEntry {
                row: RowId([number; 16]),
                kind: 1,
                keeping: Keeping::default(),
                parties: Vec::new(),
                wrapped: false,
                parent: None,
                children: Vec::new(),
                audio_present: true,
                facts_present: true,
                objects: 1,
            },
        };
        (0..pages).flat_map(|page| (0..on_each).map(move |number| one(page, number))).collect()
    }

    /// Goes on until the pace stays, where a page takes so long and nothing else takes anything.
    fn settled(due: &[Due], a_page: Duration) -> usize {
        let mut pace = Pace::default();
        for _ in 0..32 {
            let taken = &due[..pace.next(due)];
            let pages = taken.chunk_by(|one, next| one.page == next.page).count();
            pace.took(taken, a_page * pages as u32);
        }
        pace.next(due)
    }

    #[test]
    fn a_rotation_takes_as_many_as_go_in_its_time() {
        let page = Duration::from_micros(250);
        assert!((35..=40).contains(&settled(&due(200, 1), page)), "one on each page: ten milliseconds are forty pages");
        assert_eq!(settled(&due(200, 90), page), MOST_RECORDINGS, "whole pages: as many as a receipt lists");
        assert_eq!(settled(&due(200, 1), 100 * page), 16, "a machine that is slow");
        assert_eq!(settled(&due(200, 1), page / 100), 200, "one that is fast takes what there is");
    }

    #[test]
    fn one_that_stalls_does_not_stop_the_others() {
        let due = due(200, 1);
        let mut pace = Pace::default();
        for _ in 0..8 {
            pace.took(&due[..pace.next(&due)], AIM / 2);
        }
        let before = pace.next(&due);
        pace.took(&due[..before], 100 * AIM);
        assert!(pace.next(&due) >= before / 2, "{before}");
    }

    #[test]
    fn the_last_few_say_nothing_of_the_pace() {
        let due = due(200, 1);
        let mut pace = Pace::default();
        pace.took(&due[..pace.next(&due)], AIM / 2);
        let before = pace.next(&due);
        pace.took(&due[..1], AIM / 4);
        assert_eq!(pace.next(&due), before);
        assert_eq!((pace.next(&[]), pace.next(&due[..1])), (0, 1));
    }
}
