//! Pages read back as they were written, and nothing else is a page.

use super::*;
use crate::crypto::random;

fn secret() -> Arc<Secret> {
    Arc::new(Secret::random())
}

fn veiled() -> Veiled {
    Veiled::new(&Veil::new(), &Secret::random())
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
        name: Arc::new(Name::new("Ada".to_owned())),
    }
}

fn recording(handle: u8, audio: bool, facts: bool, objects: usize) -> Entry {
    Entry::Recording(Recording {
        handle: RecordingHandle([handle; 16]),
        row: RowId(random()),
        kind: 2,
        audio: audio.then(veiled),
        facts: facts.then(veiled),
        objects: (0..objects).map(|_| ObjectId(random())).collect(),
    })
}

fn samples() -> Vec<(Level, Vec<Arc<Entry>>)> {
    let period = Period { handle: PeriodHandle([3; 8]), row: RowId(random()), purpose: Purpose::Counters, day: Day(7) };
    let arcs = |entries: Vec<Entry>| entries.into_iter().map(Arc::new).collect::<Vec<_>>();
    vec![
        (
            Level::Branch,
            arcs(vec![Entry::Branch { low: [0; 16], child: link() }, Entry::Branch { low: [9; 16], child: link() }]),
        ),
        (Level::Tenants, arcs(vec![Entry::Tenant(account(1)), Entry::Tenant(account(2))])),
        (
            Level::Subscribers,
            arcs(vec![Entry::Subscriber(account(1)), Entry::Period(period, secret()), Entry::Subscriber(account(9))]),
        ),
        (
            Level::Recordings,
            arcs(vec![
                recording(1, true, true, 2),
                recording(2, true, false, 0),
                recording(3, false, true, 1),
                recording(4, false, false, 0),
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
        let missing = entries.iter().filter_map(|entry| match &**entry {
            Entry::Recording(r) => Some(32 * (usize::from(r.audio.is_none()) + usize::from(r.facts.is_none()))),
            _ => None,
        });
        assert_eq!(said - missing.sum::<usize>(), body.len() - 5 + items.len() * Item::LEN);
    }
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
    let entries = [Arc::new(recording(2, true, true, 0)), Arc::new(recording(1, true, true, 0))];
    let (body, items) = encode_body(Level::Recordings, &entries).expect("encodes");
    assert!(decode_body(&body, &items, Some(&Veil::new())).is_err());
}

#[test]
fn appended_rows_read_back_and_apply_in_order() {
    let first = Arc::new(recording(1, true, true, 1));
    let Entry::Recording(inner) = &*first else { unreachable!() };
    let objects = vec![ObjectId(random()), ObjectId(random())];
    let appends = [
        Append::Insert(first.clone()),
        Append::Objects(inner.row, objects.clone()),
        Append::Insert(Arc::new(recording(0, true, true, 0))),
    ];
    let (body, items) = encode_appends(&appends).expect("encodes");
    let mut entries = vec![];
    for append in decode_appends(Level::Recordings, &body, &items, Some(&Veil::new())).expect("reads back") {
        apply_append(&mut entries, append).expect("applies");
    }
    assert_eq!(entries.len(), 2);
    let Entry::Recording(second) = &*entries[1] else { unreachable!() };
    assert_eq!(second.objects[1..], objects);
    assert!(decode_appends(Level::Tenants, &body, &items, Some(&Veil::new())).is_err());
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
