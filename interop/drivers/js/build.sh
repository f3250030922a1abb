#!/usr/bin/env bash
# Installs the js driver's pinned packages, Node 22 among them. Exits 3 when the toolchain is missing.
set -eu
cd "$(dirname "$0")"
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  echo 'js driver: no node or no npm on this machine' >&2
  exit 3
fi
# What is installed already is not installed again.
wanted=$(cat package.json package-lock.json | cksum)
[ "$(cat node_modules/.built 2>/dev/null)" = "$wanted" ] && exit 0
# npm ci refuses this lock file: it leaves out optional packages of other platforms. npm install keeps to it too.
npm install --no-audit --no-fund --loglevel=error >&2
node_modules/.bin/node -e 'import("@chainsafe/libp2p-quic")'
printf '%s\n' "$wanted" > node_modules/.built
