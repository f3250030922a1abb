#!/usr/bin/env bash
# Starts the built py driver; arguments are passed on (see ../README.md).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# No bytecode next to the sources.
exec "$here/.venv/bin/python" -B "$here/main.py" "$@"
