//! Removing objects from buckets that keep versions: nothing of them is left, and nothing else is touched. On a real
//! server (SeaweedFS), over TLS.

#[path = "common/seaweed.rs"]
mod seaweed;

use aws_sdk_s3::{Client, types::BucketVersioningStatus};
use quietus::{
    crypto::random,
    domain::id::ObjectId,
    object::{ConnectError, ObjectStore, StoreError},
};
use seaweed::Seaweed;
use std::sync::Arc;

const REGION: &str = "eu-west-2";

async fn started(bucket: &str, versioning: Option<BucketVersioningStatus>) -> (Arc<Seaweed>, ObjectStore) {
    let server = tokio::task::spawn_blocking(Seaweed::shared).await.expect("starts");
    let store = ObjectStore::connect(vec![server.region_config(REGION, bucket)]).await.expect("connects");
    if let Some(status) = versioning {
        server.set_versioning(bucket, status).await;
    }
    (server, store)
}

fn id() -> ObjectId {
    ObjectId(random())
}

async fn put(client: &Client, bucket: &str, key: &str, body: &'static [u8]) {
    client.put_object().bucket(bucket).key(key).body(body.to_vec().into()).send().await.expect("put");
}

/// Versions and delete markers whose key starts so.
async fn left(client: &Client, bucket: &str, prefix: &str) -> (usize, usize) {
    let page = client.list_object_versions().bucket(bucket).prefix(prefix).send().await.expect("lists");
    (page.versions().len(), page.delete_markers().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_leaves_no_version_and_no_marker() {
    let bucket = "versioned";
    let (server, store) = started(bucket, Some(BucketVersioningStatus::Enabled)).await;
    let client = server.client();
    let (gone, other) = (id(), id());
    let key = gone.to_string();
    // A name that begins like the one that goes: a listing by prefix finds both.
    let longer = format!("{key}0");
    for body in [b"first", b"again"] {
        put(&client, bucket, &key, body).await;
        client.delete_object().bucket(bucket).key(&key).send().await.expect("deleted");
    }
    store.put(REGION, gone, (&b"third"[..]).into()).await.expect("put");
    store.put(REGION, other, (&b"other"[..]).into()).await.expect("put");
    put(&client, bucket, &longer, b"longer").await;
    assert_eq!(left(&client, bucket, &key).await, (4, 2), "the bucket does not keep versions: the test shows nothing");

    store.remove(REGION, &[gone]).await.expect("removed");
    assert_eq!(left(&client, bucket, &key).await, (1, 0), "all but the longer name is gone");
    assert_eq!(store.size(REGION, gone).await, Ok(None));
    assert_eq!(store.get(REGION, other, 0..5).await.as_deref(), Ok(b"other".as_slice()));

    store.remove(REGION, &[gone, id()]).await.expect("what is not there is fine");
    assert_eq!(left(&client, bucket, &key).await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_alone_is_removed_too() {
    let bucket = "markers";
    let (server, store) = started(bucket, Some(BucketVersioningStatus::Enabled)).await;
    let client = server.client();
    let gone = id();
    client.delete_object().bucket(bucket).key(gone.to_string()).send().await.expect("deleted");
    assert_eq!(left(&client, bucket, "").await, (0, 1));
    store.remove(REGION, &[gone]).await.expect("removed");
    assert_eq!(left(&client, bucket, "").await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_from_before_versioning_was_suspended_go_too() {
    let bucket = "suspended";
    let (server, store) = started(bucket, None).await;
    let client = server.client();
    let gone = id();
    let key = gone.to_string();
    put(&client, bucket, &key, b"before any versioning").await;
    server.set_versioning(bucket, BucketVersioningStatus::Enabled).await;
    put(&client, bucket, &key, b"a version").await;
    put(&client, bucket, &key, b"another").await;
    server.set_versioning(bucket, BucketVersioningStatus::Suspended).await;
    put(&client, bucket, &key, b"the null version").await;
    assert!(left(&client, bucket, &key).await.0 >= 3);
    store.remove(REGION, &[gone]).await.expect("removed");
    assert_eq!(left(&client, bucket, "").await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_versions_than_a_page_holds_are_all_removed() {
    let bucket = "pages";
    let (server, store) = started(bucket, Some(BucketVersioningStatus::Enabled)).await;
    let client = server.client();
    let gone = id();
    let key = gone.to_string();
    let mut puts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, key) = (client.clone(), key.clone());
        puts.spawn(async move {
            for _ in 0..130 {
                put(&client, bucket, &key, b"x").await;
            }
        });
    }
    puts.join_all().await;
    store.remove(REGION, &[gone]).await.expect("removed");
    assert_eq!(left(&client, bucket, "").await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_versions_is_emptied_as_well() {
    let bucket = "plain";
    let (server, store) = started(bucket, None).await;
    let ids: Vec<ObjectId> = (0..10).map(|_| id()).collect();
    for id in &ids {
        store.put(REGION, *id, (&b"sealed"[..]).into()).await.expect("put");
    }
    assert_eq!(store.get(REGION, ids[0], 1..3).await.as_deref(), Ok(b"ea".as_slice()));
    store.remove(REGION, &ids).await.expect("removed");
    assert_eq!(left(&server.client(), bucket, "").await, (0, 0));
    assert_eq!(store.get(REGION, ids[0], 1..3).await, Err(StoreError::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_refused() {
    let (server, _store) = started("secrets", None).await;
    let mut config = server.region_config(REGION, "secrets");
    config.credentials.as_mut().expect("credentials").secret_key = "wrong".to_owned().into();
    let outcome = ObjectStore::connect(vec![config]).await;
    assert!(matches!(outcome, Err(ConnectError::Bucket { error: StoreError::Refused(_), .. })));
}
