//! sweep
use crate::domain::id::ObjectId;

/// One step of the sweeper: delete these objects, then call [`super::KeyStore::swept`].
pub struct DoomedBatch {
    /// Every version of these is to be deleted, in every region. May be empty.
    pub objects: Vec<ObjectId>,
}
