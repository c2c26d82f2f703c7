//! What is live in the journal: the frames of each call, and how many of them each segment holds. In memory only.
//!
//! A segment whose last live frame goes is given back to be unlinked, unless it is the one that is written to. A call's
//! entry lasts as long as it has live frames or somebody is attached to it; forgetting it takes a new generation, so
//! that frames which were queued before cannot come to life behind it.

use super::{FrameKind, FrameRef, Shared};
use crate::domain::id::RowId;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    fs::File,
    sync::Arc,
};
use tokio::sync::oneshot;

/// Segment files held open for reading.
const OPEN_FILES: usize = 32;

#[derive(Default)]
pub(super) struct Index {
    calls: HashMap<RowId, Call>,
    segments: BTreeMap<u32, Segment>,
    /// Sum of what `segments` have written.
    bytes: u64,
    generation: u64,
    /// Newest last.
    files: VecDeque<(u32, Arc<File>)>,
}

#[derive(Default)]
struct Call {
    generation: u64,
    attached: usize,
    frames: Vec<FrameRef>,
    /// Dropped when nobody is attached any more.
    waiting: Vec<oneshot::Sender<Infallible>>,
}

#[derive(Default)]
struct Segment {
    live: usize,
    written: u64,
    /// The writing thread may still add to it.
    growing: bool,
}

impl Index {
    fn attach(&mut self, row: RowId) -> u64 {
        let generation = &mut self.generation;
        let call = self.calls.entry(row).or_insert_with(|| {
            *generation += 1;
            Call { generation: *generation, ..Call::default() }
        });
        call.attached += 1;
        call.generation
    }

    fn detach(&mut self, row: RowId, generation: u64) {
        if let Some(call) = self.calls.get_mut(&row)
            && call.generation == generation
        {
            call.attached = call.attached.saturating_sub(1);
            if call.attached == 0 {
                call.waiting.clear();
                if call.frames.is_empty() {
                    self.calls.remove(&row);
                }
            }
        }
    }

    /// None where nobody is attached; else what ends when nobody is, or when the call is forgotten.
    pub fn wait_detached(&mut self, row: RowId) -> Option<oneshot::Receiver<Infallible>> {
        let call = self.calls.get_mut(&row).filter(|call| call.attached > 0)?;
        call.waiting.retain(|waiting| !waiting.is_closed());
        let (ends, detached) = oneshot::channel();
        call.waiting.push(ends);
        Some(detached)
    }

    #[cfg(test)]
    pub fn waiting(&self, row: RowId) -> usize {
        self.calls.get(&row).map_or(0, |call| call.waiting.len())
    }

    /// A frame of an earlier run.
    pub fn recovered(&mut self, row: RowId, frame: FrameRef) {
        self.calls.entry(row).or_default().frames.push(frame);
        self.segments.entry(frame.at.segment).or_default().live += 1;
    }

    /// A segment that is written to from now on.
    pub fn started(&mut self, segment: u32) {
        self.segments.entry(segment).or_default().growing = true;
    }

    /// So many bytes of it are in use.
    pub fn written(&mut self, segment: u32, bytes: u64) {
        let entry = self.segments.entry(segment).or_default();
        self.bytes = self.bytes - entry.written + bytes;
        entry.written = bytes;
    }

    /// Nothing more will be written to it. Gives it back if it is dead.
    pub fn closed(&mut self, segment: u32) -> Vec<u32> {
        self.segments.entry(segment).or_default().growing = false;
        self.take_dead([segment])
    }

    /// A frame is durable. False if its call was forgotten meanwhile.
    pub fn add(&mut self, attached: &Attached, frame: FrameRef) -> bool {
        match self.calls.get_mut(&attached.row) {
            Some(call) if call.generation == attached.generation => {
                call.frames.push(frame);
                self.segments.entry(frame.at.segment).or_default().live += 1;
                true
            }
            _ => false,
        }
    }

    pub fn frames(&self, row: RowId) -> Vec<FrameRef> {
        self.calls.get(&row).map(|call| call.frames.clone()).unwrap_or_default()
    }

    pub fn release(&mut self, row: RowId, below: u64) -> Vec<u32> {
        let Some(call) = self.calls.get_mut(&row) else { return Vec::new() };
        let is_stored = |frame: &FrameRef| frame.kind == FrameKind::Audio && frame.end() <= below;
        let Some(last) = call.frames.iter().rposition(is_stored) else { return Vec::new() };
        let dead: Vec<FrameRef> = call.frames.extract_if(..=last, |frame| frame.kind == FrameKind::Audio).collect();
        if call.attached == 0 && call.frames.is_empty() {
            self.calls.remove(&row);
        }
        self.bury(&dead)
    }

    pub fn forget(&mut self, row: RowId) -> Vec<u32> {
        let frames = self.calls.remove(&row).map(|call| call.frames).unwrap_or_default();
        self.bury(&frames)
    }

    fn bury(&mut self, dead: &[FrameRef]) -> Vec<u32> {
        for frame in dead {
            if let Some(entry) = self.segments.get_mut(&frame.at.segment) {
                entry.live = entry.live.saturating_sub(1);
            }
        }
        self.take_dead(dead.iter().map(|frame| frame.at.segment))
    }

    fn take_dead(&mut self, candidates: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut dead = Vec::new();
        for number in candidates {
            if let Some(segment) = self.segments.get(&number)
                && segment.live == 0
                && !segment.growing
            {
                self.bytes -= segment.written;
                self.segments.remove(&number);
                self.files.retain(|(open, _)| *open != number);
                dead.push(number);
            }
        }
        dead
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn cached_file(&self, segment: u32) -> Option<Arc<File>> {
        self.files.iter().find(|(open, _)| *open == segment).map(|(_, file)| file.clone())
    }

    pub fn cache_file(&mut self, segment: u32, file: File) -> Arc<File> {
        let file = Arc::new(file);
        if !self.segments.contains_key(&segment) {
            // About to be unlinked: an open file would keep its blocks.
            return file;
        }
        if self.files.len() == OPEN_FILES {
            self.files.pop_front();
        }
        self.files.push_back((segment, file.clone()));
        file
    }
}

/// Keeps a call's entry while a writer or a queued frame needs it.
pub(super) struct Attached {
    shared: Arc<Shared>,
    row: RowId,
    generation: u64,
}

impl Attached {
    pub fn new(shared: &Arc<Shared>, row: RowId) -> Self {
        let generation = shared.index().attach(row);
        Self { shared: shared.clone(), row, generation }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.shared.index().detach(self.row, self.generation);
    }
}
