//! Claims on objects: whoever puts, copies or removes an object holds its claim meanwhile.
//!
//! Without it a put that is still under way when its recording is erased could land behind the sweeper's back, and the
//! object would lie there for ever (unreadable, but there). The sweeper waits for the claim; a put ends in bounded time.
//! Puts that a crash interrupted are no longer ours to wait for: S3 applies a PutObject when its last byte has arrived,
//! and the bytes stopped with the process.

use crate::domain::id::ObjectId;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;

#[derive(Default)]
struct Shared {
    held: Mutex<HashSet<ObjectId>>,
    released: Notify,
}

/// All claims of this process.
#[derive(Clone, Default)]
pub struct Claims(Arc<Shared>);

/// A held claim; released on drop.
pub struct Claim {
    claims: Claims,
    objects: Vec<ObjectId>,
}

impl Claims {
    /// Waits until none of these objects is held, then holds all of them.
    pub async fn claim(&self, objects: &[ObjectId]) -> Claim {
        loop {
            let mut released = std::pin::pin!(self.0.released.notified());
            released.as_mut().enable();
            {
                let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
                if objects.iter().all(|object| !held.contains(object)) {
                    held.extend(objects);
                    return Claim { claims: self.clone(), objects: objects.to_vec() };
                }
            }
            released.await;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut held = self.claims.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        for object in &self.objects {
            held.remove(object);
        }
        drop(held);
        self.claims.0.released.notify_waiters();
    }
}
