//! The library that records and ends processes (`recorder.c`), and the steps at which they are ended.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Built once by each test program.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/recorder.c");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("recorder-{}.so", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(&target).arg(source).arg("-ldl");
        assert!(compiler.status().expect("a C compiler").success(), "the recorder does not compile");
        target
    })
}

/// Whether to try much more than fits into a run of all tests.
pub fn is_full() -> bool {
    std::env::var("QUIETUS_CRASH").is_ok_and(|size| size == "full")
}

/// Where a step of a rotation, a sweep, a start or the journal begins: kinds of call, and what the file's name contains. A
/// further slot, and whatever else a rotation waits for, adds its steps here, and its syncs to those that
/// `every_sync_that_is_left_out_is_noticed` leaves out.
pub const STEPS: &[&str] = &[
    "W:slot/root", // a root is staged, or destroyed
    "S:slot/root",
    "C:keys/pending/", // the rotation's file
    "W:keys/pending/",
    "S:keys/pending/",
    "S:keys/pending$",
    "W:.log", // a batch of the key store: the rotation's, a create, a step of the sweeper
    "S:.log",
    "U:keys/pending/", // the file goes
    "S:.sst",          // a flush
    "S:MANIFEST",
    "R:keys/db",
    "W:.qtj", // the journal
    "S:.qtj",
    "S:journal$",
    "U:.qtj",
];
