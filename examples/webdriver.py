"""A small client of the W3C WebDriver protocol for Chromium: enough to open a page, use it and look at it."""

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the standard's key for references to elements
KEYS = {"Tab": "\ue004", "Escape": "\ue00c", "End": "\ue010", "Home": "\ue011", "Left": "\ue012", "Right": "\ue014", "Down": "\ue015"}


def programs():
    """Paths of (chromedriver, browser), each None if not installed."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return shutil.which("chromedriver"), browser


@contextlib.contextmanager
def browser(width=1200, height=900, dark=False):
    """A headless browser: yields a Browser."""
    driver, program = programs()
    folder = tempfile.mkdtemp(prefix="browser_")  # for what the browser leaves behind
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                               env=dict(os.environ, TMPDIR=folder))  # fmt: skip
    try:
        port = next(match.group(1) for match in (re.search(r"successfully on port (\d+)", line) for line in process.stdout) if match)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--window-size={width},{height}"]
        arguments += ["--force-dark-mode"] if dark else []
        session = Browser(f"http://127.0.0.1:{port}", program, arguments)
        try:
            yield session
        finally:
            session.request("DELETE", "")
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


class Browser:
    """One browser session."""

    def __init__(self, server, program, arguments):
        self._base = server + "/session"
        options = {"browserName": "chrome", "goog:chromeOptions": {"binary": program, "args": arguments},
                   "goog:loggingPrefs": {"browser": "ALL"}}  # fmt: skip
        self._base += "/" + self.request("POST", "", {"capabilities": {"alwaysMatch": options}})["sessionId"]

    def request(self, method, path, body=None):
        """One WebDriver command; returns its value."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data=data, method=method, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def open(self, path):
        """Open a file."""
        self.request("POST", "/url", {"url": "file://" + str(path)})

    def run(self, script, *arguments):
        """Run JavaScript in the page and return its value."""
        return self.request("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script, seconds=10):
        """Wait until an expression is true; returns its value."""
        end = time.time() + seconds
        while time.time() < end:
            value = self.run("return " + script)
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}")

    def find(self, selector):
        """Reference to the first element that matches a CSS selector."""
        return self.request("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def press(self, *keys):
        """Press keys on the element that has the focus."""
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.request("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def hover(self, selector, x, y):
        """Move the pointer to a point on an element, given relative to its centre in CSS pixels."""
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        move = {"type": "pointerMove", "duration": 0, "x": x, "y": y, "origin": {ELEMENT: self.find(selector)}}
        self.request("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def click(self, selector):
        """Click an element."""
        self.request("POST", f"/element/{self.find(selector)}/click", {})

    def developer(self, command, **parameters):
        """A command of Chromium's DevTools protocol; returns its result."""
        return self.request("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def become_phone(self, width=390, height=844):
        """Emulate a narrow touch screen; call this before `open`. The window of a desktop browser cannot be that narrow."""
        self.developer("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=True)
        self.developer("Emulation.setTouchEmulationEnabled", enabled=True)

    def tap(self, selector):
        """Tap the middle of an element."""
        script = """const element = document.querySelector(arguments[0]);
            element.scrollIntoView({block: 'center'});
            const box = element.getBoundingClientRect();
            return [box.left + box.width / 2, box.top + box.height / 2];"""
        x, y = self.run(script, selector)
        self.developer("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.developer("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def messages(self):
        """Console messages since the last call: list of dicts with level and message."""
        return self.request("POST", "/se/log", {"type": "browser"})

    def screenshot(self, path):
        """Write what is visible as a PNG file."""
        with open(str(path), "wb") as file:
            file.write(base64.b64decode(self.request("GET", "/screenshot")))
