# Other people's programs as judges: used as installed, else unpacked from Debian's packages into a folder of the
# test (never installed: some of them start a daemon). Source it after cluster.sh.
#   foreign_program NAME PACKAGE...   makes the command NAME available
#   foreign_python MODULE PACKAGE...  makes `python3 -c "import MODULE"` work
foreign_unpack() { # PACKAGE...
    mkdir -p "$C_DIR/foreign"
    (cd "$C_DIR/foreign" && apt-get download -qq "$@" >fetch.log 2>&1) || fail "apt-get download $*: $(cat "$C_DIR/foreign/fetch.log")"
    for deb in "$C_DIR"/foreign/*.deb; do dpkg -x "$deb" "$C_DIR/foreign" && rm "$deb"; done
    PATH=$PATH:$C_DIR/foreign/usr/bin:$C_DIR/foreign/usr/sbin
    PYTHONPATH=$C_DIR/foreign/usr/lib/python3/dist-packages
    export PATH PYTHONPATH
}
foreign_program() {
    command -v "$1" >/dev/null || foreign_unpack "${@:2}"
    command -v "$1" >/dev/null || fail "no $1 in ${*:2}"
}
foreign_python() {
    python3 -c "import $1" 2>/dev/null || foreign_unpack "${@:2}"
    python3 -c "import $1" || fail "no module $1 in ${*:2}"
}
