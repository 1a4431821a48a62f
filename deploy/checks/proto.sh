#!/usr/bin/env bash
# The contract: buf lint (proto/buf.yaml), then breaking changes against an earlier state of main.
#
# The earlier state, first that applies:
#   TRUNKLINE_PROTO_BASELINE   a commit named by the caller
#   the merge base with origin/main, when this checkout is ahead of it (a change being prepared)
#   HEAD, when proto/ has uncommitted changes
#   HEAD^, when this checkout is main itself (CI's clone of what is about to land)
# When that commit has no proto/, or there is none, nothing can break: says so and passes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
deploy/local/tools.sh checks
buf=$(deploy/local/tools.sh path checks)/bin/buf

"$buf" lint proto
echo "proto: lint clean, $(find proto -name '*.proto' | wc -l) files"

commit() { git rev-parse --quiet --verify "$1^{commit}" 2>/dev/null; }

baseline() {
    if [ -n "${TRUNKLINE_PROTO_BASELINE-}" ]; then commit "$TRUNKLINE_PROTO_BASELINE"; return; fi
    local head base
    head=$(commit HEAD) || return
    base=$(git merge-base HEAD origin/main 2>/dev/null || true)
    if [ -n "$base" ] && [ "$base" != "$head" ]; then echo "$base"; return; fi
    if ! git diff --quiet HEAD -- proto; then echo "$head"; return; fi
    commit "HEAD^"
}

if ! against=$(baseline); then
    [ -z "${TRUNKLINE_PROTO_BASELINE-}" ] || { echo "proto: no such commit: $TRUNKLINE_PROTO_BASELINE" >&2; exit 1; }
    echo "proto: no earlier commit: nothing to compare with"
elif [ -z "$(git ls-tree -r --name-only "$against" -- proto | grep '\.proto$' || true)" ]; then
    echo "proto: ${against:0:12} has no contract yet: nothing to compare with"
else
    # An archive of that commit, not buf's own git client: it would fetch the whole history.
    earlier=$(mktemp -d)
    trap 'rm -rf "$earlier"' EXIT
    git archive "$against" proto | tar -x -C "$earlier"
    "$buf" breaking proto --against "$earlier/proto"
    echo "proto: nothing broken since ${against:0:12}"
fi
