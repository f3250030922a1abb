#!/usr/bin/env bash
# Builds the rust driver from its lock file. Exits 3 when the toolchain is missing.
set -eu
cd "$(dirname "$0")"
. ../cache.sh
if ! command -v cargo >/dev/null; then
  echo 'rust driver: no cargo on this machine (Rust 1.88 or newer is needed)' >&2
  exit 3
fi
# Named outright, so that a caller's CARGO_TARGET_DIR does not mix the driver with other builds.
folder=$({ rustc --version; cat Cargo.lock; } | cache_folder rust)
cargo build --release --locked --target-dir "$folder"
# A copy, for the next build from another clone replaces what lies there.
mkdir -p target
cp "$folder/release/interop-driver-rust" target/driver.new
mv target/driver.new target/driver
