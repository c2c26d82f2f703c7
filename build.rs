//! Compiles the protocol files with protox (no protoc binary) and keeps their descriptors for reflection.

use prost::Message as _;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let api = protox::compile(files("proto/quietus/v1")?, ["proto"])?;
    std::fs::write(out.join("quietus_v1.bin"), api.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".quietus.v1").compile_fds(api)?;

    let stored = protox::compile(files("proto/quietus/stored/v1")?, ["proto"])?;
    tonic_prost_build::configure().skip_debug(["."]).build_server(false).build_client(false).compile_fds(stored)?;
    Ok(())
}

/// Every protocol file of a folder, in a fixed order.
fn files(folder: impl AsRef<Path>) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    Ok(files)
}
