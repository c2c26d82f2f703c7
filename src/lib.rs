//! quietus: a call-recording storage gateway with crypto-erasure.
//!
//! The modules in reading order; a module uses only itself and those above it (`tests/tidy.rs` holds this):
//!
//! - [`proto`]: the generated messages, of the wire and of what is sealed.
//! - [`domain`]: identifiers, kinds, media types, time. Pure.
//! - [`crypto`]: secrets, key derivation, the sealed envelope. The one table of labels.
//! - [`segment`]: the sealed slice, one object in S3.
//! - [`keys`]: the erasable key tree and its root slot; [`journal`]: live audio on its way to S3;
//!   [`object`]: the S3 side; [`audit`]: the log that shows what was done, and receipts. These four never use one another.
//! - [`vault`]: composes them: ingest, playback, erasure, sweeping. What the transports call.
//! - [`transport`]: gRPC and HTTP over TLS and QUIC; who is calling; errors as status codes.
//! - [`server`]: configuration, start, drain; the all-in-one `dev` form.
//! - [`cli`]: the client commands. They use the wire only.
//! - [`forensics`]: the attacker, for the second binary. Of the gateway it uses the formats alone.
#![forbid(unsafe_code)]

pub mod audit;
pub mod cli;
pub mod crypto;
pub mod domain;
pub mod journal;
pub mod keys;
pub mod object;
pub mod proto;
pub mod segment;
pub mod server;
pub mod transport;
pub mod vault;

// Apart from the order above: nothing uses it but its own binary.
pub mod forensics;
