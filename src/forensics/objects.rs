//! Tries every object.
//!
//! An object is a file that begins with a slice's magic. Its copies (regions, versions, copies of folders) are told by the
//! object id that the file is named by; a file with another name counts as a copy of the object with the same salt, or else
//! as an object of its own. The secrets that its id leads to are tried first, then every audio secret there is: the
//! commitment says in a microsecond whether one fits. *Readable* is an object of which one copy opens from end to end;
//! *damaged* one whose secret is known and of which no copy does.

use super::{
    Error,
    carve::Carved,
    closure::{Closure, Known, Role},
    files_below,
    find::Needles,
    hex,
    page::Id,
    progress,
};
use crate::{
    crypto::{
        label::{Label, derive},
        secret::Secret,
    },
    domain::id::RecordingId,
    segment::{ExpectedSlice, HEADER_LEN, MAGIC, MAX_SLICE, SliceReader, object_len},
};
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

/// Header bytes that lead to the commitment, and the commitment.
const KEYED: usize = 40;
const CLEAR: usize = 72;

/// Every object, in order of name.
pub struct Objects(pub Vec<Object>);

/// What became of one.
pub struct Object {
    /// Its id in hexadecimal, or the name of its file.
    pub name: String,
    /// Files that hold it.
    pub copies: usize,
    /// The secret that its commitment fits.
    pub key: Option<Known>,
    /// What its header says; none where no copy opened from end to end.
    pub slice: Option<ExpectedSlice>,
}

impl Object {
    /// Whether it can be heard.
    pub fn readable(&self) -> bool {
        self.slice.is_some()
    }

    /// Whether its secret is known, and no copy is whole.
    pub fn damaged(&self) -> bool {
        self.key.is_some() && self.slice.is_none()
    }

    /// The recording it is of.
    pub fn recording(&self) -> Option<RecordingId> {
        self.key.and_then(|known| known.recording)
    }
}

struct Copy {
    path: PathBuf,
    header: [u8; HEADER_LEN],
}

struct Found {
    id: Option<Id>,
    copies: Vec<Copy>,
    key: Option<Known>,
}

impl Objects {
    /// Tries everything below these folders.
    pub fn tried(
        folders: &[PathBuf],
        carved: &Carved,
        closure: &Closure,
        exhaustive: bool,
        needles: &mut Needles,
    ) -> Result<Self, Error> {
        let mut found = found_below(folders)?;
        for object in found.values_mut() {
            let rows = object.id.iter().flat_map(|id| {
                let listed = closure.slices.get(id).into_iter().flatten();
                listed.chain(carved.object_rows.get(id).into_iter().flatten())
            });
            let mut secrets = rows.flat_map(|row| closure.secrets_of(row));
            object.key = secrets.find(|known| object.fits(known)).copied();
        }
        let every: Vec<&Known> = closure.secrets().filter(|known| exhaustive || known.role == Role::Audio).collect();
        try_all(found.values_mut().filter(|object| object.key.is_none()).collect(), &every);

        let bar = progress("opening objects", found.len() as u64, false);
        let mut objects = Vec::with_capacity(found.len());
        for (name, object) in found {
            let slice = match &object.key {
                Some(known) => object.open(known, needles)?,
                None => None,
            };
            objects.push(Object { name, copies: object.copies.len(), key: object.key, slice });
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(Self(objects))
    }
}

impl Found {
    /// Whether a secret fits the commitment of any copy.
    fn fits(&self, known: &Known) -> bool {
        self.copies.iter().any(|copy| fits(&copy.header, known))
    }

    /// Opens the first copy that is whole.
    fn open(&self, known: &Known, needles: &mut Needles) -> Result<Option<ExpectedSlice>, Error> {
        let secret = Secret::from_bytes(&known.secret);
        for copy in self.copies.iter().filter(|copy| fits(&copy.header, known)) {
            let mut bytes = Vec::new();
            let file = match File::open(&copy.path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::read(&copy.path)(error)),
            };
            // One byte more than any slice has tells a file that is too long.
            file.take(object_len(MAX_SLICE as u64) + 1).read_to_end(&mut bytes).map_err(Error::read(&copy.path))?;
            let Ok(reader) = SliceReader::unlisted(&secret, &bytes, bytes.len() as u64) else {
                continue;
            };
            if let Ok(audio) = reader.open(0, bytes.get_mut(HEADER_LEN..).unwrap_or_default()) {
                needles.search("audio", audio);
                return Ok(Some(*reader.slice()));
            }
        }
        Ok(None)
    }
}

fn fits(header: &[u8; HEADER_LEN], known: &Known) -> bool {
    *derive::<32>(&known.secret, Label::SliceCommitment, &[&header[..KEYED]]) == header[KEYED..CLEAR]
}

/// Every secret on every object that is left, on all processors.
fn try_all(mut left: Vec<&mut Found>, secrets: &[&Known]) {
    if left.is_empty() || secrets.is_empty() {
        return;
    }
    let bar = progress("trying secrets", left.len() as u64, false);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = left.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for part in left.chunks_mut(share) {
            let bar = &bar;
            scope.spawn(move || {
                for object in part {
                    object.key = secrets.iter().find(|known| object.fits(known)).map(|known| **known);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
}

fn found_below(folders: &[PathBuf]) -> Result<BTreeMap<String, Found>, Error> {
    let mut named: BTreeMap<String, Found> = BTreeMap::new();
    let mut others: Vec<(String, Copy)> = Vec::new();
    for folder in folders {
        for path in files_below(folder)? {
            let Some(header) = header_of(&path)? else {
                continue;
            };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let id =
                data_encoding::HEXLOWER_PERMISSIVE.decode(name.as_bytes()).ok().and_then(|id| Id::try_from(id).ok());
            let copy = Copy { path, header };
            match id {
                Some(id) => {
                    let object = Found { id: Some(id), copies: Vec::new(), key: None };
                    named.entry(hex(&id)).or_insert(object).copies.push(copy);
                }
                None => others.push((name, copy)),
            }
        }
    }
    let salt = |copy: &Copy| copy.header[..KEYED].to_vec();
    let by_salt: HashMap<Vec<u8>, String> =
        named.iter().flat_map(|(name, object)| object.copies.iter().map(|copy| (salt(copy), name.clone()))).collect();
    for (name, copy) in others {
        let name = by_salt.get(&salt(&copy)).cloned().unwrap_or(name);
        let object = Found { id: None, copies: Vec::new(), key: None };
        named.entry(name).or_insert(object).copies.push(copy);
    }
    Ok(named)
}

/// The header of a slice; none of anything else.
fn header_of(path: &Path) -> Result<Option<[u8; HEADER_LEN]>, Error> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Removed while we look: there is nothing to be read any more.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::read(path)(error)),
    };
    let mut header = [0; HEADER_LEN];
    match file.read_exact(&mut header) {
        Ok(()) if header[..4] == MAGIC => Ok(Some(header)),
        Ok(()) => Ok(None),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(Error::read(path)(error)),
    }
}
