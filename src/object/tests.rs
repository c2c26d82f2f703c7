//! Tests of the store against the embedded server, over TLS. `tests/object_versions.rs` has a bucket that keeps versions.

use super::{embedded::Certificate, *};
use crate::crypto::random;
use std::path::Path;
use tempfile::TempDir;

const LONDON: &str = "eu-west-2";
const DUBLIN: &str = "eu-west-1";

async fn embedded(root: &Path) -> Embedded {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .expect("names")
        .self_signed(&key)
        .expect("a certificate");
    let (pem, key_pem) = (certificate.pem(), key.serialize_pem());
    let certificate = Certificate { chain_pem: pem.as_bytes(), key_pem: key_pem.as_bytes(), ca_pem: pem.as_bytes() };
    Embedded::start(root, &[LONDON, DUBLIN], certificate).await.expect("starts")
}

async fn started() -> (TempDir, Embedded, ObjectStore) {
    let dir = TempDir::new().expect("a folder");
    let server = embedded(dir.path()).await;
    let store = ObjectStore::connect(server.region_configs()).await.expect("connects");
    (dir, server, store)
}

fn id() -> ObjectId {
    ObjectId(random())
}

#[tokio::test]
async fn what_is_put_is_got_in_any_range() {
    let (dir, _server, store) = started().await;
    assert_eq!(store.regions(), [LONDON, DUBLIN]);
    let body: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    let id = id();
    store.put(LONDON, id, body.clone().into()).await.expect("put");
    assert_eq!(store.size(LONDON, id).await, Ok(Some(100_000)));
    for range in [0..100_000, 0..1, 65_536..65_540, 99_999..100_000] {
        let got = store.get(LONDON, id, range.clone()).await.expect("got");
        assert_eq!(got, body[range.start as usize..range.end as usize]);
    }
    assert_eq!(store.get(LONDON, id, 7..7).await, Ok(Bytes::new()));
    // The region's own folder, one file per object, named by the id alone.
    assert_eq!(std::fs::read(dir.path().join(LONDON).join(id.to_string())).expect("a file"), body);
    assert_eq!(store.size(DUBLIN, id).await, Ok(None));
}

#[tokio::test]
async fn a_range_past_the_end_is_an_error_not_a_short_answer() {
    let (_dir, _server, store) = started().await;
    let id = id();
    store.put(LONDON, id, Bytes::from_static(b"0123456789")).await.expect("put");
    assert!(matches!(store.get(LONDON, id, 5..11).await, Err(StoreError::Refused(_))));
    assert!(matches!(store.get(LONDON, id, 10..11).await, Err(StoreError::Refused(_))));
    assert!(matches!(store.get(LONDON, id, 0..MAX_GET + 1).await, Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let (_dir, _server, store) = started().await;
    assert_eq!(store.get(LONDON, id(), 0..1).await, Err(StoreError::NotFound));
    assert_eq!(store.size(LONDON, id()).await, Ok(None));
    assert!(matches!(store.put("eu-north-1", id(), Bytes::new()).await, Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn a_missing_bucket_does_not_look_like_a_missing_object() {
    let (dir, _server, store) = started().await;
    std::fs::remove_dir(dir.path().join(LONDON)).expect("removes");
    assert!(!matches!(store.remove(LONDON, &[id()]).await, Ok(()) | Err(StoreError::NotFound)));
}

#[tokio::test]
async fn removing_takes_all_and_can_be_repeated() {
    let (dir, _server, store) = started().await;
    let ids: Vec<ObjectId> = (0..20).map(|_| id()).collect();
    for id in &ids {
        store.put(LONDON, *id, Bytes::from_static(b"sealed")).await.expect("put");
    }
    let kept = id();
    store.put(LONDON, kept, Bytes::from_static(b"sealed")).await.expect("put");
    store.remove(LONDON, &ids).await.expect("removed");
    store.remove(LONDON, &ids).await.expect("removed again");
    store.remove(LONDON, &[]).await.expect("nothing to do");
    let left: Vec<_> = std::fs::read_dir(dir.path().join(LONDON)).expect("lists").collect();
    assert_eq!(left.len(), 1);
    assert_eq!(store.size(LONDON, kept).await, Ok(Some(6)));
}

#[tokio::test]
async fn a_prefix_stands_before_every_name() {
    let (dir, server, _store) = started().await;
    let mut configs = server.region_configs();
    configs[0].prefix = "group/uk/".to_owned();
    let store = ObjectStore::connect(configs).await.expect("connects");
    let id = id();
    store.put(LONDON, id, Bytes::from_static(b"sealed")).await.expect("put");
    let path = dir.path().join(LONDON).join("group/uk").join(id.to_string());
    assert!(path.exists());
    store.remove(LONDON, &[id]).await.expect("removed");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_region_that_is_away_is_unavailable_and_the_other_goes_on() {
    let (_dir, mut server, store) = started().await;
    let id = id();
    store.put(DUBLIN, id, Bytes::from_static(b"sealed")).await.expect("put");
    server.stop(LONDON).await;
    assert!(matches!(store.put(LONDON, id, Bytes::from_static(b"sealed")).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.remove(LONDON, &[id]).await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.get(DUBLIN, id, 0..6).await.as_deref(), Ok(b"sealed".as_slice()));
    // A gateway starts all the same.
    ObjectStore::connect(server.region_configs()).await.expect("connects");
}

#[tokio::test]
async fn a_wrong_secret_is_refused_at_the_start_and_not_repeated_in_the_error() {
    let (_dir, server, _store) = started().await;
    let mut configs = server.region_configs();
    let access_key = configs[0].credentials.as_ref().expect("credentials").access_key.clone();
    configs[0].credentials =
        Some(Credentials { access_key: access_key.clone(), secret_key: Zeroizing::new("wrong-secret".to_owned()) });
    match ObjectStore::connect(configs).await {
        Err(ConnectError::Bucket { region, error: error @ StoreError::Refused(_) }) => {
            assert_eq!(region, LONDON);
            assert!(!error.to_string().contains(&access_key) && !error.to_string().contains("wrong-secret"));
        }
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("a wrong secret was taken"),
    }
}

#[tokio::test]
async fn a_bucket_that_is_missing_is_created_only_when_told() {
    let (_dir, server, _store) = started().await;
    let mut configs = server.region_configs();
    configs[0].bucket = "another".to_owned();
    assert!(matches!(ObjectStore::connect(configs).await, Err(ConnectError::Bucket { .. })));
    let mut configs = server.region_configs();
    configs[0].bucket = "another".to_owned();
    configs[0].create_bucket = true;
    let store = ObjectStore::connect(configs).await.expect("connects");
    store.put(LONDON, id(), Bytes::from_static(b"sealed")).await.expect("put");
}

#[tokio::test]
async fn configurations_that_must_not_be_used_are_refused() {
    let refused = async |change: fn(&mut RegionConfig)| {
        let mut config = RegionConfig::new(LONDON, "bucket");
        change(&mut config);
        matches!(ObjectStore::connect(vec![config]).await, Err(ConnectError::Config { .. }))
    };
    assert!(refused(|config| config.endpoint = Some("http://127.0.0.1:1".to_owned())).await);
    assert!(
        refused(|config| {
            config.endpoint = Some("http://192.0.2.1:1".to_owned());
            config.allow_http = true;
        })
        .await,
        "plain HTTP beyond loopback"
    );
    assert!(refused(|config| config.endpoint = Some("not a url".to_owned())).await);
    assert!(refused(|config| config.prefix = "no-slash".to_owned()).await);
    assert!(refused(|config| config.ca_pem = Some(b"no certificate".to_vec())).await);
    assert!(refused(|config| config.bucket.clear()).await);
}

#[tokio::test]
async fn a_server_with_another_authority_is_not_talked_to() {
    let (_dir, server, _store) = started().await;
    let (_other_dir, other, _) = started().await;
    let mut configs = server.region_configs();
    configs[0].ca_pem = other.region_configs().remove(0).ca_pem;
    let store = ObjectStore::connect(configs).await.expect("connects later");
    assert!(matches!(store.put(LONDON, id(), Bytes::new()).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn leftovers_of_removed_objects_go_at_the_next_start() {
    let (dir, server, store) = started().await;
    let (gone, kept) = (id(), id());
    for id in [gone, kept] {
        store.put(LONDON, id, Bytes::from_static(b"sealed")).await.expect("put");
    }
    store.remove(LONDON, &[gone]).await.expect("removed");
    drop(server);
    let server = embedded(dir.path()).await;
    let beside = |id: ObjectId| {
        let coded = data_encoding::BASE64URL_NOPAD.encode(id.to_string().as_bytes());
        let entries = std::fs::read_dir(dir.path()).expect("lists");
        entries.filter(|entry| entry.as_ref().expect("an entry").file_name().to_string_lossy().contains(&coded)).count()
    };
    assert_eq!(beside(gone), 0);
    assert!(beside(kept) > 0, "s3s-fs names its files otherwise: this test and the cleaning see nothing");
    let store = ObjectStore::connect(server.region_configs()).await.expect("connects");
    assert_eq!(store.size(LONDON, kept).await, Ok(Some(6)));
}
