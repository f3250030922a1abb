//! Every input that fuzzing has kept, on stable Rust: the corpus, and what once broke a promise.
#![allow(clippy::panic)] // in helpers of tests

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use peerage_fuzz_targets::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in fuzz/").to_owned()
}

/// The entries of a folder, sorted; none when it is not there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn names(folder: &str) -> Vec<String> {
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    entries(&fuzz().join(folder)).into_iter().map(stem).collect()
}

#[test]
fn every_input_that_was_kept_holds() {
    let mut broken = Vec::new();
    for target in TARGETS {
        let corpus = entries(&fuzz().join("corpus").join(target.name));
        assert!(!corpus.is_empty(), "fuzz/corpus/{} is empty", target.name);
        for path in corpus.into_iter().chain(entries(&fuzz().join("regressions").join(target.name))) {
            let input = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "these inputs break a promise; the panics above say which: {broken:#?}");
}

#[test]
fn every_target_has_a_fuzzer_and_every_folder_a_target() {
    let targets: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
    assert!(names("regressions").iter().all(|name| targets.contains(name)));
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("fuzz/Cargo.toml");
    let binaries: Vec<_> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""))
        .collect();
    assert_eq!(binaries, targets);
}

#[test]
fn the_corpus_stays_small() {
    let files = TARGETS.iter().flat_map(|target| entries(&fuzz().join("corpus").join(target.name)));
    let sizes: Vec<_> = files.map(|path| fs::metadata(path).expect("a file").len()).collect();
    let (count, bytes) = (sizes.len(), sizes.iter().sum::<u64>());
    assert!(count < 3000 && bytes < 400_000, "{count} files with {bytes} bytes: minimise with fuzz/keep");
}
