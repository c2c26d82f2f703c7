//! Spooled ingest through a real gateway process, against putting the same bytes into the same server directly; and the
//! gateway's processor time, against the sum of the bare parts that it is made of.
//!
//! Processes, all of them started here, so that the processor time of each is its own:
//! - the gateway: `quietus serve`, TLS, its key store on this disk, its objects in the sink below;
//! - a lean S3 server that reads and forgets what is put (`sink-s3`): hyper over TLS, no signatures checked;
//! - a bare gRPC server with the gateway's flow control (`sink-grpc`): tonic over TLS, reads and forgets;
//! - this one: the sender, and the direct puts by `aws-sdk-s3`.
//!
//! Sum of floors = bare gRPC server + bare seal + bare put, each for the same bytes. The protocol has the gateway check the
//! sender's SHA-256, which none of these does: a second line counts a bare SHA-256 to the floor. At last, what memory a live
//! call costs the gateway.

mod common;

use bytes::Bytes;
use common::Row;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use quietus::{
    cli::connect::Link,
    crypto::random,
    proto::v1::{
        self, RecordRequest, RecordResponse, record_request, record_response,
        recording_service_client::RecordingServiceClient,
        recording_service_server::{RecordingService, RecordingServiceServer},
        tenant_service_client::TenantServiceClient,
    },
    server::dev_files::{DevFiles, GROUP},
};
use ring::{aead, digest};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    sync::Arc,
    time::Instant,
};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport};

const REGION: &str = "eu-west-2";
const BUCKET: &str = "bench-eu-west-2";
const ROUNDS: usize = 5;
/// What a sender puts into one message, as `quietus record` does.
const PIECE: usize = 256 << 10;
/// The files of a round.
const WORK: [Work; 2] = [
    Work { name: "files of 8 MiB, 4 at a time", size: 8 << 20, files: 64, at_a_time: 4 },
    Work { name: "a minute of G.711 each, 32 at a time", size: 480_000, files: 960, at_a_time: 32 },
];
/// Live calls that are open at a time, all on one connection.
const LIVE: usize = 1000;

#[derive(Clone, Copy)]
struct Work {
    name: &'static str,
    size: usize,
    files: usize,
    at_a_time: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = Runtime::new().expect("a runtime");
    match arguments.get(1..).unwrap_or_default() {
        [role, dir] if role == "sink-s3" => runtime.block_on(s3_sink(Path::new(dir))),
        [role, dir] if role == "sink-grpc" => runtime.block_on(grpc_sink(Path::new(dir))),
        _ => bench(&runtime),
    }
}

fn bench(runtime: &Runtime) {
    let dir = common::folder();
    // A link's connection is a task of the runtime.
    let _entered = runtime.enter();
    let world = World::start(dir.path());
    let mut rows = Vec::new();
    for work in WORK {
        rows.extend(runtime.block_on(world.compare(work)));
    }
    rows.push(runtime.block_on(world.live()));
    common::print("Ingest: `cargo bench --bench ingest`", &rows);
}

// ---------------------------------------------------------------------------------------------------- processes

/// A child process that serves; it ends with this value.
struct Served {
    process: std::process::Child,
    port: u16,
    /// Kept open: a server that cannot write its lines may stop.
    _lines: BufReader<ChildStdout>,
}

impl Served {
    /// Starts one and waits for its line `ready …:PORT`.
    fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("starts");
        let mut lines = BufReader::new(process.stdout.take().expect("was asked for"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("says that it is ready");
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        Self { process, port, _lines: lines }
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    fn cpu(&self) -> f64 {
        common::cpu_seconds(self.pid())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn say_ready(address: std::net::SocketAddr) {
    println!("ready {address}");
}

struct World {
    gateway: Served,
    grpc: Served,
    _s3: Served,
    to_gateway: Link,
    to_admin: Link,
    to_grpc: Link,
    puts: aws_sdk_s3::Client,
}

impl World {
    fn start(dir: &Path) -> Self {
        // The certificates of `quietus dev`, for three servers on this machine.
        DevFiles::prepare(dir).expect("certificates");
        let myself = std::env::current_exe().expect("a path");
        let role = |name: &str| Served::start(Command::new(&myself).arg(name).arg(dir));
        let (s3, grpc) = (role("sink-s3"), role("sink-grpc"));

        let config = dir.join("quietus.toml");
        let identities = dir.join("identities.toml");
        let known = |role| format!("[[identity]]\nname = \"{role}/dev\"\ntenants = [\"*\"]\n");
        std::fs::write(&identities, known("admin") + &known("switch")).expect("writes");
        std::fs::write(dir.join("s3.key"), "secret").expect("writes");
        std::fs::write(&config, gateway_config(dir, s3.port)).expect("writes");
        let quietus = env!("CARGO_BIN_EXE_quietus");
        let gateway =
            Served::start(Command::new(quietus).arg("serve").arg("--config").arg(config).env("QUIETUS_LOG", "warn"));

        let link = |role: &str, port| {
            let profile = dir.join("client").join(format!("bench-{role}-{port}.toml"));
            let text = format!(
                "endpoint = \"https://localhost:{port}\"\nca = \"ca.pem\"\ncertificate = \"{role}.pem\"\nkey = \"{role}.key\"\n"
            );
            std::fs::write(&profile, text).expect("writes");
            Link::open(&profile, None).unwrap_or_else(|failure| panic!("{}", failure.message))
        };
        let (to_gateway, to_admin, to_grpc) =
            (link("switch", gateway.port), link("admin", gateway.port), link("switch", grpc.port));
        let puts = s3_client(&dir.join("client/ca.pem"), s3.port);
        Self { gateway, grpc, _s3: s3, to_gateway, to_admin, to_grpc, puts }
    }
}

fn gateway_config(dir: &Path, s3: u16) -> String {
    let path = |name: &str| toml::Value::String(dir.join(name).display().to_string());
    format!(
        "group = \"{GROUP}\"\ndata = {data}\nidentities = {identities}\n\
         [listen]\naddress = \"127.0.0.1:0\"\nhttp3 = false\n\
         [tls]\ncertificate = {certificate}\nkey = {key}\nclient_ca = {ca}\n\
         [slot]\npath = {slot}\nallow_same_filesystem = true\naccept_total_loss = true\n\
         [memory]\naccept_swap = true\n\
         [backup]\naccept_none = true\n\
         [[region]]\nname = \"{REGION}\"\nbucket = \"{BUCKET}\"\nendpoint = \"https://127.0.0.1:{s3}\"\npath_style = true\n\
         ca = {ca}\naccess_key_id = \"bench\"\nsecret_access_key_file = {secret}\n",
        data = path("data"),
        identities = path("identities.toml"),
        certificate = path("tls/server.pem"),
        key = path("tls/server.key"),
        ca = path("tls/ca.pem"),
        slot = path("slot"),
        secret = path("s3.key"),
    )
}

// --------------------------------------------------------------------------------------------------- comparing

/// What one way cost for the bytes of a round.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

impl World {
    async fn compare(&self, work: Work) -> Vec<Row> {
        let Work { name, size, files, .. } = work;
        let content = Bytes::from((0..size as u32).map(|i| (i * 31) as u8).collect::<Vec<u8>>());
        self.prepare().await;
        let bytes = (size * files) as f64;
        let (gib, mb) = (bytes / f64::from(1 << 30), bytes / 1e6);
        let (mut speed, mut sum, mut sum_and_digest, mut parts) = (vec![], vec![], vec![], vec![]);
        for round in 0..=ROUNDS {
            let through = async || self.through(&self.to_gateway, &self.gateway, &content, work).await;
            let (gateway, put) = if round % 2 == 0 {
                let gateway = through().await;
                (gateway, self.put(&content, work).await)
            } else {
                let put = self.put(&content, work).await;
                (through().await, put)
            };
            let grpc = self.through(&self.to_grpc, &self.grpc, &content, work).await;
            let seal = seal(&content, files);
            let sha256 = sha256(&content, files);
            if round > 0 {
                let floor = grpc.cpu + seal + put.cpu;
                speed.push((mb / gateway.wall, mb / put.wall));
                sum.push((gateway.cpu / gib, floor / gib));
                sum_and_digest.push((gateway.cpu / gib, (floor + sha256) / gib));
                parts.push([grpc.cpu / gib, seal / gib, put.cpu / gib, sha256 / gib]);
            }
        }
        let part = |number: usize| parts.iter().map(|part| part[number]).collect();
        vec![
            Row::new(format!("spooled ingest / direct put, {name}"), "MB/s", "", speed),
            Row::new(format!("gateway CPU / sum of floors, {name}"), "s/GiB", "", sum),
            Row::new(format!("the same, with a bare SHA-256 in the floor, {name}"), "s/GiB", "", sum_and_digest),
            Row::alone(format!("… of it: bare tonic TLS server, {name}"), "s/GiB", "", part(0)),
            Row::alone(format!("… of it: bare seal, {name}"), "s/GiB", "", part(1)),
            Row::alone(format!("… of it: bare S3 put, {name}"), "s/GiB", "", part(2)),
            Row::alone(format!("… bare SHA-256, {name}"), "s/GiB", "", part(3)),
        ]
    }

    /// The tenant, where it is not there yet.
    async fn prepare(&self) {
        let create = v1::CreateTenantRequest {
            name: "bench".into(),
            home: REGION.into(),
            residency: v1::Residency::HomeOnly.into(),
            policy: "dev".into(),
            keep: String::new(),
        };
        match TenantServiceClient::new(self.to_admin.clone()).create_tenant(create).await {
            Ok(_) => {}
            Err(status) if status.code() == tonic::Code::AlreadyExists => {}
            Err(status) => panic!("no tenant: {status}"),
        }
    }

    /// Sends the files to a server that speaks `Record`.
    async fn through(&self, link: &Link, server: &Served, content: &Bytes, work: Work) -> Cost {
        let sha256 = Bytes::copy_from_slice(digest::digest(&digest::SHA256, content).as_ref());
        let (cpu, began) = (server.cpu(), Instant::now());
        in_parallel(work, |number| {
            let (link, content, sha256) = (link.clone(), content.clone(), sha256.clone());
            async move { record(link, number, content, sha256).await }
        })
        .await;
        Cost { wall: began.elapsed().as_secs_f64(), cpu: server.cpu() - cpu }
    }

    /// Puts the files directly.
    async fn put(&self, content: &Bytes, work: Work) -> Cost {
        let me = std::process::id();
        let (cpu, began) = (common::cpu_seconds(me), Instant::now());
        in_parallel(work, |_| {
            let (puts, content) = (self.puts.clone(), content.clone());
            async move {
                let key = data_encoding::HEXLOWER.encode(&random::<16>());
                let put = puts.put_object().bucket(BUCKET).key(key).body(content.into()).customize();
                put.disable_payload_signing().send().await.expect("puts");
            }
        })
        .await;
        Cost { wall: began.elapsed().as_secs_f64(), cpu: common::cpu_seconds(me) - cpu }
    }

    /// Memory of the gateway for each of many live calls.
    async fn live(&self) -> Row {
        self.prepare().await;
        let before = common::resident_bytes(self.gateway.pid());
        let mut calls = Vec::new();
        for number in 0..LIVE {
            let (requests, stream) = mpsc::channel(4);
            let open = open(number, v1::Mode::Live, 0);
            requests.send(message(record_request::Event::Open(open))).await.expect("room");
            let content = Bytes::from_static(&[0x55; 1600]);
            let data = v1::Data { offset: 0, content };
            requests.send(message(record_request::Event::Data(data))).await.expect("room");
            let mut client = RecordingServiceClient::new(self.to_gateway.clone());
            let mut answers = client.record(ReceiverStream::new(stream)).await.expect("opens").into_inner();
            loop {
                match answer(&mut answers).await {
                    record_response::Event::Watermark(mark) if mark.journaled > 0 => break,
                    _ => {}
                }
            }
            calls.push((requests, answers));
        }
        let each = (common::resident_bytes(self.gateway.pid()) - before) / LIVE as f64;
        Row::alone(format!("memory of the gateway per live call, {LIVE} calls"), "bytes", "a few kB", vec![each])
    }
}

async fn in_parallel<F: Future<Output = ()> + Send + 'static>(work: Work, mut one: impl FnMut(usize) -> F) {
    let mut running = JoinSet::new();
    for number in 0..work.files {
        if running.len() == work.at_a_time {
            running.join_next().await.expect("one runs").expect("it ended well");
        }
        running.spawn(one(number));
    }
    running.join_all().await;
}

fn open(number: usize, mode: v1::Mode, length: usize) -> v1::Open {
    v1::Open {
        tenant: "bench".into(),
        subscriber: format!("subscriber-{}", number % 50),
        kind: v1::Kind::Call.into(),
        mode: mode.into(),
        media_type: "audio/PCMA;rate=8000".into(),
        start_ms: quietus::domain::time::Clock::system().now().0,
        client_id: Bytes::copy_from_slice(&random::<16>()),
        length_hint: length as u64,
        ..Default::default()
    }
}

/// One spooled recording, from Open to Finished.
async fn record(link: Link, number: usize, content: Bytes, sha256: Bytes) {
    let (requests, stream) = mpsc::channel(4);
    let open = open(number, v1::Mode::Spooled, content.len());
    let sending = async {
        let length = content.len() as u64;
        let mut offset = 0;
        requests.send(message(record_request::Event::Open(open))).await.expect("the stream lives");
        while offset < content.len() {
            let piece = content.slice(offset..content.len().min(offset + PIECE));
            let data = v1::Data { offset: offset as u64, content: piece.clone() };
            requests.send(message(record_request::Event::Data(data))).await.expect("the stream lives");
            offset += piece.len();
        }
        let finish = v1::Finish { length, sha256, end_ms: 0 };
        requests.send(message(record_request::Event::Finish(finish))).await.expect("the stream lives");
    };
    let answering = async {
        let mut client = RecordingServiceClient::new(link);
        let mut answers = client.record(ReceiverStream::new(stream)).await.expect("opens").into_inner();
        while !matches!(answer(&mut answers).await, record_response::Event::Finished(_)) {}
    };
    tokio::join!(sending, answering);
}

async fn answer(answers: &mut Streaming<RecordResponse>) -> record_response::Event {
    answers.message().await.expect("no refusal").and_then(|answer| answer.event).expect("an answer")
}

fn message(event: record_request::Event) -> RecordRequest {
    RecordRequest { event: Some(event) }
}

/// Seconds to seal as many bytes, in place, in pieces as ours.
fn seal(content: &Bytes, files: usize) -> f64 {
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, &random::<32>()).expect("32 bytes");
    let key = aead::LessSafeKey::new(key);
    let mut buffer = content.to_vec();
    common::busy_seconds(|| {
        for _ in 0..files {
            for (segment, number) in buffer.chunks_mut(64 << 10).zip(0_u32..) {
                let mut nonce = [0; 12];
                nonce[..4].copy_from_slice(&number.to_be_bytes());
                let nonce = aead::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::empty(), segment);
                let _ = std::hint::black_box(tag.expect("far below the cipher's bound"));
            }
        }
    })
}

fn sha256(content: &Bytes, files: usize) -> f64 {
    common::busy_seconds(|| (0..files).for_each(|_| _ = std::hint::black_box(digest::digest(&digest::SHA256, content))))
}

// ------------------------------------------------------------------------------------------- the bare S3 client

/// As lean as the SDK gets: no checksums, and (with each request) no payload signature.
fn s3_client(ca: &Path, port: u16) -> aws_sdk_s3::Client {
    use aws_sdk_s3::config::{
        BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    };
    use aws_smithy_http_client::tls;
    let trust = tls::TrustStore::empty().with_pem_certificate(std::fs::read(ca).expect("reads"));
    let context = tls::TlsContext::builder().with_trust_store(trust).build().expect("a context");
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(context)
        .build_https();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(format!("https://127.0.0.1:{port}"))
        .credentials_provider(Credentials::new("bench", "secret", None, None, "bench"))
        .force_path_style(true)
        .http_client(http)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

// ------------------------------------------------------------------------------------------------- the lean sinks

fn server_files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("tls/server.pem"), dir.join("tls/server.key"))
}

/// A server that says yes to every PUT once it has read the body, and knows one empty bucket.
async fn s3_sink(dir: &Path) {
    let (chain, key) = server_files(dir);
    let chain = CertificateDer::pem_file_iter(chain).expect("reads").map(|der| der.expect("PEM")).collect();
    let key = PrivateKeyDer::from_pem_file(key).expect("reads");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    say_ready(listener.local_addr().expect("an address"));
    loop {
        let (socket, _) = listener.accept().await.expect("accepts");
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let service = hyper::service::service_fn(s3_answer);
            let mut server = hyper::server::conn::http1::Builder::new();
            let _ = server.max_buf_size(1 << 20).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn s3_answer(request: http::Request<hyper::body::Incoming>) -> Result<http::Response<Full<Bytes>>, hyper::Error> {
    const NO_VERSIONS: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListVersionsResult \
        xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>false</IsTruncated></ListVersionsResult>";
    let listing = request.uri().query().is_some_and(|query| query.contains("versions"));
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    let text = if listing { NO_VERSIONS } else { "" };
    let response =
        http::Response::builder().header("etag", "\"0\"").body(Full::new(Bytes::from_static(text.as_bytes())));
    Ok(response.expect("well formed"))
}

/// Reads recordings and forgets them, with the gateway's flow control.
async fn grpc_sink(dir: &Path) {
    let (chain, key) = server_files(dir);
    let read = |path: &Path| std::fs::read(path).expect("reads");
    let identity = transport::Identity::from_pem(read(&chain), read(&key));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    say_ready(listener.local_addr().expect("an address"));
    transport::Server::builder()
        .tls_config(transport::ServerTlsConfig::new().identity(identity))
        .expect("a certificate")
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .max_frame_size(256 << 10)
        .add_service(RecordingServiceServer::new(Sink).max_decoding_message_size(2 << 20))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .expect("serves");
}

struct Sink;

#[tonic::async_trait]
impl RecordingService for Sink {
    type RecordStream = ReceiverStream<Result<RecordResponse, Status>>;

    async fn record(&self, request: Request<Streaming<RecordRequest>>) -> Result<Response<Self::RecordStream>, Status> {
        let (answers, stream) = mpsc::channel(4);
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                if matches!(message.event, Some(record_request::Event::Finish(_))) {
                    let finished = record_response::Event::Finished(v1::Finished::default());
                    let _ = answers.send(Ok(RecordResponse { event: Some(finished) })).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get(&self, _: Request<v1::GetRecordingRequest>) -> Result<Response<v1::Recording>, Status> {
        Err(Status::unimplemented("a sink"))
    }

    async fn get_basis(&self, _: Request<v1::GetBasisRequest>) -> Result<Response<v1::GetBasisResponse>, Status> {
        Err(Status::unimplemented("a sink"))
    }

    async fn bind_parties(
        &self,
        _: Request<v1::BindPartiesRequest>,
    ) -> Result<Response<v1::BindPartiesResponse>, Status> {
        Err(Status::unimplemented("a sink"))
    }

    async fn correct(&self, _: Request<v1::CorrectRequest>) -> Result<Response<v1::CorrectResponse>, Status> {
        Err(Status::unimplemented("a sink"))
    }

    async fn list(
        &self,
        _: Request<v1::ListRecordingsRequest>,
    ) -> Result<Response<v1::ListRecordingsResponse>, Status> {
        Err(Status::unimplemented("a sink"))
    }
}
