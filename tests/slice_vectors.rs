//! `docs/format.md` section 1, held from three sides: vectors made by a second implementation, the product's reader, and
//! a reader in Python written from the document alone. Each broken vector is rejected for its own reason.
//!
//! `QUIETUS_WRITE_VECTORS=1 cargo test --test slice_vectors` writes the vectors anew after the format was changed.

#[path = "vectors/generator.rs"]
mod generator;

use generator::Case;
use quietus::{
    crypto::secret::Secret,
    segment::{ExpectedSlice, HEADER_LEN, SliceError, SliceReader, check_list, seal_slice},
};
use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/slices")
}

/// The name of a reason in `cases.json`.
fn reason(error: SliceError) -> String {
    match error {
        SliceError::Magic => "magic".into(),
        SliceError::Version => "version".into(),
        SliceError::SaltNotListed => "salt_not_listed".into(),
        SliceError::WrongKey => "wrong_key".into(),
        SliceError::HeaderAltered => "header_altered".into(),
        SliceError::Ordinal => "ordinal".into(),
        SliceError::LastFlag => "last_flag".into(),
        SliceError::Truncated => "truncated".into(),
        SliceError::TrailingBytes => "trailing_bytes".into(),
        SliceError::Length => "length".into(),
        SliceError::Segment(number) => format!("segment {number}"),
        SliceError::MissingSlice(number) => format!("missing_slice {number}"),
        SliceError::MissingLastSlice => "missing_last_slice".into(),
        SliceError::BehindLastSlice => "behind_last_slice".into(),
    }
}

fn read(case: &Case) -> Result<Vec<u8>, SliceError> {
    let secret = Secret::from_bytes(&case.secret);
    let list: Vec<ExpectedSlice> = case
        .slices
        .iter()
        .map(|slice| ExpectedSlice { ordinal: slice.ordinal, last: slice.last, salt: slice.salt, length: slice.length })
        .collect();
    check_list(&list, true)?;
    let mut plain = Vec::new();
    for (slice, expected) in case.slices.iter().zip(&list) {
        let reader = SliceReader::new(&secret, &slice.object, expected)?;
        reader.check_object_len(slice.object.len() as u64)?;
        let mut body = slice.object[HEADER_LEN..].to_vec();
        plain.extend_from_slice(reader.open(0, &mut body)?);
    }
    Ok(plain)
}

#[test]
fn the_committed_vectors_are_those_of_the_generator() {
    let cases = generator::cases();
    let lines: Vec<_> = cases.iter().map(Case::to_json).collect();
    let table = serde_json::to_string_pretty(&serde_json::json!({ "cases": lines })).expect("plain values") + "\n";
    let mut files = vec![("cases.json".to_owned(), table.into_bytes())];
    for case in &cases {
        files.extend(case.files().into_iter().zip(case.slices.iter().map(|slice| slice.object.clone())));
    }
    if std::env::var_os("QUIETUS_WRITE_VECTORS").is_some() {
        for (name, bytes) in &files {
            fs::write(directory().join(name), bytes).expect("the vectors' folder is writable");
        }
    }
    for (name, bytes) in &files {
        let committed = fs::read(directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        // The order of keys in an object means nothing, and depends on what else links the JSON library.
        let parsed = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON");
        let same = if name.ends_with(".json") { parsed(&committed) == parsed(bytes) } else { &committed == bytes };
        assert!(same, "{name} is not what the generator makes");
    }
    let wanted: BTreeSet<String> = files.into_iter().map(|(name, _)| name).collect();
    let found: BTreeSet<String> = fs::read_dir(directory())
        .expect("the vectors' folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, wanted);
}

#[test]
fn each_broken_vector_is_rejected_for_its_own_reason_and_the_good_ones_open() {
    for case in generator::cases() {
        match (read(&case), case.rejected) {
            (Ok(plain), None) => assert_eq!(
                case.to_json()["plaintext_sha256"],
                data_encoding::HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, &plain).as_ref()),
                "{}",
                case.name
            ),
            (Ok(_), Some(wanted)) => panic!("{} opened, but is to be rejected: {wanted}", case.name),
            (Err(error), wanted) => assert_eq!(Some(reason(error).as_str()), wanted, "{}", case.name),
        }
    }
}

fn python(arguments: &[&std::ffi::OsStr]) -> std::process::Output {
    let reader = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reader/slice_reader.py");
    let python = std::env::var_os("QUIETUS_PYTHON").unwrap_or_else(|| "python3".into());
    Command::new(python)
        .arg(reader)
        .args(arguments)
        .output()
        .expect("python3 is there (`make deps` sees to it; QUIETUS_PYTHON names another one)")
}

#[test]
fn the_reader_in_python_agrees_on_every_vector() {
    let output = python(&["check".as_ref(), directory().as_os_str()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("{} of {0} vectors", generator::cases().len())), "{said}");
}

#[test]
fn the_reader_in_python_opens_what_the_product_seals() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let secret = Secret::random();
    let plain: Vec<u8> = (0..200_000_u32).map(|at| (at % 253) as u8).collect();
    let (first, second) = plain.split_at(150_000);
    let objects = [seal_slice(&secret, 0, false, first), seal_slice(&secret, 1, true, second)];
    let paths: Vec<PathBuf> = (0..objects.len()).map(|at| folder.path().join(format!("{at}"))).collect();
    for (object, path) in objects.iter().zip(&paths) {
        fs::write(path, &object.object).expect("a temporary file");
    }
    let key = data_encoding::HEXLOWER.encode(secret.expose());
    let output =
        python(&["open".as_ref(), "--secret".as_ref(), key.as_ref(), paths[1].as_os_str(), paths[0].as_os_str()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == plain, "the reader puts the slices in order and gives their audio");
}
