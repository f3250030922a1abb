#!/usr/bin/env bash
# Installs the js driver's pinned packages, Node 22 among them. Exits 3 when the toolchain is missing.
set -eu
cd "$(dirname "$0")"
. ../cache.sh
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  echo 'js driver: no node or no npm on this machine' >&2
  exit 3
fi
folder=$(cat package.json package-lock.json | cache_folder js)
if ! [ -d "$folder" ]; then
  new=$folder.$$
  mkdir -p "$new"
  cp package.json package-lock.json "$new"
  # npm ci refuses this lock file: it leaves out optional packages of other platforms. npm install keeps to it too.
  (cd "$new" && npm install --no-audit --no-fund --loglevel=error) >&2
  (cd "$new" && node_modules/.bin/node -e 'import("@chainsafe/libp2p-quic")')
  put_in_place "$new" "$folder"
fi
link "$folder/node_modules" node_modules
