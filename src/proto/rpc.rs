//! `google.rpc.Status` and `google.rpc.ErrorInfo`: what the trailer `grpc-status-details-bin` holds. Declared by hand,
//! field for field as in googleapis, since these two messages are all we use of it.

use prost::Message as _;

/// The domain in every [`ErrorInfo`] of ours.
pub const DOMAIN: &str = "quietus";
/// Metadata of a refusal as PARKED: names the receipt that what waits will have.
pub const RECEIPT_ID: &str = "receipt_id";
/// The same: what will open that receipt, in hexadecimal digits, where the caller did not send it.
pub const SCOPE_OPENING: &str = "scope_opening";
const ERROR_INFO_TYPE: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// The gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The message for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Typed details.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// What `value` is.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Its encoding.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ErrorInfo {
    /// A word of [`crate::domain::reason::Reason`].
    #[prost(string, tag = "1")]
    pub reason: String,
    /// [`DOMAIN`].
    #[prost(string, tag = "2")]
    pub domain: String,
    /// E.g. which field is wrong. Never a value that the caller sent.
    #[prost(map = "string, string", tag = "3")]
    pub metadata: std::collections::HashMap<String, String>,
}

/// The bytes of `grpc-status-details-bin`.
pub fn encode(code: i32, message: &str, info: &ErrorInfo) -> Vec<u8> {
    let any = Any { type_url: ERROR_INFO_TYPE.into(), value: info.encode_to_vec() };
    RpcStatus { code, message: message.into(), details: vec![any] }.encode_to_vec()
}

/// Our own [`ErrorInfo`] in such bytes, where there is one.
pub fn decode(details: &[u8]) -> Option<ErrorInfo> {
    let status = RpcStatus::decode(details).ok()?;
    status
        .details
        .iter()
        .filter(|any| any.type_url == ERROR_INFO_TYPE)
        .filter_map(|any| ErrorInfo::decode(any.value.as_slice()).ok())
        .find(|info| info.domain == DOMAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_info_survives_the_trailer() {
        let info = ErrorInfo {
            reason: "INVALID".into(),
            domain: DOMAIN.into(),
            metadata: [("field".to_owned(), "tenant".to_owned())].into(),
        };
        assert_eq!(decode(&encode(3, "tenant: give a name", &info)), Some(info));
    }

    proptest::proptest! {
        #[test]
        fn hostile_details_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
