//! What the process does to itself before it holds a secret: core dumps off, and the log to standard error.
//!
//! I1 names core dumps and log lines. The kernel is told twice: no core file (`RLIMIT_CORE` 0), and not dumpable, which
//! holds for core patterns that pipe to a program too and keeps other processes of the same user out of our memory.
//! Of the log only our own lines are let through below `error`: HTTP and QUIC libraries log headers and addresses.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use std::io::IsTerminal as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Turns core dumps off and raises the number of files that may be open to what is allowed at all: connections that eat
/// up file descriptors would otherwise take them from the key store. What the kernel refuses is reported, and stops nobody.
pub fn harden() {
    let files = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }) {
        tracing::warn!(%error, "the number of open files stays as it was");
    }
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "core files cannot be turned off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process stays dumpable");
    }
}

/// Starts the log. `level` is for our own lines: `error`, `warn`, `info`, `debug`; `info` where it is none of these.
pub fn log(level: Option<&str>) {
    let level = match level {
        Some("error") => LevelFilter::ERROR,
        Some("warn") => LevelFilter::WARN,
        Some("debug") => LevelFilter::DEBUG,
        _ => LevelFilter::INFO,
    };
    // The embedded S3 server prints whole answers where a client asks for what it lacks; the gateway's own lines tell.
    let filter = Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target("s3s", LevelFilter::OFF)
        .with_target("s3s_fs", LevelFilter::OFF)
        .with_target("quietus", level);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second subscriber cannot be set; the first one goes on.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}
