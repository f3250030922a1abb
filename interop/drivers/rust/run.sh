#!/usr/bin/env bash
# Starts the built rust driver; arguments are passed on (see ../README.md).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/target/driver" "$@"
