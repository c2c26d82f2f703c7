//! Names and numbers from `@FILE` and `-` (standard input), so that they need not stand in process lists.

use super::failure::Failure;
use std::io::Read as _;

/// Far above any name.
const MAX: u64 = 64 << 10;

/// What an argument stands for. A line break at the end of a file or of standard input does not count.
pub fn resolve(argument: &str) -> Result<String, Failure> {
    let mut text = String::new();
    if argument == "-" {
        std::io::stdin()
            .lock()
            .take(MAX)
            .read_to_string(&mut text)
            .map_err(|error| Failure::usage(format!("cannot read a name from standard input: {error}")))?;
    } else if let Some(path) = argument.strip_prefix('@') {
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX).read_to_string(&mut text))
            .map_err(|error| Failure::usage(format!("cannot read {path}: {error}")))?;
    } else {
        return Ok(argument.to_owned());
    }
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    if text.is_empty() { Err(Failure::usage("the name is empty")) } else { Ok(text) }
}

/// `TENANT/NAME`: all of it in a file, or the name alone: `acme/@FILE`, `acme/-`.
pub fn resolve_subscriber(argument: &str) -> Result<(String, String), Failure> {
    let text = resolve(argument)?;
    match text.split_once('/') {
        Some((tenant, name)) if !tenant.is_empty() && !name.is_empty() => Ok((tenant.into(), resolve(name)?)),
        _ => Err(Failure::usage("a subscriber is written TENANT/NAME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_lie_in_a_file() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("name");
        std::fs::write(&path, "acme/+44 20 7946 0000\r\n").expect("written");
        let argument = format!("@{}", path.display());
        assert_eq!(resolve(&argument).as_deref(), Ok("acme/+44 20 7946 0000"));
        assert_eq!(resolve_subscriber(&argument), Ok(("acme".into(), "+44 20 7946 0000".into())));
        assert_eq!(resolve("@/nowhere/at/all").map_err(|failure| failure.status), Err(2));
    }

    #[test]
    fn the_name_alone_may_lie_in_a_file() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("number");
        std::fs::write(&path, "+441632960001\n").expect("written");
        let argument = format!("acme/@{}", path.display());
        assert_eq!(resolve_subscriber(&argument), Ok(("acme".into(), "+441632960001".into())));
    }

    #[test]
    fn a_subscriber_needs_a_tenant() {
        assert_eq!(resolve_subscriber("acme/a/b"), Ok(("acme".into(), "a/b".into())));
        for wrong in ["acme", "acme/", "/x", ""] {
            assert!(resolve_subscriber(wrong).is_err(), "{wrong}");
        }
    }
}
