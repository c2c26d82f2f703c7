//! What the process does to itself before it holds a secret: core dumps off, memory locked, and the log to standard error.
//!
//! I1 names core dumps and log lines. The kernel is told three times: no core file (`RLIMIT_CORE` 0), no mapping in one (the
//! core filter, which is what advising each page against it would come to), and not dumpable, which
//! holds for core patterns that pipe to a program too. Not dumpable also keeps other processes of the same user out of our
//! memory: neither `ptrace` nor `/proc/PID/mem` lets them in, only the system's administrator.
//!
//! # Locked memory
//! All of it is locked, not the pages of secrets alone: audio, names and facts are as secret as keys, pass through the
//! buffers of a dozen libraries, and lie on stacks. What is resident is locked as it comes (`MCL_ONFAULT`): the address space
//! that stacks and allocators reserve costs nothing. Under a limit (`RLIMIT_MEMLOCK`) that is not lifted the kernel would
//! refuse a mapping when the limit is reached, and an allocation that fails ends the process: so it is done where
//! there is no limit (`LimitMEMLOCK=infinity`) or where the limit does not bind (`CAP_IPC_LOCK`), and nowhere else. What then
//! becomes of memory that is not locked is for [`super::swap`].
//!
//! Of the log only our own lines are let through below `error`: HTTP and QUIC libraries log headers and addresses.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use std::{
    io::IsTerminal as _,
    sync::atomic::{AtomicBool, Ordering},
};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// The capability that `RLIMIT_MEMLOCK` does not bind.
const CAP_IPC_LOCK: u32 = 14;

static LOCKED: AtomicBool = AtomicBool::new(false);

/// Whether all memory is locked, so that it is never written to a swap area.
pub fn is_locked() -> bool {
    LOCKED.load(Ordering::Relaxed)
}

/// Turns core dumps off, locks the memory, and raises the number of files that may be open to what is allowed at all:
/// connections that eat up file descriptors would otherwise take them from the key store. What the kernel refuses is
/// reported, and stops nobody here.
pub fn harden() {
    let files = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }) {
        tracing::warn!(%error, "the number of open files stays as it was");
    }
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "core files cannot be turned off");
    }
    // Before the process is not dumpable: its files below /proc are the administrator's from then on.
    if let Err(error) = std::fs::write("/proc/self/coredump_filter", "0") {
        tracing::warn!(%error, "core files would hold memory");
    }
    match lock() {
        Ok(()) => LOCKED.store(true, Ordering::Relaxed),
        Err(why) => tracing::warn!(%why, "memory is not locked: set LimitMEMLOCK=infinity, as the shipped unit does"),
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process stays dumpable");
    }
}

/// Locks what is in memory and what will be.
fn lock() -> Result<(), String> {
    let limit = getrlimit(Resource::Memlock);
    // Only what is lower is lifted: a filter of system calls may refuse even what would change nothing.
    let lifted = Rlimit { current: None, maximum: None };
    let unlimited =
        limit.current.is_none() || (limit.maximum.is_none() && setrlimit(Resource::Memlock, lifted).is_ok());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !unlimited && !is_capable(&status, CAP_IPC_LOCK) {
        return Err("RLIMIT_MEMLOCK is limited".to_owned());
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(|error| error.to_string())
}

/// Whether a capability is effective, by what `/proc/PID/status` says.
fn is_capable(status: &str, capability: u32) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|effective| effective >> capability & 1 == 1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_read_from_what_the_kernel_says() {
        assert!(is_capable("Name:\tx\nCapEff:\t0000000000004000\nCapBnd:\t0\n", CAP_IPC_LOCK));
        assert!(!is_capable("CapPrm:\t0000000000004000\nCapEff:\t000001ffffffbfff\n", CAP_IPC_LOCK));
        assert!(!is_capable("", CAP_IPC_LOCK));
    }
}
