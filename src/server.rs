//! The gateway as a process: configuration, start, drain.
//!
//! - [`config`]: the TOML file of `quietus serve`, and what it resolves to. Pure.
//! - [`identities`]: the file that says who there is.
//! - [`who`]: identities, issuers and access policies, as the files say; read again on SIGHUP.
//! - [`signing_key`]: the file of the key that signs checkpoints and receipts.
//! - [`run`]: composes the vault and the listeners, serves, drains.
//! - [`dev`]: `quietus dev`, everything in one process on one folder; [`dev_files`] makes its CA and certificates.
//! - [`backup`]: what an operator does with the key store's backup on the node's own files; [`archive`]: its buckets.
//! - [`rehearsal`]: a clock that is read from a file, for `quietus dev`.
//! - [`slots`]: the slots of a configuration, and what operators do with them.
//! - [`process`]: what the process does to itself first: no core dumps, locked memory; the log.
//! - [`swap`]: whether what is in memory could be written to a swap area.
//!
//! Nothing here sees audio, facts or keys, and nothing here may log a name of a tenant, a subscriber or a caller.

pub mod archive;
pub mod backup;
pub mod config;
pub mod dev;
pub mod dev_files;
pub mod identities;
pub mod process;
pub mod rehearsal;
pub mod run;
pub mod signing_key;
pub mod slots;
pub mod swap;
pub mod who;
