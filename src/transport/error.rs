//! The one place where an error becomes a code: gRPC status with `google.rpc.ErrorInfo`, or HTTP status with a small JSON
//! body. Handlers return [`Problem`] and never choose a code themselves.
//!
//! | reason | gRPC | HTTP |
//! |---|---|---|
//! | INVALID | INVALID_ARGUMENT | 400 |
//! | OUT_OF_RANGE | OUT_OF_RANGE | 416 |
//! | UNAUTHENTICATED | UNAUTHENTICATED | 401 |
//! | NOT_PERMITTED | PERMISSION_DENIED | 403 |
//! | ERASED | FAILED_PRECONDITION | 410 |
//! | UNKNOWN | NOT_FOUND | 404 |
//! | EXISTS | ALREADY_EXISTS | 409 |
//! | TAKEN_OVER, MISMATCH | ABORTED | 409 |
//! | CORRUPT | DATA_LOSS | 500 |
//! | REFUSED, PARKED, FLOOR | FAILED_PRECONDITION | 409 |
//! | RESTRICTED | FAILED_PRECONDITION | 403 |
//! | TRY_AGAIN | UNAVAILABLE | 503 |
//! | INTERNAL | INTERNAL | 500 |
//!
//! *Erased* is kept apart from *unknown* in the code too: a client that only looks at codes must not take "its key has
//! been destroyed" for "try another id". What broke inside is logged here, where it is handled, and not told to the
//! caller. No message repeats a value that the caller sent.

use super::auth::Denied;
use crate::{
    domain::reason::Reason,
    proto::rpc::{self, ErrorInfo},
    vault::{Error, Promised},
};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use http::{HeaderValue, StatusCode, header};
use std::collections::HashMap;
use tonic::{Code, Status};

/// A refusal on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// For machines.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Which field of the request, where one is to blame.
    pub field: Option<&'static str>,
    /// The receipt that what waits will have.
    pub receipt: Option<Promised>,
}

impl Problem {
    /// A field of the request is wrong.
    pub fn invalid(field: &'static str, remedy: impl Into<String>) -> Self {
        Self {
            reason: Reason::Invalid,
            message: format!("{field}: {}", remedy.into()),
            field: Some(field),
            receipt: None,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let field = match &error {
            Error::Invalid { field, .. } | Error::Mismatch { field, .. } => Some(*field),
            Error::NoRate | Error::OutOfRange { .. } => Some("range"),
            _ => None,
        };
        let receipt = match &error {
            Error::Parked { receipt, .. } => *receipt,
            _ => None,
        };
        let reason = match &error {
            Error::Invalid { .. } | Error::NoRate => Reason::Invalid,
            Error::OutOfRange { .. } => Reason::OutOfRange,
            Error::Unknown { .. } => Reason::Unknown,
            Error::Erased => Reason::Erased,
            Error::Exists => Reason::Exists,
            Error::TakenOver => Reason::TakenOver,
            Error::Mismatch { .. } => Reason::Mismatch,
            Error::Busy | Error::Idle | Error::JournalFull | Error::Storage(_) | Error::Stopping => Reason::TryAgain,
            Error::Corrupt(_) => Reason::Corrupt,
            Error::NotPermitted { .. } => Reason::NotPermitted,
            Error::Refused { .. } => Reason::Refused,
            Error::Parked { .. } => Reason::Parked,
            Error::Floor { .. } => Reason::Floor,
            Error::Restricted => Reason::Restricted,
            Error::Internal(_) => Reason::Internal,
        };
        let message = match &error {
            Error::Internal(_) => {
                tracing::error!(%error, "a request failed inside the gateway");
                "something broke inside the gateway; its log says what".to_owned()
            }
            Error::Corrupt(_) => {
                tracing::error!(%error, "stored bytes fail authentication");
                error.to_string()
            }
            Error::Storage(_) => {
                tracing::warn!(%error, "object storage failed a request");
                "object storage is not available; try again later".to_owned()
            }
            _ => error.to_string(),
        };
        Self { reason, message, field, receipt }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let reason = match denied {
            Denied::Nobody | Denied::NotKnown | Denied::Token(_) | Denied::Revoked => Reason::Unauthenticated,
            Denied::Role { .. } | Denied::PermissionNeeded => Reason::NotPermitted,
            Denied::Tenant | Denied::Subscriber => Reason::Unknown,
            Denied::IssuerAway | Denied::SwitchBusy => Reason::TryAgain,
        };
        Self { reason, message: denied.to_string(), field: None, receipt: None }
    }
}

/// A task of ours ended by a panic or was cut off by the end of the process.
impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Self {
        Error::Internal(error.to_string()).into()
    }
}

fn codes(reason: Reason) -> (Code, StatusCode) {
    match reason {
        Reason::Invalid => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
        Reason::OutOfRange => (Code::OutOfRange, StatusCode::RANGE_NOT_SATISFIABLE),
        Reason::Unauthenticated => (Code::Unauthenticated, StatusCode::UNAUTHORIZED),
        Reason::NotPermitted => (Code::PermissionDenied, StatusCode::FORBIDDEN),
        Reason::Erased => (Code::FailedPrecondition, StatusCode::GONE),
        Reason::Unknown => (Code::NotFound, StatusCode::NOT_FOUND),
        Reason::Exists => (Code::AlreadyExists, StatusCode::CONFLICT),
        Reason::TakenOver | Reason::Mismatch => (Code::Aborted, StatusCode::CONFLICT),
        Reason::Corrupt => (Code::DataLoss, StatusCode::INTERNAL_SERVER_ERROR),
        Reason::Refused | Reason::Parked | Reason::Floor => (Code::FailedPrecondition, StatusCode::CONFLICT),
        Reason::Restricted => (Code::FailedPrecondition, StatusCode::FORBIDDEN),
        Reason::TryAgain => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        Reason::Internal => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let (code, _) = codes(problem.reason);
        let mut metadata = HashMap::new();
        metadata.extend(problem.field.map(|field| ("field".to_owned(), field.to_owned())));
        if let Some(receipt) = problem.receipt {
            metadata.insert(rpc::RECEIPT_ID.to_owned(), receipt.id.to_string());
            metadata.extend(receipt.opening.map(|it| (rpc::SCOPE_OPENING.to_owned(), HEXLOWER.encode(&it))));
        }
        let info = ErrorInfo { reason: problem.reason.word().into(), domain: rpc::DOMAIN.into(), metadata };
        let details = rpc::encode(code as i32, &problem.message, &info);
        Status::with_details(code, problem.message, details.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (_, status) = codes(self.reason);
        let body = serde_json::json!({ "reason": self.reason.word(), "message": self.message });
        let mut response = (status, format!("{body}\n")).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.reason {
            Reason::Unauthenticated => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Reason::TryAgain => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erased_and_unknown_are_told_apart_by_every_code() {
        let erased = Status::from(Problem::from(Error::Erased));
        let unknown = Status::from(Problem::from(Error::Unknown { what: "recording" }));
        assert_eq!((erased.code(), unknown.code()), (Code::FailedPrecondition, Code::NotFound));
        assert_eq!(Problem::from(Error::Erased).into_response().status(), StatusCode::GONE);
        assert_eq!(rpc::decode(erased.details()).map(|info| info.reason), Some("ERASED".into()));
        assert_eq!(rpc::decode(unknown.details()).map(|info| info.reason), Some("UNKNOWN".into()));
    }

    #[test]
    fn a_wrong_field_is_named_in_the_metadata() {
        let status = Status::from(Problem::from(Error::Invalid { field: "media_type", remedy: "give one".into() }));
        let info = rpc::decode(status.details()).expect("details");
        assert_eq!(info.metadata.get("field").map(String::as_str), Some("media_type"));
        assert_eq!(status.message(), "media_type: give one");
    }

    #[test]
    fn what_broke_inside_is_not_told_to_the_caller() {
        for error in [Error::Internal("row 17".into()), Error::Storage("row 17".into())] {
            assert!(!Problem::from(error).message.contains("17"));
        }
    }

    #[test]
    fn a_foreign_tenant_reads_exactly_like_one_that_is_not_there() {
        let foreign = Problem::from(Denied::Tenant);
        let absent = Problem::from(Error::Unknown { what: "tenant" });
        assert_eq!(foreign, absent);
    }
}
