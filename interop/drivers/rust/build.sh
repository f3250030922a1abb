#!/usr/bin/env bash
# Builds the rust driver from its lock file. Exits 3 when the toolchain is missing.
set -eu
cd "$(dirname "$0")"
if ! command -v cargo >/dev/null; then
  echo 'rust driver: no cargo on this machine (Rust 1.88 or newer is needed)' >&2
  exit 3
fi
# The target folder is named so that a caller's CARGO_TARGET_DIR does not mix the driver with other builds.
cargo build --release --locked --target-dir target
