//! `make demo`: the whole promise on real speech, in about a minute.
//!
//! It starts a gateway, stores a few hundred recordings of several subscribers, listens to one, has the provider's staff ask
//! the customer before they may, takes copies of everything as a thief or a backup would, erases one subscriber and one
//! single recording, verifies the receipt offline, and sets `quietus-forensics` on old and present copies together. It uses nothing but the two programs, as a person at a shell
//! would, and believes none of their words that it can check: audio is compared byte by byte with the files that were
//! sent, and what is readable is counted object by object.
//!
//! Two runs of forensics, and the second says what the first is worth: with the root slot of before, which a thief
//! cannot have any more, the erased recordings open again. It also tells which object is of which recording, so that the
//! first run is judged for every single object.
//!
//! Exit status: 0 when everything was so, 1 at the first thing that was not. Everything stays in the working folder
//! (`.demo`, or the folder given as argument) to be looked at; the next run clears it.

mod copies;
mod findings;
mod gateway;
mod recordings;
mod speech;
mod story;

use std::process::ExitCode;

fn main() -> ExitCode {
    let folder = std::env::args_os().nth(1).map_or_else(|| ".demo".into(), std::path::PathBuf::from);
    match story::tell(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo FAILED: {error:#}\nWhat there is lies in {}.", folder.display());
            ExitCode::FAILURE
        }
    }
}
