//! What would make a run depend on more than its seed may stand only where this test knows of it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

/// A source file of the crates that run in simulations, without its test modules.
struct Source {
    /// Its path below `crates/`.
    name: String,
    text: String,
}

const LIBRARIES: &[&str] = &[
    "wire/src",
    "machine/src",
    "identity/src",
    "transport/src",
    "peers/src",
    "dht/src",
    "peerage/src",
    "sim/src",
];

/// What a session of commands reaches of the program, but for transfers: those are of files on a real disk.
const SESSIONS: &[&str] = &["cli/src/control", "cli/src/node", "cli/src/metrics.rs"];

/// What runs in simulations.
fn sources() -> Vec<Source> {
    let sources = sources_below(&[LIBRARIES, SESSIONS].concat());
    assert!(sources.len() > 100, "only {} files were found", sources.len());
    sources
}

fn sources_below(parts: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files: Vec<PathBuf> = Vec::new();
    for part in parts {
        let path = root.join(part);
        match path.is_dir() {
            true => collect(&path, &mut files),
            false => files.push(path),
        }
    }
    files.sort();
    files
        .iter()
        .filter(|path| !path.ends_with("tests.rs"))
        .map(|path| {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            Source { name, text }
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
}

/// The lines of code that hold one of `words`, but for those in files that may hold them.
fn offenders(words: &[&str], allowed: &[&str]) -> Vec<String> {
    offenders_among(&sources(), words, allowed)
}

fn offenders_among(sources: &[Source], words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !allowed.contains(&source.name.as_str())) {
        for (number, line) in source.text.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {code}", source.name, number + 1));
            }
        }
    }
    found
}

#[test]
fn real_time_is_read_in_one_module() {
    let allowed = &[
        // The environment asks the system.
        "peerage/src/environment.rs",
        // The transport has the system's clock as its default, which a node replaces.
        "transport/src/endpoint.rs",
        // The soak measures itself, and who waits for a run is told for how long.
        "sim/src/soak.rs",
        "sim/src/dht_progress.rs",
        // A command tells its user when a ban ends, seen from today.
        "cli/src/operator/show.rs",
        // How old files on the disk are, and a thread that waits for the end of another transfer.
        "cli/src/transfer/inbox.rs",
    ];
    let everything = sources_below(&[LIBRARIES, &["cli/src"]].concat());
    let words = &["SystemTime::now", "DefaultTimeProvider", "UNIX_EPOCH.elapsed", "std::time::Instant"];
    let code = offenders_among(&everything, words, allowed);
    let imports = |line: &&String| !line.contains(": use std::time::Instant;");
    let read: Vec<_> = code.iter().filter(imports).collect();
    assert_eq!(read, [""; 0], "ask the environment, or tokio's clock");
    let imports = |source: &Source| {
        let mut imports = source.text.lines().filter(|line| line.trim_start().starts_with("use std::time::"));
        !allowed.contains(&source.name.as_str()) && imports.any(|line| line.contains("Instant"))
    };
    let found: Vec<_> = everything.into_iter().filter(imports).map(|source| source.name).collect();
    // The time comes in as a value there: a rate's from quinn's runtime, a congestion controller's from quinn.
    let known = [
        "transport/src/admission.rs",
        "transport/src/admission/table.rs",
        "transport/src/window.rs",
        "transport/src/gate.rs",
    ];
    let unknown: Vec<_> = found.iter().filter(|name| !known.contains(&name.as_str())).collect();
    assert_eq!(unknown, [""; 0], "take tokio's Instant, whose clock can be paused");
    for name in known.iter().filter(|name| found.iter().any(|found| found == *name)) {
        let source = sources().into_iter().find(|source| source.name == *name).unwrap();
        assert!(!source.text.contains("Instant::now"), "{name} reads the clock itself");
    }
}

#[test]
fn the_systems_randomness_is_drawn_in_known_places() {
    let allowed = &[
        // The environment; the default of the transport where no seed is given.
        "peerage/src/environment.rs",
        "transport/src/endpoint.rs",
        // New keys, which a simulation gives, and the encryption of their files.
        "identity/src/key.rs",
        "identity/src/key_file.rs",
        // An ECDSA certificate's key; with an Ed25519 one, as simulations have it, all follows from the seed.
        "transport/src/certificate.rs",
        // The secret half of a key exchange, as everywhere in TLS: no length follows from it.
        "transport/src/post_quantum.rs",
    ];
    let words = &["getrandom::", "SystemRandom::new", "rand::rng", "thread_rng", "RandomState"];
    assert_eq!(offenders(words, allowed), [""; 0], "draw from the seed");
}

#[test]
fn every_select_is_biased() {
    for source in sources() {
        for (at, _) in source.text.match_indices("select! {") {
            let body = source.text[at + "select! {".len()..].trim_start();
            let line = source.text[..at].lines().count();
            assert!(
                body.starts_with("biased;"),
                "{}:{line}: a select! without `biased` draws lots",
                source.name
            );
        }
    }
}

#[test]
fn tables_with_random_hashes_are_only_looked_up_in() {
    let allowed = &[
        // Places by peer: looked up.
        "peerage/src/request/slots.rs",
        // Peers by ID: walked in the order of their IDs.
        "peerage/src/shared.rs",
        // Rates by address: looked up, and thrown away as a whole.
        "transport/src/admission/table.rs",
    ];
    let words = &["HashMap", "HashSet"];
    assert_eq!(offenders(words, allowed), [""; 0], "take a BTreeMap: its order is the same in every run");
}

#[test]
fn nothing_blocks_a_thread() {
    let words = &[
        "spawn_blocking",
        "block_in_place",
        "thread::sleep",
        "thread::spawn",
        "tokio::fs",
        "tokio::process",
    ];
    let allowed = &[
        // The program's own threads, one for each run.
        "sim/src/soak.rs",
        // The store on a disk, which a simulation replaces by one in memory.
        "peerage/src/store/saving.rs",
        "peerage/src/store/redb_store.rs",
        // The work of a message to a stranger, for which tokio's paused clock waits.
        "peerage/src/dht/mail.rs",
        // Files that the user names, of seeds and of a book; tokio's paused clock waits for their threads.
        "peerage/src/seed_file.rs",
        "cli/src/node/service.rs",
    ];
    assert_eq!(offenders(words, allowed), [""; 0], "virtual time stands still while a thread is blocked");
}

/// Tests wait for what happens; where time counts, it is virtual.
#[test]
fn no_test_sleeps_on_the_real_clock() {
    let folders: Vec<String> = LIBRARIES
        .iter()
        .map(|source| source.replace("/src", "/tests"))
        .chain(["cli/tests".to_owned()])
        .filter(|tests| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(tests).is_dir())
        .collect();
    let tests = sources_below(&folders.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(tests.len() > 50, "only {} files were found", tests.len());
    let allowed = &[
        // How virtual time passes in the worlds of the node's and the transport's tests.
        "peerage/tests/world/clock.rs",
        "transport/tests/it/virtual_network.rs",
        // It stops the clock around it.
        "peerage/tests/idle_memory.rs",
        // The words themselves.
        "sim/tests/purity.rs",
    ];
    let words = &["sleep(", "sleep_until(", "thread::sleep"];
    assert_eq!(offenders_among(&tests, words, allowed), [""; 0], "await the event, or use virtual time");
}

#[test]
fn waiters_are_woken_in_a_fixed_order() {
    let allowed = &["peerage/src/watch.rs"];
    let words = &["sync::watch", "{mpsc, watch}", "watch}", "watch, ", "StreamMap"];
    assert_eq!(
        offenders(words, allowed),
        [""; 0],
        "tokio's watch draws lots among its waiters: take crate::watch"
    );
}
