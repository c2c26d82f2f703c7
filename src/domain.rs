//! Identifiers, kinds, media types, retention, time: the words of the product, pure and without I/O.

pub mod audit;
pub mod basis;
pub mod id;
pub mod media;
pub mod party;
pub mod pause;
pub mod permission;
pub mod reason;
pub mod retention;
pub mod time;
