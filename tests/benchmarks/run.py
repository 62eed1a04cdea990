"""Figures, each beside something measured in the same run: medians of whole processes.

    .venv-tests/bin/python tests/benchmarks/run.py [--runs 15] [--sizes 10,1000,10000]
        [--files 200000]

prints a table in Markdown. Nothing outside a temporary folder is touched.
"""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from bench import Bench, corner, milliseconds
from support import CHECKOUT, Machine


def folders(machine: Machine, number: int) -> tuple[Path, Path, Path]:
    """So many directories, and the same declared for reconcile, systemd-tmpfiles, cf-agent."""
    base = machine.base / f"d{number}"
    spec = ["version: 1", f"name: d{number}", "directories:"]
    owner, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    tmpfiles, policy = [], []
    for at in range(number):
        path = base / f"{at // 100:03d}" / f"{at:05d}"
        path.mkdir(parents=True)
        path.chmod(0o750)
        spec.append(f'  d{at}: {{ path: "{path}", mode: "0750", owner: {owner}, group: {group} }}')
        tmpfiles.append(f"d {path} 0750 {owner} {group} -")
        policy.append(f'  "{path}/." perms => p, create => "true";')
    paths = [machine.base / f"d{number}{ending}" for ending in (".yaml", ".conf", ".cf")]
    head = f'body perms p {{ mode => "0750"; owners => {{ "{owner}" }}; }}\nbody common control '
    head += '{ bundlesequence => { "d" }; }\nbundle agent d { files:'
    for path, lines in zip(paths, (spec, tmpfiles, [head, *policy, "}"]), strict=True):
        path.write_text("\n".join(lines) + "\n")
    paths[2].chmod(0o600)
    return paths[0], paths[1], paths[2]


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--sizes", default="10,1000,10000")
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--only-files", action="store_true", help="only the rows on retention")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    if len(sizes) < 2:
        parser.error("--sizes needs at least two: growth is measured from one to the next")
    with corner() as machine:
        measure(Bench(machine, options.runs), [] if options.only_files else sizes, options.files)


def measure(bench: Bench, sizes: Sequence[int], files: int) -> None:
    """Every figure of the README, in its order."""
    bench.heading()
    if sizes:
        measure_directories(bench, sizes)
    measure_retention(bench, files)


def measure_directories(bench: Bench, sizes: Sequence[int]) -> None:
    """Directories, and what every pass costs."""
    machine = bench.machine
    reconcile = [str(machine.bin / "reconcile"), "--once", "--state-dir", str(machine.state)]
    python = [str(machine.bin / "python"), "-c", "pass"]
    # With the watchdog, a single pass would have nothing to do but to find it.
    executor = [*reconcile, str(CHECKOUT / "specs/executor.yaml"), "--set", "watchdog=false"]
    ours, bare = bench.medians(executor, python)
    bench.row(
        "no-change pass of `specs/executor.yaml`", milliseconds(ours),
        f"bare interpreter {milliseconds(bare)}: {ours / bare:.1f} times", "8 times",
    )  # fmt: skip
    seen = {}
    tmpfiles, agent = shutil.which("systemd-tmpfiles"), shutil.which("cf-agent")
    for size in sizes:
        spec, conf, policy = folders(machine, size)
        commands = [[*reconcile, str(spec)]]
        commands += [[tmpfiles, "--create", str(conf)]] if tmpfiles else []
        commands += [[agent, "-K", "-f", str(policy)]] if agent else []
        ours, *others = bench.medians(*commands)
        names = [*(["systemd-tmpfiles"] if tmpfiles else []), *(["cf-agent -K"] if agent else [])]
        words = [
            f"{name} {milliseconds(other)}: {ours / other:.2f} times"
            for name, other in zip(names, others, strict=True)
        ]
        seen[size] = ours
        target = "1.5 times systemd-tmpfiles" if size == 10000 else ""
        bench.row(
            f"no-change pass over {size:,} directories",
            milliseconds(ours),
            "; ".join(words),
            target,
        )
    small, large = sizes[-2], sizes[-1]
    growth = f"{seen[large] / seen[small]:.1f} times {milliseconds(seen[small])}"
    bench.row(f"growth from {small:,} to {large:,}", milliseconds(seen[large]), growth, "10 times")
    compile_row(bench, reconcile, machine.base / f"d{small}.yaml", small, python)
    specs = [("specs/executor.yaml", executor)]
    specs += [
        (f"{size:,} directories", [*reconcile, str(machine.base / f"d{size}.yaml")])
        for size in sizes
    ]
    floor = bench.peak(python)
    for name, command in specs:
        peak = bench.peak(command)
        words = f"bare interpreter {floor:.1f} MB: {peak / floor:.1f} times"
        bench.row(f"peak memory of a no-change pass, {name}", f"{peak:.1f} MB", words, "25 MB")


def filled(machine: Machine, name: str, folders: int, files: int, due: int) -> list[list[str]]:
    """Folders with so many files in each, of which a few are due in all; what looks for them."""
    base = machine.base / name
    base.mkdir()
    spec, conf = machine.base / f"{name}.yaml", machine.base / f"{name}.conf"
    rule = f'path: "{base}", recursive: true, older_than: 30m, action: delete'
    spec.write_text(f"version: 1\nname: {name}\nretention: {{x: {{{rule}}}}}\n")
    machine.once(spec)  # Compiles it, and finds nothing yet.
    # This heeds ctime too, which is now: it looks at all files, and deletes none.
    conf.write_text(f"d {base} - - - 30m\n")
    then = time.time() - 86400
    for at in range(folders):
        folder = base / f"{at:03d}" if folders > 1 else base
        folder.mkdir(exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        for number in range(files):
            file = os.open(f"{number:07d}.log", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=handle)
            if number < due // folders:
                os.utime(file, (then, then))
            os.close(file)
        os.close(handle)
    state = ["--state-dir", str(machine.state)]
    tmpfiles = shutil.which("systemd-tmpfiles")
    commands = [[str(machine.bin / "reconcile"), "--plan", str(spec), *state]]
    commands += [["find", str(base), "-type", "f", "-mmin", "+30"]]
    commands += [[tmpfiles, "--clean", str(conf)]] if tmpfiles else []
    return commands


def measure_retention(bench: Bench, files: int) -> None:
    """A retention's plan, beside what else looks for old files."""
    machine = bench.machine
    due = min(200, files)
    folders = max(2, files // 1000)
    for name, number, words in (("flat", 1, "one folder"), ("deep", folders, f"{folders} folders")):
        commands = filled(machine, name, number, files // number, due)
        ours, find, *others = bench.medians(*commands)
        beside = f"find {milliseconds(find)}: {ours / find:.2f} times"
        if others:
            beside += f"; systemd-tmpfiles {milliseconds(others[0])}: {ours / others[0]:.2f} times"
        bench.row(
            f"plan of a retention over {files:,} files in {words}, {due} due",
            milliseconds(ours), beside, "1.5 times find",
        )  # fmt: skip
        shutil.rmtree(machine.base / name)
    peaks = {}
    for number in (files // 20, files * 5):
        command = filled(machine, f"m{number}", 1, number, min(due, number))[0]
        peaks[number] = bench.peak(command)
        shutil.rmtree(machine.base / f"m{number}")
    (few, low), (many, high) = peaks.items()
    bench.row(
        f"peak memory of that plan over {many:,} files", f"{high:.1f} MB",
        f"{few:,} files {low:.1f} MB: {high / low:.2f} times", "does not grow",
    )  # fmt: skip


def compile_row(
    bench: Bench, reconcile: list[str], spec: Path, size: int, python: list[str]
) -> None:
    """The first pass after a change of the spec."""
    text = spec.read_text()
    times, bares = [], []
    for run in range(max(3, bench.runs // 3)):
        spec.write_text(f"{text}# change {run}\n")
        times.append(bench.once([*reconcile, str(spec)]))
        bares.append(bench.once(python))
    ours, bare = statistics.median(times), statistics.median(bares)
    bench.row(
        f"first pass after a change of the spec, {size:,} resources", f"{ours:.2f} s",
        f"bare interpreter {milliseconds(bare)}: {ours / bare:.0f} times", "1.5 s",
    )  # fmt: skip


if __name__ == "__main__":
    main()
