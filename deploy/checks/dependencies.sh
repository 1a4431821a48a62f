#!/usr/bin/env bash
# cargo-deny over the lock file: licences, bans, sources (deny.toml). Not advisories: their database
# is a git repository, which the build machines do not reach; run `cargo deny check advisories` where
# it can be fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
deploy/local/tools.sh build checks
"$(deploy/local/tools.sh path checks)/bin/cargo-deny" --locked --log-level error check --hide-inclusion-graph bans licenses sources
