//! A node is lost, and comes back from its slot and the buckets: with real speech, over the real process.

use super::{
    TRANSPORTS,
    gateway::Gateway,
    seaweed::Seaweed,
    served::{REGIONS, World},
    wire::{self, Call, assert_erased, assert_plays, open},
};
use aws_sdk_s3::types::BucketVersioningStatus;
use quietus::{
    forensics::{Options, investigate},
    proto::v1::{
        self, GetReceiptRequest, KeyCustody, Mode, Outcome, Part, ReceiptState, Residency,
        erasure_service_client::ErasureServiceClient,
    },
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

const PROMPTS: &str = "/usr/share/asterisk/sounds/en_US_f_Allison";

/// Real speech: so many prompts, the longest ones.
fn speech(count: usize) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(PROMPTS).expect("`make deps` installs asterisk-core-sounds-en-wav");
    let files = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    let mut files: Vec<(u64, PathBuf)> = files.map(|path| (path.metadata().expect("a size").len(), path)).collect();
    files.sort();
    files.iter().rev().take(count).map(|(_, path)| std::fs::read(path).expect("reads")).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("reads") {
        let (entry, to) =
            (entry.as_ref().expect("an entry").path(), to.join(entry.as_ref().expect("an entry").file_name()));
        if entry.is_dir() {
            copy(&entry, &to);
        } else {
            // What is removed meanwhile is not in this copy.
            let _ = std::fs::copy(entry, to);
        }
    }
}

fn operate(world: &World, arguments: &[&str]) -> Output {
    let config = world.data().join("quietus.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_quietus"));
    command.args(arguments).arg("--config").arg(config).arg("--json").output().expect("it runs")
}

fn text(output: &Output) -> String {
    format!("{} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Stores a recording, and waits until its key is in the backup.
async fn store(gateway: &Gateway, content: &[u8]) -> String {
    let first = v1::Open { media_type: "audio/wav".into(), ..open("acme", Mode::Spooled) };
    let mut call = Call::begin(gateway.link("admin", TRANSPORTS[0]), first).await.expect("opened");
    assert!(call.rest(content, 0).await && call.finish_with(content).await);
    assert_eq!(call.until_finished().await.expect("finished").key(), KeyCustody::BackedUp);
    call.id()
}

/// Takes everything from the node but slot, configuration and what the operator keeps.
fn lose(world: &World) {
    for folder in ["keys", "journal"] {
        std::fs::remove_dir_all(world.data().join(folder)).expect("removed");
    }
}

async fn a_lost_node_comes_back(world: World) {
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::Both).await;
    let speech = speech(4);
    let mut ids = Vec::new();
    for content in &speech {
        ids.push(store(&gateway, content).await);
    }
    let receipt = wire::erase(link(), wire::recording(&ids[0], Part::Unspecified)).await.expect("erased");
    assert_eq!(receipt.outcome(), Outcome::Erased);
    let last = Instant::now();
    gateway.kill();
    println!("killed {} ms after the last acknowledgement", last.elapsed().as_millis());
    lose(&world);

    let refused = operate(&world, &["serve"]);
    assert!(!refused.status.success() && text(&refused).contains("restore"), "{}", text(&refused));
    let listed = operate(&world, &["backup", "list"]);
    assert!(listed.status.success() && text(&listed).contains("\"store\""), "{}", text(&listed));
    let verified = operate(&world, &["backup", "verify"]);
    assert!(verified.status.success() && text(&verified).contains("whole"), "{}", text(&verified));
    let began = Instant::now();
    let restored = operate(&world, &["restore"]);
    assert!(restored.status.success(), "{}", text(&restored));
    assert!(text(&restored).contains("\"passed_over\":null"), "{}", text(&restored));
    let again = operate(&world, &["restore"]);
    assert_eq!(again.status.code(), Some(2), "{}", text(&again));
    let gateway = world.start();
    println!("restored and serving in {} ms: {}", began.elapsed().as_millis(), text(&restored).trim());
    let link = || gateway.link("admin", TRANSPORTS[0]);
    assert_erased(link(), &ids[0]).await;
    for (id, content) in ids.iter().zip(&speech).skip(1) {
        assert_plays(link(), id, content).await;
    }
    // Its statement was in the backup before it was given out.
    let request = GetReceiptRequest { id: receipt.receipt_id };
    let kept = ErasureServiceClient::new(gateway.link("admin", TRANSPORTS[0])).get_receipt(request).await;
    assert_ne!(kept.expect("the receipt is back").into_inner().state(), ReceiptState::Sealed);
    // The chain goes on.
    ids.push(store(&gateway, &speech[0]).await);
    wire::erase(link(), wire::recording(&ids[1], Part::Unspecified)).await.expect("erased");
    gateway.kill();
    lose(&world);
    let restored = operate(&world, &["restore"]);
    assert!(restored.status.success(), "{}", text(&restored));
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    assert_erased(link(), &ids[1]).await;
    assert_plays(link(), &ids[4], &speech[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_lost_comes_back_from_slot_and_buckets() {
    a_lost_node_comes_back(World::new("[backup]\n").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_back_from_buckets_with_versions() {
    let server = tokio::task::block_in_place(Seaweed::shared);
    let mut regions = Vec::new();
    for region in REGIONS {
        let bucket = format!("backup-{region}");
        server.client().create_bucket().bucket(&bucket).send().await.expect("created");
        server.set_versioning(&bucket, BucketVersioningStatus::Enabled).await;
        regions.push(server.region_config(region, &bucket));
    }
    a_lost_node_comes_back(World::over(regions, "[backup]\n").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_the_backup_open_what_lives_and_nothing_else() {
    let world = World::new("[backup]\n").await;
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::HomeOnly).await;
    let speech = speech(2);
    let (gone, kept) = (store(&gateway, &speech[0]).await, store(&gateway, &speech[1]).await);
    let (objects, slot) = (world.aside("objects"), world.aside("slot"));
    copy(&world.bucket(REGIONS[0]), &objects);
    copy(&world.data().join("slot"), &slot);
    wire::erase(link(), wire::recording(&gone, Part::Unspecified)).await.expect("erased");
    let readable = |slot: PathBuf| {
        let keys = vec![objects.join("backup"), world.bucket(REGIONS[0]).join("backup")];
        let options = Options { keys, slots: vec![slot], objects: vec![objects.clone()], ..Options::default() };
        let found = investigate(&options).expect("it understands everything");
        let heard = found.objects.0.iter().filter(|object| object.readable());
        heard.filter_map(|object| object.recording()).collect::<std::collections::HashSet<_>>().len()
    };
    assert_eq!(readable(slot), 2, "the control: with the slot of before both are heard");
    assert_eq!(readable(world.data().join("slot")), 1);
    assert_plays(link(), &kept, &speech[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_without_storage_is_sealed_and_destroyed_when_it_is_back() {
    let world = World::new("[backup]\n").await;
    let gateway = world.start();
    let link = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(link(), "acme", Residency::HomeOnly).await;
    let id = store(&gateway, &speech(1)[0]).await;
    world.proxies.iter().for_each(|proxy| proxy.cut());
    let answer = wire::erase(link(), wire::recording(&id, Part::Unspecified)).await.expect("answered");
    assert_eq!((answer.outcome(), answer.receipt.as_str()), (Outcome::Sealed, ""));
    assert_erased(link(), &id).await;
    let status = wire::status(link()).await;
    assert!(status.erasures_sealed && status.backup && status.backup_behind > 0, "{status:?}");
    let (base, behind) = (status.backup_base_ms, status.backup_behind_since_ms);
    assert!(0 < base && base <= behind && behind <= status.erasures_waiting_since_ms + 1000, "{status:?}");
    let receipt = async || {
        let request = GetReceiptRequest { id: answer.receipt_id.clone() };
        let client = ErasureServiceClient::new(gateway.link("admin", TRANSPORTS[0]));
        client.clone().get_receipt(request).await.expect("a receipt").into_inner()
    };
    assert_eq!(receipt().await.state(), ReceiptState::Sealed);
    world.proxies.iter().for_each(|proxy| proxy.mend());
    let began = Instant::now();
    while receipt().await.state() == ReceiptState::Sealed {
        assert!(began.elapsed() < wire::WITHIN, "never destroyed: {:?}", wire::status(link()).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = wire::status(link()).await;
    assert!(!status.erasures_sealed && status.erasures_waiting_since_ms == 0, "{status:?}");
    assert!(receipt().await.text.contains("destroyed"));
}
