//! What fell, in steps: from one doomed row to the objects, values and pages below it.
//!
//! A doomed row is a clear list of items. A step takes items from its end: either it replaces pages by what their clear
//! parts lead to (and takes the objects met there off the copy queue, so that a copy which comes late finds itself
//! unwanted), or it hands out objects and removes values. Rows take turns. Each step ends as one small command that also shortens the list, so
//! a kill anywhere leaves a list that still leads to everything that is left. Nothing is ever found by looking for what is
//! *not referenced*.
//!
//! The name of a doomed row is random; that of an erasure with a receipt begins with the receipt's id, so that it can be told
//! when nothing is left of it.

use super::{
    ReadError,
    backing::{Backing, Family, Row},
    command::clear_of,
    log,
    page::Item,
    wrap::Part,
};
use crate::domain::id::{ObjectId, ReceiptId, RowId};

/// Most pages that one step takes apart.
const PAGES: usize = 16;
/// Most value rows that one step removes.
const VALUES: usize = 1024;
/// Bytes in the name of a doomed row, behind the receipt's id where there is one.
pub const NAME: usize = 16;

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
    /// Objects that were met where pages were taken apart: no copy of them is wanted any more.
    pub(super) unwanted: Vec<ObjectId>,
}

impl DoomedBatch {
    /// Whether nothing of the doomed row is left behind it.
    pub(super) fn is_last(&self) -> bool {
        self.rows.iter().any(|row| row.family == Family::Doomed && row.value.is_none())
    }

    /// The receipt of the erasure that this is a step of.
    pub fn receipt(&self) -> Option<ReceiptId> {
        if self.id.len() > NAME { ReceiptId::from_slice(&self.id[..ReceiptId::LEN]) } else { None }
    }
}

/// Draws up the next step, from the first doomed row behind `behind` or else from the first of all; none when nothing is
/// doomed.
pub fn next(backing: &dyn Backing, behind: &[u8], max_objects: usize) -> Result<Option<DoomedBatch>, ReadError> {
    let mut found = backing.scan(Family::Doomed, &[], Some(behind), 1)?;
    if found.is_empty() {
        found = backing.scan(Family::Doomed, &[], None, 1)?;
    }
    let Some((id, before)) = found.pop() else { return Ok(None) };
    let mut items = Item::decode_list(&before).map_err(|_| ReadError::Damaged("a doomed row"))?;
    let (mut objects, mut rows, mut unwanted) = (Vec::new(), Vec::new(), Vec::new());
    if matches!(items.last(), Some(Item::Page(_))) {
        expand(backing, &mut items, &mut rows, &mut unwanted)?;
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
    Ok(Some(DoomedBatch { objects, id, before, rows, unwanted }))
}

fn expand(
    backing: &dyn Backing,
    items: &mut Vec<Item>,
    rows: &mut Vec<Row>,
    unwanted: &mut Vec<ObjectId>,
) -> Result<(), ReadError> {
    let mut found = Vec::new();
    for _ in 0..PAGES {
        let Some(Item::Page(page)) = items.last().copied() else { break };
        items.pop();
        for (key, value) in backing.scan(Family::Pages, &page.0, None, usize::MAX)? {
            found.extend(clear_of(&value)?.items);
            rows.push(Row::delete(Family::Pages, key));
        }
    }
    unwanted.extend(found.iter().filter_map(|item| if let Item::Object(object) = item { Some(*object) } else { None }));
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
            Item::Row(row) => {
                remove(backing, Family::Values, &row.0, rows, &mut budget)?
                    && remove(backing, Family::Log, &log::under_prefix(row), rows, &mut budget)?
            }
            Item::AudioValues(row) => remove_leaf(backing, row, Part::Audio, rows, &mut budget)?,
            Item::FactsValues(row) => remove_leaf(backing, row, Part::Facts, rows, &mut budget)?,
        };
        if !done {
            return Ok(());
        }
        items.pop();
    }
    Ok(())
}

/// Removes the values of a row that lie under one of its leaves.
fn remove_leaf(
    backing: &dyn Backing,
    row: RowId,
    part: Part,
    rows: &mut Vec<Row>,
    budget: &mut usize,
) -> Result<bool, ReadError> {
    let mut done = true;
    for prefix in super::leaf_prefixes(row, part) {
        done &= remove(backing, Family::Values, &prefix, rows, budget)?;
    }
    Ok(done)
}

/// Removes the rows under a prefix as far as the budget goes; says whether that was all of them.
fn remove(
    backing: &dyn Backing,
    family: Family,
    prefix: &[u8],
    rows: &mut Vec<Row>,
    budget: &mut usize,
) -> Result<bool, ReadError> {
    let found = backing.scan(family, prefix, None, *budget + 1)?;
    let all = found.len() <= *budget;
    for (key, _) in found.into_iter().take(*budget) {
        rows.push(Row::delete(family, key));
        *budget -= 1;
    }
    Ok(all)
}
