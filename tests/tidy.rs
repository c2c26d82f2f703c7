//! What holds for every source file: the direction of dependencies, a module doc, a bounded length, nothing unfinished;
//! for `Cargo.lock`: one TLS stack, one library of primitives; and for `docs/threats.md`, `docs/losses.md` and
//! `docs/promises.md`: the tests that they name exist.
//!
//! The direction is read from paths that begin with `crate::` (nested braces included, comments and strings not) and, for
//! the binaries, with `quietus::`. A path that begins with `super::` stays within its top-level module in this tree, because
//! of the rule checked here that none climbs out of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Each top-level module, and what it may use besides itself. The order of `src/lib.rs`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("domain", &["proto"]),
    ("crypto", &["domain", "proto"]),
    ("segment", &["crypto", "domain", "proto"]),
    // The stores never use one another.
    ("keys", &["segment", "crypto", "domain", "proto"]),
    ("journal", &["segment", "crypto", "domain", "proto"]),
    ("object", &["segment", "crypto", "domain", "proto"]),
    ("audit", &["segment", "crypto", "domain", "proto"]),
    ("vault", &["keys", "journal", "object", "audit", "segment", "crypto", "domain", "proto"]),
    ("transport", &["vault", "crypto", "domain", "proto"]),
    // Composes the parts.
    ("server", &["transport", "vault", "keys", "journal", "object", "audit", "segment", "crypto", "domain", "proto"]),
    // Client commands know the wire, and what is verified offline; `dev` and `serve`, which src/cli.rs dispatches, are the
    // server's.
    ("cli", &["domain", "proto", "crypto", "audit", "server"]),
    // The attacker shares definitions of formats with the gateway, and nothing that the gateway does.
    ("forensics", &["segment", "crypto", "domain", "proto"]),
];

/// What dispatches, and what operators do on the node's own files. Everything else below `cli` is a client.
const NO_CLIENTS: &[&str] = &["src/cli.rs", "src/cli/slot.rs"];

const LONGEST: usize = 750;

const BANNED_CRATES: &[&str] = &[
    "openssl",
    "openssl-sys",
    "native-tls",
    "boring",
    "boring-sys",
    "aws-lc-rs",
    "aws-lc-sys",
    "aws-lc-fips-sys",
    "s2n-tls",
    "s2n-quic",
    "mbedtls",
    "wolfssl",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files with an ending at or below a folder, by their path from the root.
fn files(folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join(folder)];
    while let Some(next) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        for entry in entries {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.insert(name, std::fs::read_to_string(&path).expect("UTF-8"));
            }
        }
    }
    found
}

/// The program without comments and without what stands in strings.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                chars.by_ref().find(|c| *c == '\n');
                code.push('\n');
            }
            '"' => {
                code.push('"');
                while let Some(inside) = chars.next() {
                    match inside {
                        '\\' => _ = chars.next(),
                        '"' => break,
                        _ => {}
                    }
                }
                code.push('"');
            }
            // A quotation mark as a character does not open a string; a lifetime is no character.
            '\'' => {
                let mut ahead = chars.clone();
                let first = ahead.next();
                if first == Some('\\') {
                    chars.nth(1);
                    chars.by_ref().find(|c| *c == '\'');
                } else if ahead.next() == Some('\'') {
                    chars.nth(1);
                }
            }
            _ => code.push(c),
        }
    }
    code
}

/// The top-level modules that paths beginning with `prefix` lead to.
fn used(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let is_path = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let rest = code[at + prefix.len()..].trim_start();
        if !is_path {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(group) => used.extend(heads(group)),
            None => used.extend([name(rest)]),
        }
    }
    used
}

/// First names of the members of a group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut expected) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expected = true,
            c if expected && !c.is_whitespace() => {
                heads.push(name(&group[at..]));
                expected = false;
            }
            _ => {}
        }
    }
    heads
}

fn name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The top-level module that a file belongs to; none for the crate's root and the binaries.
fn module(file: &str) -> Option<&str> {
    let below = file.strip_prefix("src/")?;
    let module = below.split('/').next()?.trim_end_matches(".rs");
    (!matches!(module, "lib" | "main" | "bin")).then_some(module)
}

#[test]
fn dependencies_point_one_way() {
    let rules: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut offences = Vec::new();
    for (file, text) in files("src") {
        let Some(own) = module(&file) else { continue };
        let allowed = rules.get(own).unwrap_or_else(|| panic!("{file} is in no module that tests/tidy.rs knows"));
        for used in used(&code(&text), "crate::") {
            // A lower-case name is a module; others are items of the crate's root.
            let is_module = rules.contains_key(used.as_str());
            if !is_module {
                offences.push(format!("{file} uses crate::{used}, which is no module"));
            } else if used != own && !allowed.contains(&used.as_str()) {
                offences.push(format!("{file} uses {used}"));
            } else if own == "cli" && used == "server" && !NO_CLIENTS.contains(&file.as_str()) {
                offences.push(format!("{file} is a client command and uses the server"));
            }
        }
    }
    assert!(offences.is_empty(), "against the direction of dependencies:\n{}", offences.join("\n"));
}

#[test]
fn no_path_climbs_out_of_its_module() {
    for (file, text) in files("src") {
        // src/keys.rs is at depth 0, src/keys/slot.rs at 1; each inner `mod` (tests) adds one.
        let depth = file.matches('/').count() - 1;
        let code = code(&text);
        let most = (1..=4).rev().find(|&most| code.contains(&"super::".repeat(most))).unwrap_or(0);
        assert!(most <= depth + 1, "{file} climbs with super:: where crate:: would name the module");
    }
}

#[test]
fn the_binaries_dispatch_only() {
    for (file, expected) in [("src/main.rs", "cli"), ("src/bin/forensics.rs", "forensics")] {
        let text = std::fs::read_to_string(root().join(file)).expect("reads");
        assert_eq!(used(&code(&text), "quietus::"), BTreeSet::from([expected.to_owned()]), "{file}");
    }
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let all = ["src", "tests", "examples", "benches"].into_iter().flat_map(files);
    for (file, text) in all {
        assert!(text.starts_with("//! "), "{file} has no module doc");
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for (file, text) in files("src") {
        // Tests beside the code do not count: they are read one at a time.
        let program = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = program.lines().count();
        assert!(lines <= LONGEST, "{file} has {lines} lines before its tests");
    }
}

#[test]
fn nothing_is_left_unfinished() {
    for (file, text) in files("src") {
        let code = code(&text);
        for unfinished in ["todo!", "unimplemented!", "dbg!"] {
            assert!(!code.contains(unfinished), "{file} has {unfinished}");
        }
        for mark in ["TODO", "FIXME", "XXX"] {
            assert!(!text.contains(mark), "{file} has {mark}");
        }
    }
}

#[test]
fn the_crate_forbids_unsafe_code() {
    for file in ["src/lib.rs", "src/main.rs"] {
        let text = std::fs::read_to_string(root().join(file)).expect("reads");
        assert!(code(&text).contains("#![forbid(unsafe_code)]"), "{file}");
    }
}

#[test]
fn one_tls_stack_and_one_library_of_primitives() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("the lock file is committed");
    let packages: BTreeSet<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    assert!(packages.contains("ring") && packages.contains("rustls"), "the lock file is read as it should be");
    let found: Vec<_> = BANNED_CRATES.iter().filter(|name| packages.contains(*name)).collect();
    assert!(found.is_empty(), "banned: {found:?}");
    let deny = std::fs::read_to_string(root().join("deny.toml")).expect("reads");
    for name in BANNED_CRATES {
        assert!(deny.contains(&format!("{{ crate = \"{name}\" }}")), "deny.toml lacks {name}");
    }
}

/// The cells of a page's tables, rows of dashes and of headings left out.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(root().join(page)).expect("reads");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with(&format!("| {heading} |")));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The tests that a cell names; each exists.
fn tests_named(cell: &str, programs: &str) -> Vec<String> {
    let names = cell.split('`').skip(1).step_by(2).filter(|name| !name.starts_with("make "));
    let tests: Vec<String> = names.map(str::to_owned).collect();
    for test in &tests {
        assert!(programs.contains(&format!("fn {test}(")), "there is no test {test}: {cell}");
    }
    tests
}

fn programs() -> String {
    ["src", "tests"].into_iter().flat_map(files).map(|(_, text)| text).collect()
}

#[test]
fn every_test_that_the_pages_of_threats_and_losses_name_is_there() {
    let programs = programs();
    for (page, first) in [("docs/threats.md", "Threat"), ("docs/losses.md", "Case")] {
        let rows = rows(page, first);
        for row in &rows {
            assert!(!tests_named(row.last().expect("a last cell"), &programs).is_empty(), "no test: {row:?}");
        }
        assert!(rows.len() > 30, "{page} is read as it should be");
    }
}

#[test]
fn every_promise_that_the_product_keeps_has_a_test_of_its_name() {
    let programs = programs();
    let rows = rows("docs/promises.md", "#");
    let mut kept = 0;
    for row in &rows {
        let [number, kind, _, _, shown_by] = row.as_slice() else { panic!("five cells: {row:?}") };
        let tests = tests_named(shown_by, &programs);
        let own = format!("{}_", number.to_lowercase());
        match kind.as_str() {
            "product" => {
                assert!(tests.iter().any(|test| test.starts_with(&own)), "no test of its name: {row:?}");
                kept += 1;
            }
            "to come" | "register" | "operator" => assert!(tests.is_empty(), "shown, and not kept: {row:?}"),
            _ => panic!("no such kind: {row:?}"),
        }
    }
    assert!(rows.len() > 50 && kept > 25, "the page is read as it should be: {kept} of {}", rows.len());
}

#[test]
fn paths_are_read_through_braces_comments_and_strings() {
    let text = r#"
        use crate::{
            domain::{id::RecordingId, time::Clock},
            keys::KeyStore, // crate::vault
        };
        fn f<'a>(c: char) -> bool { let _ = "crate::transport \" crate::server"; c == '"' && crate::crypto::x(c == '\'') }
        use mycrate::object;
    "#;
    let expected = ["crypto", "domain", "keys"].map(str::to_owned);
    assert_eq!(used(&code(text), "crate::"), BTreeSet::from(expected));
}
