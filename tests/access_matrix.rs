//! Every method × every role × its own tenant's things, another tenant's, and things that are not there.
//!
//! The methods are those that the reflection service lists, so a new one without a row here fails the test. For each:
//! - nobody, and a stranger, are refused alike whatever they ask for;
//! - a role that the table in docs/access.md does not let ask is refused in the same bytes for own things, foreign ones and
//!   ones that are not there;
//! - a role that may ask hears of foreign things exactly what it hears of things that are not there, byte for byte: unknown;
//! - and its own things are neither refused nor unknown.

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/issuer.rs"]
mod issuer;
#[path = "common/served.rs"]
mod served;
#[path = "common/wire.rs"]
mod wire;

use gateway::Gateway;
use http_body_util::BodyExt as _;
use issuer::{Issuer, Signer};
use prost::Message;
use quietus::{
    cli::{args::Transport, connect::Link},
    domain::time::Clock,
    proto::v1::{self, Mode, Residency, erase_request},
    transport::auth::{
        Access, Action, Role,
        access::{Principal, ROLES, role_name},
    },
};
use served::World;
use std::{collections::BTreeSet, path::Path};
use tonic::{
    Code, Request, Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tower::{Service as _, ServiceExt as _};
use wire::{open, reason, store};

/// What a request can be about.
#[derive(Clone)]
struct Things {
    tenant: String,
    subscriber: String,
    recording: String,
    key: String,
    switch: String,
    hold: String,
    permission: String,
}

/// How the answer about somebody's own things is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    /// Asked for, and neither refused nor unknown.
    Reached,
    /// Not asked for by those who may: it would change what the other rows need.
    Untouched,
    /// It names nothing of anybody: asked for by those who may, and nothing else is.
    Nameless,
}

struct Row {
    method: &'static str,
    action: Action,
    own: Own,
    request: fn(&Things) -> Vec<u8>,
}

const fn row(method: &'static str, action: Action, own: Own, request: fn(&Things) -> Vec<u8>) -> Row {
    Row { method, action, own, request }
}

/// One row for each method: what it asks for, and a request about some things.
const ROWS: &[Row] = &[
    row("RecordingService/Record", Action::Record, Own::Reached, |of| {
        let open = v1::Open { subscriber: of.subscriber.clone(), ..open(&of.tenant, Mode::Spooled) };
        v1::RecordRequest { event: Some(v1::record_request::Event::Open(open)) }.encode_to_vec()
    }),
    row("RecordingService/Get", Action::Show, Own::Reached, |of| {
        v1::GetRecordingRequest { id: of.recording.clone(), ticket: "T-1".into() }.encode_to_vec()
    }),
    row("RecordingService/List", Action::List, Own::Reached, |of| {
        v1::ListRecordingsRequest { tenant: of.tenant.clone(), ticket: "T-1".into(), ..Default::default() }
            .encode_to_vec()
    }),
    row("RecordingService/GetBasis", Action::Play, Own::Reached, |of| {
        v1::GetBasisRequest { id: of.recording.clone() }.encode_to_vec()
    }),
    row("RecordingService/BindParties", Action::BindParties, Own::Reached, |of| {
        v1::BindPartiesRequest { id: of.recording.clone(), parties: vec!["sub-2".into()] }.encode_to_vec()
    }),
    row("RecordingService/Correct", Action::Correct, Own::Reached, |of| {
        v1::CorrectRequest { id: of.recording.clone(), purpose: Some("quality".into()), ..Default::default() }
            .encode_to_vec()
    }),
    row("PlaybackService/Play", Action::Play, Own::Reached, |of| {
        v1::PlayRequest { id: of.recording.clone(), ..Default::default() }.encode_to_vec()
    }),
    row("PlaybackService/Ticket", Action::Play, Own::Reached, |of| {
        v1::TicketRequest { id: of.recording.clone() }.encode_to_vec()
    }),
    row("PermissionService/Request", Action::RequestPermission, Own::Reached, |of| {
        asking(&of.recording).encode_to_vec()
    }),
    row("PermissionService/Grant", Action::DecidePermission, Own::Untouched, |of| {
        v1::GrantPermissionRequest { id: of.permission.clone(), ..Default::default() }.encode_to_vec()
    }),
    row("PermissionService/Deny", Action::DecidePermission, Own::Untouched, |of| {
        v1::DenyPermissionRequest { id: of.permission.clone() }.encode_to_vec()
    }),
    row("PermissionService/Revoke", Action::DecidePermission, Own::Untouched, |of| {
        v1::RevokePermissionRequest { id: of.permission.clone() }.encode_to_vec()
    }),
    // Staff see what they asked for themselves, and this was asked for by somebody else.
    row("PermissionService/Get", Action::ReadPermissions, Own::Untouched, |of| {
        v1::GetPermissionRequest { id: of.permission.clone() }.encode_to_vec()
    }),
    row("PermissionService/List", Action::ReadPermissions, Own::Reached, |of| {
        v1::ListPermissionsRequest { tenant: of.tenant.clone(), waiting: false }.encode_to_vec()
    }),
    row("InboxService/List", Action::Inbox, Own::Reached, |of| {
        v1::ListInboxRequest { tenant: of.tenant.clone(), ..Default::default() }.encode_to_vec()
    }),
    row("InboxService/Acknowledge", Action::Inbox, Own::Reached, |of| {
        v1::AcknowledgeRequest { tenant: of.tenant.clone(), ids: Vec::new() }.encode_to_vec()
    }),
    // No key of a tenant says where it is told: the vault asks for an administrator.
    row("InboxService/SetWebhook", Action::Inbox, Own::Untouched, |of| {
        v1::SetWebhookRequest { tenant: of.tenant.clone(), url: "https://example.com/".into() }.encode_to_vec()
    }),
    row("InboxService/GetWebhook", Action::Inbox, Own::Reached, |of| {
        v1::GetWebhookRequest { tenant: of.tenant.clone() }.encode_to_vec()
    }),
    row("InboxService/RemoveWebhook", Action::Inbox, Own::Untouched, |of| {
        v1::RemoveWebhookRequest { tenant: of.tenant.clone() }.encode_to_vec()
    }),
    row("ErasureService/Erase", Action::Erase, Own::Untouched, |of| {
        let scope = erase_request::Scope::Recording(v1::EraseRecording { id: of.recording.clone(), part: 0 });
        v1::EraseRequest { scope: Some(scope), ..Default::default() }.encode_to_vec()
    }),
    row("ErasureService/GetReceipt", Action::ReadReceipts, Own::Untouched, |_| {
        v1::GetReceiptRequest { id: "0".repeat(32) }.encode_to_vec()
    }),
    row("ErasureService/ListReceipts", Action::ReadReceipts, Own::Reached, |of| {
        v1::ListReceiptsRequest { tenant: of.tenant.clone(), ..Default::default() }.encode_to_vec()
    }),
    row("AuditService/Tail", Action::ReadAudit, Own::Reached, |of| {
        v1::TailRequest { tenant: of.tenant.clone(), ..Default::default() }.encode_to_vec()
    }),
    row("AuditService/GetCheckpoint", Action::VerifyAudit, Own::Nameless, |_| {
        v1::GetCheckpointRequest {}.encode_to_vec()
    }),
    row("AuditService/GetInclusionProof", Action::VerifyAudit, Own::Nameless, |_| {
        v1::GetInclusionProofRequest { index: 0, size: 0 }.encode_to_vec()
    }),
    row("AuditService/GetConsistencyProof", Action::VerifyAudit, Own::Nameless, |_| {
        v1::GetConsistencyProofRequest { old_size: 0, new_size: 0 }.encode_to_vec()
    }),
    row("AuditService/GetVerifierKey", Action::VerifyAudit, Own::Nameless, |_| {
        v1::GetVerifierKeyRequest {}.encode_to_vec()
    }),
    row("TenantService/CreateTenant", Action::CreateTenant, Own::Reached, |of| {
        v1::CreateTenantRequest {
            name: of.tenant.clone(),
            home: "eu-west-2".into(),
            residency: Residency::HomeOnly.into(),
            policy: "dev".into(),
            keep: String::new(),
        }
        .encode_to_vec()
    }),
    row("TenantService/GetTenant", Action::ReadTenant, Own::Reached, |of| {
        v1::GetTenantRequest { name: of.tenant.clone() }.encode_to_vec()
    }),
    row("TenantService/ListTenants", Action::ReadTenant, Own::Nameless, |_| v1::ListTenantsRequest {}.encode_to_vec()),
    row("TenantService/GetStatistics", Action::ReadTenant, Own::Reached, |of| {
        v1::GetStatisticsRequest { tenant: of.tenant.clone() }.encode_to_vec()
    }),
    row("TenantService/GetStatus", Action::Status, Own::Nameless, |_| v1::GetStatusRequest {}.encode_to_vec()),
    row("PolicyService/ListPresets", Action::ReadPolicy, Own::Nameless, |_| v1::ListPresetsRequest {}.encode_to_vec()),
    row("PolicyService/GetPreset", Action::ReadPolicy, Own::Nameless, |_| {
        v1::GetPresetRequest { name: "dev".into() }.encode_to_vec()
    }),
    row("PolicyService/CheckPolicy", Action::ReadPolicy, Own::Nameless, |_| {
        v1::CheckPolicyRequest { source: Some(dev_policy()) }.encode_to_vec()
    }),
    row("PolicyService/GetPolicy", Action::ReadPolicy, Own::Reached, |of| {
        v1::GetPolicyRequest { tenant: of.tenant.clone() }.encode_to_vec()
    }),
    row("PolicyService/SetPolicy", Action::SetPolicy, Own::Reached, |of| {
        v1::SetPolicyRequest { tenant: of.tenant.clone(), source: Some(dev_policy()), confirm: String::new() }
            .encode_to_vec()
    }),
    row("PolicyService/Explain", Action::Explain, Own::Reached, |of| {
        v1::ExplainRequest { id: of.recording.clone(), ticket: "T-1".into() }.encode_to_vec()
    }),
    row("PolicyService/DryRunPolicy", Action::ReadPolicy, Own::Reached, |of| {
        v1::DryRunPolicyRequest { tenant: of.tenant.clone(), source: Some(dev_policy()) }.encode_to_vec()
    }),
    row("TenantService/CloseTenant", Action::ChangeTenant, Own::Untouched, |of| {
        v1::CloseTenantRequest { name: of.tenant.clone(), confirm: of.tenant.clone() }.encode_to_vec()
    }),
    row("TenantService/ApproveTransition", Action::ApproveTransition, Own::Untouched, |of| {
        v1::ApproveTransitionRequest { name: of.tenant.clone() }.encode_to_vec()
    }),
    row("TenantService/WithdrawTransition", Action::ApproveTransition, Own::Untouched, |of| {
        v1::WithdrawTransitionRequest { name: of.tenant.clone() }.encode_to_vec()
    }),
    row("TenantService/GetStanding", Action::ReadHolds, Own::Reached, |of| {
        v1::GetStandingRequest { name: of.tenant.clone() }.encode_to_vec()
    }),
    row("TenantService/GetAnonymousStatistics", Action::Status, Own::Nameless, |_| {
        v1::GetAnonymousStatisticsRequest {}.encode_to_vec()
    }),
    row("SubscriberService/GetSubscriber", Action::ReadSubscriber, Own::Reached, |of| {
        let (tenant, name) = (of.tenant.clone(), of.subscriber.clone());
        v1::GetSubscriberRequest { tenant, name, ticket: "T-1".into() }.encode_to_vec()
    }),
    row("SubscriberService/DeactivateSubscriber", Action::ChangeSubscriber, Own::Untouched, |of| {
        v1::DeactivateSubscriberRequest { tenant: of.tenant.clone(), name: of.subscriber.clone() }.encode_to_vec()
    }),
    row("SubscriberService/Restrict", Action::ChangeSubscriber, Own::Untouched, restricting),
    row("SubscriberService/Unrestrict", Action::ChangeSubscriber, Own::Reached, restricting),
    row("SubscriberService/Unblock", Action::ChangeSubscriber, Own::Untouched, |of| {
        v1::UnblockRequest { tenant: of.tenant.clone(), name: of.subscriber.clone() }.encode_to_vec()
    }),
    row("SubscriberService/WithdrawConsent", Action::WithdrawConsent, Own::Reached, |of| {
        v1::WithdrawConsentRequest { tenant: of.tenant.clone(), name: of.subscriber.clone() }.encode_to_vec()
    }),
    row("SubscriberService/GiveConsent", Action::WithdrawConsent, Own::Reached, |of| {
        v1::GiveConsentRequest { tenant: of.tenant.clone(), name: of.subscriber.clone() }.encode_to_vec()
    }),
    row("HoldService/PlaceHold", Action::PlaceHold, Own::Reached, |of| placing(&of.tenant).encode_to_vec()),
    row("HoldService/LiftHold", Action::LiftHold, Own::Untouched, |of| {
        v1::LiftHoldRequest { id: of.hold.clone() }.encode_to_vec()
    }),
    row("HoldService/ListHolds", Action::ReadHolds, Own::Reached, |of| {
        v1::ListHoldsRequest { tenant: of.tenant.clone() }.encode_to_vec()
    }),
    row("HoldService/ReviewHold", Action::PlaceHold, Own::Reached, |of| {
        let next_review_ms = placing(&of.tenant).review_ms;
        v1::ReviewHoldRequest { id: of.hold.clone(), next_review_ms }.encode_to_vec()
    }),
    row("HoldService/ListParked", Action::ReadHolds, Own::Reached, |of| {
        v1::ListParkedRequest { tenant: of.tenant.clone() }.encode_to_vec()
    }),
    row("ApiKeyService/CreateApiKey", Action::ManageKeys, Own::Reached, |of| {
        let role = v1::ApiKeyRole::Switch.into();
        v1::CreateApiKeyRequest { tenant: of.tenant.clone(), name: "k".into(), role, own: None }.encode_to_vec()
    }),
    row("ApiKeyService/ListApiKeys", Action::ManageKeys, Own::Reached, |of| {
        v1::ListApiKeysRequest { tenant: of.tenant.clone() }.encode_to_vec()
    }),
    row("ApiKeyService/RevokeApiKey", Action::ManageKeys, Own::Untouched, |of| {
        v1::RevokeApiKeyRequest { tenant: of.tenant.clone(), id: of.key.clone() }.encode_to_vec()
    }),
    row("SwitchService/EnrolSwitch", Action::ManageSwitches, Own::Reached, |of| {
        v1::EnrolSwitchRequest { tenant: of.tenant.clone(), name: "pbx-9".into(), max_recordings: 1 }.encode_to_vec()
    }),
    row("SwitchService/ListSwitches", Action::ManageSwitches, Own::Reached, |of| {
        v1::ListSwitchesRequest { tenant: of.tenant.clone() }.encode_to_vec()
    }),
    row("SwitchService/RevokeSwitch", Action::ManageSwitches, Own::Untouched, |of| {
        v1::RevokeSwitchRequest { tenant: of.tenant.clone(), name: of.switch.clone() }.encode_to_vec()
    }),
];

fn dev_policy() -> v1::PolicySource {
    v1::PolicySource { policy: "dev".into(), keep: String::new() }
}

fn asking(recording: &str) -> v1::RequestPermissionRequest {
    let about = v1::permission_scope::About::Recording(recording.to_owned());
    let level = v1::PermissionLevel::Listen.into();
    v1::RequestPermissionRequest {
        scope: Some(v1::PermissionScope { about: Some(about) }),
        purpose: "a crackling line".into(),
        ticket: "T-1".into(),
        terms: Some(v1::PermissionTerms { level, seconds: 3600, later_calls: false }),
    }
}

fn placing(tenant: &str) -> v1::PlaceHoldRequest {
    v1::PlaceHoldRequest {
        tenant: tenant.to_owned(),
        scope: Some(v1::place_hold_request::Scope::Everything(v1::HoldEverything {})),
        ground: "dispute".into(),
        authority: "counsel".into(),
        // Within the five years that a review may lie ahead of the clock of whoever runs this.
        review_ms: Clock::system().now().plus_ms(86_400_000).0,
    }
}

/// A hold on everything of a tenant.
async fn wire_hold(link: Link, tenant: &str) -> String {
    let mut holds = v1::hold_service_client::HoldServiceClient::new(link);
    let placed = holds.place_hold(placing(tenant)).await.expect("placed").into_inner();
    placed.hold.expect("a hold").id
}

fn restricting(of: &Things) -> Vec<u8> {
    let scope = v1::RestrictSubscriber { tenant: of.tenant.clone(), name: of.subscriber.clone() };
    let scope = Some(v1::restrict_request::Scope::Subscriber(scope));
    v1::RestrictRequest { scope }.encode_to_vec()
}

/// Bytes in, bytes out.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(into, &item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; bytes::Buf::remaining(from)];
        bytes::Buf::copy_to_slice(from, &mut item);
        Ok(Some(item))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// What was said: the first message, or how it was refused.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Said {
    Message(Vec<u8>),
    Nothing,
    Refused(Code, String, Vec<u8>),
}

impl Said {
    fn reason(&self) -> String {
        match self {
            Said::Refused(code, message, details) => {
                reason(&Status::with_details(*code, message, details.clone().into()))
            }
            Said::Message(_) | Said::Nothing => "OK".into(),
        }
    }
}

/// Any method takes one message and is answered by messages; the stream is let go of after the first.
async fn ask(link: Link, method: &str, request: Vec<u8>) -> Said {
    let mut client = tonic::client::Grpc::new(link);
    let path = format!("/quietus.v1.{method}").parse().expect("a path");
    let said = async {
        client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
        let stream = tokio_stream::iter([request]);
        let mut answer = client.streaming(Request::new(stream), path, Raw).await?.into_inner();
        answer.message().await
    };
    match tokio::time::timeout(wire::WITHIN, said).await.expect("an answer in time") {
        Ok(Some(message)) => Said::Message(message),
        Ok(None) => Said::Nothing,
        Err(status) => Said::Refused(status.code(), status.message().to_owned(), status.details().to_vec()),
    }
}

/// The parts of `FileDescriptorProto` that tell the methods.
#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
}

async fn reflect(link: Link, request: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut client = ServerReflectionClient::new(link);
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.expect("begun").into_inner();
    answers.message().await.expect("an answer").expect("an answer").message_response.expect("a response")
}

/// `Service/Method` of everything that is not health or reflection.
async fn methods(link: Link) -> BTreeSet<String> {
    let MessageResponse::ListServicesResponse(listed) =
        reflect(link.clone(), MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list of services")
    };
    let mut methods = BTreeSet::new();
    for service in listed.service {
        if service.name.starts_with("grpc.") {
            continue;
        }
        let request = MessageRequest::FileContainingSymbol(service.name.clone());
        let MessageResponse::FileDescriptorResponse(files) = reflect(link.clone(), request).await else {
            panic!("no descriptor of {}", service.name)
        };
        for file in files.file_descriptor_proto {
            let file = File::decode(file.as_slice()).expect("a descriptor");
            for described in file.services {
                if format!("{}.{}", file.package, described.name) == service.name {
                    methods.extend(described.methods.iter().map(|m| format!("{}/{}", described.name, m.name)));
                }
            }
        }
    }
    methods
}

struct Stage {
    world: World,
    gateway: Gateway,
    issuer: Issuer,
    signer: Signer,
    key: String,
    own: Things,
    foreign: Things,
    absent: Things,
}

impl Stage {
    async fn set(dir: &Path) -> Self {
        let issuer = Issuer::start().await;
        let signer = Signer::ed25519("k");
        issuer.publish(&[&signer]);
        let world = World::new(&issuer.section(dir)).await;
        let gateway = world.start();
        let provider = || gateway.link("admin", Transport::H2);
        let mut things = Vec::new();
        let mut tokens = Vec::new();
        for tenant in ["acme", "other"] {
            wire::tenant(provider(), tenant, Residency::HomeOnly).await;
            let recording = store(provider(), open(tenant, Mode::Spooled), b"sound").await;
            let role = v1::ApiKeyRole::Admin.into();
            let request = v1::CreateApiKeyRequest { tenant: tenant.into(), name: "k".into(), role, own: None };
            let mut keys = v1::api_key_service_client::ApiKeyServiceClient::new(provider());
            let key = keys.create_api_key(request).await.expect("made").into_inner();
            let request = v1::EnrolSwitchRequest { tenant: tenant.into(), name: "pbx-1".into(), max_recordings: 1 };
            let mut switches = v1::switch_service_client::SwitchServiceClient::new(provider());
            switches.enrol_switch(request).await.expect("enrolled");
            tokens.push(key.token);
            let mut staff =
                v1::permission_service_client::PermissionServiceClient::new(gateway.link("staff", Transport::H2));
            let permission = staff.request(asking(&recording)).await.expect("asked").into_inner().id;
            things.push(Things {
                permission,
                tenant: tenant.into(),
                subscriber: "sub-1".into(),
                recording,
                key: key.key.expect("a key").id,
                switch: "pbx-1".into(),
                hold: wire_hold(provider(), tenant).await,
            });
        }
        let absent = Things {
            tenant: "nobody".into(),
            subscriber: "sub-1".into(),
            recording: "0".repeat(52),
            key: "0".repeat(24),
            switch: "pbx-1".into(),
            hold: "0".repeat(32),
            permission: "0".repeat(32),
        };
        let (own, foreign) = (things[0].clone(), things[1].clone());
        Self { world, gateway, issuer, signer, key: tokens.remove(0), own, foreign, absent }
    }

    /// A channel of somebody in this role who reaches `acme` alone.
    fn link(&self, role: Role) -> Option<Link> {
        match role {
            // Reaches `acme` by the identities file of the test's world.
            Role::Switch => Some(self.gateway.link("switch", Transport::H2)),
            Role::ApiKey => Some(self.with_token("key", &self.key)),
            // Exists in `quietus dev` only.
            Role::Developer | Role::Gateway => None,
            role => {
                let mut claims = self.issuer.claims("somebody", role_name(role), &["acme"]);
                claims["number"] = "sub-1".into();
                Some(self.with_token(role_name(role), &self.signer.token(&claims)))
            }
        }
    }

    fn with_token(&self, name: &str, token: &str) -> Link {
        let path = self.gateway.client_file(&format!("matrix-{name}.toml"));
        let text =
            format!("endpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\ntoken = \"{token}\"\n", self.gateway.port);
        std::fs::write(&path, text).expect("written");
        Link::open(&path, Some(Transport::H2)).expect("a profile")
    }
}

/// Status and body of a request over HTTP.
async fn get(mut link: Link, path: &str) -> (http::StatusCode, Vec<u8>) {
    let request = http::Request::get(format!("https://localhost{path}")).body(tonic::body::Body::empty());
    let answer = link.ready().await.expect("ready").call(request.expect("a request")).await.expect("an answer");
    let status = answer.status();
    (status, answer.into_body().collect().await.expect("a body").to_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_answers_every_role_like_grpc_and_tells_nothing_of_other_tenants() {
    let dir = tempfile::tempdir().expect("a folder");
    let stage = Stage::set(dir.path()).await;
    let access = Access::shipped("g");
    let audio = |things: &Things| format!("/v1/recordings/{}/audio", things.recording);
    let stranger = stage.with_token("stranger", "an invented token");
    let unknown = get(stranger.clone(), &audio(&stage.own)).await;
    assert_eq!(unknown.0, http::StatusCode::UNAUTHORIZED);
    assert_eq!(get(stranger.clone(), &audio(&stage.absent)).await, unknown);
    assert_eq!(get(stranger, "/metrics").await, unknown);
    for role in ROLES {
        let Some(link) = stage.link(role) else { continue };
        let who = Principal { name: role_name(role), role, tenants: Some(&[]), delegated: false };
        let may = |action| access.decide(&who, action).is_ok();
        let own = get(link.clone(), &audio(&stage.own)).await;
        let foreign = get(link.clone(), &audio(&stage.foreign)).await;
        assert_eq!(foreign, get(link.clone(), &audio(&stage.absent)).await, "{role:?}");
        let expected = match (may(Action::Play), role) {
            (false, _) | (_, Role::Staff) => http::StatusCode::FORBIDDEN,
            (true, _) => http::StatusCode::OK,
        };
        assert_eq!(own.0, expected, "{role:?}");
        let hidden = if may(Action::Play) { http::StatusCode::NOT_FOUND } else { http::StatusCode::FORBIDDEN };
        assert_eq!(foreign.0, hidden, "{role:?}");
        let metrics = if may(Action::Metrics) { http::StatusCode::OK } else { http::StatusCode::FORBIDDEN };
        assert_eq!(get(link, "/metrics").await.0, metrics, "{role:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_answers_every_role_as_the_table_says_and_tells_nothing_of_other_tenants() {
    let dir = tempfile::tempdir().expect("a folder");
    let stage = Stage::set(dir.path()).await;
    let listed = methods(stage.gateway.link("admin", Transport::H2)).await;
    let rows: BTreeSet<String> = ROWS.iter().map(|row| row.method.to_owned()).collect();
    assert_eq!(listed, rows, "reflection lists the left; each method needs a row, and each row a method");

    let path = stage.gateway.client_file("nobody.toml");
    std::fs::write(&path, format!("endpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\n", stage.gateway.port))
        .expect("written");
    let nobody = Link::open(&path, Some(Transport::H2)).expect("a profile");
    let stranger = stage.with_token("stranger", "an invented token");
    for row in ROWS {
        for link in [&nobody, &stranger] {
            let mut said = Vec::new();
            for things in [&stage.own, &stage.foreign, &stage.absent] {
                said.push(ask(link.clone(), row.method, (row.request)(things)).await);
            }
            assert_eq!(said[0].reason(), "UNAUTHENTICATED", "{}", row.method);
            said.dedup();
            assert_eq!(said.len(), 1, "{}: {said:?}", row.method);
        }
    }

    let access = Access::shipped("g");
    let mut offences = Vec::new();
    for role in ROLES {
        let Some(link) = stage.link(role) else { continue };
        for row in ROWS {
            let who = Principal { name: role_name(role), role, tenants: Some(&[]), delegated: false };
            let may = access.decide(&who, row.action).is_ok();
            let about = async |things: &Things| ask(link.clone(), row.method, (row.request)(things)).await;
            let at = format!("{} as {}", row.method, role_name(role));
            let (foreign, absent) = (about(&stage.foreign).await, about(&stage.absent).await);
            if foreign != absent && row.own != Own::Nameless {
                offences.push(format!("{at}: foreign {foreign:?}, absent {absent:?}"));
            }
            match (may, row.own) {
                (false, _) => {
                    let own = about(&stage.own).await;
                    if own.reason() != "NOT_PERMITTED" || own != absent {
                        offences.push(format!("{at}: may not, and hears {own:?} and {absent:?}"));
                    }
                }
                (true, Own::Nameless) => {
                    if absent.reason() != "OK" {
                        offences.push(format!("{at}: may, and hears {absent:?}"));
                    }
                    let tells =
                        matches!(&absent, Said::Message(said) if memchr::memmem::find(said, b"other").is_some());
                    if tells {
                        offences.push(format!("{at}: names another tenant"));
                    }
                }
                (true, own) => {
                    if absent.reason() != "UNKNOWN" {
                        offences.push(format!("{at}: of what is not there it hears {absent:?}"));
                    }
                    let reached = own == Own::Reached;
                    let said = if reached { about(&stage.own).await } else { Said::Nothing };
                    let staff_hears = role == Role::Staff && row.action == Action::Play;
                    let expected_refusal = staff_hears && said.reason() == "NOT_PERMITTED";
                    let refused = ["NOT_PERMITTED", "UNKNOWN", "UNAUTHENTICATED", "INTERNAL"];
                    if staff_hears && !expected_refusal {
                        offences.push(format!("{at}: hears without the customer's permission"));
                    } else if refused.contains(&said.reason().as_str()) && !expected_refusal {
                        offences.push(format!("{at}: of its own it hears {said:?}"));
                    }
                }
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
    drop(stage.world);
}
