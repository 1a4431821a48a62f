#!/usr/bin/env bash
# Shell scripts through shellcheck, the Dockerfile through hadolint; any finding fails. A script is
# found by its first line, so that none is forgotten.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
deploy/local/tools.sh checks
tools=$(deploy/local/tools.sh path checks)/bin

mapfile -t scripts < <(grep -rlE --exclude-dir=target --exclude-dir=.git --exclude-dir=.cache \
    '^#!/(usr/)?bin/(env )?(ba)?sh' . | while read -r file; do
    head -n 1 "$file" | grep -qE '^#!.*sh' && echo "$file"; done | sort)
"$tools/shellcheck" --severity style "${scripts[@]}"
echo "shell: ${#scripts[@]} scripts, nothing found"

"$tools/hadolint" --failure-threshold style deploy/Dockerfile
echo "Dockerfile: nothing found"
