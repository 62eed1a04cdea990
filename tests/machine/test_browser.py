"""The status page in a real browser. Pictures: ``python tests/machine/test_browser.py FOLDER``.

A short version of it always runs where Chromium can be had; the rest has the marker ``browser``.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from serving import Serving
from support import LONG, Machine

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip
MARKUP = "x<img src=x onerror=alert(1)><script>alert(1)</script>"
LOOKS = {
    "desktop-light": (1200, "light"), "desktop-dark": (1200, "dark"),
    "phone-light": (360, "light"), "phone-dark": (360, "dark"),
}  # fmt: skip


@pytest.fixture
def browser(machine: Machine) -> Iterator[Browser]:
    """Chromium, with a home of its own."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: package chromium")
    with started(machine) as one:
        yield one


class started:
    """Chromium for as long as this lasts."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __enter__(self) -> Browser:
        from playwright.sync_api import sync_playwright

        self._play = sync_playwright().start()
        environ: dict[str, Any] = {**self._machine.environ}
        self._browser = self._play.chromium.launch(
            executable_path=CHROMIUM, args=[*ARGUMENTS], env=environ, timeout=LONG * 1000
        )
        return self._browser

    def __exit__(self, *error: object) -> None:
        self._browser.close()
        self._play.stop()


@pytest.fixture
def serving(machine: Machine) -> Iterator[Callable[..., Serving]]:
    begun: list[Serving] = []

    def start(*words: Any) -> Serving:
        begun.append(Serving(machine, *words))
        return begun[-1]

    yield start
    for one in begun:
        one.kill()


def shown(browser: Browser, url: str, width: int = 1200, scheme: str = "light") -> Page:
    """The page, once it is live; whatever goes wrong in it fails the test."""
    page = browser.new_page(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page.set_default_timeout(LONG * 1000)
    page.troubles = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.troubles.append(str(error)))  # type: ignore[attr-defined]
    page.on("console", lambda said: page.troubles.append(said.text))  # type: ignore[attr-defined]
    page.on("dialog", lambda one: page.troubles.append(one.message))  # type: ignore[attr-defined]
    page.goto(url)
    says(page, "live", "Live.")
    return page


def says(page: Page, section: str, words: str) -> None:
    """Wait until it does. (No function: the rules of the page allow no eval.)"""
    page.locator(f"#{section}").filter(has_text=words).wait_for()


def test_it_turns_with_a_killed_worker_and_back(
    machine: Machine, browser: Browser, serving: Callable[..., Serving]
) -> None:
    spec = machine.spec(
        f"directories: {{'{MARKUP}': {{path: {machine.base}/d}}}}\n"
        f"processes: {{worker: {{command: [sleep, '{machine.mark}']}}}}\n"
    )
    machine.once(spec)
    page = shown(browser, serving(spec).url, 360, "dark")
    says(page, "wrong", "Nothing is wrong")
    # Names of the host are text, and nothing is wider than a phone.
    assert f"directory:{MARKUP}" in page.inner_text("#resources")
    assert page.locator("img, main script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    os.kill(machine.only(f"sleep {machine.mark}"), signal.SIGKILL)
    says(page, "wrong", "process:worker: not running")
    says(page, "processes", "differs")
    machine.once(spec)
    says(page, "wrong", "Nothing is wrong")
    says(page, "resources", f"pid {machine.only(f'sleep {machine.mark}')}")
    assert page.troubles == []  # type: ignore[attr-defined]


@pytest.mark.browser
@pytest.mark.slow
def test_it_says_that_it_is_not_connected_and_comes_back(
    machine: Machine, browser: Browser, serving: Callable[..., Serving]
) -> None:
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}\n")
    server = serving(spec)
    page = shown(browser, server.url)
    server.kill()
    says(page, "about", "not connected")
    again = Serving(machine, spec, at=f"127.0.0.1:{server.port}")
    try:
        says(page, "about", "Live.")
        machine.once(spec)
        says(page, "history", "create directory:d")
    finally:
        again.kill()


@pytest.mark.browser
@pytest.mark.slow
def test_a_token_is_asked_for_once(
    machine: Machine, browser: Browser, serving: Callable[..., Serving]
) -> None:
    token = machine.base / "token"
    token.touch(0o600)
    token.write_text("0123456789abcdef")
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}\n")
    server = serving(spec, "--token-file", str(token))
    status, _, text = server.ask("/")
    assert (status, "directory:d" in text) == (401, False)
    given = {"username": "me", "password": "0123456789abcdef"}
    page = browser.new_context(http_credentials=given).new_page()
    page.goto(server.url)
    says(page, "about", "Live.")  # The stream of events has it too.
    says(page, "resources", "directory:d")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
def test_it_fits_and_can_be_read(
    machine: Machine, browser: Browser, serving: Callable[..., Serving], look: str
) -> None:
    width, scheme = LOOKS[look]
    page = shown(browser, serving(world(machine)).url, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # Every colour has its word, and enough contrast with what is behind it (WCAG 2: 4.5).
    badges = page.locator(".badge").evaluate_all("""(all) => all.map((one) => {
      const light = (color) => {
        const parts = color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255).map(
          (part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
      };
      const style = getComputedStyle(one);
      const [a, b] = [light(style.color), light(style.backgroundColor)];
      return [one.innerText.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    })""")
    assert {"ok", "differs", "failing", "paused", "skipped", "pending", "succeeded"} <= {
        words for words, _ in badges
    }
    assert [one for one in badges if not one[0] or one[1] < 4.5] == []


def world(machine: Machine) -> Path:
    """A spec of which something is in every state that is had quickly."""
    spec = machine.spec(
        "version: 1\nname: shop\nprocesses:\n"
        f"  web: {{command: [sleep, '1{machine.mark}']}}\n"
        "  worker: {command: [python3, -c, \"while True: __import__('time').sleep(.002)\"]}\n"
        f"  broken: {{command: [sleep, '2{machine.mark}'], cwd: {machine.base}/none}}\n"
        f"  old: {{command: [sleep, '3{machine.mark}'], state: absent}}\n"
        f"directories: {{data: {{path: {machine.base}/data, mode: '0750'}}, "
        f"gone: {{path: {machine.base}/gone}}}}\n"
        "permissions: {p: {mode: '0600', "
        f"path: {machine.base}/a-rather-long-name-of-a-file-that-is-none}}}}\n"
        "checks:\n"
        f"  inbox: {{queue: {{path: {machine.base}/data, match: '*.json', max_count: 9}}}}\n"
        "  answers: {command: ['false']}\n"
        f"  commands: {{results: {{home: {machine.base}/co, max: 9}}}}\n"
        f"cron: {{c: {{schedule: '@daily', command: ['true'], when: 'false'}}}}\n"
    )
    for name, text in {
        "pending/20261127-1.json": "", "running/20261127-2.json": "",
        "completed/20261127-3.json": '{"status": "succeeded", "exit_code": 0}',
        "completed/20261127-4.json": '{"status": "failed", "exit_code": 2}',
    }.items():  # fmt: skip
        path = machine.base / "co/ai_commands" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = machine.reconcile("--once", spec)
    assert done.returncode == 1, done.stderr
    machine.reconcile("--pause", "directory:data", spec, "--reason", "new disk")
    (machine.base / "data/1.json").touch()
    (machine.base / "gone").rmdir()
    return spec


def pictures(folder: Path) -> None:
    """Pictures of the page as it is for each of LOOKS."""
    import time

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
    from bench import corner

    folder.mkdir(exist_ok=True)
    with corner() as machine, started(machine) as browser:
        server = Serving(machine, world(machine))
        time.sleep(65)  # For three samples.
        for name, (width, scheme) in LOOKS.items():
            page = shown(browser, server.url, width, scheme)
            page.screenshot(path=folder / f"{name}.png", full_page=True)
            print(folder / f"{name}.png")
        server.kill()


if __name__ == "__main__":
    pictures(Path(sys.argv[1]))
