//! A tenant's inbox: what the gateway has to tell the customer, until it is acknowledged or 90 days have passed.
//!
//! An item names nothing but random ids: of a permission that was asked for, or of a receipt together with the 32 bytes that
//! open its commitment (drawn here for what expired unattended; no other copy is kept). Items of a day lie under a period
//! secret of that day. It is erased after 90 days, or earlier when its day is over and everything in it was acknowledged. So an
//! acknowledged item is unreadable, in old copies too, once its day is empty; until then its row is merely gone.
//!
//! An item is written in the same command as what it is about: there is no request that nobody is told of. What it is about
//! may be erased before the item; then the item leads nowhere, and tells by its random id only that there was something.
//!
//! [`super::webhook`] delivers items; how far it got is part of the item.

use super::{Actor, Error, Inner, Permission, Vault, audit::Event, tenants::invalid, values};
use crate::{
    crypto::{envelope::Kind, random},
    domain::{
        audit::Action,
        id::{PeriodHandle, PermissionId, ReceiptId, TenantHandle},
        time::{Day, Timestamp},
    },
    keys::{Change, CommitError, Mutation, Owner, Period, Purpose, ValueName},
    proto::stored,
};
use std::{fmt, str::FromStr};

/// How long an item stays that nobody acknowledges.
pub const KEPT_DAYS: u32 = 90;
/// Most items that are acknowledged at once.
pub const MAX_ACKNOWLEDGED: usize = 1000;

/// Names an item: its day and 16 random bytes. The day is that of its period; it is told to the tenant alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct InboxId {
    day: Day,
    suffix: [u8; 16],
}

/// The text is not the id of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of an inbox item has 40 hexadecimal digits")]
pub struct NotAnInboxId;

impl fmt::Display for InboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{}", self.day.0, data_encoding::HEXLOWER.encode(&self.suffix))
    }
}

impl FromStr for InboxId {
    type Err = NotAnInboxId;

    fn from_str(text: &str) -> Result<Self, NotAnInboxId> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).map_err(|_| NotAnInboxId)?;
        let (day, suffix) = bytes.split_first_chunk::<4>().ok_or(NotAnInboxId)?;
        Ok(Self { day: Day(u32::from_be_bytes(*day)), suffix: suffix.try_into().map_err(|_| NotAnInboxId)? })
    }
}

/// What the customer is told.
pub(crate) enum Content {
    /// A permission was asked for.
    Permission(PermissionId),
    /// A receipt, and what opens its commitment.
    Receipt(ReceiptId, [u8; 32]),
}

/// An item as it is shown.
pub struct InboxItem {
    /// Its name.
    pub id: InboxId,
    /// Since when it is there.
    pub at: Timestamp,
    /// What it is about.
    pub about: InboxAbout,
}

/// What an item is about.
pub enum InboxAbout {
    /// A permission that was asked for; none where what it is about has been erased, or it ended long ago.
    Permission(PermissionId, Option<Box<Permission>>),
    /// A receipt, and the 32 bytes that open its commitment.
    Receipt(ReceiptId, Vec<u8>),
}

/// An item in its row.
pub(super) struct Kept {
    pub id: InboxId,
    pub period: PeriodHandle,
    pub name: ValueName,
    pub item: stored::InboxItem,
}

impl Vault {
    /// A page of a tenant's inbox, oldest first, and the token of the next page (empty on the last).
    ///
    /// # Errors
    /// `Unknown` tenant; `Invalid` token.
    pub async fn inbox(
        &self,
        actor: &Actor,
        tenant: &str,
        page_size: usize,
        page_token: &str,
    ) -> Result<(Vec<InboxItem>, String), Error> {
        let inner = &self.0;
        let handle = inner.find_in(&actor.scope, tenant)?;
        let after: Option<InboxId> = match page_token {
            "" => None,
            token => Some(
                token
                    .parse()
                    .map_err(|_| invalid("page_token", "send the token of the page before, or none".to_owned()))?,
            ),
        };
        let mut kept: Vec<Kept> = Vec::new();
        for period in inner.inbox_periods(handle) {
            if after.is_some_and(|after| period.day < after.day) {
                continue;
            }
            // Two periods may share a day: a page is full only where a day begins.
            if kept.len() > page_size && kept.last().is_some_and(|last| last.id.day < period.day) {
                break;
            }
            let items = inner.inbox_of(handle, &period)?;
            kept.extend(items.into_iter().filter(|kept| after.is_none_or(|after| kept.id > after)));
        }
        kept.sort_by_key(|kept| kept.id);
        let more = kept.len() > page_size;
        kept.truncate(page_size);
        let next = kept.last().filter(|_| more).map(|kept| kept.id.to_string()).unwrap_or_default();
        let mut items = Vec::with_capacity(kept.len());
        for Kept { id, item, .. } in kept {
            let about = self.about(actor, item.content).await?;
            items.extend(about.map(|about| InboxItem { id, at: Timestamp(item.at_ms), about }));
        }
        Ok((items, next))
    }

    /// Takes items out. Gives how many there were; what is not there is no failure.
    ///
    /// # Errors
    /// `Unknown` tenant; `Invalid` when there are too many at once.
    pub async fn acknowledge(&self, actor: &Actor, tenant: &str, ids: &[InboxId]) -> Result<u64, Error> {
        let inner = &self.0;
        inner.running()?;
        if ids.len() > MAX_ACKNOWLEDGED {
            return Err(invalid("ids", format!("send at most {MAX_ACKNOWLEDGED} at a time")));
        }
        let handle = inner.find_in(&actor.scope, tenant)?;
        let _alone = inner.inbox_lock.lock().await;
        let mut changes = Vec::new();
        for period in inner.inbox_periods(handle) {
            for id in ids.iter().filter(|id| id.day == period.day) {
                let name = values::name_with(period.row, Kind::InboxItem, &id.suffix);
                if inner.keys.value(&name)?.is_some() {
                    changes.push(Change::DropValue { name });
                }
            }
        }
        let taken = changes.len() as u64;
        if taken > 0 {
            changes.extend(inner.audit(actor, Event::of_tenant(Action::InboxAcknowledge, handle)).await?);
            inner.keys.commit(Mutation::new(changes)).await?;
        }
        Ok(taken)
    }
}

impl Vault {
    async fn about(
        &self,
        actor: &Actor,
        content: Option<stored::inbox_item::Content>,
    ) -> Result<Option<InboxAbout>, Error> {
        let damaged = || Error::Corrupt("an inbox row".to_owned());
        Ok(match content {
            None => None,
            Some(stored::inbox_item::Content::Permission(id)) => {
                let id = PermissionId::from_slice(&id).ok_or_else(damaged)?;
                let found = match self.permission(actor, id).await {
                    Ok(permission) => Some(Box::new(permission)),
                    Err(Error::Unknown { .. } | Error::Erased) => None,
                    Err(error) => return Err(error),
                };
                Some(InboxAbout::Permission(id, found))
            }
            Some(stored::inbox_item::Content::Receipt(receipt)) => {
                let id = ReceiptId::from_slice(&receipt.receipt).ok_or_else(damaged)?;
                Some(InboxAbout::Receipt(id, receipt.opening))
            }
        })
    }
}

impl Inner {
    /// What puts an item into a tenant's inbox, to go into the command of what it is about.
    pub(crate) async fn inbox_changes(&self, tenant: TenantHandle, content: &Content) -> Result<Vec<Change>, Error> {
        let now = self.clock.now();
        let (period, row, secret) = self.period(tenant, Purpose::Inbox, now.day()).await?;
        let item = stored::InboxItem {
            at_ms: now.0,
            content: Some(match content {
                Content::Permission(id) => stored::inbox_item::Content::Permission(id.0.to_vec()),
                Content::Receipt(id, opening) => stored::inbox_item::Content::Receipt(stored::ReceiptOpening {
                    receipt: id.0.to_vec(),
                    opening: opening.to_vec(),
                }),
            }),
            attempts: 0,
            // At once, where there is a webhook; the loop that delivers finds out.
            next_ms: now.0.max(1),
        };
        let name = values::name_with(row, Kind::InboxItem, &random::<16>());
        let envelope = values::seal(&item, &secret, &name);
        Ok(vec![Change::PutValue { owner: Owner::Period(tenant, period), name, envelope }])
    }

    /// The inbox's periods, oldest first.
    pub(super) fn inbox_periods(&self, tenant: TenantHandle) -> Vec<Period> {
        let mut periods = self.keys.periods(tenant);
        periods.retain(|period| period.purpose == Purpose::Inbox);
        periods.sort_by_key(|period| (period.day, period.handle));
        periods
    }

    /// Whether nothing is in it.
    pub(crate) fn inbox_is_empty(&self, tenant: TenantHandle) -> Result<bool, Error> {
        for period in self.inbox_periods(tenant) {
            if !self.keys.values(period.row, Kind::InboxItem)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The items of a period.
    pub(super) fn inbox_of(&self, tenant: TenantHandle, period: &Period) -> Result<Vec<Kept>, Error> {
        let Some(holder) = self.keys.period(tenant, period.handle)? else { return Ok(Vec::new()) };
        let items: Vec<(_, stored::InboxItem)> =
            values::read_all(&self.keys, holder.row, Kind::InboxItem, &holder.secret)?;
        Ok(items
            .into_iter()
            .filter_map(|(suffix, item)| {
                let id = InboxId { day: period.day, suffix: suffix.as_slice().try_into().ok()? };
                let name = values::name_with(holder.row, Kind::InboxItem, &suffix);
                Some(Kept { id, period: period.handle, name, item })
            })
            .collect())
    }

    /// Rewrites an item, if it is still there: one that was acknowledged does not come back.
    pub(super) async fn rewrite_item(&self, tenant: TenantHandle, kept: &Kept) -> Result<(), Error> {
        let _alone = self.inbox_lock.lock().await;
        let Some(holder) = self.keys.period(tenant, kept.period)? else { return Ok(()) };
        if self.keys.value(&kept.name)?.is_none() {
            return Ok(());
        }
        let envelope = values::seal(&kept.item, &holder.secret, &kept.name);
        let owner = Owner::Period(tenant, kept.period);
        let change = Change::PutValue { owner, name: kept.name.clone(), envelope };
        match self.keys.commit(Mutation::new(vec![change])).await {
            Ok(_) | Err(CommitError::Gone) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an inbox period may go: its time is over, or its day is and nothing is left in it.
    pub(crate) fn inbox_is_over(&self, period: &Period, today: Day) -> Result<bool, Error> {
        let over = period.day.0.saturating_add(KEPT_DAYS) < today.0;
        Ok(over || (period.day < today && self.keys.values(period.row, Kind::InboxItem)?.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn an_items_id_reads_back_and_hostile_text_never_panics(day: u32, suffix: [u8; 16], text: String) {
            let id = InboxId { day: Day(day), suffix };
            proptest::prop_assert_eq!(id.to_string().parse(), Ok(id));
            let _ = text.parse::<InboxId>();
        }
    }
}
