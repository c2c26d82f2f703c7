//! The flusher: lets go of the files of rotations.
//!
//! A rotation's file is there to be replayed by a start that finds its batch missing, or not yet where no loss of power can
//! reach it. So it may go at any time after a flush that began when its batch was applied, and until then it does no harm: a
//! start finds that its command is done, flushes, and lets go of it. Its place is for the rotations that follow. A flush takes as
//! long as the disk wants, so it has a thread of its own, and nobody who creates or erases waits for it.
//!
//! By cases: *files come while it flushes* → they wait for the next flush, since this one may have begun before their batches.
//! *A flush or letting go fails* → as after any other failed sync nobody knows what is on the disk, and everything stops.
//! *Everything stopped elsewhere* → it leaves all files as they are, for the start to find. *A clean close* → the rotator is
//! gone, so nothing comes any more: what is left is flushed and let go of. *Rotations come faster than flushes* → [`MOST`] files
//! more wait, and then the rotator does, after it has answered.

use super::Desk;
use std::sync::mpsc;

/// Files of rotations that pile up before the column families are flushed for them, and their bytes: a start reads them all.
const UNFLUSHED: usize = 256;
const UNFLUSHED_BYTES: usize = 64 << 20;
/// Further files that wait while it flushes.
const MOST: usize = UNFLUSHED;

/// A rotation whose batch is applied.
pub(super) struct Unflushed {
    pub number: u64,
    /// How long its command is.
    pub bytes: usize,
}

/// The thread's part.
pub(super) struct Flusher(pub Desk);

/// Where rotations go whose batches are applied.
pub(super) fn channel() -> (mpsc::SyncSender<Unflushed>, mpsc::Receiver<Unflushed>) {
    mpsc::sync_channel(MOST)
}

impl Flusher {
    /// Runs until the rotator is gone.
    pub fn run(self, files: &mpsc::Receiver<Unflushed>) {
        let (mut pile, mut bytes) = (Vec::new(), 0);
        while let Ok(first) = files.recv() {
            for file in std::iter::once(first).chain(files.try_iter()) {
                pile.push(file.number);
                bytes += file.bytes;
            }
            if pile.len() >= UNFLUSHED || bytes >= UNFLUSHED_BYTES {
                if !self.release(&mut pile) {
                    return;
                }
                bytes = 0;
            }
        }
        // A writer that stopped on a failure leaves everything as it is, for the start to find.
        if !self.0.inbox.is_stopped() {
            self.release(&mut pile);
        }
    }

    fn release(&self, pile: &mut Vec<u64>) -> bool {
        let backing = &self.0.shared.backing;
        match backing.flush().and_then(|()| backing.release_pending(pile)) {
            Ok(()) => {
                pile.clear();
                true
            }
            Err(error) => self.0.fail(&error).unwrap_or(false),
        }
    }
}
