//! The key that signs checkpoints and receipts, and the key that verifies them: Ed25519 by `ring`, written as C2SP
//! [signed notes](https://c2sp.org/signed-note) and verifier keys.
//!
//! # What a stolen signing key could do
//! It opens nothing and erases nothing: no secret of the key tree hangs on it. Whoever holds it can sign receipts for
//! erasures that never happened, and checkpoints of a log that never was. He cannot make the log that others have seen
//! agree with his: a forged receipt needs a checkpoint of a tree that holds its statement, and that tree is not one that
//! the checkpoints which auditors kept can be extended to. So a forgery is found by whoever compares checkpoints
//! (`quietus audit verify` keeps the last one it saw and asks for consistency), and not by whoever looks at one file
//! alone. After a theft: take a new key, publish it, and re-issue receipts (`quietus receipt show ID` signs anew what the
//! log holds); receipts by the old key prove what a comparison with the log confirms, no more.
//!
//! A note is accepted here in one spelling only: one signature, and nothing that would be written otherwise by this file.
//! So no byte of a note can change without its being noticed.

use super::{Checkpoint, Hash};
use data_encoding::BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use signed_note::{Note, Signature, VerifierList};
use std::{fmt, str::FromStr};
use zeroize::Zeroizing;

/// The algorithm byte of Ed25519 in a verifier key.
const ED25519_BYTE: u8 = 1;
/// Bytes in a public key.
const PUBLIC_LEN: usize = 32;

/// The name of a group's log: the origin of its checkpoints, and the name of its key.
///
/// A key's name holds neither spaces nor `+`, which separates its parts; whatever a group's name has beyond letters,
/// digits, `-`, `_` and `.` is written `-`.
pub fn origin(group: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    format!("quietus/{}", group.chars().map(plain).collect::<String>())
}

/// These bytes are no signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key in PKCS#8")]
pub struct NotASigningKey;

/// Signs. Its secret half never leaves `ring`.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl SigningKey {
    /// A new key, as PKCS#8.
    pub fn generate() -> Zeroizing<Vec<u8>> {
        let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new());
        // As in `crypto::fill_random`: without randomness there is nothing safe left to do.
        let document = document.expect("the operating system's random generator works");
        Zeroizing::new(document.as_ref().to_vec())
    }

    /// A key that nobody has after this run.
    pub fn of_this_run(group: &str) -> Self {
        Self::from_pkcs8(group, &Self::generate()).expect("a key that was just made")
    }

    /// Reads a key.
    pub fn from_pkcs8(group: &str, pkcs8: &[u8]) -> Result<Self, NotASigningKey> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| NotASigningKey)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| NotASigningKey)?;
        Ok(Self { pair, verifier: VerifierKey::new(origin(group), public) })
    }

    /// What verifies.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs a text, which ends with a line break.
    ///
    /// # Panics
    /// When the text is no text of a note: every text that is signed is written by this module.
    pub fn sign(&self, text: &str) -> String {
        let bytes = self.pair.sign(text.as_bytes()).as_ref().to_vec();
        let signed = Signature::new(self.verifier.name.clone(), self.verifier.id, bytes)
            .and_then(|signature| Note::new(text.as_bytes(), &[signature]))
            .expect("texts of ours are lines without control characters");
        String::from_utf8(signed.to_bytes()).expect("a note of a text is text")
    }

    /// Signs the head of the log.
    pub fn checkpoint(&self, head: Checkpoint) -> String {
        self.sign(&head.text(&self.verifier.name))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifier)
    }
}

/// Verifies. Written as a C2SP verifier key: `NAME+ID+KEY`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: u32,
    public: [u8; PUBLIC_LEN],
}

/// The text is no verifier key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a verifier key is written NAME+ID+KEY, as in the file audit.vkey")]
pub struct NotAVerifierKey;

/// Why a note is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteRefused {
    /// No note, or one that is not in its one spelling.
    #[error("not a signed note, or not spelt as one is")]
    Malformed,
    /// Somebody else signed it.
    #[error("signed by another key")]
    ForeignKey,
    /// The signature is not that of this text.
    #[error("the text is not what was signed")]
    Altered,
    /// The text is no checkpoint.
    #[error("not a checkpoint of this log")]
    NotACheckpoint,
}

impl VerifierKey {
    fn new(name: String, public: [u8; PUBLIC_LEN]) -> Self {
        let id = signed_note::key_id(&name, &Self::encoded(&public));
        Self { name, id, public }
    }

    fn encoded(public: &[u8; PUBLIC_LEN]) -> Vec<u8> {
        [&[ED25519_BYTE], &public[..]].concat()
    }

    /// The name of the log.
    pub fn origin(&self) -> &str {
        &self.name
    }

    /// The text of a note that this key signed.
    pub fn open(&self, note: &str) -> Result<String, NoteRefused> {
        let parsed = Note::from_bytes(note.as_bytes()).map_err(|_| NoteRefused::Malformed)?;
        let known = VerifierList::new(vec![Box::new(self.clone())]);
        let (by_us, others) = parsed.verify(&known).map_err(|error| match error {
            signed_note::NoteError::UnverifiedNote => NoteRefused::ForeignKey,
            _ => NoteRefused::Altered,
        })?;
        // The library drops a signature that is repeated, and takes others that it cannot verify.
        let one_spelling = Note::new(parsed.text(), &by_us).map(|once| once.to_bytes());
        match one_spelling {
            Ok(once) if others.is_empty() && once == note.as_bytes() => {
                String::from_utf8(parsed.text().to_vec()).map_err(|_| NoteRefused::Malformed)
            }
            _ => Err(NoteRefused::Malformed),
        }
    }

    /// The head of the log in a checkpoint that this key signed.
    pub fn open_checkpoint(&self, note: &str) -> Result<Checkpoint, NoteRefused> {
        Checkpoint::parse(&self.open(note)?, &self.name).ok_or(NoteRefused::NotACheckpoint)
    }
}

impl signed_note::Verifier for VerifierKey {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:08x}+{}", self.name, self.id, BASE64.encode(&Self::encoded(&self.public)))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl FromStr for VerifierKey {
    type Err = NotAVerifierKey;

    fn from_str(text: &str) -> Result<Self, NotAVerifierKey> {
        let text = text.trim();
        let (name, rest) = text.split_once('+').ok_or(NotAVerifierKey)?;
        let (_, key) = rest.split_once('+').ok_or(NotAVerifierKey)?;
        let key = BASE64.decode(key.as_bytes()).map_err(|_| NotAVerifierKey)?;
        let Some((&ED25519_BYTE, public)) = key.split_first() else { return Err(NotAVerifierKey) };
        let read = Self::new(name.to_owned(), public.try_into().map_err(|_| NotAVerifierKey)?);
        // The id is a checksum of name and key.
        if signed_note::is_key_name_valid(name) && read.to_string() == text { Ok(read) } else { Err(NotAVerifierKey) }
    }
}

impl Checkpoint {
    fn text(&self, origin: &str) -> String {
        format!("{origin}\n{}\n{}\n", self.size, BASE64.encode(&self.root))
    }

    fn parse(text: &str, origin: &str) -> Option<Self> {
        let parsed = tlog_tiles::Checkpoint::from_bytes(text.as_bytes()).ok()?;
        let head = Self { size: parsed.size(), root: Hash::from(parsed.hash().0) };
        (head.text(origin) == text).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::of_this_run("uk+eu")
    }

    #[test]
    fn a_note_opens_under_its_key_only() {
        let (ours, theirs) = (key(), key());
        let note = ours.sign("one\ntwo\n");
        assert_eq!(ours.verifier().open(&note).as_deref(), Ok("one\ntwo\n"));
        assert_eq!(theirs.verifier().open(&note), Err(NoteRefused::ForeignKey));
        assert_eq!(ours.verifier().open(&note.replace("two", "too")), Err(NoteRefused::Altered));
        let twice = format!("{note}{}", note.lines().last().expect("a line").to_owned() + "\n");
        assert_eq!(ours.verifier().open(&twice), Err(NoteRefused::Malformed), "a second spelling of the same");
    }

    #[test]
    fn a_verifier_key_reads_back_and_a_changed_one_does_not() {
        let key = key();
        let text = key.verifier().to_string();
        assert!(text.starts_with("quietus/uk-eu+"), "{text}");
        assert_eq!(text.parse().as_ref(), Ok(key.verifier()));
        assert_eq!(format!("{text}\n").parse().as_ref(), Ok(key.verifier()));
        let standard = signed_note::StandardVerifier::new(&text).expect("as other programs read it");
        assert_eq!(signed_note::Verifier::key_id(&standard), key.verifier().id);
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'x' { b'y' } else { b'x' };
            let other = String::from_utf8(other).expect("ascii");
            assert!(other.parse::<VerifierKey>().is_err(), "byte {at}: {other}");
        }
    }

    #[test]
    fn a_checkpoint_is_that_of_c2sp() {
        let key = key();
        let head = Checkpoint { size: 7, root: [3; 32] };
        let note = key.checkpoint(head);
        assert!(
            note.starts_with(
                "quietus/uk-eu\n7\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n\n\u{2014} quietus/uk-eu "
            )
        );
        assert_eq!(key.verifier().open_checkpoint(&note), Ok(head));
        assert_eq!(key.verifier().open_checkpoint(&key.sign("other\n7\nAwM=\n")), Err(NoteRefused::NotACheckpoint));
        let foreign = key.sign(&head.text("quietus/other"));
        assert_eq!(key.verifier().open_checkpoint(&foreign), Err(NoteRefused::NotACheckpoint));
    }

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        assert!(SigningKey::from_pkcs8("g", b"not a key").is_err());
        assert!(SigningKey::from_pkcs8("g", &[]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn hostile_notes_and_keys_never_panic(text: String, lines in "[\\x00-\\x7f\u{2014} +/=]{0,200}") {
            let key = key();
            for text in [&text, &lines] {
                let _ = text.parse::<VerifierKey>();
                let _ = key.verifier().open(text);
                let _ = key.verifier().open_checkpoint(text);
                let _ = Checkpoint::parse(text, "quietus/uk-eu");
            }
        }
    }
}
