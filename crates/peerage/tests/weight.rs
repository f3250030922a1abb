//! What a program takes on with the library `peerage`: the crates that are built for it, its own among them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::process::Command;

/// With the default features, on the platform of this test. Raw quinn has 52.
const MOST_CRATES: usize = 150;

#[test]
fn the_library_brings_no_more_than_150_crates() {
    let crates = tree();
    for known in ["peerage v", "quinn v", "tokio v"] {
        assert!(crates.iter().any(|line| line.starts_with(known)), "cargo tree has no {known}: {crates:?}");
    }
    assert!(
        crates.len() <= MOST_CRATES,
        "the library brings {} crates, and at most {MOST_CRATES} are wanted: see `cargo {}` for what has come, \
         and `cargo tree -p peerage -e normal,build -i CRATE` for what brings it",
        crates.len(),
        TREE.join(" ")
    );
}

const TREE: &[&str] = &["tree", "-p", "peerage", "-e", "normal,build", "--prefix", "none"];

/// Name and version of each crate, once.
fn tree() -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(TREE)
        .args(["--locked", "--offline", "--color", "never"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    let name = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    text.lines().filter(|line| !line.is_empty()).map(name).collect()
}
