//! Identifiers, kinds, media types, time: the words of the product, pure and without I/O.

pub mod audit;
pub mod id;
pub mod media;
pub mod reason;
pub mod time;
