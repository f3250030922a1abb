#!/usr/bin/env bash
# Installs the py driver's pinned packages into .venv. Exits 3 when the toolchain is missing.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  echo "py driver: no $python of version 3.10 or newer on this machine" >&2
  exit 3
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  echo "py driver: $python has no venv module (Debian: package python3-venv)" >&2
  exit 3
fi
# What is installed already is not installed again.
wanted=$("$python" --version; cksum < requirements.txt)
[ "$(cat .venv/.built 2>/dev/null)" = "$wanted" ] && exit 0
"$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt >&2
printf '%s\n' "$wanted" > .venv/.built
