//! The file of the key that signs checkpoints and receipts: found, or made once.
//!
//! A key that was made is told by its public half, which is to be published: whoever verifies receipts must have it from us
//! another way than the receipts. The file is PKCS#8, readable by its owner alone; one that others can read is refused. It is
//! written beside its place, synced and then linked, so that a start that was killed half-way leaves a whole key or none.

use crate::audit::SigningKey;
use anyhow::{Context as _, bail};
use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};
use zeroize::Zeroizing;

/// Reads the key, or makes it where there is none.
pub fn find_or_make(path: &Path, group: &str) -> anyhow::Result<SigningKey> {
    let pkcs8 = match fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => make(path, group)?,
        Err(error) => return Err(error).with_context(|| format!("cannot read the signing key {}", path.display())),
    };
    let others = fs::metadata(path)?.permissions().mode() & 0o077;
    if others != 0 {
        bail!("others may read the signing key {}; set its mode to 0600, or make a new one", path.display());
    }
    SigningKey::from_pkcs8(group, &pkcs8).with_context(|| format!("the signing key {}", path.display()))
}

fn make(path: &Path, group: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let pkcs8 = SigningKey::generate();
    let key = SigningKey::from_pkcs8(group, &pkcs8)?;
    let failed = || format!("cannot make the signing key {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(failed)?;
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).with_context(failed)?;
    file.write_all(&pkcs8).and_then(|()| file.sync_all()).with_context(failed)?;
    fs::rename(&beside, path).with_context(failed)?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(failed)?;
    tracing::warn!(
        path = %path.display(), verifier_key = %key.verifier(),
        "made a key that signs checkpoints and receipts; publish the verifier key, and keep the file"
    );
    Ok(pkcs8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("below").join("audit.key");
        let made = find_or_make(&path, "uk+eu").expect("made");
        let found = find_or_make(&path, "uk+eu").expect("found");
        assert_eq!(made.verifier(), found.verifier());
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("audit.key");
        find_or_make(&path, "uk+eu").expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        assert!(find_or_make(&path, "uk+eu").err().is_some_and(|error| error.to_string().contains("0600")));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        fs::write(&path, "no key").expect("written");
        assert!(find_or_make(&path, "uk+eu").is_err());
    }
}
