//! Generated from `proto/`: the gRPC interface ([`v1`]) and the plaintext of sealed values ([`stored`]); and the error
//! details of gRPC ([`rpc`]), declared by hand.

pub mod rpc;

/// Package `quietus.v1`: what clients and gateway say to each other.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("quietus.v1");

    /// The encoded `FileDescriptorSet` of this package, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quietus_v1.bin"));
}

/// Package `quietus.stored.v1`: what lies inside sealed values. No `Debug`: it must not reach a log.
#[allow(missing_docs, clippy::all)]
pub mod stored {
    tonic::include_proto!("quietus.stored.v1");
}
