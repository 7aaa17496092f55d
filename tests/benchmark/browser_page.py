"""A page without a browser: speaks the protocol of apps/web, and runs ONNX with Python's engine."""

from __future__ import annotations

import http.client
import io
import json
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmark.worker.worker import Worker
from edge.process.wire import Arrays, Message, pack, unpack
from edge.storage import sha256

INFO = {
    "user_agent": "Mozilla/5.0 (Linux; Android 15; Pixel 9) Chrome/140.0.0.0 Mobile Safari/537.36",
    "brands": ["Chromium 140.0.1", "Not=A?Brand 24.0", "Google Chrome 140.0.1"],
    "platform": "Android",
    "platform_version": "15.0.0",
    "model": "Pixel 9",
    "architecture": "arm-64",
    "cores": 8,
    "memory_gb": 8,
    "isolated": True,
    "secure": True,
    "clock_us": 5.0,
    "webgpu": None,
}
Answer = Callable[[Message, Arrays], tuple[Message, Arrays]]


def built_page(folder: Path) -> Path:
    """A folder that looks like a built page."""
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "assets" / "code.js").write_text("export {};")
    (folder / "engine.wasm").write_bytes(b"\0asm")
    versions = {"onnxruntime-web": "1.2.3", "@litertjs/core": "4.5.6"}
    (folder / "build.json").write_text(json.dumps({"protocol": 1, "versions": versions}))
    return folder


class Line:
    """Requests to the server of a page, as a browser sends them."""

    def __init__(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        assert parts.hostname is not None
        self.host, self.port, self.base = parts.hostname, parts.port, parts.path

    def ask(
        self,
        method: str,
        name: str,
        body: bytes | None = None,
        *,
        path: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in small letters, body. path: in place of the page's own and `name`."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request(method, path or self.base + name, body, dict(headers or {}))
            answer = connection.getresponse()
            found = {key.lower(): value for key, value in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()

    def claim(self, tab: str = "a" * 32, info: Mapping[str, Any] = INFO) -> tuple[int, str]:
        """Status, and the page's key or what was said instead."""
        body = json.dumps({"page": tab, "info": dict(info)}).encode()
        status, _, answer = self.ask("POST", "claim", body)
        return status, json.loads(answer)["key"] if status == 200 else answer.decode()

    def next(self, key: str) -> tuple[int, Message, Arrays]:
        status, _, body = self.ask("GET", "next", headers={"Edge-Page": key})
        if status != 200:
            return status, {}, {}
        return status, *unpack(io.BytesIO(body).read)

    def reply(
        self, key: str, number: int, artifact: str, reply: Message, arrays: Arrays | None = None
    ) -> tuple[int, str]:
        body = pack({"number": number, "artifact": artifact, "reply": reply}, arrays)
        status, _, answer = self.ask("POST", "reply", body, headers={"Edge-Page": key})
        return status, answer.decode()


class FakePage:
    """Answers in a thread of its own, until it is told to finish or the server is gone.

    answer: may answer a request itself, or return None; it is told the page. reopen_at: numbers
    of requests at which the page is opened again in place of answering. leave_at: at which it
    falls silent. asked: what it was asked. most: models that were loaded at the same time.
    """

    def __init__(
        self,
        address: str,
        folder: Path,
        *,
        answer: Callable[[Message], Message | None] = lambda request: None,
        reopen_at: tuple[int, ...] = (),
        leave_at: int | None = None,
    ) -> None:
        self.line, self._folder, self._answer = Line(address), folder, answer
        self._reopen_at, self._leave_at = set(reopen_at), leave_at
        self._workers: dict[str, tuple[Worker, str]] = {}
        self.asked: list[str] = []
        self.most = 0
        self.statuses: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._serve()
        except OSError:
            # The server has closed.
            return

    def _serve(self) -> None:
        _, key = self.line.claim()
        while True:
            status, request, arrays = self.line.next(key)
            if status == 204:
                continue
            assert status == 200, status
            self.asked.append(request["do"])
            if len(self.asked) == self._leave_at:
                return
            if len(self.asked) in self._reopen_at:
                self._workers.clear()
                _, key = self.line.claim()
                continue
            number, cell = request.pop("number"), request.pop("cell", "")
            for ended in request.pop("ended", ()):
                self._workers.pop(ended, None)
            reply, outputs = self._perform(cell, dict(request), arrays)
            self.most = max(self.most, len(self._workers))
            artifact = self._workers[cell][1] if cell in self._workers else ""
            self.statuses.append(self.line.reply(key, number, artifact, reply, outputs)[0])
            if request["do"] == "finish":
                return

    def _perform(self, cell: str, request: Message, arrays: Arrays) -> tuple[Message, Arrays]:
        own = self._answer(request)
        if own is not None:
            return own, {}
        do = request["do"]
        if do == "finish":
            return {}, {}
        if do == "load":
            path = self._download(request["path"], ".onnx")
            assert sha256(path) == request["sha256"]
            assert path.stat().st_size == request["bytes"]
            self._workers[cell] = (Worker(), request["sha256"])
            threads = request["threads"]
            request = {"do": "load", "engine": "onnxruntime", "path": str(path), "threads": threads}
        if do == "stages":
            request["tokenizer"] = str(self._download(request["tokenizer"], ".json"))
            assert sha256(Path(request["tokenizer"])) == request.pop("tokenizer_sha256")
        request.pop("rounds", None)
        worker, _ = self._workers[cell]
        reply, outputs = worker.answer(request, arrays)
        return _in_the_pages_words(do, reply, request), outputs

    def _download(self, name: str, suffix: str) -> Path:
        status, _, body = self.line.ask("GET", name)
        assert status == 200
        path = self._folder / f"{Path(name).name}{suffix}"
        path.write_bytes(body)
        return path


def _in_the_pages_words(do: str, reply: Message, request: Message) -> Message:
    if do == "load":
        times = {name: reply[name] for name in ("load_ns", "first_ns")}
        return {**times, "threads": request["threads"], "provider": "WebAssembly", "notes": []}
    if do == "warm":
        return {**{name: reply[name] for name in ("runs", "duration_s")}, "group": 1}
    if do == "turn":
        return {name: reply[name] for name in ("raw_ns", "duration_s")}
    if do == "memory":
        return {"wasm_bytes": 16_777_216}
    return reply
