"""The command line: options, the context of one call, and a module for each mode.

Modules of the program are found where Python has put their bytecode: it would look through folders
for what might also be an extension, and build names of files, which of a hundred modules is a tenth
of a pass that finds nothing to do. It must not take bytecode that Python would not: what does not
fit its source to the second and the byte, or is elsewhere, is left to Python.
"""

import marshal
import os
import sys
from importlib._bootstrap_external import MAGIC_NUMBER  # importlib.util takes its time.
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType

_PREFIX = "reconciler."
_HEAD = MAGIC_NUMBER + bytes(4)
"""Of bytecode that goes by the time and size of its source, PEP 552."""
_ENDING = f".{sys.implementation.cache_tag}.pyc"
_LARGEST = 1 << 16
"""Bytes; a buffer of more takes pages of its own from the kernel."""


class _Loader(SourceFileLoader):
    code: CodeType | None = None

    def get_code(self, fullname):  # type: ignore[no-untyped-def]
        code, self.code = self.code, None
        return super().get_code(fullname) if code is None else code


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        """Where that module is, with its code; None: ask the next one."""
        if not name.startswith(_PREFIX) or not path:
            return None
        last = name.rpartition(".")[2]
        for folder, file in ((path[0], last), (f"{path[0]}/{last}", "__init__")):
            source = f"{folder}/{file}.py"
            cached = f"{folder}/__pycache__/{file}{_ENDING}"
            try:
                status = os.stat(source)
            except OSError:
                continue
            code = _code(cached, status)
            if code is None:
                return None
            loader = _Loader(name, source)
            loader.code = code
            spec = ModuleSpec(name, loader, origin=source, is_package=file == "__init__")
            if spec.submodule_search_locations is not None:
                spec.submodule_search_locations = [folder]
            spec.cached, spec.has_location = cached, True
            return spec
        return None


def _code(cached: str, source: os.stat_result) -> CodeType | None:
    """What stands in that file, if it is of this Python and was made from that source."""
    numbers = (int(source.st_mtime), source.st_size)
    head = _HEAD + b"".join((one & 0xFFFFFFFF).to_bytes(4, "little") for one in numbers)
    try:
        handle = os.open(cached, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(handle, _LARGEST)
        finally:
            os.close(handle)
        fits = data.startswith(head) and len(data) < _LARGEST
        return marshal.loads(memoryview(data)[16:]) if fits else None
    except (OSError, ValueError, EOFError, TypeError):
        return None


if sys.implementation.cache_tag and sys.pycache_prefix is None and not sys.flags.optimize:
    sys.meta_path.insert(0, _Finder)
