//! `docs/format.md` is the contract; these tests hold the program to its tables. Slices have their vectors
//! (`slice_vectors.rs`); pages, rows and frames as the real stores write them are read in `forensics_store.rs` by a parser
//! that was written from the document.

use quietus::{
    crypto::{
        envelope::{self, Kind},
        label::{Label, derive},
        secret::Secret,
    },
    domain::id::RootId,
    keys::{
        FileSlot, Forgets, Pkcs11Slot, Slot as _, SlotRecord,
        slot::pkcs11::{KeyId, SlotId, Token, TokenError},
    },
};
use ring::{aead, digest, hmac};

const DOC: &str = include_str!("../docs/format.md");

/// The cells of the rows of the tables in a section.
fn rows(section: &str) -> Vec<Vec<String>> {
    let body = DOC.split("\n## ").find(|body| body.starts_with(section)).expect("the section is there");
    let rows = body.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    rows.skip(1).map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// `derive` by RFC 5869 and the document, with nothing but HMAC.
fn derive_by_hand(secret: &[u8], label: &str, context: &[u8]) -> Vec<u8> {
    let mac = |key: &[u8], parts: &[&[u8]]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat()).as_ref().to_vec()
    };
    let extracted = mac(&[0; 32], &[secret]);
    mac(&extracted, &[label.as_bytes(), &[0], context, &[1]])
}

#[test]
fn the_table_of_labels_is_the_one_in_the_program() {
    let documented: Vec<String> =
        rows("9. Labels").into_iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    let used: Vec<&str> = Label::ALL.iter().map(|label| label.text()).collect();
    assert_eq!(documented, used);
}

#[test]
fn the_table_of_what_is_sealed_under_what_has_every_kind() {
    let documented: Vec<(String, String)> =
        rows("8. What is sealed under what").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| ((*kind as u8).to_string(), format!("{kind:?}"))).collect();
    assert_eq!(documented, kinds);
}

#[test]
fn derive_is_what_the_document_says() {
    let secret = [7; 32];
    for label in Label::ALL {
        let wanted = derive_by_hand(&secret, label.text(), b"some context");
        assert_eq!(derive::<32>(&secret, label, &[b"some ", b"context"]).as_slice(), wanted);
        assert_eq!(derive::<8>(&secret, label, &[b"some context"]).as_slice(), &wanted[..8]);
    }
}

#[test]
fn an_envelope_opens_by_its_table() {
    let secret = Secret::random();
    let bytes = envelope::seal(Kind::Slice, &secret, b"the clear part", b"the plaintext");
    assert_eq!(&bytes[..8], b"QTEV\x01\x06\0\0");
    let be32 = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let (clear, sealed) = (be32(8), be32(12));
    assert_eq!(&bytes[48..48 + clear], b"the clear part");
    assert_eq!(bytes.len(), 48 + clear + sealed);
    let key = derive_by_hand(secret.expose(), "quietus/1 envelope", &bytes[..48]);
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key).expect("32 bytes"));
    let mut body = bytes[48 + clear..].to_vec();
    let aad = aead::Aad::from(&bytes[..48 + clear]);
    let plain = key.open_in_place(aead::Nonce::assume_unique_for_key([0; 12]), aad, &mut body).expect("opens");
    assert_eq!(plain, b"the plaintext");
}

#[test]
fn a_slot_file_is_its_table() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("slot");
    let record = SlotRecord { generation: 5, id: RootId([8; 16]), number: 3, share: Secret::random() };
    let mut slot = FileSlot::open(&path).expect("a new slot");
    slot.stage(&record).expect("staged");
    let bytes = std::fs::read(&path).expect("readable");
    assert_eq!(bytes.len(), 3 * 4096);
    let sector = bytes.chunks(4096).find(|sector| sector.iter().any(|byte| *byte != 0)).expect("one in use");
    assert_eq!(&sector[..8], b"QTRS\x01\x03\0\0");
    assert_eq!(sector[8..16], 5_u64.to_be_bytes());
    assert_eq!(sector[16..32], [8; 16]);
    assert_eq!(&sector[32..64], record.share.expose());
    assert_eq!(&sector[64..96], digest::digest(&digest::SHA256, &sector[..64]).as_ref());
    assert!(sector[96..].iter().all(|byte| *byte == 0));
}

/// A token with one key, so that what it sealed can be opened by hand.
struct OneKey([u8; 32]);

impl OneKey {
    fn key(&self) -> aead::LessSafeKey {
        aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &self.0).expect("32 bytes"))
    }
}

impl Token for OneKey {
    fn keys(&mut self, _: SlotId) -> Result<Vec<KeyId>, TokenError> {
        Ok(Vec::new())
    }

    fn seal(
        &mut self,
        _: SlotId,
        _: KeyId,
        nonce: &[u8; 12],
        associated: &[u8],
        root: &Secret,
    ) -> Result<Vec<u8>, TokenError> {
        let mut sealed = root.expose().to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        self.key().seal_in_place_append_tag(nonce, aead::Aad::from(associated), &mut sealed).expect("seals");
        Ok(sealed)
    }

    fn open(&mut self, _: SlotId, _: KeyId, _: &[u8; 12], _: &[u8], _: &[u8]) -> Result<Secret, TokenError> {
        Err(TokenError::NoKey)
    }

    fn destroy(&mut self, _: SlotId, _: KeyId) -> Result<(), TokenError> {
        Ok(())
    }
}

#[test]
fn the_file_beside_a_token_is_its_table() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("slot");
    let (share, key) = (Secret::random(), [7; 32]);
    let mut slot = Pkcs11Slot::open(&path, Box::new(OneKey(key)), Forgets::AtOnce).expect("a new slot");
    slot.stage(&SlotRecord { generation: 5, id: RootId([8; 16]), number: 3, share: share.duplicate() })
        .expect("staged");
    let bytes = std::fs::read(&path).expect("readable");
    assert_eq!(bytes.len(), 4 * 4096);
    assert_eq!(&bytes[..8], b"QTPH\x01\0\0\0");
    assert_eq!(&bytes[24..56], digest::digest(&digest::SHA256, &bytes[..24]).as_ref());
    assert!(bytes[56..4096].iter().all(|byte| *byte == 0));
    let sector = &bytes[4096..8192];
    assert_eq!(&sector[..8], b"QTPR\x01\x03\0\0");
    assert_eq!(sector[8..16], 5_u64.to_be_bytes());
    assert_eq!(sector[16..32], [8; 16]);
    assert!(sector[32..48].iter().any(|byte| *byte != 0));
    let nonce = aead::Nonce::assume_unique_for_key(sector[48..60].try_into().expect("twelve"));
    let mut sealed = sector[60..108].to_vec();
    let opened =
        OneKey(key).key().open_in_place(nonce, aead::Aad::from(&sector[..60]), &mut sealed).expect("opens").to_vec();
    assert_eq!(opened, share.expose());
    assert_eq!(&sector[108..140], digest::digest(&digest::SHA256, &sector[..108]).as_ref());
    assert!(sector[140..].iter().all(|byte| *byte == 0) && bytes[8192..].iter().all(|byte| *byte == 0));
}

#[test]
fn objects_of_the_backup_are_their_tables() {
    use quietus::{
        domain::id::StoreId,
        keys::{
            backing::Family,
            backup::format::{self, Delta, Part, PartWriter},
            command::{Chain, Command},
        },
    };
    let command = Command { number: 9, rotation: None, expects: Vec::new(), rows: Vec::new() }.encode();
    let delta = format::delta(StoreId([7; 16]), 9, Chain([3; 32]), std::slice::from_ref(&command));
    assert_eq!(&delta[..8], b"QTBD\x01\0\0\0");
    assert_eq!((&delta[8..24], &delta[24..32], &delta[32..64]), (&[7; 16][..], &9_u64.to_be_bytes()[..], &[3; 32][..]));
    assert_eq!(&delta[64..72], [1_u32.to_be_bytes(), (command.len() as u32).to_be_bytes()].concat());
    let end = delta.len() - 32;
    assert_eq!(delta[72..end], command);
    assert_eq!(&delta[end..], digest::digest(&digest::SHA256, &delta[..end]).as_ref());
    let chain = digest::digest(&digest::SHA256, &[&[3; 32][..], &command[command.len() - 32..]].concat());
    assert_eq!(Delta::decode(&delta).expect("reads back").commands[0].1.0, chain.as_ref());

    let mut part = PartWriter::new(StoreId([7; 16]), 9, Chain([3; 32]), 5);
    part.push(Family::Doomed, b"row", b"value");
    let part = part.finish(true);
    assert_eq!(&part[..8], b"QTBB\x01\x01\0\0");
    assert_eq!((&part[8..24], &part[24..32], &part[32..64]), (&[7; 16][..], &9_u64.to_be_bytes()[..], &[3; 32][..]));
    assert_eq!((&part[64..72], &part[72..76]), (&5_u64.to_be_bytes()[..], &1_u32.to_be_bytes()[..]));
    let end = part.len() - 32;
    assert_eq!(&part[76..end], b"\x03\x01\0\x03row\0\0\0\x05value");
    assert_eq!(&part[end..], digest::digest(&digest::SHA256, &part[..end]).as_ref());
    assert!(Part::decode(&part).expect("reads back").last);
    let sizes = |rows: &[Vec<String>]| rows.iter().filter(|row| row[0].parse::<u32>().is_ok()).count();
    assert_eq!(sizes(&rows("10. Backups")), 7 + 9, "every fixed field has its line");
}
