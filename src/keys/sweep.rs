//! What fell, in steps: from one doomed row to the objects, values and pages below it.
//!
//! A doomed row is a clear list of items. A step takes items from its end: either it replaces pages by what their clear
//! parts lead to (and takes the objects met there off the copy queue, so that a copy which comes late finds itself
//! unwanted), or it hands out objects and removes values. Each step ends as one small command that also shortens the list, so
//! a kill anywhere leaves a list that still leads to everything that is left. Nothing is ever found by looking for what is
//! *not referenced*.

use super::{
    Owner, ReadError,
    backing::{Backing, Family, Row},
    command::clear_of,
    page::Item,
};
use crate::{
    crypto::envelope::Kind,
    domain::id::{ObjectId, RowId},
};

/// Most pages that one step takes apart.
const PAGES: usize = 16;
/// Most value rows that one step removes.
const VALUES: usize = 1024;

/// One step of the sweeper: delete these objects, then hand it to [`super::KeyStore::swept`].
pub struct DoomedBatch {
    /// Every version of these is to be deleted, in every region. Empty in a step that only takes pages apart.
    pub objects: Vec<ObjectId>,
    /// The doomed row.
    pub(super) id: Vec<u8>,
    /// Its list when the step was drawn up.
    pub(super) before: Vec<u8>,
    /// What the step writes.
    pub(super) rows: Vec<Row>,
}

/// Draws up the next step; none when nothing is doomed.
pub fn next(backing: &dyn Backing, max_objects: usize) -> Result<Option<DoomedBatch>, ReadError> {
    let Some((id, before)) = backing.scan(Family::Doomed, &[], None, 1)?.pop() else { return Ok(None) };
    let mut items = Item::decode_list(&before).map_err(|_| ReadError::Damaged("a doomed row"))?;
    let (mut objects, mut rows) = (Vec::new(), Vec::new());
    if matches!(items.last(), Some(Item::Page(_))) {
        expand(backing, &mut items, &mut rows)?;
    } else {
        consume(backing, &mut items, &mut rows, &mut objects, max_objects.max(1))?;
    }
    let mut list = Vec::with_capacity(items.len() * Item::LEN);
    Item::encode_list(&items, &mut list);
    rows.push(if list.is_empty() {
        Row::delete(Family::Doomed, id.clone())
    } else {
        Row::put(Family::Doomed, id.clone(), list)
    });
    Ok(Some(DoomedBatch { objects, id, before, rows }))
}

fn expand(backing: &dyn Backing, items: &mut Vec<Item>, rows: &mut Vec<Row>) -> Result<(), ReadError> {
    let mut found = Vec::new();
    for _ in 0..PAGES {
        let Some(Item::Page(page)) = items.last().copied() else { break };
        items.pop();
        for (key, value) in backing.scan(Family::Pages, &page.0, None, usize::MAX)? {
            found.extend(clear_of(&value)?.items);
            rows.push(Row::delete(Family::Pages, key));
        }
    }
    for item in &found {
        if let Item::Object(object) = item {
            rows.push(Row::delete(Family::Copies, object.0));
        }
    }
    items.extend(found);
    Ok(())
}

fn consume(
    backing: &dyn Backing,
    items: &mut Vec<Item>,
    rows: &mut Vec<Row>,
    objects: &mut Vec<ObjectId>,
    max_objects: usize,
) -> Result<(), ReadError> {
    let mut budget = VALUES;
    while let Some(item) = items.last().copied() {
        let done = match item {
            Item::Page(_) => return Ok(()),
            Item::Object(object) => {
                let room = objects.len() < max_objects;
                if room {
                    objects.push(object);
                }
                room
            }
            Item::Row(row) => remove_values(backing, &row.0, rows, &mut budget)?,
            Item::AudioValues(row) => remove_kinds(backing, row, Owner::under_audio, rows, &mut budget)?,
            Item::FactsValues(row) => remove_kinds(backing, row, Owner::under_facts, rows, &mut budget)?,
        };
        if !done {
            return Ok(());
        }
        items.pop();
    }
    Ok(())
}

/// Removes the values of a row that lie under one of its leaves.
fn remove_kinds(
    backing: &dyn Backing,
    row: RowId,
    under: fn(Kind) -> bool,
    rows: &mut Vec<Row>,
    budget: &mut usize,
) -> Result<bool, ReadError> {
    let mut done = true;
    for kind in Kind::ALL.into_iter().filter(|kind| under(*kind)) {
        done &= remove_values(backing, &super::value_prefix(row, kind), rows, budget)?;
    }
    Ok(done)
}

/// Removes the values under a prefix as far as the budget goes; says whether that was all of them.
fn remove_values(
    backing: &dyn Backing,
    prefix: &[u8],
    rows: &mut Vec<Row>,
    budget: &mut usize,
) -> Result<bool, ReadError> {
    let found = backing.scan(Family::Values, prefix, None, *budget + 1)?;
    let all = found.len() <= *budget;
    for (key, _) in found.into_iter().take(*budget) {
        rows.push(Row::delete(Family::Values, key));
        *budget -= 1;
    }
    Ok(all)
}
