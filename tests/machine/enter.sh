#!/bin/sh
# enter.sh USER CAPS [NAME=VALUE...] COMMAND: runs a command on a disposable host as if that user
# had just logged in, without the capabilities that the host itself does without. It must not take
# anything from the environment of the test. When what started it dies, so does the command.
set -eu

user=$1
caps=$2
shift 2
entry=$(getent passwd "$user") || {
    echo "no user $user" >&2
    exit 125
}
IFS=: read -r name _ uid gid _ home shell <<END
$entry
END
if [ -d "/run/user/$uid" ]; then
    set -- XDG_RUNTIME_DIR="/run/user/$uid" \
        DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$uid/bus" "$@"
fi
cd "$home" 2>/dev/null || cd /
# Twice, since a user has no right any more to give up what it could be given. What started it may
# have died before it was said that the command dies with it: 9 is the state of that process.
exec setpriv --bounding-set "$caps" setpriv --reuid "$uid" --regid "$gid" --init-groups \
    --pdeathsig KILL sh -c '
    read -r state <&9 || exit 137
    case $state in *") Z "* | *") X "*) exit 137 ;; esac
    exec 9<&-
    exec "$@"' sh env -i HOME="$home" USER="$name" LOGNAME="$name" SHELL="$shell" "$@"
