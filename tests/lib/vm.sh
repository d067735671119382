# Debian's own kernel in QEMU, with cgroup v2 and this machine's files read-only below a tmpfs. It is emulated: what it shows
# is behaviour, never speed. Source it; needs root. Works in a folder of its own, which goes at the end; what a test puts into
# ./share is /run/share inside (copies, since the build may lie where a read-only share does not reach).
#   vm_make [MODULE...]   downloads the kernel (it is not installed) and makes an initramfs that loads these modules
#   vm_run SECONDS        runs ./share/command by sh inside and prints its output; ends with its status. VM_LOG=FILE keeps
#                         the console
: "${SHOAL_BUILD:?the build folder}"
export PATH=$PATH:/usr/sbin:/sbin
dir=$(mktemp -d)
qemu=
cleanup() {
    [ -z "$qemu" ] || { kill "$qemu" 2>/dev/null && wait "$qemu" 2>/dev/null; }
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
die() { echo "not ok: $*" >&2; exit 1; }

vm_make() {
    local package n=100 m path
    cd "$dir" || exit 1
    package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    [ -n "$package" ] || die "apt knows no kernel; run apt-get update"
    apt-get download "$package" >apt.log 2>&1 || die "apt-get download $package: $(tail -n 2 apt.log)"
    dpkg -x ./*.deb kernel || die "unpack $package"
    version=$(ls kernel/lib/modules)
    depmod -b "$dir/kernel" "$version" || die "depmod"
    mkdir -p ram/bin ram/m share
    cp /bin/busybox ram/bin/ || die "busybox-static is missing"
    for m in virtio_pci 9pnet_virtio 9p overlay "$@"; do # in the order they are to be loaded
        modprobe -d "$dir/kernel" -S "$version" --show-depends "$m" >modules || die "kernel $version has no module $m"
        awk '/insmod/ { print $2 }' modules >>paths
    done
    awk '!seen[$0]++' paths >order
    while read -r path; do
        n=$((n + 1))
        cp "$path" "ram/m/$n-$(basename "$path")"
    done <order
    vm_init >ram/init
    chmod +x ram/init
    (cd ram && find . | cpio -o -H newc --quiet) >initrd || die "cpio"
}
vm_init() {
    cat <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /low /top /new
$b mount -t proc proc /proc
for m in /m/*; do $b insmod $m || echo "no $m"; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro root /low
$b mount -t tmpfs tmpfs /top
$b mkdir -p /top/up /top/work
$b mount -t overlay -o lowerdir=/low,upperdir=/top/up,workdir=/top/work overlay /new
$b mount -t proc proc /new/proc
$b mount -t sysfs sysfs /new/sys
$b mount -t devtmpfs dev /new/dev
$b mkdir -p /new/dev/pts /new/dev/shm
$b mount -t devpts -o ptmxmode=0666 devpts /new/dev/pts
$b mount -t tmpfs shm /new/dev/shm
$b mount -t tmpfs tmp /new/tmp
$b mount -t tmpfs run /new/run
$b mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
$b mkdir -p /new/run/share
$b mount -t 9p -o trans=virtio,version=9p2000.L share /new/run/share
$b ifconfig lo up
cd /new
$b mount --move . /
$b chroot . /bin/sh -c '/bin/sh /run/share/command >/run/share/output 2>&1; echo $? >/run/share/status; sync'
$b poweroff -f
INIT
}
vm_run() { # SECONDS
    timeout "$1" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1536 -nographic -no-reboot -nodefaults -serial stdio \
        -kernel kernel/boot/vmlinuz-"$version" -initrd initrd \
        -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests tsc=reliable no_timer_check" \
        -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=root,mount_tag=root \
        -fsdev local,id=share,path="$dir/share",security_model=none,multidevs=remap -device virtio-9p-pci,fsdev=share,mount_tag=share \
        </dev/null >console 2>&1 &
    qemu=$!
    wait $qemu
    qemu=
    [ -z "${VM_LOG:-}" ] || cp console "$VM_LOG"
    cat share/output 2>/dev/null
    [ -f share/status ] || { tail -n 20 console; die "the machine did not come to its end"; }
    exit "$(cat share/status)"
}
