//! The audit log: its numbers, its tree, and what a crash leaves of both.

use super::{
    super::*,
    add_subscriber, add_tenant, block_on, commit,
    medium::{Disk, Left},
    new_recording, open, sweep_all,
};
use crate::crypto::random;
use ring::digest::{Context, SHA256};
use tlog_tiles::tlog::{self, Hash, HashReader};

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("32 bytes")
}

/// RFC 6962, section 2.1, word for word.
pub fn root_by_hand(leaves: &[Vec<u8>]) -> [u8; 32] {
    match leaves {
        [] => sha256(&[]),
        [leaf] => sha256(&[&[0], leaf]),
        several => {
            let split = several.len().next_power_of_two() / 2;
            let (left, right) = several.split_at(split);
            sha256(&[&[1], &root_by_hand(left), &root_by_hand(right)])
        }
    }
}

struct Stored<'a>(&'a KeyStore);

impl HashReader for Stored<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        Ok(self.0.log_hashes(indexes).expect("every hash is there").into_iter().map(Hash).collect())
    }
}

pub fn root_by_the_store(keys: &KeyStore, size: u64) -> [u8; 32] {
    tlog::tree_hash(size, &Stored(keys)).expect("a tree").0
}

fn leaf(bytes: &[u8]) -> Change {
    Change::Log { leaf: bytes.to_vec(), under: None }
}

#[test]
fn a_thousand_appends_make_the_tree_of_the_rfc() {
    let disk = Disk::new();
    let keys = open(&disk);
    let mut leaves: Vec<Vec<u8>> = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    while leaves.len() < 1000 {
        // Mutations of several leaves, several in a batch.
        let together: Vec<Vec<Vec<u8>>> = (0..1 + random::<1>()[0] % 4)
            .map(|_| {
                (0..random::<1>()[0] % 5)
                    .map(|_| random::<40>()[..usize::from(random::<1>()[0] % 40)].to_vec())
                    .collect()
            })
            .collect();
        let answers = runtime.block_on(async {
            let mut waiting = Vec::new();
            for bytes in &together {
                let (keys, changes) = (keys.clone(), bytes.iter().map(|bytes| leaf(bytes)).collect());
                waiting.push(tokio::spawn(async move { keys.commit(Mutation::new(changes)).await }));
            }
            let mut answers = Vec::new();
            for answer in waiting {
                answers.push(answer.await.expect("no panic").expect("commits").log);
            }
            answers
        });
        for (bytes, numbers) in together.into_iter().zip(answers) {
            assert_eq!(numbers, leaves.len() as u64..(leaves.len() + bytes.len()) as u64);
            leaves.extend(bytes);
        }
    }
    for size in [1, 2, 3, 255, 256, 257, leaves.len() - 1, leaves.len()] {
        assert_eq!(root_by_the_store(&keys, size as u64), root_by_hand(&leaves[..size]), "{size}");
    }
    let size = keys.log_size();
    drop(keys);
    let keys = open(&disk);
    assert_eq!((keys.log_size(), size), (leaves.len() as u64, leaves.len() as u64));
    assert_eq!(commit(&keys, vec![leaf(b"one more")]).expect("commits").log, size..size + 1);
}

#[test]
fn a_refused_mutation_leaves_no_hole_in_the_log() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let unknown = SubscriberHandle(random());
    let numbers = runtime.block_on(async {
        let mut waiting = Vec::new();
        for number in 0..30_u8 {
            let mut changes = vec![leaf(&[number]), leaf(&[number])];
            if number % 3 == 1 {
                changes.push(new_recording(tenant, unknown, 0).1);
            }
            let keys = keys.clone();
            waiting.push(tokio::spawn(async move { keys.commit(Mutation::new(changes)).await }));
        }
        let mut numbers = Vec::new();
        for (number, answer) in waiting.into_iter().enumerate() {
            match answer.await.expect("no panic") {
                Ok(committed) => numbers.extend(committed.log.map(|at| (at, number as u8))),
                Err(error) => assert!(number % 3 == 1 && matches!(error, CommitError::Gone)),
            }
        }
        numbers
    });
    assert_eq!(keys.log_size(), 40);
    assert!(numbers.iter().map(|(at, _)| *at).eq(0..40));
    for (at, number) in numbers {
        assert_eq!(keys.log_leaf(at).expect("reads"), Some(vec![number]));
    }
    let too_long = Change::Log { leaf: vec![0; MAX_LEAF + 1], under: None };
    assert!(matches!(commit(&keys, vec![too_long]), Err(CommitError::Malformed(_))));
}

#[test]
fn a_leaf_and_its_effect_are_there_together_whatever_fails() {
    for rotates in [false, true] {
        for steps in 0..5 {
            for left in [Left::Nothing, Left::Half, Left::All] {
                for power in [false, true] {
                    let disk = Disk::new();
                    let keys = open(&disk);
                    let tenant = add_tenant(&keys, "acme");
                    let subscriber = add_subscriber(&keys, tenant, "ada");
                    let (gone, create) = new_recording(tenant, subscriber, 0);
                    let (new, second) = new_recording(tenant, subscriber, 0);
                    commit(&keys, vec![create, leaf(b"first"), leaf(b"second")]).expect("commits");
                    let mut changes = vec![leaf(b"third"), second];
                    if rotates {
                        changes.push(Change::EraseRecording { at: gone, parts: Parts::BOTH });
                    }
                    disk.arm(steps, left);
                    let answer = commit(&keys, changes);
                    drop(keys);
                    disk.disarm();
                    if power {
                        disk.lose_power();
                    }
                    let keys = open(&disk);
                    let happened = keys.facts_leaf(new).expect("reads").is_some();
                    assert_eq!(keys.log_size(), 2 + u64::from(happened), "{rotates} {steps} {left:?} {power}");
                    assert!(happened || answer.is_err());
                    let mut leaves = vec![b"first".to_vec(), b"second".to_vec()];
                    leaves.extend(happened.then(|| b"third".to_vec()));
                    assert_eq!(root_by_the_store(&keys, keys.log_size()), root_by_hand(&leaves));
                    commit(&keys, vec![leaf(b"fourth")]).expect("commits");
                    leaves.push(b"fourth".to_vec());
                    assert_eq!(root_by_the_store(&keys, keys.log_size()), root_by_hand(&leaves));
                }
            }
        }
    }
}

#[test]
fn references_go_with_the_period_and_leaves_stay() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let (period, row) = (PeriodHandle(random()), RowId(random()));
    let (secret, purpose, day) = (Secret::random(), Purpose::Evidence, Day(3));
    commit(&keys, vec![Change::AddPeriod { tenant, period, row, secret, purpose, day }]).expect("a period");
    let other = RowId(random());
    for number in 0..50_u8 {
        let under = Some(if number % 5 == 0 { other } else { row });
        commit(&keys, vec![Change::Log { leaf: vec![number], under }]).expect("commits");
    }
    assert_eq!(keys.log_under(other, None, 100).expect("reads"), (0..50).step_by(5).collect::<Vec<_>>());
    assert_eq!(keys.log_under(row, Some(6), 3).expect("reads"), [7, 8, 9]);
    assert_eq!(keys.log_under(row, None, 100).expect("reads").len(), 40);
    commit(&keys, vec![Change::ErasePeriod(tenant, period)]).expect("erases");
    sweep_all(&keys, 10);
    assert!(keys.log_under(row, None, 100).expect("reads").is_empty());
    assert_eq!(keys.log_under(other, None, 100).expect("reads").len(), 10);
    assert_eq!(keys.log_leaf(7).expect("reads"), Some(vec![7]));
    drop(keys);
    assert_eq!(open(&disk).log_size(), 50);
}

#[test]
fn receipts_lie_in_clear_and_come_in_order() {
    let disk = Disk::new();
    let keys = open(&disk);
    let mut ids: Vec<ReceiptId> = (0..5).map(|_| ReceiptId(random())).collect();
    for id in &ids {
        commit(&keys, vec![Change::PutReceipt { id: *id, body: id.0.to_vec() }]).expect("puts");
    }
    ids.sort();
    let found = keys.receipts(Some(ids[1]), 2).expect("reads");
    assert_eq!(found, [(ids[2], ids[2].0.to_vec()), (ids[3], ids[3].0.to_vec())]);
    commit(&keys, vec![Change::DropReceipt { id: ids[2] }]).expect("drops");
    assert_eq!((keys.receipt(ids[2]).expect("reads"), keys.receipts(None, 9).expect("reads").len()), (None, 4));
    let too_long = Change::PutReceipt { id: ids[0], body: vec![0; MAX_RECEIPT + 1] };
    assert!(matches!(commit(&keys, vec![too_long]), Err(CommitError::Malformed(_))));

    // What erases under an id that has a receipt is refused; a rewrite of the receipt is not.
    let put = |body| vec![Change::PutReceipt { id: ids[0], body }];
    let erasing = |body| block_on(keys.commit(Mutation { changes: put(body), receipt: Some(ids[0]) }));
    assert!(matches!(erasing(vec![1]), Err(CommitError::Exists)));
    commit(&keys, put(vec![2])).expect("rewrites");
    assert_eq!(keys.receipt(ids[0]).expect("reads"), Some(vec![2]));
    commit(&keys, vec![Change::DropReceipt { id: ids[0] }]).expect("drops");
    erasing(vec![3]).expect("the name is free");
}

#[test]
fn the_last_step_of_a_receipt_says_so_and_what_is_stuck_holds_up_nothing_else() {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let receipts: Vec<ReceiptId> = (0..3).map(|_| ReceiptId(random())).collect();
    for receipt in &receipts {
        let mut changes = Vec::new();
        for _ in 0..2 {
            let (at, create) = new_recording(tenant, subscriber, 3);
            commit(&keys, vec![create]).expect("creates");
            changes.push(Change::EraseRecording { at, parts: Parts::BOTH });
        }
        let mutation = Mutation { changes, receipt: Some(*receipt) };
        assert!(block_on(keys.commit(mutation)).expect("erases").erased);
    }
    let (at, create) = new_recording(tenant, subscriber, 2);
    commit(&keys, vec![create]).expect("creates");
    commit(&keys, vec![Change::EraseRecording { at, parts: Parts::BOTH }]).expect("erases");
    assert_eq!(keys.doomed_count(), 7);
    // The object store refuses one object: its row is never done, the others are.
    let stuck = keys.next_doomed(1).expect("reads").expect("a step").objects[0];
    let mut done = Vec::new();
    for _ in 0..100 {
        let Some(step) = keys.next_doomed(1).expect("reads") else { break };
        if !step.objects.contains(&stuck) {
            done.extend(block_on(keys.swept(step)).expect("ends a step"));
        }
    }
    assert_eq!(keys.doomed_count(), 1);
    let left: Vec<_> = receipts.iter().filter(|id| keys.doomed_under(**id).expect("reads")).collect();
    assert_eq!(done.len() + left.len(), 3);
    assert!(left.iter().all(|id| !done.contains(id)));
    // Now it lets go.
    while let Some(step) = keys.next_doomed(1).expect("reads") {
        done.extend(block_on(keys.swept(step)).expect("ends a step"));
    }
    done.sort();
    let mut all = receipts.clone();
    all.sort();
    assert_eq!(done, all);
}
