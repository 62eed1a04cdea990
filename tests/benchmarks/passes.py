"""Single passes: of the executor's spec, beside a loop, over templates, and what only looks.

    .venv-tests/bin/python tests/benchmarks/passes.py [--runs 9] [--sizes 100,1000,10000]

prints a table in Markdown. Nothing outside a temporary folder is touched.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from bench import Bench, corner, milliseconds
from looping import Looping
from support import CHECKOUT, Machine, until
from trees import Cost, cost, growth, median, once

LEAVE = ["--set", "watchdog=false"]
"""Nothing that the machine's own systemd or cron would hear of."""


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--sizes", default="100,1000,10000")
    options = parser.parse_args()
    with corner() as machine:
        bench = Bench(machine, options.runs)
        bench.heading()
        measure_executor(bench)
        measure_templates(bench, [int(size) for size in options.sizes.split(",")])


def row(bench: Bench, what: str, one: Cost, beside: str, target: str) -> None:
    measured = f"{milliseconds(one.wall)}, CPU {milliseconds(one.cpu)}, {one.memory:.0f} MB"
    bench.row(what, measured, beside, target)


def executor(machine: Machine) -> Path:
    """The executor's spec, whose checks of every minute are due whenever it is looked."""
    folder = machine.base / "specs"
    shutil.copytree(CHECKOUT / "specs", folder)
    folder.chmod(0o700)
    spec = folder / "executor.yaml"
    text, number = re.subn(
        r"^  (heartbeat|waiting|errors): { <<: \*(mended|told),", r"\g<0> every: 1s,",
        spec.read_text(), flags=re.MULTILINE,
    )  # fmt: skip
    if number != 3:
        raise SystemExit("the checks of every minute are others by now")
    spec.write_text(text.replace("\nname: executor\n", "\nname: due\n"))
    return spec


def measure_executor(bench: Bench) -> None:
    """A pass with nothing to do: of itself, with checks, and beside a loop."""
    machine = bench.machine
    bare = median(bench, lambda: cost(machine, machine.bin / "python", "-c", "pass"))
    beside = f"bare interpreter {milliseconds(bare.wall)}"
    for what, makes, target in (
        ("no check due", lambda _: CHECKOUT / "specs/executor.yaml", "50 ms"),
        ("the checks of every minute due", executor, "65 ms"),
        ("beside a loop that is well", None, "25 ms"),
    ):
        with corner() as apart:
            spec = CHECKOUT / "specs/executor.yaml" if makes is None else makes(apart)
            given = [*LEAVE, "--set", f"home={apart.base}/executor"]
            loop = Looping(apart, spec, *given).up(60) if makes is None else None
            argv = [*once(apart, spec), *given]
            until(lambda argv=argv, apart=apart: apart.run(*argv).returncode == 0, 60)
            cost(apart, *argv)
            found = median(bench, lambda argv=argv, apart=apart: cost(apart, *argv))
            if loop is not None:
                loop.end()
        row(bench, f"no-change pass of `specs/executor.yaml`, {what}", found, beside, target)


def measure_templates(bench: Bench, sizes: list[int]) -> None:
    """Many resources of a template: the first pass after a change, and what only looks."""
    machine = bench.machine
    costs: dict[str, list[Cost]] = {"first": [], "--status": [], "--diagnose": []}
    names = {
        "first": (
            "first pass after a change of the spec, {} resources of a template",
            "800 ms, 60 MB",
        ),
        "--status": ("`--status` of {} resources", "300 ms"),
        "--diagnose": ("`--diagnose --json` of {} resources", "CPU 1,000 ms"),
    }
    for size in sizes:
        base = machine.base / f"t{size}"
        for at in range(size):
            (base / f"{at // 100}" / f"{at}").mkdir(parents=True, mode=0o755)
        text = (
            f"version: 1\nname: t{size}\nvars: {{base: {base}}}\ndirectories:\n"
            f'  d: {{for_each: "{{{{ range({size}) | list }}}}", mode: "0755",\n'
            '      path: "{{ base }}/{{ each // 100 }}/{{ each }}"}\n'
        )
        spec = machine.spec(text, f"t{size}.yaml")
        cost(machine, *once(machine, spec))

        def first(spec: Path = spec) -> Cost:
            spec.write_text(f"{spec.read_text()}# a change\n")
            return cost(machine, *once(machine, spec))

        state = ["--state-dir", machine.state, spec]
        argv = {
            "--status": [machine.bin / "reconcile", "--status", *state],
            "--diagnose": [machine.bin / "reconcile", "--diagnose", "--json", *state],
        }
        costs["first"].append(median(bench, first))
        for name, words in argv.items():
            costs[name].append(median(bench, lambda words=words: cost(machine, *words)))
    for name, seen in costs.items():
        what, target = names[name]
        for size, one in zip(sizes, seen, strict=True):
            row(bench, what.format(f"{size:,}"), one, "", target if size == sizes[-1] else "")
        bench.row(f"growth of that, {name}", "", growth(sizes, seen), "10 times")


if __name__ == "__main__":
    main()
