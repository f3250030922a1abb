//! The code in `src/generated/` is what `proto/` compiles to.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use prost_build::Module;

const HEAD: &str = "// Written from proto/ by tests/generated.rs of this crate: change that, then run the test as it says.\n";

/// The files of a folder, by name.
type Files = BTreeMap<String, String>;

/// Changes to `proto/` reach the code with
///
///     PEERAGE_WRITE_PROTO=1 cargo test -p peerage-wire --test generated
#[test]
fn the_committed_messages_are_what_proto_compiles_to() {
    let folder = here().join("src/generated");
    let wanted = generated(&here().join("../../proto"));
    if std::env::var_os("PEERAGE_WRITE_PROTO").is_some() {
        write(&folder, &wanted);
    }
    let found = files(&folder);
    let differs: BTreeSet<_> =
        wanted.keys().chain(found.keys()).filter(|name| wanted.get(*name) != found.get(*name)).collect();
    assert!(
        differs.is_empty(),
        "crates/wire/src/generated/ is not what proto/ compiles to: {differs:?}; \
         run this test with PEERAGE_WRITE_PROTO=1 to write it"
    );
}

#[test]
fn every_file_of_proto_has_its_module() {
    let library = fs::read_to_string(here().join("src/lib.rs")).unwrap();
    let named = |word: &str| library.contains(word);
    for proto in files(&here().join("../../proto")).keys() {
        let name =
            proto.strip_suffix(".proto").unwrap_or_else(|| panic!("{proto} in proto/ is no .proto file"));
        assert!(
            named(&format!("`proto/{proto}`")) && named(&format!("{name}: \"peerage.{name}\"")),
            "crates/wire/src/lib.rs has no module for proto/{proto}"
        );
    }
}

/// Compiles a folder of `.proto` files.
fn generated(protos: &Path) -> Files {
    let sources: Vec<PathBuf> = files(protos).into_keys().map(|name| protos.join(name)).collect();
    assert!(!sources.is_empty(), "{} has no files", protos.display());
    let descriptors = protox::compile(&sources, [protos]).unwrap_or_else(|error| panic!("{error:?}"));
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    let modules =
        descriptors.file.into_iter().map(|file| (Module::from_protobuf_package_name(file.package()), file));
    let code = config.generate(modules.collect()).unwrap();
    let named = |(module, code): (Module, String)| (module.to_file_name_or("none"), format!("{HEAD}{code}"));
    code.into_iter().map(named).collect()
}

fn write(folder: &Path, wanted: &Files) {
    for name in files(folder).keys().filter(|name| !wanted.contains_key(*name)) {
        fs::remove_file(folder.join(name)).unwrap();
    }
    for (name, code) in wanted {
        fs::write(folder.join(name), code).unwrap();
    }
}

fn files(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}
