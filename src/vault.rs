//! The façade: composes key tree, journal and objects into what the product does. Transports call this and nothing below.
//!
//! Parts: [`ingest`] (a call comes in), [`playback`] (it is heard again), [`erasure`] (it is forgotten), [`sweep`] (its
//! ciphertext goes), [`replicate`] (copies to the second region), [`tenants`], [`recording_id`].

pub mod api;

pub use api::*;
