//! `quietus`: the gateway and its client commands in one binary. Everything is in the library.
#![forbid(unsafe_code)]

/// What is freed is wiped: buffers of the wire, of messages and of names do not stay behind in memory after an erasure.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> std::process::ExitCode {
    quietus::cli::main()
}
