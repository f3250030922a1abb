#!/usr/bin/env bash
# Starts the built js driver; arguments are passed on (see ../README.md).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/node_modules/.bin/node" "$here/main.js" "$@"
