//! Holds the table of who may use whom true (crate docs), by reading the `crate::` paths in `src`.

use std::fs;
use std::path::{Path, PathBuf};

/// Part, and the parts it may name besides itself and the vocabulary.
const MAY_USE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("id", &[]),
    ("media", &[]),
    ("audit", &[]),
    ("room", &[]),
    ("calendar", &[]),
    ("vault", &[]),
    ("documents", &["vault"]),
    ("register", &[]),
    ("rtp", &[]),
    ("sfu", &["rtp"]),
    ("recording", &["audit", "rtp", "vault"]),
    ("objects", &[]),
    ("store", &["audit", "room", "recording", "vault"]),
    ("notify", &["store"]),
    ("control", &["room", "calendar", "rtp", "vault", "documents", "register", "sfu", "recording", "store", "notify"]),
    ("evidence", &["audit", "documents", "objects", "recording", "register", "room", "store", "notify", "vault"]),
    ("api", &["audit", "documents", "register", "room", "control", "evidence"]),
    ("web", &["api"]),
    (
        "config",
        &[
            "room",
            "calendar",
            "documents",
            "register",
            "sfu",
            "recording",
            "objects",
            "notify",
            "control",
            "evidence",
            "api",
        ],
    ),
    ("telemetry", &["config"]),
    ("keys", &["store", "control", "config"]),
    (
        "node",
        &[
            "room",
            "calendar",
            "rtp",
            "vault",
            "documents",
            "register",
            "sfu",
            "recording",
            "objects",
            "store",
            "notify",
            "control",
            "evidence",
            "api",
            "web",
            "config",
            "telemetry",
        ],
    ),
];

/// What every part may use; these may use each other.
const VOCABULARY: [&str; 3] = ["clock", "id", "media"];

#[test]
fn every_part_uses_only_what_the_table_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in rust_files(&source) {
        let part = part_of(file.strip_prefix(&source).unwrap());
        // The library's root names every part in order to declare it; the binary is outside of the library.
        if part == "lib" || part == "main" {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == part) else {
            wrong.push(format!("{} belongs to no part of the table", file.display()));
            continue;
        };
        for used in used_parts(&fs::read_to_string(&file).unwrap()) {
            if used != part && !VOCABULARY.contains(&used.as_str()) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: `{part}` may not use `{used}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_clock_reads_time() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        if file.ends_with("clock.rs") || file.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for reading in ["Instant::now()", "Timestamp::now()", "SystemTime::now()", "Zoned::now()"] {
            assert!(!code.contains(reading), "{} reads time itself: {reading}", file.display());
        }
    }
}

#[test]
fn only_one_file_drives_the_rtc() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let text = fs::read_to_string(&file).unwrap();
        let drives = text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("Rtc::"));
        let may = file.ends_with("sfu/peer.rs") || file.ends_with("tests.rs");
        assert!(!drives || may, "{} drives an Rtc", file.display());
    }
}

/// Parts named in `crate::…` paths of the code before the file's tests; comments and docs do not count.
fn used_parts(text: &str) -> Vec<String> {
    let code: String = text
        .split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut parts = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            // `use crate::{api, web};`
            Some(list) => parts
                .extend(list.split('}').next().unwrap_or_default().split(',').map(|item| leading_word(item.trim()))),
            None => parts.push(leading_word(rest)),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn leading_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit()).collect()
}

fn part_of(relative: &Path) -> String {
    let first = relative.iter().next().unwrap().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            // Long tests live beside the code they test, and may use more than it.
            if path.file_name().is_none_or(|name| name != "tests.rs") {
                files.push(path);
            }
        }
    }
    files
}
