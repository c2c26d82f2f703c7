//! What the SDK says, as a [`StoreError`]: gone, away, or refused. Codes and statuses only, never S3's messages.

use super::StoreError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use std::fmt;

/// Which request it was; for the error's text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Put,
    Get,
    Head,
    Delete,
    List,
    Bucket,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Put => "put",
            Verb::Get => "get",
            Verb::Head => "head",
            Verb::Delete => "delete",
            Verb::List => "list versions",
            Verb::Bucket => "look at the bucket",
        })
    }
}

pub(super) fn store_error<E: ProvideErrorMetadata>(verb: Verb, error: SdkError<E, HttpResponse>) -> StoreError {
    match &error {
        SdkError::ServiceError(context) => {
            let status = context.raw().status().as_u16();
            let code = code(context.err());
            let text = format!("{verb}: status {status}, {code}");
            match (status, code) {
                // A bucket that is missing must not look like an object that is.
                (404, "NoSuchBucket") => StoreError::Refused(text),
                (404, _) => StoreError::NotFound,
                (429, _) | (_, "RequestTimeout" | "SlowDown" | "ThrottlingException" | "RequestTimeTooSkewed") => {
                    StoreError::Unavailable(text)
                }
                (501, _) => StoreError::Refused(text),
                (500.., _) => StoreError::Unavailable(text),
                _ => StoreError::Refused(text),
            }
        }
        SdkError::TimeoutError(_) => StoreError::Unavailable(format!("{verb}: no answer in time")),
        SdkError::DispatchFailure(context) if context.is_timeout() => {
            StoreError::Unavailable(format!("{verb}: no connection in time"))
        }
        SdkError::DispatchFailure(context) if context.is_io() => {
            StoreError::Unavailable(format!("{verb}: no connection"))
        }
        SdkError::DispatchFailure(_) => StoreError::Unavailable(format!(
            "{verb}: the request could not be sent (credentials, certificate or network)"
        )),
        SdkError::ResponseError(_) => StoreError::Unavailable(format!("{verb}: the answer is not S3's")),
        _ => StoreError::Refused(format!("{verb}: the request could not be made")),
    }
}

/// The store does not know this operation at all (s3s-fs and versions, for one).
pub(super) fn is_not_implemented<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_some_and(|response| matches!(response.status().as_u16(), 405 | 501))
        || error.as_service_error().is_some_and(|error| error.code() == Some("NotImplemented"))
}

/// S3's error code, if it looks like one: a server we do not know could put anything there.
fn code(error: &impl ProvideErrorMetadata) -> &str {
    match error.code() {
        Some(code) if code.len() <= 48 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()) => code,
        _ => "no code",
    }
}
