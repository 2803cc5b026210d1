"""A headless Chromium for tests of pages: what it logs, how wide the page is laid out, pictures of it.

It is driven over the DevTools protocol through a pair of pipes (`--remote-debugging-pipe`: JSON messages that end with
a zero byte), so that nothing but the browser is needed. A window of the phone's width is not enough, as a headless
window has a least width; the device is emulated instead.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
    "--force-color-profile=srgb",
)
TIMEOUT_S = 60.0


def find_browser() -> Path | None:
    """Chromium or Chrome: of the variable G2L_BROWSER, else in the path."""
    named = os.environ.get("G2L_BROWSER")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    return Path(found) if found else None


def require_browser() -> Path:
    """The browser; without one the test is skipped, or fails where G2L_NEED_BROWSER is 1."""
    found = find_browser()
    if found is None:
        reason = f"none of {', '.join(NAMES)} is installed, and G2L_BROWSER names none"
        if os.environ.get("G2L_NEED_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@dataclass
class Page:
    """A page that was opened.

    Attributes:
        problems: console errors and warnings, uncaught exceptions, refused content, in words.
        requests: addresses that it asked for, itself included; `data:` left out.
    """

    browser: "Browser"
    session: str
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    loaded: bool = False

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, to this page."""
        return self.browser.call(method, session=self.session, **parameters)

    def go(self, address: str) -> None:
        """Lead to an address, and wait until it is loaded; problems and requests are those of this one. It costs less
        than another page of the same size.
        """
        self.problems.clear()
        self.requests.clear()
        self.loaded = False
        self.call("Page.navigate", url=address)
        while not self.loaded:
            self.browser.hear()
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; the page's own policy does not hold for it."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path: Path, *, whole: bool = True) -> Path:
        """A screenshot (PNG) of the whole page, or of what is in view."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def pdf(self, path: Path) -> Path:
        """The page as it is printed on A4."""
        answer = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path


class Browser:
    """A running browser with a profile of its own."""

    def __init__(self, program: Path, folder: Path) -> None:
        down_read, down_write = os.pipe()
        up_read, up_write = os.pipe()
        child_read, child_write = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (down_read, up_write))
        log = os.open(folder / "browser.log", os.O_WRONLY | os.O_CREAT, 0o600)
        actions = [
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
            (os.POSIX_SPAWN_DUP2, child_read, 3),
            (os.POSIX_SPAWN_DUP2, child_write, 4),
        ]
        command = [str(program), *FLAGS, f"--user-data-dir={folder / 'profile'}"]
        environment = os.environ | {"HOME": str(folder)}
        self.pid = os.posix_spawn(program, command, environment, file_actions=actions, setpgroup=0)
        for fd in (down_read, up_write, child_read, child_write, log):
            os.close(fd)
        self._log = folder / "browser.log"
        self._to, self._from = down_write, up_read
        self._buffer, self._count = b"", 0
        self.pages: dict[str, Page] = {}

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol; returns its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        wanted = self._count
        while True:
            answer = self.hear()
            if answer.get("id") == wanted:
                assert "error" not in answer, f"{method}: {answer.get('error')}"
                return dict(answer["result"])

    def hear(self) -> dict[str, Any]:
        """The next message; an event is noted at its page."""
        deadline = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(deadline - time.monotonic(), 0))
            block = os.read(self._from, 1 << 20) if ready else b""
            if not block:
                raise TimeoutError(f"the browser does not answer:\n{self._log.read_text()[-2000:]}")
            self._buffer += block
        text, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        page = self.pages.get(message.get("sessionId", ""))
        if page and "method" in message:
            note_event(page, message["method"], message["params"])
        return message

    def open(self, address: str, width: int, height: int, *, phone: bool = False, scale: float = 1) -> Page:
        """Open a page, laid out `width` CSS pixels wide, and wait until it is loaded.

        Args:
            phone: emulate a touch device, which heeds the page's viewport.
            scale: pixels of a picture a CSS pixel.
        """
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        page.go(address)
        return page

    def close(self) -> None:
        """End the browser and all its processes."""
        with contextlib.suppress(OSError, TimeoutError, AssertionError):
            self.call("Browser.close")
        os.close(self._to)
        os.close(self._from)
        deadline = time.monotonic() + 5
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def note_event(page: Page, method: str, parameters: dict[str, Any]) -> None:
    """Keep what an event says of a page."""
    if method == "Page.loadEventFired":
        page.loaded = True
    elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
        words = [str(part.get("value", part.get("description", ""))) for part in parameters["args"]]
        page.problems.append(f"console {parameters['type']}: {' '.join(words)}")
    elif method == "Runtime.exceptionThrown":
        details = parameters["exceptionDetails"]
        page.problems.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
    elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
        page.problems.append(f"{parameters['entry']['source']}: {parameters['entry']['text']}")
    elif method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith("data:"):
        page.requests.append(parameters["request"]["url"])
    elif method == "Page.javascriptDialogOpening":
        page.problems.append(f"dialog: {parameters['message']}")


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser while the block runs; skips or fails without one, see `require_browser`."""
    program = require_browser()
    with tempfile.TemporaryDirectory(prefix="g2l-browser-", ignore_cleanup_errors=True) as folder:
        browser = Browser(program, Path(folder))
        try:
            yield browser
        finally:
            browser.close()
