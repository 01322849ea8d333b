"""Headless Chromium by its DevTools protocol: open a page, ask it, hear its errors, look at it."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from tornado.websocket import websocket_connect

CHROMIUM = shutil.which("chromium")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1500,1050", "--remote-debugging-port=0"),
)


class Browser:
    """One tab; `start` it, `close` it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = iter(range(1, 10**6))
        self.errors: list[str] = []
        """What the page wrote to its console as errors, and exceptions that nobody caught."""

    async def start(self) -> None:
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [CHROMIUM, *QUIET, f"--user-data-dir={self._folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        tabs = await self._tabs()
        url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        self._socket = await websocket_connect(url, max_message_size=2**28)
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def _tabs(self) -> list[dict[str, Any]]:
        port_file = self._folder / "DevToolsActivePort"
        async with asyncio.timeout(30):
            while not (port_file.exists() and port_file.read_text().strip()):
                await asyncio.sleep(0.05)
            port = port_file.read_text().split()[0]
            while True:
                text = await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/json")
                if any(tab["type"] == "page" for tab in json.loads(text)):
                    found: list[dict[str, Any]] = json.loads(text)
                    return found

    async def call(self, method: str, **params: Any) -> Any:
        """Send a command and return its answer; events on the way are listened to."""
        number = next(self._numbers)
        await self._socket.write_message(
            json.dumps({"id": number, "method": method, "params": params})
        )
        async with asyncio.timeout(30):
            while True:
                message = json.loads(await self._socket.read_message())
                if message.get("id") == number:
                    assert "error" not in message, message
                    return message["result"]
                self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(params["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.errors.append(json.dumps(params["args"])[:500])
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(json.dumps(params["entry"])[:500])
            case _:
                pass

    async def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    async def until(self, expression: str, seconds: float = 90) -> Any:
        """Wait until an expression is true, for which a run may compile first; return its value."""
        async with asyncio.timeout(seconds):
            while not (value := await self.ask(expression)):
                await asyncio.sleep(0.1)
            return value

    async def picture(self, path: Path) -> None:
        """Write a picture of the page."""
        found = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    async def close(self) -> None:
        self._process.kill()
        self._process.wait(30)
        async with asyncio.timeout(30):  # the loop may end before a socket is closed
            while await self._socket.read_message() is not None:
                pass
        self._socket.close()  # else its end is told as a warning when it is collected


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: bytes = answer.read()
        return text
