#!/usr/bin/env bash
# Runs a single Apache Kafka node (KRaft: broker and controller in one JVM) on loopback.
#
#   kafka.sh exec  DIR PORT CONTROLLER_PORT   becomes the JVM (exec): the caller owns the process, may
#                                             kill -9 it and exec again on the same DIR and ports
#   kafka.sh start DIR PORT CONTROLLER_PORT   the same in the background; returns when it answers and
#                                             prints the bootstrap address
#   kafka.sh stop  DIR                        stops what `start` started, cleanly; waits for its end
#   kafka.sh archive                          makes the class archive that speeds up every start
#
# DIR holds everything: data/, server.properties, kafka.log, kafka.pid. It is formatted on first use
# and kept as it is afterwards. TRUNKLINE_KAFKA_HOME names the directory of Kafka's jars; unset, it is
# the one that `tools.sh kafka` installs.
#
# Sized for a test machine: 512 MB heap, serial collector, C1 only (a test's broker lives seconds; the
# second compiler would take a core from what is tested). KAFKA_OPTS adds JVM options, for instance
# KAFKA_OPTS="-XX:TieredStopAtLevel=4" for a long load run. Durability is Kafka's own: kill -9 loses
# nothing that was acknowledged, since the page cache outlives the process.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${TRUNKLINE_KAFKA_HOME:-}

fail() { printf 'kafka.sh: %s\n' "$*" >&2; exit 1; }

find_home() {
    [ -n "$home" ] || home=$("$here/../tools.sh" path kafka)
    ls "$home"/kafka_2.13-*.jar >/dev/null 2>&1 ||
        fail "no Kafka in \"$home\": run deploy/local/tools.sh kafka"
}

# Explicit and sorted, since the class archive is bound to the exact class path.
class_path() { printf '%s:' "$home"/*.jar; }

java_command() { # DIR, extra JVM options...
    local dir=$1
    shift
    jvm=(java -Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true
        -Xshare:auto -Xlog:disable -Xlog:all=error:stderr
        "-Dlog4j2.configurationFile=$here/log4j2.xml" "-Dtrunkline.kafka.log=$dir/kafka.log")
    [ ! -e "$home/kafka.jsa" ] || jvm+=("-XX:SharedArchiveFile=$home/kafka.jsa")
    # shellcheck disable=SC2206 # several options in one variable are meant to split
    jvm+=(${KAFKA_OPTS:-} "$@" -cp "$(class_path)")
}

write_properties() { # DIR PORT CONTROLLER_PORT
    cat >"$1/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$3
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3
advertised.listeners=PLAINTEXT://127.0.0.1:$2
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$1/data
# One partition would hide every mistake in per-contact order.
num.partitions=4
# One node: every internal topic has one replica, and few partitions, so that a start is quick.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# A consumer group of one need not wait three seconds for others to join.
group.initial.rebalance.delay.ms=0
# A consumer that was killed is missed after this long; tests set their own session timeout above it.
group.min.session.timeout.ms=1000
# After kill -9 the controller refuses the new incarnation until the old one's session has run out:
# 10 s a restart by default, 3 s here. Not less: a busy machine may stall the JVM for a second.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# The default buffer (128 MB) is a quarter of the heap.
log.cleaner.dedupe.buffer.size=8388608
PROPERTIES
}

prepare() { # DIR PORT CONTROLLER_PORT
    [ $# -eq 3 ] || fail "needs DIR PORT CONTROLLER_PORT, got $# arguments"
    find_home
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    write_properties "$dir" "$2" "$3"
    if [ ! -e "$dir/data/meta.properties" ]; then
        java_command "$dir"
        "${jvm[@]}" kafka.tools.StorageTool format --ignore-formatted --cluster-id "$(cluster_id)" \
            --config "$dir/server.properties" >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; fail "formatting $dir failed"; }
    fi
}

# 16 random bytes in base64 without padding, as Kafka's own `random-uuid` prints, but a JVM start less.
# Letters for + and /: Kafka wants the URL-safe alphabet, and a leading - would read as an option.
cluster_id() { head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | tr -d '='; }

answers() { # PORT
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

start() { # DIR PORT CONTROLLER_PORT
    prepare "$@"
    java_command "$dir"
    : >"$dir/kafka.log"
    nohup "${jvm[@]}" kafka.Kafka "$dir/server.properties" >"$dir/kafka.out" 2>&1 </dev/null &
    local pid=$! deadline=$((SECONDS + 60))
    echo "$pid" >"$dir/kafka.pid"
    until grep -q 'Kafka Server started' "$dir/kafka.log" && answers "$2"; do
        kill -0 "$pid" 2>/dev/null || { tail -n 20 "$dir/kafka.out" "$dir/kafka.log" >&2; fail "the broker ended"; }
        [ "$SECONDS" -lt "$deadline" ] || { tail -n 20 "$dir/kafka.log" >&2; fail "no answer on port $2 after 60 s"; }
        sleep 0.05
    done
    echo "127.0.0.1:$2"
}

stop() { # DIR
    [ -e "$1/kafka.pid" ] || return 0
    local pid deadline=$((SECONDS + 30))
    pid=$(cat "$1/kafka.pid")
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || kill -9 "$pid" 2>/dev/null || true
        sleep 0.05
    done
    rm -f "$1/kafka.pid"
}

# One start and stop under -XX:ArchiveClassesAtExit. Ports are whatever is free near a random one.
archive() {
    find_home
    local temporary port
    temporary=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory's name is wanted now
    trap "rm -rf '$temporary'" EXIT
    port=$((20000 + RANDOM % 10000))
    while answers "$port" || answers $((port + 1)); do port=$((port + 2)); done
    rm -f "$home/kafka.jsa"
    KAFKA_OPTS="-XX:ArchiveClassesAtExit=$temporary/kafka.jsa" start "$temporary" "$port" $((port + 1)) >/dev/null
    stop "$temporary"
    [ -s "$temporary/kafka.jsa" ] || fail "the JVM wrote no archive"
    mv "$temporary/kafka.jsa" "$home/kafka.jsa"
}

case ${1-} in
    exec)
        shift
        prepare "$@"
        java_command "$dir"
        exec "${jvm[@]}" kafka.Kafka "$dir/server.properties"
        ;;
    start) shift; start "$@" ;;
    stop) [ $# -eq 2 ] || fail "stop needs DIR"; stop "$2" ;;
    archive) archive ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d' >&2; exit 2 ;;
esac
