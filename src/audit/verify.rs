//! A receipt file, written and verified. Verifying needs the file and the log's public key, and nothing else.
//!
//! A file holds if, in this order: its statement is signed by the key; it speaks of the log that the key is of; the
//! checkpoint in it is signed by the key; the statement is, byte for byte, the entry of the checkpoint's log that the
//! proof leads to. Where an opening is given, it must open the commitment to the scope that is given with it. Every byte
//! of the file takes part in one of these, in one spelling, so no byte can change unnoticed; each failure has a reason of
//! its own.

use super::{
    Checkpoint, Hash, NoteRefused, SigningKey, VerifierKey, leaf, proof,
    receipt::{NotAStatement, Opening, Statement, commitment},
};
use data_encoding::BASE64;
use std::fmt::Write as _;

/// The first line of a log proof.
const PROOF: &str = "c2sp.org/tlog-proof@v1\n";
/// Most bytes in a receipt file.
pub const MAX_FILE: usize = 128 << 10;

/// Why a receipt does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not the parts of a receipt file.
    #[error("this is not a receipt file: {0}")]
    Malformed(&'static str),
    /// Another key signed the statement.
    #[error("the receipt is signed by another key than the one given")]
    ForeignKey,
    /// The statement is not what was signed.
    #[error("the statement was altered: it is not what the signature is of")]
    Altered,
    /// Signed, and yet no statement.
    #[error("{0}")]
    Statement(#[from] NotAStatement),
    /// The statement speaks of another log.
    #[error("the statement names another gateway than the key does")]
    Gateway,
    /// The checkpoint is not signed by the key, or was altered.
    #[error("the checkpoint in the receipt does not hold: {0}")]
    Checkpoint(NoteRefused),
    /// The proof does not lead from the statement to the checkpoint.
    #[error(
        "the proof does not show that the statement is in the log: it was cut, altered, or belongs to another entry"
    )]
    Proof,
    /// The opening and scope are not those that the receipt commits to.
    #[error("the opening and the scope are not what the receipt is about")]
    Commitment,
}

/// A receipt that holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it states.
    pub statement: Statement,
    /// Which entry of the log it is.
    pub index: u64,
    /// The head of the log that its proof leads to.
    pub checkpoint: Checkpoint,
}

/// Writes a receipt file: statement number `index` of the log with this head.
pub fn write(key: &SigningKey, statement: &str, index: u64, head: Checkpoint, path: &[Hash]) -> String {
    let mut file = key.sign(statement);
    file.push_str(PROOF);
    // Writing into a string does not fail.
    let _ = writeln!(file, "index {index}");
    for hash in path {
        let _ = writeln!(file, "{}", BASE64.encode(hash));
    }
    let _ = write!(file, "\n{}", key.checkpoint(head));
    file
}

/// Verifies a receipt file; with an opening and a scope's text, also what it is about.
pub fn verify(file: &str, key: &VerifierKey, about: Option<(&Opening, &str)>) -> Result<Verified, Refused> {
    if file.len() > MAX_FILE {
        return Err(Refused::Malformed("it is too large"));
    }
    let line = file.find(&format!("\n{PROOF}")).ok_or(Refused::Malformed("the proof is missing"))?;
    let (note, rest) = file.split_at(line + 1);
    let text = key.open(note).map_err(|refused| match refused {
        NoteRefused::ForeignKey => Refused::ForeignKey,
        NoteRefused::Altered => Refused::Altered,
        NoteRefused::Malformed | NoteRefused::NotACheckpoint => Refused::Malformed("its statement is no signed note"),
    })?;
    let statement = Statement::parse(&text)?;
    if statement.gateway != key.origin() {
        return Err(Refused::Gateway);
    }
    let (path, checkpoint) =
        rest[PROOF.len()..].split_once("\n\n").ok_or(Refused::Malformed("the checkpoint is missing"))?;
    let (index, hashes) = read_path(path).ok_or(Refused::Proof)?;
    let checkpoint = key.open_checkpoint(checkpoint).map_err(Refused::Checkpoint)?;
    let entry = leaf::hash(&leaf::statement(&text));
    if !proof::includes(entry, index, checkpoint.size, checkpoint.root, &hashes) {
        return Err(Refused::Proof);
    }
    match about {
        Some((opening, scope)) if !statement.scopes.contains(&commitment(opening, scope)) => Err(Refused::Commitment),
        _ => Ok(Verified { statement, index, checkpoint }),
    }
}

/// `index N` and a hash on each further line, in one spelling.
fn read_path(text: &str) -> Option<(u64, Vec<Hash>)> {
    let mut lines = text.split('\n');
    let number = lines.next()?.strip_prefix("index ")?;
    let index: u64 = number.parse().ok().filter(|index: &u64| index.to_string() == number)?;
    let mut hashes = Vec::new();
    for line in lines.take(proof::MAX_HASHES + 1) {
        hashes.push(BASE64.decode(line.as_bytes()).ok()?.try_into().ok()?);
    }
    Some((index, hashes))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{proof::tests::Log, receipt::tests::sample},
        *,
    };

    fn key() -> SigningKey {
        SigningKey::of_this_run("uk+eu")
    }

    /// A receipt file: the sixth entry of a log of eleven.
    fn file(key: &SigningKey, statement: &str) -> String {
        let log = Log::of((0..11_u8).map(|n| if n == 5 { leaf::statement(statement) } else { vec![n] }));
        let path = proof::inclusion(5, 11, |at| log.read(at)).expect("a proof");
        write(key, statement, 5, Checkpoint { size: 11, root: log.root(11) }, &path)
    }

    #[test]
    fn a_receipt_verifies_offline() {
        let key = key();
        let verified = verify(&file(&key, &sample().text()), key.verifier(), Some((&[9; 32], "recording x")));
        let verified = verified.expect("it holds");
        assert_eq!((verified.statement, verified.index, verified.checkpoint.size), (sample(), 5, 11));
    }

    #[test]
    fn each_failure_has_its_own_reason() {
        let (key, other) = (key(), key());
        let good = file(&key, &sample().text());
        let verifier = key.verifier();
        assert_eq!(verify(&good, other.verifier(), None), Err(Refused::ForeignKey));
        assert_eq!(verify(&good.replace("17 to 18", "17 to 19"), verifier, None), Err(Refused::Altered));
        let cut: String = {
            let lines: Vec<_> = good.lines().collect();
            let index = lines.iter().position(|line| line.starts_with("index ")).expect("an index");
            lines.iter().enumerate().filter(|(at, _)| *at != index + 1).map(|(_, line)| format!("{line}\n")).collect()
        };
        assert_eq!(verify(&cut, verifier, None), Err(Refused::Proof));
        assert_eq!(verify(&good.replace("index 5", "index 4"), verifier, None), Err(Refused::Proof));
        assert_eq!(
            verify(&good.replace("\n11\n", "\n12\n"), verifier, None),
            Err(Refused::Checkpoint(NoteRefused::Altered))
        );
        assert_eq!(verify(&good, verifier, Some((&[8; 32], "recording x"))), Err(Refused::Commitment));
        assert_eq!(verify(&good, verifier, Some((&[9; 32], "recording y"))), Err(Refused::Commitment));
        let theirs = Statement { gateway: "quietus/other".into(), ..sample() };
        assert_eq!(verify(&file(&key, &theirs.text()), verifier, None), Err(Refused::Gateway));
        assert!(matches!(verify(&file(&key, "anything\n"), verifier, None), Err(Refused::Statement(_))));
        assert_eq!(
            verify(&key.sign(&sample().text()), verifier, None),
            Err(Refused::Malformed("the proof is missing"))
        );
        // Signed, and in no log: the proof of another statement does not serve.
        let never_logged = Statement { generations: (1, 2), ..sample() };
        let tail = &good[good.find(PROOF).expect("a proof")..];
        assert_eq!(verify(&(key.sign(&never_logged.text()) + tail), verifier, None), Err(Refused::Proof));
    }

    /// The property over all positions: every other byte at every place, and every byte left out.
    #[test]
    fn no_byte_of_a_receipt_can_change() {
        let key = key();
        let good = file(&key, &sample().text()).into_bytes();
        let holds =
            |bytes: Vec<u8>| String::from_utf8(bytes).is_ok_and(|text| verify(&text, key.verifier(), None).is_ok());
        assert!(holds(good.clone()), "the control");
        for at in 0..good.len() {
            // One bit, the case of a letter, a line break, a digit: what a hand or a disk would do.
            for other in [good[at] ^ 1, good[at] ^ 0x20, b'\n', b'0', b'A'] {
                let mut bytes = good.clone();
                bytes[at] = other;
                assert!(other == good[at] || !holds(bytes), "byte {at}: {} for {}", other as char, good[at] as char);
            }
            let mut bytes = good.clone();
            bytes.remove(at);
            assert!(!holds(bytes), "without byte {at}");
            let mut bytes = good.clone();
            bytes.insert(at, b'\n');
            assert!(!holds(bytes), "a line break before byte {at}");
        }
        assert!(!holds([&good[..], b"\n"].concat()) && !holds([b"\n", &good[..]].concat()));
    }

    proptest::proptest! {
        #[test]
        fn hostile_files_never_panic_and_never_hold(text: String, at: usize, bytes: Vec<u8>) {
            let key = key();
            proptest::prop_assert!(verify(&text, key.verifier(), None).is_err());
            let _ = read_path(&text);
            let good = file(&key, &sample().text()).into_bytes();
            let at = at % good.len();
            let spliced = [&good[..at], &bytes, &good[at..]].concat();
            if let Ok(spliced) = String::from_utf8(spliced) {
                proptest::prop_assert!(bytes.is_empty() || verify(&spliced, key.verifier(), None).is_err());
            }
        }
    }
}
