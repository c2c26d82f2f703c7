//! What the gateway does with recordings, against the real process: real gRPC over both transports, real TLS, real S3.
//! Each module is about one promise.

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/recorder.rs"]
mod recorder;
#[path = "common/seaweed.rs"]
mod seaweed;
#[path = "common/served.rs"]
mod served;
#[path = "common/traces.rs"]
mod traces;
#[path = "common/wire.rs"]
mod wire;

#[path = "gateway/backup.rs"]
mod backup;
#[path = "gateway/basis.rs"]
mod basis;
#[path = "gateway/clients.rs"]
mod clients;
#[path = "gateway/crash.rs"]
mod crash;
#[path = "gateway/erasure.rs"]
mod erasure;
#[path = "gateway/ingest.rs"]
mod ingest;
#[path = "gateway/pause.rs"]
mod pause;
#[path = "gateway/process.rs"]
mod process;
#[path = "gateway/refusals.rs"]
mod refusals;
#[path = "gateway/storage.rs"]
mod storage;

use quietus::cli::args::Transport;

/// Every test that is about the wire runs over both.
const TRANSPORTS: [Transport; 2] = [Transport::H2, Transport::H3];
