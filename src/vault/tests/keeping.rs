//! What cannot be seen from outside about keeping: what is named before it is put, and whom a hold or a fault reaches.

use super::*;
use crate::{
    crypto::{envelope::Kind as Sealed, secret::Secret},
    domain::id::{ObjectId, RecordingHandle, RowId},
    keys::{Change, Keeping, Mutation, Owner, RecordingPath},
    proto::stored,
    vault::{HoldScope, NewHold, Part, values},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// The objects that lie in the home region.
fn objects_in(region: &Path) -> HashSet<ObjectId> {
    let Ok(entries) = std::fs::read_dir(region) else { return HashSet::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let bytes = names.filter_map(|name| data_encoding::HEXLOWER.decode(name.as_bytes()).ok());
    bytes.filter_map(|bytes| ObjectId::from_slice(&bytes)).collect()
}

#[test]
fn an_object_is_named_in_the_key_store_before_it_is_put() {
    run(async |mut house| {
        house.open(0, true).await;
        let id = house.streams[&0].opened().id;
        let path = house.vault.0.locate(&Scope::All, id).expect("located").path;
        let (keys, region) = (house.vault.0.keys.clone(), house.root.join("s3/eu-west-2"));
        let done = Arc::new(AtomicBool::new(false));
        // Looks at the bucket first and at the key store then: whatever is there by then must have been named before.
        let watch = std::thread::spawn({
            let done = done.clone();
            move || {
                let mut seen = HashSet::new();
                while !done.load(Ordering::SeqCst) {
                    let there = objects_in(&region);
                    let named = keys.audio_leaf(path).expect("reads").expect("lives").objects;
                    assert!(
                        there.iter().all(|object| named.contains(object)),
                        "an object lies there that nothing names"
                    );
                    seen.extend(there);
                }
                seen.len()
            }
        });
        // A slice whenever audio has waited for 30 ms.
        let mut progress = house.streams[&0].progress();
        for _ in 0..40 {
            house.take(Step::Data { client: 0, length: 2000 }).await;
            let sent = house.streams[&0].received();
            progress.wait_for(|now| now.stored == sent).await.expect("stored");
        }
        done.store(true, Ordering::SeqCst);
        let seen = watch.join();
        house.vault.drain().await;
        assert!(seen.expect("no object without a name") >= 30, "the watch saw too little");
    });
}

/// A policy that does not read any more, after an upgrade say: its tenant's promises wait, and nobody else's.
#[test]
fn a_tenant_in_which_something_fails_holds_up_no_other() {
    run(async |house| {
        let (vault, inner) = (&house.vault, &house.vault.0);
        let gateway = Actor::gateway();
        let new = NewTenant {
            name: "other".to_owned(),
            home: "eu-west-2".to_owned(),
            residency: Residency::HomeOnly,
            policy: "name = \"short\"\nmargin = \"1h\"\nparties = \"owner\"\n\
                     [[keep]]\nwhat = \"both\"\nnot_after = \"1h after end\"\n"
                .into(),
        };
        vault.create_tenant(&gateway, new).await.expect("tenant");
        // Over for so long that it is due.
        let began = Clock::system().now().plus_ms(-3 * 3_600_000);
        let open = |tenant: &str, client: u8| Open {
            tenant: tenant.to_owned(),
            subscriber: "subscriber".to_owned(),
            kind: Kind::Call,
            mode: Mode::Spooled,
            media_type: "audio/PCMA".to_owned(),
            client_id: [client; 16].to_vec(),
            start: Some(began),
            length_hint: None,
            facts: StatedFacts::default(),
            basis: StatedBasis::default(),
            ties: StatedTies::default(),
        };
        let record = async |tenant: &str, client: u8| {
            let mut ingest = vault.record(open(tenant, client)).await.expect("opened");
            ingest.data(0, audio(client, 0, 100)).await.expect("taken");
            ingest.finish(Finish { length: 100, sha256: None, end: Some(began) }).await.expect("finished");
            let mut progress = ingest.progress();
            progress.wait_for(|now| now.finished.is_some()).await.expect("stored");
            ingest.opened().id
        };
        let (kept, due) = (record("acme", 1).await, record("other", 2).await);

        let acme = inner.find_tenant("acme").expect("a tenant");
        let holder = inner.tenant_holder(acme).expect("lives");
        let name = values::name(holder.row, Sealed::TenantPolicy);
        let unread = stored::TenantPolicy { text: "nonsense".to_owned(), keep: String::new() };
        let envelope = values::seal(&unread, &holder.secret, &name);
        let row = Change::PutValue { owner: Owner::Tenant(acme), name, envelope };
        let broken = inner.change_settings(acme, |settings| {
            settings.rules_changed();
            Ok(vec![row])
        });
        broken.await.expect("written");

        vault.expire().await.expect("runs");
        assert!(matches!(vault.recording(&developer(), due, "").await, Err(Error::Erased)));
        assert!(vault.recording(&developer(), kept, "").await.is_ok());
        assert_eq!(vault.status().expiry.failing_tenants, 1);
        vault.drain().await;
    });
}

/// A transcript says what was said in a call; its own facts need not name who spoke.
#[test]
fn a_hold_on_a_number_or_a_party_covers_what_was_made_from_a_call() {
    run(async |house| {
        let (vault, inner) = (house.vault.clone(), house.vault.0.clone());
        let start = Clock::system().now();
        let call = |parties: &[&str]| Open {
            tenant: "acme".to_owned(),
            subscriber: "subscriber-0".to_owned(),
            kind: Kind::Call,
            mode: Mode::Spooled,
            media_type: "audio/PCMA".to_owned(),
            client_id: crate::crypto::random::<16>().to_vec(),
            start: Some(start),
            length_hint: None,
            facts: StatedFacts {
                parties: parties.iter().map(|party| (*party).to_owned()).collect(),
                ..StatedFacts::default()
            },
            basis: StatedBasis::default(),
            ties: StatedTies::default(),
        };
        let tenant = inner.find_tenant("acme").expect("a tenant");
        let secret = inner.tenant_holder(tenant).expect("lives").secret;
        let mut transcripts = Vec::new();
        for parties in [&["+441632960999"][..], &["+441632960998"]] {
            let stream = vault.record(call(parties)).await.expect("opened");
            let parent = inner.locate(&Scope::All, stream.opened().id).expect("found").path;
            let at = RecordingPath { recording: RecordingHandle(crate::crypto::random()), ..parent };
            let transcript = Change::AddRecording {
                at,
                row: RowId(crate::crypto::random()),
                kind: Kind::Transcript as u8,
                audio: Secret::random(),
                facts: Secret::random(),
                objects: Vec::new(),
                keeping: Keeping::default(),
                parent: Some(parent.recording),
                parties: Vec::new(),
                wrapped: false,
            };
            inner.keys.commit(Mutation::new(vec![transcript])).await.expect("made");
            transcripts.push((stream, crate::vault::recording_id::issue(&secret, at.subscriber, at.recording)));
        }
        let hold = NewHold {
            tenant: "acme".to_owned(),
            scope: HoldScope::Number { number: "+44 1632 960999".to_owned(), from: None, to: None },
            ground: "dispute".to_owned(),
            authority: "counsel".to_owned(),
            review: start.plus_ms(86_400_000),
        };
        let placed = vault.place_hold(&Actor::gateway(), hold).await.expect("placed");
        assert_eq!(placed.found, 2, "the call and its transcript");
        let erase = async |id| vault.erase(&Actor::gateway(), Target::Recording(id, Part::Both), None).await;
        assert!(matches!(erase(transcripts[0].1).await, Err(Error::Parked { .. })), "what was made from it is held");
        assert!(erase(transcripts[1].1).await.expect("the control: of another call").destroyed);
        vault.drain().await;
    });
}
