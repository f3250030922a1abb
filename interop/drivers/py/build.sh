#!/usr/bin/env bash
# Installs the py driver's pinned packages into a venv. Exits 3 when the toolchain is missing.
set -eu
cd "$(dirname "$0")"
. ../cache.sh
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  echo "py driver: no $python of version 3.10 or newer on this machine" >&2
  exit 3
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  echo "py driver: $python has no venv module (Debian: package python3-venv)" >&2
  exit 3
fi
folder=$({ "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; cat requirements.txt; } | cache_folder py)
if ! [ -d "$folder" ]; then
  new=$folder.$$
  "$python" -m venv --clear "$new"
  "$new/bin/python" -m pip install --quiet --disable-pip-version-check --requirement requirements.txt >&2
  "$new/bin/python" -c 'import libp2p'
  put_in_place "$new" "$folder"
fi
link "$folder" .venv
