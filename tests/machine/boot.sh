#!/bin/sh
# Process 1 of a disposable host, until it becomes the init that is given in the arguments.
# Turns $PLACE/root into the host's root, makes sure that nothing of the real machine can be
# written to any more, and says "ready" on descriptor 3. It must never start an init before that:
# systemd's own boot empties /tmp.
#
# PLACE      where the holder keeps the overlay, its writable layer and the control groups
# MARK       the name of this host's file systems in the mount table, like no other's
# CGROUP     the control group of this host
# BINDS      what is shown read-only from the real machine, one path in each line
# CAPS       what the host may not do, for setpriv --bounding-set
# FIRST      yes when this writable layer has never been booted
set -eu

refuse() {
    echo "refused to start $1: $2" >&2
    exit 1
}

if [ "${STAGE:-}" != 2 ]; then
    # The control group that a process is in becomes the root of its new namespace.
    echo 0 >"$CGROUP/cgroup.procs"
    STAGE=2 exec unshare --cgroup sh "$0" "$@"
fi

# Of the shell itself, as the holder sees it: /proc is still that of the real machine.
read -r number rest </proc/self/stat

root=$PLACE/root
mount -t tmpfs -o mode=755,nosuid,nodev "$MARK-run" "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev "$MARK-tmp" "$root/tmp"
mount -t tmpfs -o mode=755,nosuid "$MARK-dev" "$root/dev"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"

(
    cd "$root/dev"
    mkdir pts
    mkdir -m 1777 shm
    mknod -m 666 null c 1 3
    mknod -m 666 zero c 1 5
    mknod -m 666 full c 1 7
    mknod -m 666 random c 1 8
    mknod -m 666 urandom c 1 9
    mknod -m 666 tty c 5 0
    ln -s pts/ptmx ptmx
    ln -s /proc/self/fd fd
    ln -s fd/0 stdin
    ln -s fd/1 stdout
    ln -s fd/2 stderr
)
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5,nosuid,noexec devpts "$root/dev/pts"

echo disposable >"$root/proc/sys/kernel/hostname"
# What the kernel says is the boot, so that a reboot looks like one. systemd-nspawn does the same.
cat /proc/sys/kernel/random/uuid >"$root/run/boot_id"
mount --bind "$root/run/boot_id" "$root/proc/sys/kernel/random/boot_id"
mount -o remount,bind,ro "$root/proc/sys/kernel/random/boot_id"
rm "$root/run/boot_id"
for name in sys irq bus fs sysrq-trigger; do
    if [ -e "$root/proc/$name" ]; then
        mount --rbind "$root/proc/$name" "$root/proc/$name"
        mount -o remount,bind,ro "$root/proc/$name"
    fi
done

show() {
    # A path that is a symlink in here could lead out of the root: never follow one.
    [ "$(realpath -m "$root$1")" = "$root$1" ] || refuse "an init" "$1 leads elsewhere"
    [ -e "$root$1" ] || mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
}
while read -r path; do
    [ -z "$path" ] || show "$path"
done <<END
$BINDS
END

cd "$root"
pivot_root . .
umount -l .
cd /

roots=0
temporary=0
while read -r _ _ _ _ where options rest; do
    case "$where $rest" in
    "/ "*" - overlay $MARK "* | "/ - overlay $MARK "*) roots=$((roots + 1)) ;;
    "/ "*) refuse "$1" "its root would be $rest" ;;
    "/tmp "*"- tmpfs $MARK-tmp "* | "/run "*"- tmpfs $MARK-run "*) temporary=$((temporary + 1)) ;;
    "/tmp "* | "/run "*) refuse "$1" "its $where would be $rest" ;;
    esac
    case $options in
    ro | ro,*) continue ;;
    esac
    case " $rest" in
    *" - overlay $MARK "* | *" - tmpfs $MARK-"*) ;;
    *" - proc "* | *" - devpts "* | *" - cgroup2 "*) ;;
    *) refuse "$1" "it could write to $where ($rest)" ;;
    esac
done </proc/self/mountinfo
[ "$roots $temporary" = "1 2" ] || refuse "$1" "the mount table names / $roots times"

clean() {
    # The same host on every machine: without what the real one was told to run, and when. Its
    # mounts are not ours either, and without an identity systemd would enable all there is.
    rm -rf /etc/systemd/system/* /etc/systemd/user/* /etc/rc?.d/* /var/lib/systemd/linger/*
    rm -rf /var/spool/cron/crontabs/* /var/spool/cron/atjobs/* /etc/cron.allow /etc/cron.deny
    rm -rf /etc/cron.d/* /etc/cron.hourly/* /etc/cron.daily/* /etc/cron.weekly/* \
        /etc/cron.monthly/*
    # Their file systems are the kernel's, the same one in here and out there.
    ln -s /dev/null /etc/systemd/system/sys-fs-fuse-connections.mount
    ln -s /dev/null /etc/systemd/system/dev-hugepages.mount
    rm -f /etc/crontab /etc/fstab /etc/hostname /etc/machine-id
    : >/etc/fstab
    echo disposable >/etc/hostname
    tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
    # Older than /usr, they make systemd build its caches anew, which takes seconds.
    touch /etc/.updated /var/.updated
}
[ "$FIRST" != yes ] || clean

echo "$MARK" >/run/disposable
echo "ready $number" >&3
exec 3>&-
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    container=disposable setpriv --bounding-set "$CAPS" -- "$@"
