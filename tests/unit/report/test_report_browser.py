"""The pages in a real browser: nothing on the console, nothing from the network, nothing run that a title brings, no barrier.

The browser is spoken to in the Chrome DevTools Protocol (messages of JSON, ended by a zero byte, on file descriptors 3 and 4), so
that a Chromium on the path is all it needs.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from retrieval.report.compare_page import compare_page
from retrieval.report.compared import CompareContent
from retrieval.report.content import ReportContent
from retrieval.report.explained import GalleryContent
from retrieval.report.gallery_page import gallery_page
from retrieval.report.page import render_html
from retrieval.report.report_page import report_page

SECONDS = 60
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-pipe")

_AT_THREE_AND_FOUR = """
import fcntl, os, sys
for number, given in zip((3, 4), [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]):
    os.dup2(given, number)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Puts the pipes where the browser looks for them."""


def find() -> str | None:
    """A browser on the path, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """A page that was opened: `said` on the console above information, `asked` of the network."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser, self._session = browser, session
        self.said: list[str] = []
        self.asked: list[str] = []

    def call(self, method: str, **parameters: Any) -> Any:
        return self._browser.call(method, self._session, **parameters)

    def look(self, *, dark: bool = False, width: int = 1100) -> None:
        """How the page is seen from here on."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)

    def go(self, path: Path) -> None:
        """Open a file and wait until it has loaded and its scripts have run."""
        self.call("Page.navigate", url=path.as_uri())
        self._browser.wait(self, "Page.loadEventFired")
        self.value("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")

    def value(self, expression: str) -> Any:
        """What a script comes to, promises awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])

    def heard(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.asked.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.said.append(parameters["exceptionDetails"]["text"])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("warning", "error"):
            self.said.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("warning", "error", "assert"):
            self.said.append(json.dumps(parameters["args"]))


class Browser:
    """Speaks with a browser that was started."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._number = write, read, 0
        self._rest, self._pages, self._events = b"", {}, []

    def page(self) -> Page:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._hear(answer)

    def wait(self, page: Page, method: str) -> None:
        while (page, method) not in self._events:
            self._hear(self._next())
        self._events.clear()

    def _hear(self, message: dict[str, Any]) -> None:
        page = self._pages.get(message.get("sessionId"))
        if page is not None and "method" in message:
            page.heard(message["method"], message["params"])
            self._events.append((page, message["method"]))

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the browser said nothing for {SECONDS} s"
            some = os.read(self._read, 1 << 20)
            assert some, "the browser is gone"
            self._rest += some
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@contextmanager
def browser(executable: str, profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own."""
    (to_read, to_write), (from_read, from_write) = os.pipe(), os.pipe()
    command = [sys.executable, "-c", _AT_THREE_AND_FOUR, str(to_read), str(from_write), executable, *_FLAGS, f"--user-data-dir={profile}"]
    with subprocess.Popen(command, pass_fds=(to_read, from_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        os.close(to_read)
        os.close(from_write)
        found = Browser(to_write, from_read)
        try:
            yield found
            found.call("Browser.close")
        finally:
            for descriptor in (to_write, from_read):
                os.close(descriptor)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = find()
    if executable is None:
        pytest.skip(f"none of {', '.join(NAMES)} is on the path")
    with browser(executable, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, from whichever package is installed."""
    package = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    return Path(package.__file__).with_name("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def report_file(evil_content: ReportContent, tmp_path: Path) -> Path:
    return _written(render_html(report_page(evil_content)), tmp_path / "index.html")


@pytest.fixture
def others(gallery: GalleryContent, evil_comparison: CompareContent, tmp_path: Path) -> list[Path]:
    pages = {"gallery": gallery_page(gallery), "compare": compare_page(evil_comparison)}
    return [_written(render_html(page), tmp_path / f"{name}.html") for name, page in pages.items()]


def _written(text: str, path: Path) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def opened(chromium: Browser, path: Path, **how: Any) -> Page:
    page = chromium.page()
    page.look(**how)
    page.go(path)
    return page


def test_the_console_is_silent_the_network_unasked_and_no_title_runs(chromium: Browser, report_file: Path, others: list[Path]) -> None:
    for path in (report_file, *others):
        page = opened(chromium, path)
        assert page.said == []
        assert page.asked == [path.as_uri()]
        assert page.value("document.querySelectorAll('img, iframe, object, embed, link').length") == 0
        assert page.value("Array.from(document.scripts).filter((one) => one.textContent.startsWith('alert')).length") == 0


def test_the_test_would_hear_a_script_an_error_and_a_request(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<script>console.error('heard')</script><script>nothing.there</script><img src='http://127.0.0.1:9/x.png'>", "utf-8")
    page = opened(chromium, path)
    assert any("heard" in said for said in page.said)
    assert any("Uncaught" in said for said in page.said)
    assert "http://127.0.0.1:9/x.png" in page.asked


def test_every_plot_is_drawn_in_the_colours_of_the_scheme(chromium: Browser, report_file: Path) -> None:
    page = opened(chromium, report_file)
    count = "Array.from(document.querySelectorAll('.plot')).filter((one) => one.querySelectorAll('.trace').length).length"
    assert page.value(count) == 10
    ink = "getComputedStyle(document.querySelector('#recall-plot .xtick text')).fill"
    light = page.value(ink)
    page.look(dark=True)
    page.value("new Promise((done) => setTimeout(done, 300))")
    assert page.value(ink) != light
    assert page.said == []


def test_a_narrow_screen_scrolls_tables_and_not_the_page(chromium: Browser, report_file: Path, others: list[Path]) -> None:
    for path in (report_file, *others):
        page = opened(chromium, path, width=360)
        assert page.value("document.documentElement.scrollWidth") <= 360


def test_it_prints(chromium: Browser, report_file: Path) -> None:
    pdf = opened(chromium, report_file, dark=True).printed()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000


def test_axe_finds_no_serious_violation(chromium: Browser, axe: str, report_file: Path, others: list[Path]) -> None:
    for path, dark, rules in (*((each, False, None) for each in (report_file, *others)), (report_file, True, ["color-contrast"])):
        violations, passed = judged(opened(chromium, path, dark=dark), axe, rules)
        assert violations == []
        assert passed > 0


def test_axe_finds_what_is_wrong(chromium: Browser, axe: str, tmp_path: Path) -> None:
    path = _written("<title>t</title><p style='color: #aaa; background: #fff'>faint</p><img src='data:,'>", tmp_path / "bad.html")
    violations, _ = judged(opened(chromium, path), axe, None)
    assert {line.partition(":")[0] for line in violations} >= {"color-contrast", "image-alt", "html-has-lang"}


def judged(page: Page, axe: str, rules: list[str] | None) -> tuple[list[str], int]:
    """Serious and critical violations, and how many rules were kept, with everything unfolded."""
    page.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.value(axe + "; true")
    asked = json.dumps({"runOnly": rules} if rules else {})
    summary = "JSON.stringify([found.violations, found.passes.length])"
    violations, passed = json.loads(page.value(f"axe.run({asked}).then((found) => {summary})"))
    serious = [one for one in violations if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['html'][:200]}" for one in serious for node in one["nodes"]], passed
