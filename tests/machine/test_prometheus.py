"""A real Prometheus of Debian scrapes the page, and the file of the watchdog by node_exporter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from looping import Looping
from serving import Serving
from support import Machine, free_port, until


@pytest.fixture
def running(machine: Machine) -> Iterator[Callable[..., None]]:
    """Starts programs, and ends them."""
    with ExitStack() as ends:

        def run(*argv: object) -> None:
            with open(machine.base / "said", "ab") as said:
                one = subprocess.Popen(list(map(str, argv)), cwd=machine.base, stdout=said,
                                       stderr=said, env=machine.environ)  # fmt: skip
            ends.callback(one.wait)
            ends.callback(one.kill)

        yield run


def asked(port: int, query: str) -> list[dict[str, Any]]:
    """What Prometheus knows by now; nothing where it does not answer yet."""
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found
    except OSError:
        return []


@pytest.mark.slow
def test_a_prometheus_scrapes_the_page_and_the_file(
    machine: Machine, running: Callable[..., None], looping: Callable[..., Looping]
) -> None:
    for program in ("prometheus", "prometheus-node-exporter"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: package {program}")
    files = machine.base / "node"
    files.mkdir()
    spec = machine.spec(
        f"version: 1\nname: demo\nloop: {{every: 1s, metrics: {files}/demo.prom}}\n"
        f"processes: {{p: {{command: [sleep, '{machine.mark}']}}}}\n"
    )
    token = machine.base / "token"
    token.touch(0o600)
    token.write_text("0123456789abcdef")
    looping(spec).up()
    page = Serving(machine, spec, "--token-file", str(token))
    node, own = free_port(), free_port()
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {"job_name": "page", "static_configs": [{"targets": [f"127.0.0.1:{page.port}"]}],
             "authorization": {"credentials_file": str(token)}},
            {"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{node}"]}]},
        ],
    }  # fmt: skip
    Path(machine.base / "prometheus.yml").write_text(json.dumps(config))
    exporter = ["--collector.disable-defaults", f"--collector.textfile.directory={files}"]
    running("prometheus-node-exporter", "--collector.textfile", *exporter,
            f"--web.listen-address=127.0.0.1:{node}")  # fmt: skip
    running("prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{own}")  # fmt: skip
    try:
        for job in ("page", "node"):
            query = f'reconcile_resource_ok{{id="process:p", job="{job}"}} == 1'
            until(lambda query=query: asked(own, query))  # type: ignore[misc]
        os.kill(machine.only(f"sleep {machine.mark}"), 9)
        for job in ("page", "node"):
            query = f'reconcile_steps_total{{id="process:p", verb="start", job="{job}"}} >= 2'
            until(lambda query=query: asked(own, query))  # type: ignore[misc]
        assert [one["value"][1] for one in asked(own, "min(up)")] == ["1"]
    finally:
        page.kill()
