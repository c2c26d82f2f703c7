//! What time an object store says it is: the `Date` header of its answers, whatever else they say.
//!
//! It comes over the same TLS as everything else, so nobody on the way makes it up; whether the store's own clock is right
//! is not known. It has whole seconds and is as old as the answer took, which is nothing against the hours that its users
//! compare.

use crate::domain::time::Timestamp;
use aws_sdk_s3::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextRef},
    error::BoxError,
};
use std::sync::{Arc, Mutex, PoisonError};

/// The date of a region's last answer. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Dates(Arc<Mutex<Option<Timestamp>>>);

impl Dates {
    /// What the last answer said.
    pub fn last(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a new answer.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn heard(&self, date: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(date);
    }
}

impl Intercept for Dates {
    fn name(&self) -> &'static str {
        "dates"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date").and_then(parse) {
            self.heard(date);
        }
        Ok(())
    }
}

/// An HTTP date, which is one of RFC 2822.
fn parse(date: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(Timestamp(date.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http_date_is_read() {
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Timestamp(784_111_777_000)));
    }

    proptest::proptest! {
        #[test]
        fn hostile_dates_never_panic(text: String) {
            let _ = parse(&text);
        }
    }
}
