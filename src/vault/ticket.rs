//! Tickets: a URL for one recording and one listener, so that an `<audio>` element, which sends neither certificate nor
//! token of its own, can play it.
//!
//! # What a ticket is
//!
//! 32 random bytes, in memory as their SHA-256 only: a restart voids all of them. It stands for the one who asked for it and
//! opens nothing by itself: *every* request under it passes the gate again as that listener, in a session of its own, logged
//! before its first byte. So a permission that was revoked or has run out, a restriction and an erasure end it like any other
//! playback.
//!
//! - It must be used within a minute. The first request *starts* it and ties it to the address that it comes from; requests
//!   from another address are answered like requests with a made-up ticket.
//! - An element that plays and seeks sends several requests, over several connections. They go on until the session ends: twice
//!   the length of the recording, at least ten minutes and at most four hours after the start.
//! - It never outlives what proved the listener's name ([`Proof`]). Where that is taken back (a line of the identities file, an
//!   API key) the ticket is void, and what plays under it is cut. A signed token is taken back by nobody before it expires,
//!   so the session ends then at the latest: who listens for longer gets another ticket with another token.
//!
//! # What a ticket does not stop
//!
//! Somebody who gets the URL in time and shares the listener's address (a household, an office behind one address, a proxy
//! before the gateway) hears the same recording while the session lasts, and the log names the listener who asked for the
//! ticket. Cookies would not change that for somebody who has the URL first, and an element sends none to another origin. So
//! the URL is short-lived, is never logged by the gateway, and is answered with `Referrer-Policy: no-referrer`.

use super::{
    Actor, Error, Hearing, Inner, PlayRange, Playback, Vault,
    audit::{About, Detail, Event},
    playback::LOOK,
};
use crate::{
    crypto::random,
    domain::{
        audit::{Action, Outcome},
        id::{PermissionId, RecordingId},
        time::Timestamp,
    },
    keys::RecordingPath,
};
use data_encoding::BASE64URL_NOPAD;
use ring::digest;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// For the first request to come.
pub const START_WITHIN_MS: i64 = 60_000;
/// Bounds on a session: see the head of this file.
const SHORTEST_MS: i64 = 10 * 60_000;
const LONGEST_MS: i64 = 4 * 3_600_000;
/// Where the media type does not tell: what a slow codec takes, so that the session is rather too long.
pub(crate) const SLOW_BYTES_PER_SECOND: f64 = 1000.0;
/// Tickets at one time, of one tenant's recordings, and of one listener.
const MOST: usize = 4096;
const MOST_OF_TENANT: usize = MOST / 4;
const MOST_OF_ONE: usize = 64;

/// What proved somebody's name, as far as it can end. By default it does not.
#[derive(Clone, Default)]
pub struct Proof {
    /// Cancelled when it is taken back.
    pub alive: CancellationToken,
    /// Good before this moment.
    pub until: Option<Timestamp>,
}

/// A ticket, for the one who asked. The token is told once.
pub struct Ticket {
    /// What stands in the URL.
    pub token: String,
    /// The first request must come before.
    pub start_before: Timestamp,
    /// How long it may be played from the first request on.
    pub session_ms: i64,
}

struct Issued {
    actor: Actor,
    proof: Proof,
    id: RecordingId,
    path: RecordingPath,
    start_before: Timestamp,
    session_ms: i64,
    started: Option<(IpAddr, Timestamp)>,
}

impl Issued {
    fn ends(&self) -> Timestamp {
        let over = self.started.map_or(self.start_before, |(_, at)| at.plus_ms(self.session_ms));
        self.proof.until.map_or(over, |until| over.min(until))
    }

    fn stands(&self, now: Timestamp) -> bool {
        now < self.ends() && !self.proof.alive.is_cancelled()
    }
}

/// Whoever shows a ticket: as who, what, and while what holds.
struct Shown {
    actor: Actor,
    id: RecordingId,
    proof: Proof,
}

/// Every ticket, by the hash of its token.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<HashMap<[u8; 32], Issued>>);

impl Tickets {
    fn issued(&self) -> MutexGuard<'_, HashMap<[u8; 32], Issued>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issue(&self, ticket: Issued, now: Timestamp) -> Result<String, Error> {
        let mut issued = self.issued();
        issued.retain(|_, other| other.stands(now));
        let of_one = issued.values().filter(|other| other.actor.name == ticket.actor.name).count();
        let of_tenant = issued.values().filter(|other| other.path.tenant == ticket.path.tenant).count();
        if issued.len() >= MOST || of_tenant >= MOST_OF_TENANT || of_one >= MOST_OF_ONE {
            return Err(Error::Busy);
        }
        let token = BASE64URL_NOPAD.encode(&random::<32>());
        issued.insert(hash(&token), ticket);
        Ok(token)
    }

    /// Drops those of some recordings.
    pub(super) fn drop_of(&self, gone: impl Fn(&RecordingPath) -> bool) {
        self.issued().retain(|_, ticket| !gone(&ticket.path));
    }

    /// Who listens to what and until when. The first use starts it.
    fn admit(&self, token: &str, from: IpAddr, now: Timestamp) -> Result<Shown, Error> {
        let unknown = || Error::Unknown { what: "ticket" };
        let from = from.to_canonical();
        let mut issued = self.issued();
        let ticket = issued.get_mut(&hash(token)).filter(|ticket| ticket.stands(now)).ok_or_else(unknown)?;
        let (address, _) = *ticket.started.get_or_insert((from, now));
        if address != from {
            return Err(unknown());
        }
        let proof = Proof { alive: ticket.proof.alive.clone(), until: Some(ticket.ends()) };
        Ok(Shown { actor: ticket.actor.clone(), id: ticket.id, proof })
    }
}

fn hash(token: &str) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// How long a session may last.
fn session_ms(seconds: f64) -> i64 {
    ((seconds * 2000.0) as i64).clamp(SHORTEST_MS, LONGEST_MS)
}

impl Vault {
    /// Resolves when what proved a name is taken back, or its time is up.
    pub async fn proof_ends(&self, proof: Proof) {
        let time_is_up = async {
            match proof.until {
                Some(until) => {
                    while self.now() < until {
                        tokio::time::sleep(LOOK).await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = proof.alive.cancelled() => {}
            () = time_is_up => {}
        }
    }

    /// A ticket for somebody who may hear the recording now, good while the proof of the name stands.
    ///
    /// # Errors
    /// As for a playback; `Busy` when too many tickets are out.
    pub async fn ticket(&self, actor: &Actor, proof: Proof, id: RecordingId) -> Result<Ticket, Error> {
        let inner = &self.0;
        inner.running()?;
        let path = inner.locate(&actor.scope, id)?.path;
        let now = inner.clock.now();
        let grant = match inner.may_hear(actor, path, now) {
            Ok(grant) => grant,
            Err(error) => return Err(inner.refused(actor, path, Action::TicketIssue, None, error).await),
        };
        let left = proof.until.map_or(LONGEST_MS, |until| until.0.saturating_sub(now.0));
        let session_ms = session_ms(inner.seconds_of(path).await?).min(left);
        inner.log_ticket(actor, path, grant.id()).await?;
        let start_before = now.plus_ms(START_WITHIN_MS);
        let ticket = Issued { actor: actor.clone(), proof, id, path, start_before, session_ms, started: None };
        Ok(Ticket { token: inner.tickets.issue(ticket, now)?, start_before, session_ms })
    }

    /// Plays what a ticket is for. A ticket that is made up, too late, over, or another listener's is *unknown*.
    ///
    /// # Errors
    /// `Unknown`; and as for a playback.
    pub async fn play_ticket(&self, token: &str, from: IpAddr, range: PlayRange) -> Result<Playback, Error> {
        let inner = &self.0;
        let Shown { actor, id, proof } = inner.tickets.admit(token, from, inner.clock.now())?;
        inner.begin(&actor, id, range, Hearing { transport: "ticket", download: false }, proof).await
    }
}

impl Inner {
    /// Writes that a ticket was given out.
    async fn log_ticket(&self, actor: &Actor, at: RecordingPath, grant: Option<PermissionId>) -> Result<(), Error> {
        let event = Event {
            action: Action::TicketIssue,
            about: About::Audio(at),
            grant: grant.map(|grant| grant.0),
            outcome: Outcome::Done,
            detail: Detail::default(),
        };
        self.log_first(actor, event).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::id::{RecordingHandle, SubscriberHandle, TenantHandle},
        vault::{ActorRole, Scope},
    };

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn ticket(name: &str) -> Issued {
        ticket_of(TenantHandle(random()), name)
    }

    fn ticket_of(tenant: TenantHandle, name: &str) -> Issued {
        let actor = Actor {
            name: name.to_owned(),
            on_behalf_of: None,
            role: ActorRole::Staff,
            scope: Scope::All,
            subscriber: None,
        };
        let id = RecordingId::from_bytes(&random::<32>()).expect("32 bytes");
        let path =
            RecordingPath { tenant, subscriber: SubscriberHandle(random()), recording: RecordingHandle(random()) };
        let start_before = NOW.plus_ms(START_WITHIN_MS);
        Issued { actor, proof: Proof::default(), id, path, start_before, session_ms: SHORTEST_MS, started: None }
    }

    #[test]
    fn no_tenant_takes_more_than_a_quarter_of_the_tickets() {
        let (tickets, tenant) = (Tickets::default(), TenantHandle(random()));
        let of = |tenant, n: usize| tickets.issue(ticket_of(tenant, &format!("subscriber/{n}")), NOW);
        for n in 0..MOST_OF_TENANT {
            of(tenant, n).expect("room");
        }
        assert!(matches!(of(tenant, MOST), Err(Error::Busy)));
        of(TenantHandle(random()), MOST).expect("another tenant's share is its own");
    }

    #[test]
    fn a_ticket_starts_within_a_minute_or_never() {
        let tickets = Tickets::default();
        let token = tickets.issue(ticket("staff/sam"), NOW).expect("issued");
        assert!(tickets.admit(&token, address(1), NOW.plus_ms(START_WITHIN_MS)).is_err());
        let last = NOW.plus_ms(START_WITHIN_MS - 1);
        let Shown { actor, proof, .. } = tickets.admit(&token, address(1), last).expect("in time");
        assert_eq!((actor.name.as_str(), proof.until), ("staff/sam", Some(last.plus_ms(SHORTEST_MS))));
    }

    #[test]
    fn a_ticket_is_one_listeners_until_its_session_ends() {
        let tickets = Tickets::default();
        let token = tickets.issue(ticket("staff/sam"), NOW).expect("issued");
        for at in [0, 1, START_WITHIN_MS * 2, SHORTEST_MS - 1] {
            assert!(tickets.admit(&token, address(1), NOW.plus_ms(at)).is_ok(), "{at}");
            assert!(tickets.admit(&token, address(2), NOW.plus_ms(at)).is_err(), "{at}");
        }
        // The same listener by the mapped spelling of the address.
        assert!(tickets.admit(&token, "::ffff:192.0.2.1".parse().expect("an address"), NOW).is_ok());
        assert!(tickets.admit(&token, address(1), NOW.plus_ms(SHORTEST_MS)).is_err(), "a use does not prolong it");
    }

    #[test]
    fn a_made_up_ticket_is_unknown_and_the_token_is_not_kept() {
        let tickets = Tickets::default();
        let token = tickets.issue(ticket("staff/sam"), NOW).expect("issued");
        for wrong in ["", "x", &token[1..], &format!("{token}=")] {
            assert!(matches!(tickets.admit(wrong, address(1), NOW), Err(Error::Unknown { what: "ticket" })));
        }
        assert!(!tickets.issued().contains_key(token.as_bytes().get(..32).expect("long enough")));
    }

    #[test]
    fn a_ticket_does_not_outlive_what_proved_the_listeners_name() {
        let tickets = Tickets::default();
        let until = NOW.plus_ms(90_000);
        let signed = Issued { proof: Proof { until: Some(until), ..Proof::default() }, ..ticket("staff/sam") };
        let token = tickets.issue(signed, NOW).expect("issued");
        assert_eq!(tickets.admit(&token, address(1), NOW).expect("good").proof.until, Some(until));
        assert!(tickets.admit(&token, address(1), until.plus_ms(-1)).is_ok());
        assert!(tickets.admit(&token, address(1), until).is_err());

        let listed = ticket("staff/sam");
        let alive = listed.proof.alive.clone();
        let token = tickets.issue(listed, NOW).expect("issued");
        assert!(tickets.admit(&token, address(1), NOW).is_ok());
        alive.cancel();
        assert!(matches!(tickets.admit(&token, address(1), NOW), Err(Error::Unknown { what: "ticket" })));
        tickets.issue(ticket("staff/kim"), until).expect("issued");
        assert_eq!(tickets.issued().len(), 1, "what is void makes room");
    }

    #[test]
    fn tickets_are_bounded_and_make_room_when_they_end() {
        let tickets = Tickets::default();
        for _ in 0..MOST_OF_ONE {
            tickets.issue(ticket("staff/sam"), NOW).expect("issued");
        }
        assert!(matches!(tickets.issue(ticket("staff/sam"), NOW), Err(Error::Busy)));
        assert!(tickets.issue(ticket("staff/kim"), NOW).is_ok());
        let later = NOW.plus_ms(START_WITHIN_MS);
        assert!(tickets.issue(Issued { start_before: later.plus_ms(1), ..ticket("staff/sam") }, later).is_ok());
        assert_eq!(tickets.issued().len(), 1);
    }

    #[test]
    fn a_session_is_as_long_as_it_takes_to_listen_twice() {
        assert_eq!(session_ms(3600.0), 2 * 3_600_000);
        assert_eq!((session_ms(0.0), session_ms(1e9)), (SHORTEST_MS, LONGEST_MS));
        assert_eq!((session_ms(f64::NAN), session_ms(f64::INFINITY)), (SHORTEST_MS, LONGEST_MS));
    }
}
