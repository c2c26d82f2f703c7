//! Webhooks: tells a tenant's own server that something lies in its inbox. Ids and a time, nothing else.
//!
//! The inbox is what counts; a webhook only says that it is worth a look. So deliveries need no queue of their own: how often
//! an item was tried, and when next, is part of the item, durable with it, and gone with it. A delivery that fails is tried
//! again, ever more slowly, for about a day, then given up; the item stays. A receiver may see an item twice (the gateway
//! stopped between the delivery and the row that says so) and tells by the item's id.
//!
//! # What is sent
//!
//! `POST` of `{"event":…,"item":…,"id":…,"time":…}`: `permission.requested` or `receipt.ready`, the id of the inbox item, the
//! id of the permission or receipt, RFC 3339. The header `quietus-signature: t=SECONDS,v1=HEX` holds the time of sending and
//! HMAC-SHA256(secret, `SECONDS.` ‖ body); a receiver refuses what is older than a few minutes, so nothing can be replayed.
//! The secret is drawn here and shown once.
//!
//! # Whom the gateway talks to
//!
//! The URL comes from a tenant, so it is the way for somebody outside to have the gateway ask something inside (SSRF). Only
//! `https`, TLS 1.3, with a certificate of a known authority; no redirect is followed, no answer is read or shown. The address
//! must be a public one: literals are checked here, and names *when they are resolved for the connection*, so that a name
//! which changes its address after it was checked gains nothing. `allow_private` in the configuration lifts the last rule, for
//! gateways whose customers are inside.

use super::{Actor, Error, Inner, Vault, audit::Event, inbox::Kept, permission::At, tenants::invalid, values};
use crate::{
    crypto::{envelope::Kind, random},
    domain::{
        audit::Action,
        id::{PermissionId, ReceiptId, TenantHandle},
        time::Timestamp,
    },
    keys::{Change, Holder, Mutation, Owner},
    proto::stored,
};
use bytes::Bytes;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use http::{Request, Uri, header};
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use ring::hmac;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet};

/// How webhooks are reached.
#[derive(Clone, Debug, Default)]
pub struct WebhookConfig {
    /// Who signs the certificates of receivers, instead of the system's authorities (PEM).
    pub ca_pem: Option<Vec<u8>>,
    /// Whether a receiver may have an address that is not public.
    pub allow_private: bool,
}

/// For a whole delivery, connecting included.
const WITHIN: Duration = Duration::from_secs(10);
/// Receivers spoken to at one time.
const AT_ONCE: usize = 16;
/// After so many attempts a delivery is given up: about a day.
const ATTEMPTS: u32 = 14;
/// The first pause after a failure, and the longest.
const PAUSES_MS: (i64, i64) = (10_000, 4 * 3_600_000);
/// Items older than this are not delivered any more.
const DAYS: u32 = 2;
/// Between two looks.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
const MAX_URL: usize = 1024;

/// A webhook as it is shown; its secret was shown once.
pub struct Webhook {
    /// Where it goes.
    pub url: String,
    /// Since when.
    pub set: Timestamp,
    /// Who set it.
    pub set_by: String,
}

/// What sends.
pub(crate) struct Webhooks {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    allow_private: bool,
}

impl Webhooks {
    /// Prepares TLS.
    pub(crate) fn new(config: &WebhookConfig) -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Internal(format!("webhooks: {error}"));
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| failed(&error))?;
        let builder = match &config.ca_pem {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|error| failed(&error))?;
                    roots.add(certificate).map_err(|error| failed(&error))?;
                }
                builder.with_root_certificates(roots)
            }
            // A machine without authorities has no webhooks, and everything else.
            None => match builder.clone().with_native_roots() {
                Ok(builder) => builder,
                Err(_) => builder.with_root_certificates(RootCertStore::empty()),
            },
        };
        let allow_private = config.allow_private;
        let mut http = HttpConnector::new_with_resolver(Resolver { allow_private });
        http.enforce_http(false);
        http.set_connect_timeout(Some(WITHIN / 2));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(builder.with_no_client_auth())
            .https_only()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https);
        Ok(Self { client, allow_private })
    }

    /// Whether the receiver took it.
    async fn post(&self, hook: &stored::Webhook, body: String, now: Timestamp) -> bool {
        let Ok(uri) = target(&hook.url, self.allow_private) else { return false };
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "quietus")
            .header("quietus-signature", signature(&hook.secret, now.0.div_euclid(1000), &body))
            .body(Full::new(Bytes::from(body)));
        let Ok(request) = request else { return false };
        let answer = tokio::time::timeout(WITHIN, self.client.request(request)).await;
        matches!(answer, Ok(Ok(answer)) if answer.status().is_success())
    }
}

/// The signature header.
fn signature(secret: &[u8], seconds: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, format!("{seconds}.{body}").as_bytes());
    format!("t={seconds},v1={}", HEXLOWER.encode(tag.as_ref()))
}

/// Reads a URL that the gateway may be told to talk to.
fn target(url: &str, allow_private: bool) -> Result<Uri, Error> {
    let refuse = |remedy: &str| invalid("url", remedy.to_owned());
    if url.len() > MAX_URL {
        return Err(refuse("at most 1024 bytes"));
    }
    let uri: Uri = url.parse().map_err(|_| refuse("send an https URL"))?;
    let (Some(host), Some("https")) = (uri.host(), uri.scheme_str()) else {
        return Err(refuse("send an https URL"));
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refuse("leave user name and password out of the URL"));
    }
    let literal: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    if literal.is_some_and(|address| !allow_private && !is_public(address)) {
        return Err(refuse("the receiver needs a public address"));
    }
    Ok(uri)
}

/// Whether an address belongs to the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocols = (a, b, c) == (192, 0, 0);
    let relays = (a, b, c) == (192, 88, 99);
    let benchmarks = a == 198 && (b == 18 || b == 19);
    !(a == 0
        || a >= 240
        || shared
        || protocols
        || relays
        || benchmarks
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

/// Only what is given out for the public internet, and of that nothing which wraps an address of version 4: the packets
/// would go there.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let given_out = (a & 0xe000) == 0x2000;
    let teredo_and_other_protocols = a == 0x2001 && b < 0x0200;
    let documentation = (a == 0x2001 && b == 0x0db8) || (a & 0xfff0) == 0x3ff0;
    let six_to_four = a == 0x2002;
    given_out && !teredo_and_other_protocols && !documentation && !six_to_four
}

/// Resolves names for a connection. One address that is not public spoils the name.
#[derive(Clone)]
struct Resolver {
    allow_private: bool,
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if allow_private || found.iter().all(|address| is_public(address.ip())) {
                Ok(found.into_iter())
            } else {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "the receiver has no public address"))
            }
        })
    }
}

impl Vault {
    /// Sets where a tenant is told of its inbox, and gives the secret that signs: it is not shown again.
    ///
    /// # Errors
    /// `Unknown` tenant; `NotPermitted` for who is not the customer; `Invalid` URL.
    pub async fn set_webhook(&self, actor: &Actor, tenant: &str, url: &str) -> Result<String, Error> {
        let inner = &self.0;
        inner.running()?;
        let handle = inner.find_in(&actor.scope, tenant)?;
        inner.may_decide(actor, At::Tenant(handle))?;
        target(url, inner.webhooks.allow_private)?;
        let holder = inner.tenant_holder(handle)?;
        let secret = format!("whsec_{}", BASE64URL_NOPAD.encode(&random::<32>()));
        let hook = stored::Webhook {
            url: url.to_owned(),
            secret: secret.clone().into_bytes(),
            set_ms: inner.clock.now().0,
            set_by: actor.name.clone(),
        };
        let name = values::name(holder.row, Kind::Webhook);
        let envelope = values::seal(&hook, &holder.secret, &name);
        let mut changes = vec![Change::PutValue { owner: Owner::Tenant(handle), name, envelope }];
        changes.extend(inner.audit(actor, Event::of_tenant(Action::WebhookSet, handle)).await?);
        inner.keys.commit(Mutation::new(changes)).await?;
        inner.webhook_wake.notify_one();
        Ok(secret)
    }

    /// A tenant's webhook.
    ///
    /// # Errors
    /// `Unknown` tenant.
    pub fn webhook(&self, actor: &Actor, tenant: &str) -> Result<Option<Webhook>, Error> {
        let handle = self.0.find_in(&actor.scope, tenant)?;
        let hook = self.0.hook(handle)?;
        Ok(hook.map(|hook| Webhook { url: hook.url, set: Timestamp(hook.set_ms), set_by: hook.set_by }))
    }

    /// Takes a webhook away. Gives whether there was one.
    ///
    /// # Errors
    /// `Unknown` tenant; `NotPermitted` for who is not the customer.
    pub async fn remove_webhook(&self, actor: &Actor, tenant: &str) -> Result<bool, Error> {
        let inner = &self.0;
        inner.running()?;
        let handle = inner.find_in(&actor.scope, tenant)?;
        inner.may_decide(actor, At::Tenant(handle))?;
        let name = values::name(inner.tenant_holder(handle)?.row, Kind::Webhook);
        let there = inner.keys.value(&name)?.is_some();
        if there {
            let mut changes = vec![Change::DropValue { name }];
            changes.extend(inner.audit(actor, Event::of_tenant(Action::WebhookRemove, handle)).await?);
            inner.keys.commit(Mutation::new(changes)).await?;
        }
        Ok(there)
    }
}

impl Inner {
    fn hook(&self, tenant: TenantHandle) -> Result<Option<stored::Webhook>, Error> {
        let Some(Holder { row, secret }) = self.keys.tenant(tenant)? else { return Ok(None) };
        values::read(&self.keys, row, &secret)
    }

    /// What is to be delivered to a tenant now, oldest first.
    fn deliveries(&self, tenant: TenantHandle, now: Timestamp) -> Result<Vec<Kept>, Error> {
        let mut due = Vec::new();
        for period in self.inbox_periods(tenant) {
            if period.day.0.saturating_add(DAYS) >= now.day().0 {
                due.extend(self.inbox_of(tenant, &period)?);
            }
        }
        due.retain(|kept| kept.item.next_ms != 0 && kept.item.next_ms <= now.0);
        due.sort_by_key(|kept| kept.item.at_ms);
        Ok(due)
    }
}

/// Runs until the vault stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        if let Err(error) = pass(&inner).await {
            tracing::warn!(%error, "webhooks wait");
        }
        // Not at once: a receiver that is away must not be asked as fast as items come.
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK.0) => {}
        }
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = inner.webhook_wake.notified() => {}
            () = tokio::time::sleep(LOOK.1) => {}
        }
    }
}

/// Delivers what is due: several tenants at a time, each in order and up to its first failure.
async fn pass(inner: &Arc<Inner>) -> Result<(), Error> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tenants = JoinSet::new();
    for (tenant, _) in inner.keys.tenants() {
        let Some(hook) = inner.hook(tenant)? else { continue };
        let due = inner.deliveries(tenant, inner.clock.now())?;
        if !due.is_empty() {
            let (inner, room) = (inner.clone(), room.clone());
            tenants.spawn(async move {
                let _room = room.acquire_owned().await;
                deliver(&inner, tenant, &hook, due).await
            });
        }
    }
    while let Some(outcome) = tenants.join_next().await {
        outcome.map_err(|failed| Error::Internal(failed.to_string()))??;
    }
    Ok(())
}

async fn deliver(inner: &Inner, tenant: TenantHandle, hook: &stored::Webhook, due: Vec<Kept>) -> Result<(), Error> {
    for mut kept in due {
        let now = inner.clock.now();
        let Some(body) = body(&kept) else { continue };
        // A stop does not wait for a receiver, and an answer that came is written down.
        let taken = tokio::select! {
            () = inner.stopping.cancelled() => return Ok(()),
            taken = inner.webhooks.post(hook, body, now) => taken,
        };
        kept.item.attempts = kept.item.attempts.saturating_add(1);
        kept.item.next_ms = if taken { 0 } else { next_attempt(kept.item.attempts, now) };
        inner.rewrite_item(tenant, &kept).await?;
        if !taken {
            tracing::warn!(attempts = kept.item.attempts, "a webhook was not delivered");
            break;
        }
    }
    Ok(())
}

/// When a delivery that failed so often is tried again; 0: never.
fn next_attempt(attempts: u32, now: Timestamp) -> i64 {
    if attempts >= ATTEMPTS {
        return 0;
    }
    let pause = PAUSES_MS.0.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(PAUSES_MS.1);
    now.plus_ms(pause).0
}

fn body(kept: &Kept) -> Option<String> {
    let (event, id) = match kept.item.content.as_ref()? {
        stored::inbox_item::Content::Permission(id) => {
            ("permission.requested", PermissionId::from_slice(id)?.to_string())
        }
        stored::inbox_item::Content::Receipt(receipt) => {
            ("receipt.ready", ReceiptId::from_slice(&receipt.receipt)?.to_string())
        }
    };
    let time = jiff::Timestamp::from_millisecond(kept.item.at_ms).ok()?.to_string();
    let item = kept.id.to_string();
    Some(serde_json::json!({ "event": event, "item": item, "id": id, "time": time }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_receivers_over_https() {
        for good in ["https://example.com/hook", "https://8.8.8.8:8443/x?y", "https://[2a00:1450::1]/"] {
            assert!(target(good, false).is_ok(), "{good}");
        }
        for bad in [
            "http://example.com/",
            "example.com",
            "/hook",
            "ftp://example.com",
            "https://user:secret@example.com/",
            "https://user@127.0.0.1/",
            "https://127.0.0.1/",
            "https://0.0.0.0/",
            "https://10.1.2.3/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://100.64.0.1/",
            "https://198.18.0.1/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::127.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
            "https://[ff02::1]/",
            "https://[2001:db8::1]/",
            "https://[2001:0:1::1]/",
            "",
        ] {
            assert!(target(bad, false).is_err(), "{bad}");
        }
        assert!(target("https://127.0.0.1/", true).is_ok());
        assert!(target("http://127.0.0.1/", true).is_err(), "TLS in any case");
        assert!(target(&format!("https://example.com/{}", "x".repeat(MAX_URL)), false).is_err());
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_resolved() {
        let resolve = async |allow_private| {
            let name: Name = "localhost".parse().expect("a name");
            tower::Service::call(&mut Resolver { allow_private }, name).await
        };
        assert!(resolve(false).await.is_err());
        assert!(resolve(true).await.is_ok_and(|found| found.count() > 0));
    }

    #[test]
    fn a_signature_is_an_hmac_over_time_and_body() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"whsec_test");
        let expected = HEXLOWER.encode(hmac::sign(&key, b"1700000000.{}").as_ref());
        assert_eq!(signature(b"whsec_test", 1_700_000_000, "{}"), format!("t=1700000000,v1={expected}"));
    }

    #[test]
    fn attempts_slow_down_and_end() {
        let now = Timestamp(0);
        let pauses: Vec<i64> = (1..ATTEMPTS).map(|attempts| next_attempt(attempts, now)).collect();
        assert_eq!(&pauses[..3], [10_000, 20_000, 40_000]);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]) && pauses.iter().all(|pause| *pause <= PAUSES_MS.1));
        let (day, whole): (i64, i64) = (86_400_000, pauses.iter().sum());
        assert!((day / 3..3 * day).contains(&whole), "{whole}");
        assert_eq!((next_attempt(ATTEMPTS, now), next_attempt(u32::MAX, now)), (0, 0));
    }

    proptest::proptest! {
        #[test]
        fn hostile_urls_never_panic(url: String, private: bool) {
            let _ = target(&url, private);
            let _ = target(&format!("https://{url}"), private);
        }

        #[test]
        fn nothing_that_wraps_a_private_address_is_public(tail: u32) {
            for octets in [[127, 0, 0, 1], [10, 0, 0, 1], [169, 254, 169, 254]] {
                let v4 = Ipv4Addr::from(octets);
                let [a, b] = [u16::from_be_bytes([octets[0], octets[1]]), u16::from_be_bytes([octets[2], octets[3]])];
                let [c, d] = [(tail >> 16) as u16, tail as u16];
                for wrapped in [
                    v4.to_ipv6_mapped(),
                    v4.to_ipv6_compatible(),
                    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b),
                    Ipv6Addr::new(0x64, 0xff9b, 1, c, d, 0, a, b),
                    Ipv6Addr::new(0x2002, a, b, c, d, 0, 0, 1),
                ] {
                    proptest::prop_assert!(!is_public(wrapped.into()), "{}", wrapped);
                }
            }
        }
    }
}
