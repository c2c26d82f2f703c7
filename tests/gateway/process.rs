//! The process as a whole: what it leaves on disks and in logs, and how much memory it takes.

use super::{
    TRANSPORTS,
    gateway::Gateway,
    served::World,
    wire::{self, Call, assert_plays, open, sound, store},
};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use memchr::memmem::Finder;
use quietus::proto::v1::{self, Mode, Part, Residency};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tonic::body::Body;
use tower::{Service as _, ServiceExt as _};

/// What must be nowhere, in each form in which a program would write it.
pub struct Traces(Vec<(String, Finder<'static>)>);

impl Traces {
    pub fn of(secrets: &[(&str, &[u8])]) -> Self {
        let mut traces = Vec::new();
        for (name, secret) in secrets {
            let wide = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
                secret.iter().flat_map(|byte| order(u16::from(*byte))).collect()
            };
            let hex = data_encoding::HEXLOWER.encode(secret);
            let mut forms = vec![
                ("bytes", secret.to_vec()),
                ("UTF-16LE", wide(u16::to_le_bytes)),
                ("UTF-16BE", wide(u16::to_be_bytes)),
                ("hex", hex.clone().into_bytes()),
                ("HEX", hex.to_uppercase().into_bytes()),
            ];
            // Base64 of a larger whole: each of the three places it may begin at, without the letters that its
            // neighbours have a part in.
            for place in 0..3 {
                let whole: Vec<u8> = std::iter::repeat_n(0, place).chain(secret.iter().copied()).collect();
                for (form, encoding) in
                    [("base64", data_encoding::BASE64_NOPAD), ("base64url", data_encoding::BASE64URL_NOPAD)]
                {
                    let text = encoding.encode(&whole);
                    let clean = &text[(place * 8).div_ceil(6)..whole.len() * 8 / 6];
                    forms.push((form, clean.as_bytes().to_vec()));
                }
            }
            for (form, needle) in forms {
                traces.push((format!("{name} as {form}"), Finder::new(&needle).into_owned()));
            }
        }
        Self(traces)
    }

    pub fn search(&self, place: &str, bytes: &[u8]) {
        for (what, finder) in &self.0 {
            if let Some(at) = finder.find(bytes) {
                panic!("{what} in {place} at {at}");
            }
        }
    }

    /// Contents and names of all files. Gives how many there were.
    pub fn search_folder(&self, folder: &Path) -> usize {
        let mut files = 0;
        for entry in std::fs::read_dir(folder).expect("reads") {
            let path = entry.expect("an entry").path();
            self.search("a file's name", path.as_os_str().as_encoded_bytes());
            if path.is_dir() {
                files += self.search_folder(&path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                self.search(&path.display().to_string(), &bytes);
                files += 1;
            }
        }
        files
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_name_number_or_sound_is_on_disk_or_in_logs() {
    let secrets: [(&str, &[u8]); 9] = [
        ("tenant", b"tenant-zqxjkvb"),
        ("subscriber", b"subscriber-wvyfpgq"),
        ("party", b"+44-7700-90-0123-party"),
        ("call id", b"call-id-hwkzmxr"),
        ("label name", b"label-name-bvcxzlk"),
        ("label value", b"label-value-poiuytre"),
        ("purpose", b"purpose-mnbvfghj"),
        ("basis", b"basis-lkjhgfds"),
        ("audio", b"AUDIO-pattern-qwertzuiop-0123456789"),
    ];
    let text = |wanted: &str| {
        let (_, secret) = secrets.iter().find(|(name, _)| *name == wanted).expect("one of them");
        String::from_utf8(secret.to_vec()).expect("text")
    };
    let traces = Traces::of(&secrets);
    // The search finds what is there.
    for (name, secret) in &secrets {
        let planted = data_encoding::BASE64.encode(&[b"xy", *secret, b"z"].concat());
        assert!(traces.0.iter().any(|(_, finder)| finder.find(planted.as_bytes()).is_some()), "{name}");
    }

    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quietus"));
        command.env("QUIETUS_LOG", "debug").args(["dev", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
        tokio::task::block_in_place(|| Gateway::spawn(command, &data))
    };
    let mut gateway = start();
    let audio = text("audio").repeat(8000).into_bytes();
    wire::tenant(gateway.link("developer", TRANSPORTS[0]), &text("tenant"), Residency::Both).await;
    let first = |mode| v1::Open {
        subscriber: text("subscriber"),
        facts: Some(v1::Facts {
            parties: vec![text("party")],
            call_id: text("call id"),
            labels: [(text("label name"), text("label value"))].into(),
            purpose: text("purpose"),
            basis: text("basis"),
        }),
        ..open(&text("tenant"), mode)
    };
    let mut ids = Vec::new();
    for transport in TRANSPORTS {
        let link = || gateway.link("developer", transport);
        for mode in [Mode::Live, Mode::Spooled] {
            let id = store(link(), first(mode), &audio).await;
            assert_plays(link(), &id, &audio).await;
            wire::list(link(), &text("tenant"), 0).await;
            ids.push(id);
        }
        // What goes wrong is logged as well.
        let mut wrong = Call::begin(link(), first(Mode::Spooled)).await.expect("opened");
        assert!(wrong.rest(&audio, 0).await && wrong.finish(1, None).await);
        wrong.until_refused().await;
        let request = v1::CreateTenantRequest { name: text("tenant"), ..Default::default() };
        let client = v1::tenant_service_client::TenantServiceClient::new(link());
        client.clone().create_tenant(request).await.expect_err("refused");
        wire::erase(link(), wire::subscriber(&text("tenant"), &text("label value"))).await.expect_err("unknown");
        Call::begin(link(), v1::Open { media_type: text("party"), ..first(Mode::Live) }).await.err().expect("refused");
    }
    // A call that is in the journal when the process is killed, and goes on afterwards.
    let waiting = first(Mode::Live);
    let mut call = Call::begin(gateway.link("developer", TRANSPORTS[0]), waiting.clone()).await.expect("opened");
    assert!(call.rest(&audio, 0).await);
    call.until(|mark| mark.journaled == audio.len() as u64).await.expect("journaled");
    traces.search_folder(&data);
    gateway.kill();
    gateway = start();
    let link = || gateway.link("developer", TRANSPORTS[0]);
    ids.push(store(link(), waiting, &audio).await);
    wire::erase(link(), wire::recording(&ids[0], Part::Audio)).await.expect("erased");
    wire::erase(link(), wire::recording(&ids[1], Part::Facts)).await.expect("erased");
    wire::settled(link()).await;
    assert!(traces.search_folder(&data) > 30, "hardly anything was searched");

    let mut operator = gateway.link("operator", TRANSPORTS[0]);
    let request = Request::get("https://localhost/metrics").body(Body::empty()).expect("a request");
    let answer = operator.ready().await.expect("ready").call(request).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    traces.search("/metrics", &answer.into_body().collect().await.expect("a body").to_bytes());

    wire::erase(link(), wire::whole_tenant(&text("tenant"))).await.expect("erased");
    let log = data.with_extension("log");
    gateway.stop();
    traces.search_folder(&data);
    let log = std::fs::read(log).expect("a log");
    traces.search("the log", &log);
    assert!(log.windows(5).any(|line| line == b"INFO "), "it did log");
}

/// Memory of a process that is its own, in bytes.
fn resident(pid: u32) -> u64 {
    let path: PathBuf = ["/proc", &pid.to_string(), "status"].iter().collect();
    let status = std::fs::read_to_string(path).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a figure");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_files_at_once_stay_within_the_budget() {
    let world = World::new("[limits]\nmemory_mib = 64\n").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    // One first, so that pools and caches have their size.
    store(gateway.link("admin", TRANSPORTS[0]), open("acme", Mode::Spooled), &sound(0, 1 << 20)).await;
    let before = resident(gateway.pid());
    let mut uploads = tokio::task::JoinSet::new();
    let content = std::sync::Arc::new(sound(1, 20 << 20));
    for index in 0..24 {
        let mode = if index % 4 == 0 { Mode::Live } else { Mode::Spooled };
        let (link, content) = (gateway.link("admin", TRANSPORTS[usize::from(index % 3 == 0)]), content.clone());
        uploads.spawn(async move { store(link, open("acme", mode), &content).await });
    }
    let ids = uploads.join_all().await;
    let grown = resident(gateway.pid()) - before;
    println!("24 uploads of 20 MiB: {} MiB more than before", grown >> 20);
    // 64 MiB of audio, and the windows of 24 connections with 4 MiB for each stream.
    assert!(grown < 240 << 20, "{} MiB", grown >> 20);
    for id in ids.iter().step_by(7) {
        assert_plays(gateway.link("admin", TRANSPORTS[0]), id, &content).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_that_stall_do_not_keep_memory_from_others() {
    let world = World::new("[limits]\nmemory_mib = 64\nsender_timeout_seconds = 1\n").await;
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::HomeOnly).await;
    let mut stalled = Vec::new();
    for index in 0..12 {
        let link = gateway.link("admin", TRANSPORTS[index % 2]);
        let call = Call::begin(link, open("acme", Mode::Spooled)).await.expect("opened");
        assert!(call.data(0, b"x").await);
        stalled.push(call);
    }
    let mut silent = Call::begin(link(), open("acme", Mode::Live)).await.expect("opened");
    let content = sound(1, 9 << 20);
    let id = tokio::time::timeout(wire::WITHIN, store(link(), open("acme", Mode::Spooled), &content));
    let id = id.await.expect("its turn comes");
    assert_plays(link(), &id, &content).await;
    for call in &mut stalled {
        // What they had sent went into slices of its own; they go on when they like.
        assert!(call.finish(1, None).await);
        call.until_finished().await.expect("finished");
    }
    // A call may be silent: it holds no memory.
    assert!(silent.rest(&content[..1000], 0).await && silent.finish_with(&content[..1000]).await);
    silent.until_finished().await.expect("finished");
}
