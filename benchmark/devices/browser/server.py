"""The HTTP server of `--device browser`: the page, its files, and its replies.

Every path starts with a secret token, and only listed files are served.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmark.devices.browser.exchange import Exchange
from benchmark.devices.browser.facts import browser
from benchmark.devices.browser.sockets import TimedReader, authority, bindable_address, with_tls
from edge.console import say
from edge.errors import ConfigError

# Limit of one reply; logits of 8 texts of 512 tokens over a vocabulary of 30,000 do not fit.
REPLY_LIMIT_BYTES = 256 * 10**6
_SMALL_LIMIT_BYTES = 1 << 16
_KEY_LIMIT_BYTES = 64
_POLL_S = 20.0
# Timeout for a request's line and headers, the wait for them included; then for its body, whose
# sender may be a phone on a slow network, but not one that sends a byte per minute.
_IDLE_S = 120.0
_BODY_S = 20.0
_SLOWEST_BYTES_PER_S = 50_000
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}
_HEADERS = {
    # Both together isolate the page: threads and a fine clock need that.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
        "connect-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class PageServer:
    """Serves one page until it is closed.

    page: name -> file of the page. files: checksum -> further file; files may be added at any time.
    certificate: PEM file of a certificate and its key, for https. Raises ConfigError if it cannot
    serve at the address or port.
    """

    def __init__(
        self,
        exchange: Exchange,
        page: Mapping[str, Path],
        *,
        host: str,
        port: int | None,
        title: str = "",
        certificate: Path | None = None,
    ) -> None:
        self.exchange, self.page, self.title = exchange, dict(page), title
        self.files: dict[str, Path] = {}
        self.token = secrets.token_urlsafe(16)
        address = bindable_address(host)
        self._server = _start_server(address, port)
        self._server.owner = self
        if certificate is not None:
            self._server.socket = with_tls(self._server.socket, certificate)
        number = self._server.server_address[1]
        scheme = "http" if certificate is None else "https"
        names = {host, address}
        if ipaddress.ip_address(address).is_loopback:
            names |= {"localhost", "127.0.0.1", "::1"}
        self.hosts = {authority(name, number, scheme) for name in names}
        self.origins = {f"{scheme}://{authority}" for authority in self.hosts}
        self.address = f"{scheme}://{authority(host, number, scheme)}/{self.token}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving; safe to call twice."""
        self.exchange.close()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    owner: PageServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Report errors other than broken connections."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            say(f"a request of the page failed: {type(error).__name__}: {error}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "edge"
    sys_version = ""
    timeout = _IDLE_S
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._reader = TimedReader(self.connection, _IDLE_S)
        self.rfile = io.BufferedReader(self._reader)

    def handle_one_request(self) -> None:
        self._reader.allow(_IDLE_S)
        super().handle_one_request()

    def do_GET(self) -> None:
        name = self._admitted()
        if name is None:
            return
        owner = self.server.owner
        if name == "next":
            self._next()
        elif name == "":
            self._send_file(owner.page["index.html"], cacheable=False)
        elif name in owner.page:
            self._send_file(owner.page[name])
        elif name.startswith("files/") and name[6:] in owner.files:
            self._send_file(owner.files[name[6:]])
        else:
            self._say(HTTPStatus.NOT_FOUND, "there is no such file")

    def do_POST(self) -> None:
        name = self._admitted()
        if name is None:
            return
        # Handler, limit of the body in bytes, and whether only the active page may send it.
        actions = {
            "claim": (self._claim, _SMALL_LIMIT_BYTES, False),
            "reply": (self._reply, REPLY_LIMIT_BYTES, True),
            "beat": (self._beat, _SMALL_LIMIT_BYTES, True),
            "bye": (self._bye, _KEY_LIMIT_BYTES, False),
        }
        if name not in actions:
            self._say(HTTPStatus.NOT_FOUND, "there is no such address")
            return
        action, limit, keyed = actions[name]
        size = self._body_size(limit)
        if size is None:
            return
        try:
            if keyed:
                self.server.owner.exchange.check(self._key())
            body = self._body(size)
            if body is not None:
                action(body)
        except PermissionError as error:
            self._say(HTTPStatus.CONFLICT, str(error))
        except ValueError as error:
            self._say(HTTPStatus.BAD_REQUEST, str(error))

    def _admitted(self) -> str | None:
        """Return the path after the token; None if the request was refused."""
        owner = self.server.owner
        # Refuse DNS rebinding: another host name that resolves to this machine.
        if self.headers.get("Host", "").lower() not in owner.hosts:
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "this is not the address of this server")
            return None
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() not in owner.origins:
            self._say(HTTPStatus.FORBIDDEN, "requests from another page are refused")
            return None
        token, slash, name = self.path.partition("?")[0].lstrip("/").partition("/")
        token_bytes = token.encode("utf-8", "surrogateescape")
        if not secrets.compare_digest(token_bytes, owner.token.encode()) or not slash:
            self._say(
                HTTPStatus.NOT_FOUND, "this address is not valid: see the one in the terminal"
            )
            return None
        return name

    def _claim(self, body: bytes) -> None:
        owner = self.server.owner
        key = owner.exchange.claim(body)
        info = owner.exchange.info
        name = "unknown" if info is None else browser(info)
        answer = json.dumps({"key": key, "title": owner.title, "browser": name}).encode()
        self._send(HTTPStatus.OK, answer, "application/json")

    def _next(self) -> None:
        try:
            data = self.server.owner.exchange.next(self._key(), _POLL_S)
        except PermissionError as error:
            self._say(HTTPStatus.CONFLICT, str(error))
            return
        if data is None:
            self._send(HTTPStatus.NO_CONTENT, b"", None)
        else:
            self._send(HTTPStatus.OK, data, "application/octet-stream")

    def _reply(self, body: bytes) -> None:
        outcome, reason = self.server.owner.exchange.reply(self._key(), body)
        status = {
            "accepted": HTTPStatus.NO_CONTENT,
            "stale": HTTPStatus.GONE,
            "refused": HTTPStatus.BAD_REQUEST,
        }[outcome]
        if outcome == "accepted":
            self._send(status, b"", None)
        else:
            self._say(status, reason)

    def _beat(self, body: bytes) -> None:
        self.server.owner.exchange.record_state(self._key(), body)
        self._send(HTTPStatus.NO_CONTENT, b"", None)

    def _bye(self, body: bytes) -> None:
        # A closing page cannot send headers: its key is the body.
        self.server.owner.exchange.leave(body.decode("ascii", "replace"))
        self._send(HTTPStatus.NO_CONTENT, b"", None)

    def _key(self) -> str:
        return self.headers.get("Edge-Page", "")

    def _body_size(self, limit: int) -> int | None:
        """Return the body's length before reading it; None if the request was refused."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self._say(HTTPStatus.LENGTH_REQUIRED, "the header Content-Length is missing")
        elif len(length) > 12 or int(length) > limit:
            self._say(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body may have at most {limit} bytes"
            )
        else:
            return int(length)
        return None

    def _body(self, size: int) -> bytes | None:
        """Read the body; None if the connection has to be closed."""
        self._reader.allow(_BODY_S + size / _SLOWEST_BYTES_PER_S)
        try:
            body = self.rfile.read(size)
        except TimeoutError:
            self._say(HTTPStatus.REQUEST_TIMEOUT, "the body took too long")
            return None
        if len(body) == size:
            return body
        self.close_connection = True
        return None

    def _send_file(self, path: Path, *, cacheable: bool = True) -> None:
        try:
            file = path.open("rb")
        except OSError:
            self._say(HTTPStatus.NOT_FOUND, "the file was removed")
            return
        with file:
            size = path.stat().st_size
            kind = _TYPES.get(path.suffix, "application/octet-stream")
            # Names contain a checksum of the content, so that a phone can cache the files.
            self._head(
                HTTPStatus.OK, size, kind, "private, max-age=86400" if cacheable else "no-store"
            )
            shutil.copyfileobj(file, self.wfile, 1 << 18)

    def _say(self, status: HTTPStatus, text: str) -> None:
        # The body is not read: the connection has to be closed.
        self.close_connection = True
        self._send(status, f"{text}\n".encode(), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, kind: str | None) -> None:
        self._head(status, len(body), kind, "no-store")
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, size: int, kind: str | None, cache: str) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if kind is not None:
            self.send_header("Content-Type", kind)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(size))
        self.send_header("Cache-Control", cache)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """Log nothing: the terminal shows the measurement."""


def _start_server(address: str, port: int | None) -> _Server:
    class Server(_Server):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    try:
        return Server((address, port or 0), _Handler)
    except OSError as error:
        where = f"port {port} of {address}" if port else address
        raise ConfigError(
            f"cannot serve at {where}: {error.strerror or error}; choose another --port or --host"
        ) from None


def list_files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by relative path; raises FileNotFoundError without an index."""
    files: dict[str, Path] = {}
    with contextlib.suppress(OSError):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                files[path.relative_to(folder).as_posix()] = path
    if "index.html" not in files:
        raise FileNotFoundError(folder)
    return files
