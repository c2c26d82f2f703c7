//! `quietus`: the gateway and its client commands in one binary. Everything is in the library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    quietus::cli::main()
}
