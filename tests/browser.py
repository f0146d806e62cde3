"""A real headless Chromium for tests of pages, driven by selenium; its fixture skips where there is none."""

import base64
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Only the machine itself: whatever a page would fetch from elsewhere fails, and fails at once.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
DESKTOP, PHONE = (1280, 900), (390, 844)


class Browser:
    """One window of Chromium. `driver` is selenium's, for whatever has no method here."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str | Path) -> None:
        """Goes to an address, or to a page that lies in a file."""
        self.driver.get(address.resolve().as_uri() if isinstance(address, Path) else address)

    def read(self, expression: str, *arguments: Any) -> Any:
        """The value of a JavaScript expression (a promise's, when it is kept); `arguments` are its `arguments`."""
        body = f"const done = arguments[arguments.length - 1]; Promise.resolve({expression}).then(done)"
        return self.driver.execute_async_script(body, *arguments)

    def wait(self, expression: str, *arguments: Any, seconds: float = 240) -> Any:
        """The value of `expression` as soon as it is true; `TimeoutError`, with what the console said, if never."""
        end = time.monotonic() + seconds
        while not (value := self.read(expression, *arguments)):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {expression}; the console: {self.console()}")
            time.sleep(0.05)
        return value

    def console(self) -> list[str]:
        """What the page wrote to the console, or the browser about it, since the last call: errors and warnings."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def look(self, size: tuple[int, int] = DESKTOP, scheme: Literal["light", "dark"] = "light") -> None:
        """The width and height of the page in CSS pixels, touch below 600, and the colours a person prefers."""
        phone = size[0] < 600
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window: 0 where nobody has to scroll sideways."""
        return self.read("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def shot(self, target: Path, whole: bool = True) -> None:
        """A PNG of the `whole` page, or of what is in view."""
        arguments = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            arguments["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = self.driver.execute_cdp_cmd("Page.captureScreenshot", arguments)
        target.write_bytes(base64.b64decode(picture["data"]))

    def choose(self, selector: str, *files: Path) -> None:
        """Gives files to the `<input type=file>` at `selector`, hidden or not."""
        node = self._node(selector)
        self.driver.execute_cdp_cmd("DOM.setFileInputFiles", {"nodeId": node, "files": [str(file) for file in files]})

    def drop(self, selector: str, *files: Path) -> None:
        """Drags files from outside the browser onto the middle of the element at `selector`, and lets go."""
        x, y = self.read(
            "(() => { const box = document.querySelector(arguments[0]); box.scrollIntoView({block: 'center'});"
            " const at = box.getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2] })()",
            selector,
        )
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            event = {"type": kind, "x": x, "y": y, "data": data}
            self.driver.execute_cdp_cmd("Input.dispatchDragEvent", event)

    def _node(self, selector: str) -> int:
        root = self.driver.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
        return self.driver.execute_cdp_cmd("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]


def missing() -> str | None:
    """Why no browser can be driven here; none if one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    if _chromium() is None:
        return "no Chromium here"
    if shutil.which("chromedriver") is None:
        return "no chromedriver here"
    return None


@contextmanager
def open_browser(flags: Sequence[str] = ()) -> Iterator[Browser]:
    """A new Chromium with a profile of its own, gone afterwards; skips the test, with the reason, where none is."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = _chromium()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with TemporaryDirectory(prefix="modalgate-browser-") as profile:
        for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = Chrome(options, Service(shutil.which("chromedriver")))
        try:
            driver.set_script_timeout(240)
            yield Browser(driver)
        finally:
            driver.quit()


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)
