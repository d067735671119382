# A cluster of network namespaces on this machine, for tests and benches. Source it; SHOAL is the binary.
#   cluster_up N            makes hosts 1..N (10.99.0.1...), starts a daemon on each
#   cluster_form            init on 1, join of the others as managers (cluster_form worker: as workers); roles stay as they are
#   sh_ N ARGS...           the command line on host N
#   on_ N COMMAND...        a command in host N's network namespace
#   exec_ N COMMAND... &    the same for the background: kill $! ends it
# Everything carries the test's own process id; cluster_down removes it all and says what was left behind.
C=${CLUSTER_NAME:-shoal-t$$}
C_DIR=${CLUSTER_DIR:-$(mktemp -d /tmp/$C.XXXXXX)}
mkdir -p "$C_DIR"
C_NET=${CLUSTER_NET:-10.99.0}
C_BRIDGE=${CLUSTER_BRIDGE:-sh$(($$ % 100000))b}
C_ROOT=${CLUSTER_ROOT:-root} # below a host's folder
C_STRAYS=()                  # processes that outlived the hosts
C_MOUNTS=()                  # the test's own below $C_DIR: unmounted after the daemons have cleaned up
C_N=0

fail() { echo "not ok: $*" >&2; exit 1; }
ok() { echo "ok - $*"; }
# until_ SECONDS WHAT COMMAND...: polls, fails with WHAT
until_() {
    local limit=$1 end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >"$C_DIR/until.log" 2>&1; do
        if [ $SECONDS -ge $end ]; then
            tail -n 20 "$C_DIR/until.log" >&2
            fail "not in $limit s: $what"
        fi
        sleep 0.05
    done
}
netns_() { nsenter --net=/run/netns/$C-$1 "${@:2}"; }
on_() { netns_ "$@"; }
# For the background: $! is then the command itself, not a shell around it, which would be killed without it.
exec_() { exec nsenter --net=/run/netns/$C-$1 "${@:2}"; }
sh_() { local n=$1; shift; "$SHOAL" -H "unix://$C_DIR/$n/run/shoal.sock" "$@"; }
docker_() { local n=$1; shift; docker -H "unix://$C_DIR/$n/run/shoal.sock" "$@"; }

host_up() { # N
    local n=$1
    ip netns add $C-$n
    ip link add ${C_BRIDGE}$n type veth peer name eth0 netns $C-$n
    ip link set ${C_BRIDGE}$n master $C_BRIDGE up
    netns_ $n ip link set lo up
    netns_ $n ip addr add $C_NET.$n/24 dev eth0
    netns_ $n ip link set eth0 up
    mkdir -p "$C_DIR/$n"
}
daemon_start() { # N [FLAGS...]
    local n=$1
    shift
    nsenter --net=/run/netns/$C-$n unshare --uts sh -c 'hostname $0; exec "$@"' host$n \
        "$SHOAL" daemon --root "$C_DIR/$n/$C_ROOT" --run "$C_DIR/$n/run" ${DAEMON_LISTEN---listen $C_NET.$n} ${DAEMON_FLAGS:-} "$@" \
        </dev/null >>"$C_DIR/$n/log" 2>&1 &
    echo $! >"$C_DIR/$n/pid"
    until_ 20 "the daemon of host $n does not answer" sh_ $n version
}
daemon_pid() { cat "$C_DIR/$1/pid"; }
daemon_kill() { # N [SIGNAL]
    local pid
    pid=$(daemon_pid $1)
    kill -${2:-KILL} $pid
    wait $pid 2>/dev/null
    return 0
}
cluster_up() { # N
    C_N=$1
    ip link add $C_BRIDGE type bridge
    ip link set $C_BRIDGE up
    local i
    for i in $(seq 1 $C_N); do host_up $i; done
    for i in $(seq 1 $C_N); do daemon_start $i; done
}
cluster_form() { # [manager|worker]
    sh_ 1 init --managers manual --advertise-addr $C_NET.1 >"$C_DIR/init.log" || fail "init: $(cat "$C_DIR/init.log")"
    local token i
    token=$(sh_ 1 join-token -q ${1:-manager}) || fail "join-token"
    for i in $(seq 2 $C_N); do
        sh_ $i join --token "$token" $C_NET.1:2377 >"$C_DIR/join.log" 2>&1 || fail "join $i: $(cat "$C_DIR/join.log")"
    done
}
# Files and namespaces of one host go; the daemon must not run.
host_clean() {
    [ -e /run/netns/$C-$1 ] || return 0
    nsenter --net=/run/netns/$C-$1 "$SHOAL" daemon --clean --root "$C_DIR/$1/$C_ROOT" --run "$C_DIR/$1/run" >>"$C_DIR/clean.log" 2>&1
}
hosts_processes() {
    local i
    for i in $(seq 1 $C_N); do ip netns pids $C-$i 2>/dev/null; done | while read -r pid; do
        ps -o pid=,stat=,args= -p $pid
    done | awk '$2 !~ /^Z/'
}
cluster_down() {
    local i pid
    trap - EXIT INT TERM
    cd / # tests may stand in what goes
    for i in $(seq 1 $C_N); do
        [ -f "$C_DIR/$i/pid" ] || continue
        pid=$(daemon_pid $i)
        kill -CONT $pid 2>/dev/null
        kill -TERM $pid 2>/dev/null && wait $pid 2>/dev/null
    done
    for i in $(seq 1 $C_N); do host_clean $i; done
    local end=$((SECONDS + 10)) # before the namespaces lose their names; what was told to end may take a moment
    while mapfile -t C_STRAYS < <(hosts_processes) && [ ${#C_STRAYS[@]} != 0 ] && [ $SECONDS -lt $end ]; do sleep 0.1; done
    for i in $(seq 1 $C_N); do
        ip link del ${C_BRIDGE}$i 2>/dev/null
        ip netns del $C-$i 2>/dev/null
    done
    ip link del $C_BRIDGE 2>/dev/null
    for i in "${C_MOUNTS[@]}"; do umount "$i"; done
    if [ -n "${CLUSTER_KEEP:-}" ]; then
        echo "kept: $C_DIR"
    else
        rm -rf "$C_DIR"
    fi
}
# What a cluster may have left on the machine; prints it.
cluster_leftovers() {
    ip -br link | grep -F "$C_BRIDGE"
    ip netns list 2>/dev/null | grep -F "$C"
    grep -F "$C_DIR" /proc/mounts
    [ ${#C_STRAYS[@]} = 0 ] || printf '%s\n' "${C_STRAYS[@]}"
    ps -eo pid,args | grep -F "$C_DIR" | grep -v grep
    local i group
    for i in $(seq 1 $C_N); do # a daemon's control group is named after its root
        group=shoal-$(python3 -c 'import hashlib, sys; print(hashlib.blake2s(sys.argv[1].encode(), digest_size=4).hexdigest())' "$C_DIR/$i/$C_ROOT")
        find /sys/fs/cgroup -maxdepth 3 -type d -name "$group"
    done
    return 0
}
# An image holding whoami, as a root file system to import.
whoami_tar() { # FILE
    local d
    d=$(mktemp -d)
    gcc -O2 -static -o "$d/whoami" "${SHOAL_TOP:-.}/examples/whoami.c" && tar -C "$d" -cf "$1" whoami
    rm -rf "$d"
}
# Busybox and curl (a static busybox of glibc cannot look up names with its own wget).
busybox_tar() { # FILE
    local d x
    d=$(mktemp -d)
    mkdir -p "$d/bin" "$d/etc" "$d/tmp"
    cp /bin/busybox "$d/bin/"
    for x in $(/bin/busybox --list); do [ "$x" = busybox ] || ln -s busybox "$d/bin/$x"; done
    for x in $(command -v curl) $(ldd "$(command -v curl)" | grep -o '/[^ ]*'); do
        mkdir -p "$d$(dirname $x)" && cp -L $x "$d$x"
    done
    echo 'root:x:0:0::/root:/bin/sh' >"$d/etc/passwd"
    tar -C "$d" -cf "$1" .
    rm -rf "$d"
}
finish() {
    local status=$?
    if [ $status != 0 ]; then
        local i
        for i in $(seq 1 $C_N); do
            echo "--- the end of host $i's log:" >&2
            [ -f "$C_DIR/$i/log" ] && tail -n ${CLUSTER_LOG_LINES:-15} "$C_DIR/$i/log" >&2
        done
    fi
    cluster_down
    if [ $status = 0 ] && [ -z "${CLUSTER_KEEP:-}" ] && [ -n "$(cluster_leftovers)" ]; then
        echo "not ok: left behind on the machine:" >&2
        cluster_leftovers >&2
        status=1
    fi
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM
