//! Compiles the protocol files with protox (no protoc binary) and keeps their descriptors for reflection.

use prost::Message as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let api = protox::compile(
        [
            "quietus/v1/recording.proto",
            "quietus/v1/playback.proto",
            "quietus/v1/erasure.proto",
            "quietus/v1/tenant.proto",
        ],
        ["proto"],
    )?;
    std::fs::write(out.join("quietus_v1.bin"), api.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".quietus.v1").compile_fds(api)?;

    let stored = protox::compile(["quietus/stored/v1/stored.proto"], ["proto"])?;
    tonic_prost_build::configure().skip_debug(["."]).build_server(false).build_client(false).compile_fds(stored)?;
    Ok(())
}
