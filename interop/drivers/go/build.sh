#!/usr/bin/env bash
# Builds the go driver from its pinned modules. Exits 3 when the toolchain is missing or too old.
set -eu
cd "$(dirname "$0")"
# GOTOOLCHAIN=local: never download another toolchain.
export GOTOOLCHAIN=local GOFLAGS=-mod=readonly
if ! command -v go >/dev/null; then
  echo 'go driver: no go on this machine (Go 1.25.7 or newer is needed)' >&2
  exit 3
fi
have=$(GOWORK=off go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//')
if [ "$(printf '%s\n' 1.25.7 "${have:-0}" | sort -V | head -n 1)" != 1.25.7 ]; then
  echo "go driver: go ${have:-of unknown version} is too old (Go 1.25.7 or newer is needed)" >&2
  exit 3
fi
CGO_ENABLED=0 GOWORK=off go build -trimpath -buildvcs=false -o target/driver .
