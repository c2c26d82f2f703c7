//! Issues recording ids and tells them from made-up ones. The layout is in [`crate::domain::id`].
//!
//! Without the tenant's secret an id is 32 bytes of noise: ids of one subscriber do not resemble each other, and nobody
//! can make one up. With it, the gateway finds the subscriber without an index and knows that it issued the id, so an id
//! with no key left is *erased* and any other is *unknown*, and no tombstone is kept.

use crate::{
    crypto::{
        label::{Label, derive},
        secret::Secret,
    },
    domain::id::{RecordingHandle, RecordingId, SubscriberHandle},
};
use subtle::ConstantTimeEq as _;

/// The id of a recording, as clients see it.
pub fn issue(tenant: &Secret, subscriber: SubscriberHandle, handle: RecordingHandle) -> RecordingId {
    let masked_subscriber = xor(subscriber.0, mask(tenant, handle));
    RecordingId { handle, masked_subscriber, check: check(tenant, handle, masked_subscriber) }
}

/// The subscriber of an id that was issued under this tenant's secret; none for any other id.
pub fn resolve(tenant: &Secret, id: RecordingId) -> Option<SubscriberHandle> {
    let expected = check(tenant, id.handle, id.masked_subscriber);
    let issued_here = bool::from(expected.ct_eq(&id.check));
    issued_here.then(|| SubscriberHandle(xor(id.masked_subscriber, mask(tenant, id.handle))))
}

fn mask(tenant: &Secret, handle: RecordingHandle) -> [u8; 8] {
    *derive(tenant.expose(), Label::RecordingIdMask, &[&handle.0])
}

fn check(tenant: &Secret, handle: RecordingHandle, masked: [u8; 8]) -> [u8; 8] {
    *derive(tenant.expose(), Label::RecordingIdCheck, &[&handle.0, &masked])
}

fn xor(a: [u8; 8], b: [u8; 8]) -> [u8; 8] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random;

    #[test]
    fn an_issued_id_leads_to_its_subscriber_under_its_tenant_only() {
        let (tenant, foreign) = (Secret::random(), Secret::random());
        let subscriber = SubscriberHandle(random());
        let id = issue(&tenant, subscriber, RecordingHandle(random()));
        assert_eq!(resolve(&tenant, id), Some(subscriber));
        assert_eq!(resolve(&foreign, id), None);
    }

    #[test]
    fn a_made_up_id_is_not_recognised() {
        let tenant = Secret::random();
        let id = issue(&tenant, SubscriberHandle(random()), RecordingHandle(random()));
        for byte in 0..32 {
            let mut bytes = id.to_bytes();
            bytes[byte] ^= 1;
            assert_eq!(resolve(&tenant, RecordingId::from_bytes(&bytes).expect("32 bytes")), None, "byte {byte}");
        }
    }
}
