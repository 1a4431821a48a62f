#!/usr/bin/env bash
# Runs a check with the pinned Python tools, installing them first if needed: python.sh FILE ARGUMENT...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
deploy/local/tools.sh checks
exec "$(deploy/local/tools.sh path checks)/bin/python" "$@"
