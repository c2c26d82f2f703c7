//! Identifiers. Every id is a newtype; all of them are random, so that none tells a tenant, a number, a time or an order.
//!
//! A **recording id**, as clients see it, has 32 bytes, written as 52 letters of Crockford's base32 in lower case:
//!
//! ```text
//! offset  bytes  field
//!      0     16  handle r, random
//!     16      8  subscriber handle, xor the first 8 bytes of HKDF(tenant secret, "recording id mask", r)
//!     24      8  check: HKDF(tenant secret, "recording id check", bytes 0..24), first 8 bytes
//! ```
//!
//! With the tenant's secret the gateway tells an id that it issued from one that it did not, and finds the subscriber
//! without an index; without it, ids of one subscriber look unrelated. The key derivation is in `vault::recording_id`;
//! here are the bytes and their spelling.

use data_encoding::{Encoding, Specification};
use std::{fmt, str::FromStr, sync::LazyLock};

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Bytes in this id.
            pub const LEN: usize = $len;

            /// Reads one from exactly as many bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

random_id!(
    /// A page of the key tree.
    PageId, 16
);
random_id!(
    /// Names the rows that hang on a tree entry: values, slices, journal frames. Stands in clear.
    RowId, 16
);
random_id!(
    /// One object in S3. Stands in clear.
    ObjectId, 16
);
random_id!(
    /// Placement of a tenant in the tree. Lies in sealed pages only.
    TenantHandle, 8
);
random_id!(
    /// Placement of a subscriber below its tenant. Lies in sealed pages only.
    SubscriberHandle, 8
);
random_id!(
    /// Placement of a recording below its subscriber: the random part of its id. Lies in sealed pages only.
    RecordingHandle, 16
);
random_id!(
    /// Placement of a period (a day key) below its tenant. Lies in sealed pages only.
    PeriodHandle, 8
);
random_id!(
    /// A permission to listen, from the request on. Random, so that the evidence of a listening may name it for years without
    /// telling whose recording it was.
    PermissionId, 16
);
random_id!(
    /// Names the receipt of an erasure, and the doomed rows that the erasure left. Stands in clear.
    ReceiptId, 16
);
random_id!(
    /// Names a root without telling it.
    RootId, 16
);
random_id!(
    /// Names a key store to its backups. Stands in clear.
    StoreId, 16
);
random_id!(
    /// A hold, as people name it.
    HoldId, 16
);

random_id!(
    /// Names an API key of a tenant. Stands in clear; worth nothing without the key's secret.
    ApiKeyId, 12
);

impl FromStr for HoldId {
    type Err = NotAHoldId;

    fn from_str(text: &str) -> Result<Self, NotAHoldId> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
        bytes.and_then(|bytes| Self::from_slice(&bytes)).ok_or(NotAHoldId)
    }
}

/// The text is not a hold's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hold's id has 32 hexadecimal digits")]
pub struct NotAHoldId;

/// What clients hold of a recording.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordingId {
    /// Random; places the recording below its subscriber.
    pub handle: RecordingHandle,
    /// The subscriber's handle, masked.
    pub masked_subscriber: [u8; 8],
    /// Shows that a gateway holding the tenant's secret issued this id.
    pub check: [u8; 8],
}

/// The text is not a recording id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a recording id has 52 letters and digits of Crockford's base32")]
pub struct NotARecordingId;

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    specification.translate.from.push_str("ABCDEFGHJKMNPQRSTVWXYZoOiIlL");
    specification.translate.to.push_str("abcdefghjkmnpqrstvwxyz001111");
    specification.encoding().expect("a constant specification")
});

impl RecordingId {
    /// The 32 bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.handle.0);
        bytes[16..24].copy_from_slice(&self.masked_subscriber);
        bytes[24..].copy_from_slice(&self.check);
        bytes
    }

    /// From 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            handle: RecordingHandle::from_slice(bytes.get(..16)?)?,
            masked_subscriber: bytes.get(16..24)?.try_into().ok()?,
            check: bytes.get(24..)?.try_into().ok()?,
        })
    }
}

impl FromStr for RecordingId {
    type Err = NotARecordingId;

    fn from_str(text: &str) -> Result<Self, NotARecordingId> {
        BASE32.decode(text.trim().as_bytes()).ok().and_then(|bytes| Self::from_bytes(&bytes)).ok_or(NotARecordingId)
    }
}

impl fmt::Display for RecordingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32.encode(&self.to_bytes()))
    }
}

impl fmt::Debug for RecordingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordingId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn an_id_reads_back_from_its_spelling(bytes: [u8; 32]) {
            let id = RecordingId::from_bytes(&bytes).expect("32 bytes");
            let text = id.to_string();
            proptest::prop_assert_eq!(text.len(), 52);
            proptest::prop_assert_eq!(text.parse::<RecordingId>(), Ok(id));
            proptest::prop_assert_eq!(text.to_uppercase().parse::<RecordingId>(), Ok(id));
        }

        #[test]
        fn hostile_text_never_panics(text: String) {
            let _ = text.parse::<RecordingId>();
            let _ = text.parse::<HoldId>();
        }
    }
}
