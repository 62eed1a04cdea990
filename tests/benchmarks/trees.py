"""Figures of many blocks and many files, at three sizes, beside find, mv and tar in the same run.

    .venv-tests/bin/python tests/benchmarks/trees.py [--runs 3] [--blocks 100,1000,10000]
        [--files 2000,20000,200000] [--due 1000,10000,100000]

prints a table in Markdown. Nothing outside a temporary folder is touched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import Bench, corner, milliseconds
from support import Machine

SIZE = 2000
"""Bytes of a file that is due."""
PEERS = {
    "delete": ("find -delete", "find {top} -type f -delete"),
    "move": ("mv", "for d in {top}/*; do mkdir -p {to}/${{d##*/}}; mv $d/* {to}/${{d##*/}}; done"),
    "archive": ("tar", "tar czf {to}.tar.gz --remove-files -C {top} ."),
}


class Cost(NamedTuple):
    """Seconds from start to end, seconds of processor time, and peak memory in MB."""

    wall: float
    cpu: float
    memory: float


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--blocks", default="100,1000,10000")
    parser.add_argument("--files", default="2000,20000,200000")
    parser.add_argument("--due", default="1000,10000,100000")
    options = parser.parse_args()
    blocks, files, due = (
        [int(size) for size in sizes.split(",")]
        for sizes in (options.blocks, options.files, options.due)
    )
    with corner() as machine:
        bench = Bench(machine, options.runs)
        bench.heading()
        measure_blocks(bench, blocks)
        measure_permissions(bench, files)
        for action in PEERS:
            measure_retention(bench, action, due)


def cost(machine: Machine, *argv: str | Path) -> Cost:
    """Of one run, whose output is dropped."""
    begin = time.perf_counter()
    nowhere = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    words = [str(word) for word in argv]
    pid = os.posix_spawnp(words[0], words, machine.environ, file_actions=[nowhere])
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{argv}: {status}")
    seconds = time.perf_counter() - begin
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)


def median(bench: Bench, run: Callable[[], Cost]) -> Cost:
    """Of each number by itself."""
    runs = [run() for _ in range(bench.runs)]
    return Cost(*(statistics.median(column) for column in zip(*runs, strict=True)))


def once(machine: Machine, spec: Path) -> list[str | Path]:
    return [machine.bin / "reconcile", "--once", "--state-dir", machine.state, spec]


def growth(sizes: Sequence[int], costs: Sequence[Cost]) -> str:
    """How many times the processor time of the size before, for how many times the size."""
    return "; ".join(
        f"{after.cpu / before.cpu:.1f} times {milliseconds(before.cpu)} "
        f"for {large / small:.0f} times"
        for small, large, before, after in zip(sizes, sizes[1:], costs, costs[1:], strict=False)
    )


def measure_blocks(bench: Bench, sizes: Sequence[int]) -> None:
    """Blocks in one file: the pass that writes them, and one that finds nothing to do."""
    machine = bench.machine
    first, quiet = [], []
    lines = "\\n".join(f"export NAME_{at}=a value as long as values are" for at in range(10))
    for size in sizes:
        text = machine.base / f"text{size}"
        spec = machine.spec(
            f"version: 1\nname: b{size}\nblocks:\n"
            + "".join(
                f'  b{at}: {{path: {text}, content: "# {at}\\n{lines}"}}\n' for at in range(size)
            ),
            f"b{size}.yaml",
        )
        machine.run(*machine.argv("--check", spec))
        first.append(cost(machine, *once(machine, spec)))
        quiet.append(median(bench, lambda spec=spec: cost(machine, *once(machine, spec))))
    for what, costs in (("pass that writes", first), ("no-change pass over", quiet)):
        for size, one in zip(sizes, costs, strict=True):
            row(bench, f"{what} {size:,} blocks of one file", one, "", "")
        bench.row(f"growth of that, {what}", "", growth(sizes, costs), "10 times")


def row(bench: Bench, what: str, one: Cost, beside: str, target: str) -> None:
    measured = f"{milliseconds(one.wall)}, CPU {milliseconds(one.cpu)}, {one.memory:.0f} MB"
    bench.row(what, measured, beside, target)


def fill(top: Path, number: int, size: int) -> None:
    """So many old files, a thousand in a folder."""
    then = time.time() - 86400
    for at in range(0, number, 1000):
        folder = top / f"{at // 1000:04}"
        folder.mkdir(parents=True)
        handle = os.open(folder, os.O_RDONLY)
        for name in range(at, min(number, at + 1000)):
            file = os.open(f"{name:07}.log", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=handle)
            os.write(file, os.urandom(size // 2).hex().encode())
            os.utime(file, (then, then))
            os.close(file)
        os.close(handle)


def measure_permissions(bench: Bench, sizes: Sequence[int]) -> None:
    """A recursive permission: where all is right, and the plan where all is wrong."""
    machine = bench.machine
    costs = []
    for size in sizes:
        top = machine.base / f"p{size}"
        plans = {}
        top.mkdir(mode=0o755)
        for name, mode in (("right", "0644"), ("wrong", "0640")):
            rule = f'{{path: {top}, recursive: true, file_mode: "{mode}", dir_mode: "0755"}}'
            spec = machine.spec(
                f"version: 1\nname: {name}{size}\npermissions: {{p: {rule}}}\n",
                f"{name}{size}.yaml",
            )
            cost(machine, *once(machine, spec))  # Compiles it.
            plans[name] = [
                machine.bin / "reconcile", "--plan", "--state-dir", machine.state, spec
            ]  # fmt: skip
        fill(top, size, 0)
        found = {
            name: median(bench, lambda argv=argv: cost(machine, *argv))
            for name, argv in plans.items()
        }
        find = median(bench, lambda top=top: cost(machine, "find", top, "-perm", "0640"))
        for name, one in found.items():
            beside = f"find -perm CPU {milliseconds(find.cpu)}: {one.cpu / find.cpu:.1f} times"
            what = f"plan of a recursive permission over {size:,} files, all {name}"
            row(bench, what, one, beside, "30 MB")
        costs.append(found["right"])
        shutil.rmtree(top)
    bench.row("growth of that, all right", "", growth(sizes, costs), "10 times")


def measure_retention(bench: Bench, action: str, sizes: Sequence[int]) -> None:
    """So many files that are due."""
    machine = bench.machine
    name, script = PEERS[action]
    costs = []
    for size in sizes:
        top, to = machine.base / f"r{size}", machine.base / "to"
        goal = {"delete": "", "move": f", to: {to}", "archive": f", to: {to}.tar.gz"}[action]
        rule = f"{{path: {top}, recursive: true, older_than: 30m, action: {action}{goal}}}"
        ident = f"{action}{size}"
        spec = machine.spec(
            f"version: 1\nname: {ident}\nretention: {{x: {rule}}}\n", f"{ident}.yaml"
        )

        def one(*argv: str | Path, top: Path = top, to: Path = to, size: int = size) -> Cost:
            fill(top, size, SIZE)
            found = cost(machine, *argv)
            left = sum(len(files) for _, _, files in os.walk(top))
            if left:
                raise SystemExit(f"{left} files are left")
            shutil.rmtree(top, ignore_errors=True)
            shutil.rmtree(to, ignore_errors=True)
            to.with_suffix(".tar.gz").unlink(missing_ok=True)
            return found

        top.mkdir()
        cost(machine, *once(machine, spec))
        top.rmdir()
        argv = ["sh", "-c", script.format(top=top, to=to)]
        ours = median(bench, lambda one=one, spec=spec: one(*once(machine, spec)))
        theirs = median(bench, lambda one=one, argv=argv: one(*argv))
        beside = f"{name} CPU {milliseconds(theirs.cpu)}: {ours.cpu / theirs.cpu:.1f} times"
        target = "1.5 times, 40 MB" if action == "archive" else "1.3 times, 40 MB"
        row(bench, f"retention of {size:,} due files: {action}", ours, beside, target)
        costs.append(ours)
    bench.row(f"growth of that, {action}", "", growth(sizes, costs), "10 times")


if __name__ == "__main__":
    main()
