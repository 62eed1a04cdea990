#!/bin/sh
# Runs an OCI bundle in a mount namespace of its own: its root is a copy of the real one that keeps
# what is written to itself. Called by container.py, through unshare --mount.
#
# BUNDLE    holds config.json, and an empty folder for each thing that is mounted here
# MARK      what the container is called
# UID_OF    whose entry in the user database is left out of the copy
# VOLUMES   where something is mounted that the real root has no folder for
# ADMIT     folders that everybody may pass through there, one path in each line
set -eu

cd "$BUNDLE"
mount -t tmpfs "$MARK" overlay
mkdir overlay/upper overlay/work
mount -t overlay -o "lowerdir=/,upperdir=overlay/upper,workdir=overlay/work" "$MARK" root
while read -r path; do
    chmod o+x "root$path"
done <<END
$ADMIT
END
for path in $VOLUMES; do
    [ -e "root$path" ] || mkdir -p "root$path"
done
sed -i "/^[^:]*:[^:]*:$UID_OF:/d" root/etc/passwd
# A runtime needs control groups that are all of one version.
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec crun --root "$BUNDLE/state" run --bundle . "$MARK"
