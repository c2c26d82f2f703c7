//! Sealed values: which message goes under which secret, and back. The table is `docs/format.md`, section "What is
//! sealed under what"; this file is its only user in the gateway.

use super::Error;
use crate::{
    crypto::{
        envelope::{self, Envelope, Kind},
        secret::Secret,
    },
    domain::id::RowId,
    keys::{KeyStore, ValueName},
};
use prost::Message;
use zeroize::Zeroizing;

/// A message and the kind of envelope it is kept in.
pub trait Sealed: Message + Default {
    /// The envelope's kind.
    const KIND: Kind;
}

macro_rules! sealed {
    ($($message:ident => $kind:ident),* $(,)?) => {
        $(impl Sealed for crate::proto::stored::$message { const KIND: Kind = Kind::$kind; })*
    };
}

sealed! {
    Facts => Facts,
    Audio => Audio,
    Slice => Slice,
    Timeline => Timeline,
    Basis => Basis,
    TenantSettings => TenantSettings,
    TenantPolicy => TenantPolicy,
    LogRef => LogRef,
    ClientEntry => Client,
    OpenEntry => Open,
    Permission => Permission,
    InboxItem => InboxItem,
    Webhook => Webhook,
    SubscriberState => SubscriberState,
    Parked => Parked,
    Hold => Hold,
    Transition => Transition,
    Block => Block,
    Cell => Cell,
    PublishedCell => PublishedCell,
}

/// Names the one row of its kind that hangs on `row`.
pub fn name(row: RowId, kind: Kind) -> ValueName {
    ValueName { row, kind, suffix: Vec::new() }
}

/// Names one of several rows of a kind that hang on `row`.
pub fn name_with(row: RowId, kind: Kind, suffix: &[u8]) -> ValueName {
    ValueName { row, kind, suffix: suffix.to_vec() }
}

/// Seals a message for a row.
pub fn seal_as<M: Message>(kind: Kind, message: &M, secret: &Secret, name: &ValueName) -> Vec<u8> {
    let plain = Zeroizing::new(message.encode_to_vec());
    envelope::seal(kind, secret, &name.to_bytes(), &plain)
}

/// Seals a message for a row of its own kind.
pub fn seal<M: Sealed>(message: &M, secret: &Secret, name: &ValueName) -> Vec<u8> {
    seal_as(M::KIND, message, secret, name)
}

/// Opens what was read from the row `name`.
pub fn open<M: Message + Default>(bytes: &[u8], secret: &Secret, name: &ValueName) -> Result<M, Error> {
    let corrupt = |what: &str| Error::Corrupt(format!("a {:?} row {what}", name.kind));
    let envelope = Envelope::parse(bytes).map_err(|_| corrupt("is malformed"))?;
    if envelope.kind != name.kind || envelope.clear != name.to_bytes() {
        return Err(corrupt("lies under another row's name"));
    }
    let plain = envelope.open(secret).map_err(|_| corrupt("does not open"))?;
    M::decode(plain.as_slice()).map_err(|_| corrupt("does not decode"))
}

/// Reads and opens the row of this message's kind that hangs on `row`.
pub fn read<M: Sealed>(keys: &KeyStore, row: RowId, secret: &Secret) -> Result<Option<M>, Error> {
    let name = name(row, M::KIND);
    keys.value(&name)?.map(|bytes| open(&bytes, secret, &name)).transpose()
}

/// Reads and opens all rows of a kind that hang on `row`, in the order of their suffixes.
pub fn read_all<M: Message + Default>(
    keys: &KeyStore,
    row: RowId,
    kind: Kind,
    secret: &Secret,
) -> Result<Vec<(Vec<u8>, M)>, Error> {
    keys.values(row, kind)?
        .into_iter()
        .map(|(suffix, bytes)| {
            let message = open(&bytes, secret, &name_with(row, kind, &suffix))?;
            Ok((suffix, message))
        })
        .collect()
}
