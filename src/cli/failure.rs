//! A failure as a command ends with it: one line on standard error and an exit status.
//!
//! 1 failed · 2 wrong usage · 3 not permitted · 4 erased · 5 unknown · 6 parked or refused by a rule · 7 something is
//! overdue · 75 try again. A status with our `ErrorInfo` says itself which; one without it did not come from the gateway but
//! from the way there.

use crate::{domain::reason::Reason, proto::rpc};
use tonic::Code;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const REFUSED: u8 = 6;
const OVERDUE: u8 = 7;
const TRY_AGAIN: u8 = 75;

/// Why a command ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    /// One line: what, and what to do. Empty: nothing needs saying.
    pub message: String,
}

impl Failure {
    /// Something did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { status: FAILED, message: message.into() }
    }

    /// Something was typed wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { status: USAGE, message: message.into() }
    }

    /// A rule stands in the way.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { status: REFUSED, message: message.into() }
    }

    /// What was asked for is shown, and something in it is overdue.
    pub fn overdue(message: impl Into<String>) -> Self {
        Self { status: OVERDUE, message: message.into() }
    }

    /// The same may work later.
    pub fn try_again(message: impl Into<String>) -> Self {
        Self { status: TRY_AGAIN, message: message.into() }
    }

    /// Whether the same may work later.
    pub fn is_passing(&self) -> bool {
        self.status == TRY_AGAIN
    }

    /// Puts what it is about in front.
    pub fn about(self, what: impl std::fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// Says it.
    pub fn report(&self) {
        if !self.message.is_empty() {
            // Standard error may be closed; there is nobody left to tell then.
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "quietus: {}", self.message.replace('\n', " "));
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let reason = rpc::decode(status.details()).and_then(|info| Reason::from_word(&info.reason));
        if let Some(reason) = reason {
            return Self { status: reason.exit_status(), message: status.message().to_owned() };
        }
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::usage(status.message()),
            Code::Unimplemented => Self::failed("this gateway does not offer that"),
            _ => Self::try_again(format!("the connection to the gateway failed: {}; try again", cause(&status))),
        }
    }
}

/// The innermost cause: the outer ones only say "transport error".
fn cause(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    text
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // Whoever reads our output has seen enough.
            std::io::ErrorKind::BrokenPipe => Self::failed(""),
            _ => Self::failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rpc::ErrorInfo;

    fn status(code: Code, reason: &str) -> tonic::Status {
        let info = ErrorInfo { reason: reason.into(), domain: rpc::DOMAIN.into(), ..Default::default() };
        tonic::Status::with_details(code, "text", rpc::encode(code as i32, "text", &info).into())
    }

    #[test]
    fn exit_statuses_follow_the_reasons() {
        let table = [
            (Code::InvalidArgument, "INVALID", 2),
            (Code::Unauthenticated, "UNAUTHENTICATED", 3),
            (Code::PermissionDenied, "NOT_PERMITTED", 3),
            (Code::FailedPrecondition, "ERASED", 4),
            (Code::NotFound, "UNKNOWN", 5),
            (Code::FailedPrecondition, "PARKED", 6),
            (Code::FailedPrecondition, "FLOOR", 6),
            (Code::FailedPrecondition, "RESTRICTED", 6),
            (Code::FailedPrecondition, "REFUSED", 6),
            (Code::Aborted, "MISMATCH", 1),
            (Code::Unavailable, "TRY_AGAIN", 75),
        ];
        for (code, reason, expected) in table {
            assert_eq!(Failure::from(status(code, reason)).status, expected, "{reason}");
        }
    }

    #[test]
    fn a_status_without_our_details_comes_from_the_way_there() {
        for code in [Code::Unknown, Code::Unavailable, Code::Internal, Code::Cancelled] {
            assert!(Failure::from(tonic::Status::new(code, "broken")).is_passing(), "{code:?}");
        }
        assert_eq!(Failure::from(tonic::Status::new(Code::OutOfRange, "too large")).status, 2);
    }
}
