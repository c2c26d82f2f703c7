//! Pages read back as they were written, and nothing else is a page.

use super::*;
use crate::{
    crypto::random,
    domain::{
        id::{PeriodHandle, RecordingHandle},
        time::{Day, Minute},
    },
    keys::{Keeping, Period, Purpose, veil::Veiled, wrap},
};

fn secret() -> Arc<Secret> {
    Arc::new(Secret::random())
}

fn plain() -> Leaf {
    Leaf::Plain(Veiled::new(&Veil::new(), Secret::random().expose()))
}

fn wrapped() -> Leaf {
    Leaf::Wrapped(Arc::new([7; wrap::LEN]))
}

fn link() -> Link {
    Link { id: PageId(random()), key: secret() }
}

fn account(handle: u8) -> Account {
    Account {
        handle: [handle; 8],
        row: RowId(random()),
        secret: secret(),
        subtree: link(),
        due: Minute(77),
        name: Arc::new(Name::new("Ada".to_owned())),
    }
}

fn recording(handle: u8, audio: bool, facts: bool, objects: usize) -> Entry {
    Entry::Recording(Recording {
        handle: RecordingHandle([handle; 16]),
        row: RowId(random()),
        kind: 2,
        audio: audio.then(plain),
        facts: facts.then(plain),
        objects: (0..objects).map(|_| ObjectId(random())).collect(),
        keeping: Keeping::default(),
        ties: None,
    })
}

/// One that says everything an entry can say.
fn full(handle: u8) -> Recording {
    let ties = Ties {
        parent: Some(RecordingHandle([9; 16])),
        children: vec![RecordingHandle([8; 16]), RecordingHandle([7; 16])],
        parties: vec![SubscriberHandle([1; 8]), SubscriberHandle([2; 8])],
        wrapped: true,
    };
    Recording {
        handle: RecordingHandle([handle; 16]),
        row: RowId(random()),
        kind: 2,
        audio: Some(wrapped()),
        facts: Some(wrapped()),
        objects: Objects::from_elem(ObjectId(random()), 1),
        keeping: Keeping {
            ended: Minute(1),
            audio_due: Minute(2),
            facts_due: Minute(3),
            audio_floor: Minute(4),
            facts_floor: Minute(5),
            ground: 6,
            jurisdiction: *b"DE",
            restricted: true,
            basis: 7,
        },
        ties: ties.boxed(),
    }
}

fn bound(handle: u8) -> Entry {
    let (handle, row) = (RecordingHandle([handle; 16]), RowId(random()));
    Entry::Bound(Bound {
        handle,
        row,
        owner: SubscriberHandle([5; 8]),
        objects: Objects::from_elem(ObjectId(random()), 1),
    })
}

fn samples() -> Vec<(Level, Vec<Entry>)> {
    let period = Period { handle: PeriodHandle([3; 8]), row: RowId(random()), purpose: Purpose::Counters, day: Day(7) };
    vec![
        (
            Level::Branch,
            (vec![
                Entry::Branch { low: [0; 16], child: link(), due: Minute::NEVER },
                Entry::Branch { low: [9; 16], child: link(), due: Minute(3) },
            ]),
        ),
        (Level::Tenants, (vec![Entry::Tenant(account(1)), Entry::Tenant(account(2))])),
        (
            Level::Subscribers,
            (vec![Entry::Subscriber(account(1)), Entry::Period(period, secret()), Entry::Subscriber(account(9))]),
        ),
        (
            Level::Recordings,
            (vec![
                recording(1, true, true, 2),
                recording(2, true, false, 0),
                recording(3, false, true, 1),
                recording(4, false, false, 0),
                Entry::Recording(full(5)),
                bound(6),
            ]),
        ),
        (Level::Recordings, vec![]),
    ]
}

#[test]
fn a_page_reads_back_as_it_was_written_and_is_as_large_as_it_says() {
    for (level, entries) in samples() {
        let (body, items) = encode_body(level, &entries).expect("encodes");
        let (again, decoded) = decode_body(&body, &items, Some(&Veil::new())).expect("reads back");
        let (body_again, items_again) = encode_body(again, &decoded).expect("encodes");
        assert!(body[..] == body_again[..] && items == items_again && level == again);
        let said: usize = entries.iter().map(|entry| entry.size()).sum();
        assert_eq!(said, body.len() - 5 + items.len() * Item::LEN);
    }
}

#[test]
fn what_an_entry_says_of_keeping_reads_back_field_by_field() {
    let all = full(1);
    let fields: [fn(&mut Keeping, Keeping); 9] = [
        |to, from| to.ended = from.ended,
        |to, from| to.audio_due = from.audio_due,
        |to, from| to.facts_due = from.facts_due,
        |to, from| to.audio_floor = from.audio_floor,
        |to, from| to.facts_floor = from.facts_floor,
        |to, from| to.ground = from.ground,
        |to, from| to.jurisdiction = from.jurisdiction,
        |to, from| to.restricted = from.restricted,
        |to, from| to.basis = from.basis,
    ];
    for chosen in 0..1_u32 << fields.len() {
        let mut keeping = Keeping::default();
        for (bit, field) in fields.iter().enumerate() {
            if chosen >> bit & 1 == 1 {
                field(&mut keeping, all.keeping);
            }
        }
        let entry = Entry::Recording(Recording { keeping, ..all.clone() });
        let (body, items) = encode_body(Level::Recordings, &[entry]).expect("encodes");
        let (_, read) = decode_body(&body, &items, Some(&Veil::new())).expect("reads back");
        let Entry::Recording(read) = &read[0] else { unreachable!() };
        assert_eq!((read.keeping, &read.ties), (keeping, &all.ties));
    }
}

#[test]
fn an_entry_takes_what_it_says_and_no_more() {
    let mut ordinary = recording(1, true, true, 1);
    let Entry::Recording(inner) = &mut ordinary else { unreachable!() };
    inner.keeping = Keeping {
        ended: Minute(1),
        audio_due: Minute(2),
        facts_due: Minute(3),
        jurisdiction: *b"DE",
        basis: 2,
        ..Keeping::default()
    };
    // The budget is 160 bytes a recording, with its share of the page's own bytes.
    assert_eq!(ordinary.size(), 133);
    assert_eq!(recording(1, true, true, 1).size(), 118);
}

#[test]
fn an_entry_has_one_spelling() {
    // A due minute that says never, a list of nobody, wrapped for nobody, a flag that nobody knows.
    let head = |flags: u16| [&[4][..], &[1; 16], &[7], &flags.to_be_bytes()].concat();
    let page = |entry: Vec<u8>| [&[4, 0, 0, 0, 1][..], &entry].concat();
    let reads = |entry: Vec<u8>| decode_body(&page(entry), &[Item::Row(RowId([2; 16]))], Some(&Veil::new())).is_ok();
    assert!(reads(head(0)));
    assert!(reads([head(1 << 8), vec![0, 0, 0, 9]].concat()));
    assert!(!reads([head(1 << 8), vec![255; 4]].concat()));
    assert!(!reads([head(1 << 7), vec![0; 4]].concat()));
    assert!(!reads([head(1 << 3), vec![0]].concat()));
    assert!(!reads(head(1 << 2)));
    assert!(!reads(head(1 << 15)));
    // Parties out of order.
    assert!(reads([head(1 << 3), vec![2], vec![1; 8], vec![2; 8]].concat()));
    assert!(!reads([head(1 << 3), vec![2], vec![2; 8], vec![1; 8]].concat()));
    assert!(!reads([head(1 << 3), vec![9], (0..72).collect()].concat()), "too many parties");
}

#[test]
fn a_page_cut_short_or_with_foreign_items_is_refused() {
    for (level, entries) in samples() {
        let (body, items) = encode_body(level, &entries).expect("encodes");
        for cut in 0..body.len() {
            assert!(decode_body(&body[..cut], &items, Some(&Veil::new())).is_err(), "{cut}");
        }
        let mut more = items.clone();
        more.push(Item::Page(PageId([1; 16])));
        assert!(decode_body(&body, &more, Some(&Veil::new())).is_err());
        if !items.is_empty() {
            assert!(decode_body(&body, &items[1..], Some(&Veil::new())).is_err());
        }
    }
}

#[test]
fn entries_out_of_order_are_refused() {
    let entries = [recording(2, true, true, 0), recording(1, true, true, 0)];
    let (body, items) = encode_body(Level::Recordings, &entries).expect("encodes");
    assert!(decode_body(&body, &items, Some(&Veil::new())).is_err());
}

#[test]
fn appended_rows_read_back_and_apply_in_order() {
    let first = recording(1, true, true, 1);
    let Entry::Recording(inner) = &first else { unreachable!() };
    let objects: Objects = [(); 2].map(|()| ObjectId(random())).into_iter().collect();
    let appends = [
        Append::Insert(first.clone()),
        Append::Objects(inner.row, objects.clone()),
        Append::Insert(recording(0, true, true, 0)),
        Append::Insert(bound(2)),
        Append::Replace(Entry::Recording(Recording { kind: 9, ..full(0) })),
    ];
    let (body, items) = encode_appends(&appends).expect("encodes");
    let mut entries = vec![];
    for append in decode_appends(Level::Recordings, &body, &items, Some(&Veil::new())).expect("reads back") {
        apply_append(&mut entries, append).expect("applies");
    }
    assert_eq!(entries.len(), 3);
    let Entry::Recording(replaced) = &entries[0] else { unreachable!() };
    assert_eq!(replaced.kind, 9);
    let Entry::Recording(second) = &entries[1] else { unreachable!() };
    assert_eq!(second.objects[1..], objects[..]);
    assert!(decode_appends(Level::Tenants, &body, &items, Some(&Veil::new())).is_err());
    // What replaces nothing.
    assert!(apply_append(&mut entries, Append::Replace(recording(9, true, true, 0))).is_err());
}

#[test]
fn a_branch_entry_is_replaced_in_a_branch_page_only() {
    let (low, child) = ([3; 16], link());
    let entry = |due| Entry::Branch { low, child: child.clone(), due };
    let (body, items) = encode_appends(&[Append::Replace(entry(Minute(5)))]).expect("encodes");
    let mut entries = vec![entry(Minute::NEVER)];
    for append in decode_appends(Level::Branch, &body, &items, None).expect("reads back") {
        apply_append(&mut entries, append).expect("applies");
    }
    assert_eq!((entries[0].due(), entries.len()), (Minute(5), 1));
    for level in [Level::Tenants, Level::Subscribers, Level::Recordings] {
        assert!(decode_appends(level, &body, &items, Some(&Veil::new())).is_err());
    }
}

proptest::proptest! {
    #[test]
    fn hostile_bytes_never_panic(body: Vec<u8>, clear: Vec<u8>, level in 0u8..6, top: bool) {
        let items = Item::decode_list(&clear).unwrap_or_default();
        let mut framed = vec![level];
        framed.extend(&body);
        let _ = decode_body(&framed, &items, Some(&Veil::new()));
        if let Some(level) = Level::from_byte(level) {
            let _ = decode_appends(level, &body, &items, Some(&Veil::new()));
        }
        if let Ok(clear) = Clear::decode(&clear, top) {
            let _ = clear.encode();
        }
    }
}
