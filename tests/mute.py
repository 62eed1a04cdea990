"""A file system of FUSE that does not answer to some requests, for tests: MOUNT [REQUEST...].

It holds ``data/a.log`` and the folder ``other``, and takes no changes. Each request that it has
read and does not answer leaves a process behind that waits for it in the kernel, which no signal
ends; they end with this process. Requests are named as in fuse.h: ``lookup``, ``read``; ``all``
are not even read. ``slow=SECONDS`` answers to each so late, ``names=NUMBER`` puts so many files
beside ``a.log``, and ``user=UID`` is who has mounted it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import struct
import sys
import time

_NAMES = {
    1: "lookup", 2: "forget", 3: "getattr", 8: "make", 9: "make", 14: "open", 15: "read",
    17: "statfs", 18: "release", 26: "init", 27: "opendir", 28: "readdir", 29: "releasedir",
    35: "make", 36: "interrupt", 42: "forget", 51: "make",
}  # fmt: skip
_TEXT = b"a line\n"
_TREE = {1: {b"data": 2, b"other": 4}, 2: {b"a.log": 3}, 4: {}}
_HEAD = struct.Struct("IIQQIIII")


def _attributes(node: int) -> bytes:
    folder = node in _TREE
    mode = stat.S_IFDIR | 0o755 if folder else stat.S_IFREG | 0o644
    size = 0 if folder else len(_TEXT)
    return struct.pack("6Q10I", node, size, 1, 1, 1, 1, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(name: str, node: int, body: bytes) -> bytes | int | None:
    """What is answered: bytes, an errno, or None for no answer."""
    if name == "init":
        return struct.pack("IIIIHHIIHH32x", 7, 26, 65536, 0, 8, 8, 65536, 1, 1, 0)
    if name == "lookup":
        found = _TREE.get(node, {}).get(body.rstrip(b"\0"))
        # It is never believed for longer than the moment: each look is a request of its own.
        return (
            struct.pack("4QII", found, 0, 0, 0, 0, 0) + _attributes(found)
            if found
            else (errno.ENOENT)
        )
    if name == "getattr":
        return struct.pack("QII", 0, 0, 0) + _attributes(node)
    if name in ("open", "opendir"):
        return struct.pack("QII", 0, 1, 0)  # FOPEN_DIRECT_IO: nothing is kept.
    if name == "read":
        offset, size = struct.unpack_from("QQI", body)[1:]
        return _TEXT[offset : offset + size]
    if name == "readdir":
        offset = struct.unpack_from("QQ", body)[1]
        entries = b""
        for at, (entry, number) in enumerate(_TREE[node].items(), 1):
            kind = 4 if number in _TREE else 8
            if at > offset:
                entries += struct.pack("QQII", number, at, len(entry), kind) + entry
                entries += bytes(-len(entries) % 8)
        return entries
    if name == "statfs":
        return struct.pack("5Q4I24x", 100, 50, 50, 10, 5, 4096, 255, 4096, 0)
    if name in ("forget", "interrupt"):
        return None
    return b"" if name in ("release", "releasedir") else errno.ENOSYS


def main(mount: str, words: list[str]) -> None:
    given = dict(word.split("=") for word in words if "=" in word)
    mute = [word for word in words if "=" not in word]
    for number in range(int(given.get("names", "0"))):
        _TREE[2][b"%d.log" % number] = 100 + number
    device = os.open("/dev/fuse", os.O_RDWR)
    user = int(given.get("user", "0"))
    options = b"fd=%d,rootmode=40000,user_id=%d,group_id=0,allow_other" % (device, user)
    if ctypes.CDLL(None).mount(b"mute", mount.encode(), b"fuse.mute", 0, options):
        sys.exit("cannot mount it")
    print("mounted", flush=True)
    while "all" in mute:
        signal.pause()
    while True:
        request = os.read(device, 1 << 20)
        size, code, unique, node = _HEAD.unpack_from(request)[:4]
        name = _NAMES.get(code, "other")
        answer = None if name in mute else _answer(name, node, request[_HEAD.size : size])
        if answer is None:
            continue
        if name != "init":
            time.sleep(float(given.get("slow", "0")))
        data, error = (b"", -answer) if isinstance(answer, int) else (answer, 0)
        os.write(device, struct.pack("IiQ", 16 + len(data), error, unique) + data)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
