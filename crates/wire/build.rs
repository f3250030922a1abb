//! Compiles `proto/` with protox, so that no protoc is needed.

use std::error::Error;
use std::path::Path;

const FILES: [&str; 9] = [
    "channel.proto",
    "chat.proto",
    "envelope.proto",
    "exchange.proto",
    "file.proto",
    "hello.proto",
    "identify.proto",
    "peer_record.proto",
    "request.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", folder.display());
    let files: Vec<_> = FILES.iter().map(|file| folder.join(file)).collect();
    let descriptors = protox::compile(&files, [&folder])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
