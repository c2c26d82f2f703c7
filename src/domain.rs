//! Identifiers, kinds, media types, time: the words of the product, pure and without I/O.

pub mod id;
pub mod media;
pub mod party;
pub mod reason;
pub mod time;
