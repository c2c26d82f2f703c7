//! Proofs over the log: that an entry is in it (inclusion), that a later head extends an earlier one (consistency).
//!
//! Hashing and proofs are those of RFC 6962, by the library `tlog_tiles`. The hashes themselves lie in the key store, by
//! the dense numbering which that library calls *stored hash index*; they are read here through a closure, so that this
//! module does no I/O. What is checked here comes from files and from the network: no input makes it panic.

use super::Hash;
use std::cell::RefCell;
use tlog_tiles::tlog;

/// Far above any log: keeps the arithmetic of tree positions within 64 bits.
pub const MAX_SIZE: u64 = 1 << 48;
/// Most hashes in a proof of a tree of [`MAX_SIZE`].
pub const MAX_HASHES: usize = 2 * 48;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError<E> {
    /// No such entry or head in a log of this size.
    #[error("there is no such entry in a log of this size")]
    Outside,
    /// The hashes could not be read.
    #[error(transparent)]
    Read(E),
    /// The store gave other hashes than were asked for.
    #[error("the stored hashes are not those of the log")]
    Damaged,
}

/// The leaf hash of RFC 6962.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    tlog::record_hash(leaf).0
}

/// The root of a log of `size` entries.
pub fn root<E>(size: u64, read: impl Fn(&[u64]) -> Result<Vec<Hash>, E>) -> Result<Hash, ProofError<E>> {
    within(size)?;
    with(read, |reader| tlog::tree_hash(size, reader)).map(|hash| hash.0)
}

/// That entry `index` is in the log of `size` entries.
pub fn inclusion<E>(
    index: u64,
    size: u64,
    read: impl Fn(&[u64]) -> Result<Vec<Hash>, E>,
) -> Result<Vec<Hash>, ProofError<E>> {
    within(size)?;
    if index >= size {
        return Err(ProofError::Outside);
    }
    let proof = with(read, |reader| tlog::prove_record(size, index, reader))?;
    Ok(proof.into_iter().map(|hash| hash.0).collect())
}

/// That the log of `new` entries extends the one of `old` entries. Every log extends the empty one; that needs no proof.
pub fn consistency<E>(
    old: u64,
    new: u64,
    read: impl Fn(&[u64]) -> Result<Vec<Hash>, E>,
) -> Result<Vec<Hash>, ProofError<E>> {
    within(new)?;
    if old > new {
        return Err(ProofError::Outside);
    }
    if old == 0 {
        return Ok(Vec::new());
    }
    let proof = with(read, |reader| tlog::prove_tree(new, old, reader))?;
    Ok(proof.into_iter().map(|hash| hash.0).collect())
}

/// Whether a proof shows that entry `index` with this leaf hash is in the log of this size and root.
pub fn includes(leaf: Hash, index: u64, size: u64, root: Hash, proof: &[Hash]) -> bool {
    let possible = size <= MAX_SIZE && index < size && proof.len() <= MAX_HASHES;
    possible && tlog::check_record(&hashes(proof), size, tlog::Hash(root), index, tlog::Hash(leaf)).is_ok()
}

/// Whether a proof shows that the log of `new` entries and root extends that of `old`.
pub fn extends(old: (u64, Hash), new: (u64, Hash), proof: &[Hash]) -> bool {
    if old.0 == 0 {
        return proof.is_empty() && old.1 == tlog::EMPTY_HASH.0;
    }
    let possible = new.0 <= MAX_SIZE && old.0 <= new.0 && proof.len() <= MAX_HASHES;
    possible && tlog::check_tree(&hashes(proof), new.0, tlog::Hash(new.1), old.0, tlog::Hash(old.1)).is_ok()
}

fn hashes(proof: &[Hash]) -> Vec<tlog::Hash> {
    proof.iter().map(|hash| tlog::Hash(*hash)).collect()
}

fn within<E>(size: u64) -> Result<(), ProofError<E>> {
    if size <= MAX_SIZE { Ok(()) } else { Err(ProofError::Outside) }
}

/// Runs a computation of the library over a closure, and keeps the closure's own error.
fn with<E, T>(
    read: impl Fn(&[u64]) -> Result<Vec<Hash>, E>,
    compute: impl FnOnce(&Reader<'_, E>) -> Result<T, tlog::Error>,
) -> Result<T, ProofError<E>> {
    let reader = Reader { read: &read, failed: RefCell::new(None) };
    compute(&reader).map_err(|_| match reader.failed.into_inner() {
        Some(error) => ProofError::Read(error),
        None => ProofError::Damaged,
    })
}

type Read<'a, E> = dyn Fn(&[u64]) -> Result<Vec<Hash>, E> + 'a;

struct Reader<'a, E> {
    read: &'a Read<'a, E>,
    failed: RefCell<Option<E>>,
}

impl<E> tlog::HashReader for Reader<'_, E> {
    /// The library takes as many hashes as it asked for: fewer are an error here, not a panic there.
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
        match (self.read)(indexes) {
            Ok(found) if found.len() == indexes.len() => Ok(hashes(&found)),
            Ok(_) => Err(tlog::Error::IndexesNotInTree),
            Err(error) => {
                self.failed.replace(Some(error));
                Err(tlog::Error::IndexesNotInTree)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A log in memory, as the key store keeps it.
    #[derive(Default)]
    pub(crate) struct Log {
        pub stored: Vec<Hash>,
        pub leaves: Vec<Vec<u8>>,
    }

    impl Log {
        pub(crate) fn of(leaves: impl IntoIterator<Item = Vec<u8>>) -> Self {
            let mut log = Self::default();
            leaves.into_iter().for_each(|leaf| log.append(leaf));
            log
        }

        pub(crate) fn append(&mut self, leaf: Vec<u8>) {
            let index = self.leaves.len() as u64;
            let hashes = with(|at| self.read(at), |reader| tlog::stored_hashes(index, &leaf, reader)).expect("hashes");
            assert_eq!(self.stored.len() as u64, tlog::stored_hash_index(0, index));
            self.stored.extend(hashes.into_iter().map(|hash| hash.0));
            self.leaves.push(leaf);
        }

        pub(crate) fn read(&self, at: &[u64]) -> Result<Vec<Hash>, ()> {
            at.iter().map(|at| self.stored.get(*at as usize).copied().ok_or(())).collect()
        }

        pub(crate) fn root(&self, size: u64) -> Hash {
            root(size, |at| self.read(at)).expect("a root")
        }
    }

    fn log(size: u64) -> Log {
        Log::of((0..size).map(|n| n.to_be_bytes().to_vec()))
    }

    #[test]
    fn any_two_heads_of_one_log_are_consistent_and_every_entry_is_in_each() {
        let log = log(33);
        for new in 0..=33 {
            for old in 0..=new {
                let proof = consistency(old, new, |at| log.read(at)).expect("a proof");
                assert!(extends((old, log.root(old)), (new, log.root(new)), &proof), "{old} {new}");
            }
            for index in 0..new {
                let proof = inclusion(index, new, |at| log.read(at)).expect("a proof");
                let leaf = leaf_hash(&log.leaves[index as usize]);
                assert!(includes(leaf, index, new, log.root(new), &proof), "{index} {new}");
                for other in (0..new).filter(|other| *other != index) {
                    assert!(!includes(leaf, other, new, log.root(new), &proof), "{index} taken for {other} of {new}");
                }
            }
        }
    }

    #[test]
    fn a_log_that_was_rewritten_is_not_an_extension() {
        let (honest, mut other) = (log(20), log(6));
        other.append(b"something else".to_vec());
        (7..20_u64).for_each(|n| other.append(n.to_be_bytes().to_vec()));
        let proof = consistency(10, 20, |at| other.read(at)).expect("a proof");
        assert!(!extends((10, honest.root(10)), (20, other.root(20)), &proof));
        assert!(!extends((10, honest.root(10)), (20, honest.root(20)), &proof[1..]), "a cut proof");
    }

    #[test]
    fn what_is_not_there_has_no_proof() {
        let log = log(5);
        assert!(matches!(inclusion(5, 5, |at| log.read(at)), Err(ProofError::Outside)));
        assert!(matches!(consistency(6, 5, |at| log.read(at)), Err(ProofError::Outside)));
        assert!(matches!(root(u64::MAX, |at| log.read(at)), Err(ProofError::Outside)));
        assert!(matches!(inclusion(1, 9, |at| log.read(at)), Err(ProofError::Read(()))));
        assert!(matches!(root(5, |_| Ok::<_, ()>(Vec::new())), Err(ProofError::Damaged)));
    }

    proptest::proptest! {
        #[test]
        fn hostile_proofs_never_panic_and_never_hold(
            index: u64, size: u64, old: u64, leaf: Hash, root: Hash, proof: Vec<Hash>,
        ) {
            proptest::prop_assert!(!includes(leaf, index, size, root, &proof));
            proptest::prop_assert!(!includes(leaf, index % 9, size % 9, root, &proof) || leaf == root);
            proptest::prop_assert!(!extends((old, leaf), (size, root), &proof));
            proptest::prop_assert!(!extends((old % 9, leaf), (size % 9, root), &proof) || leaf == root);
        }
    }
}
