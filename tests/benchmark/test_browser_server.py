"""What serves the page of `--device browser`: to whom, what, and where; and what a page is taken
for. `browser_page.py` stands for the page."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmark.config import DeviceOptions
from benchmark.devices import Job, find_devices, get_device
from benchmark.devices.browser import device as browser
from benchmark.devices.browser import server as browser_server
from benchmark.devices.browser.device import BrowserDevice
from benchmark.devices.browser.exchange import Exchange, PageInfo
from benchmark.devices.browser.facts import browser as browser_name
from benchmark.devices.browser.facts import device_info
from benchmark.devices.browser.server import PageServer, list_files
from edge.errors import ConfigError, MeasurementError
from edge.storage import sha256
from tests.benchmark import browser_page as pages

ROOT = Path(__file__).resolve().parents[2]
FEED = {"input_ids": np.ones((1, 4), np.int32)}


@pytest.fixture
def server(page_folder: Path) -> Iterator[PageServer]:
    server = PageServer(Exchange(), list_files(page_folder), host="127.0.0.1", port=None)
    yield server
    server.close()


# Who is served.


def test_only_what_is_listed_is_served_and_only_behind_the_token(
    server: PageServer, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    line = pages.Line(server.address)
    status, headers, body = line.ask("GET", "")
    assert (status, b"page" in body) == (200, True)
    # Without these two a page gets one thread and a coarse clock, and says nothing.
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert "wasm-unsafe-eval" in headers["content-security-policy"]
    assert line.ask("GET", "assets/code.js")[1]["content-type"].startswith("text/javascript")
    assert line.ask("GET", "engine.wasm")[1]["content-type"] == "application/wasm"
    refused = [
        "../secret.txt",
        "assets/../../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "/etc/passwd",
        "files/../../secret.txt",
        "files/" + "0" * 64,
        "assets/",
        "assets",
    ]
    assert {line.ask("GET", name)[0] for name in refused} == {404}
    paths = ["/", "/index.html", f"/{'x' * 22}/", f"/{server.token[:-1]}/", f"/{server.token}"]
    assert {line.ask("GET", "", path=path)[0] for path in paths} == {404}


def test_a_file_is_served_by_its_checksum_once_it_is_listed(
    server: PageServer, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"weights")
    digest = sha256(model)
    server.files[digest] = model
    line = pages.Line(server.address)
    status, headers, body = line.ask("GET", f"files/{digest}")
    assert (status, body, headers["content-length"]) == (200, b"weights", "7")
    model.unlink()
    assert line.ask("GET", f"files/{digest}")[0] == 404


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_another_name_or_another_page_is_refused(
    server: PageServer, headers: dict[str, str], expected: int
) -> None:
    assert pages.Line(server.address).ask("GET", "", headers=headers)[0] == expected


def test_this_machine_may_be_called_by_its_usual_names(server: PageServer) -> None:
    line = pages.Line(server.address)
    # As a phone sees it that reaches this port over its cable.
    own = {"Host": f"localhost:{line.port}", "Origin": f"http://localhost:{line.port}"}
    assert line.ask("GET", "", headers=own)[0] == 200


def test_what_is_too_long_or_of_no_length_is_not_read(server: PageServer) -> None:
    line = pages.Line(server.address)
    assert line.ask("POST", "claim", headers={"Content-Length": "99999999999999"})[0] == 413
    assert line.ask("POST", "claim", headers={"Content-Length": str(1 << 20)})[0] == 413
    assert line.ask("POST", "reply", headers={"Content-Length": str(300 * 10**6)})[0] == 413
    assert line.ask("POST", "claim", headers={"Content-Length": "-1"})[0] == 411
    assert line.ask("PUT", "claim", b"x")[0] == 501
    assert line.ask("POST", "nothing", b"x")[0] == 404


def _raw(server: PageServer, name: str, length: int, key: str = "") -> socket.socket:
    """A connection on which the head of a request was sent, and nothing of its body."""
    address = urllib.parse.urlsplit(server.address)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    head = (
        f"POST {address.path}{name} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Edge-Page: {key}\r\nContent-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode())
    return connection


@pytest.mark.parametrize("name", ["reply", "beat"])
def test_the_key_is_checked_before_a_body_is_read(server: PageServer, name: str) -> None:
    assert pages.Line(server.address).claim()[0] == 200
    # No byte of the body is ever sent: whoever waited for it would not answer.
    with _raw(server, name, 60_000, key="guess") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 409 ")


@pytest.mark.parametrize(("name", "length"), [("bye", 65), ("beat", 70_000), ("claim", 70_000)])
def test_every_body_is_capped(server: PageServer, name: str, length: int) -> None:
    _, key = pages.Line(server.address).claim()
    with _raw(server, name, length, key=key) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_trickles_in_is_not_waited_for(
    server: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = pages.Line(server.address).claim()
    monkeypatch.setattr(browser_server, "_BODY_S", 0.3)
    with _raw(server, "beat", 60_000, key=key) as connection:
        connection.settimeout(0.1)
        answer = b""
        # Every byte comes well within the time that a silent connection gets.
        for _ in range(600):
            connection.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(100)
                break
        assert answer.startswith(b"HTTP/1.1 408 ")


def _closed_after(connection: socket.socket, data: bytes) -> bool:
    try:
        connection.sendall(data)
        return connection.recv(100) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_head_that_trickles_in_is_not_waited_for(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser_server, "_IDLE_S", 0.5)
    server = PageServer(Exchange(), list_files(page_folder), host="127.0.0.1", port=None)
    address = urllib.parse.urlsplit(server.address)
    try:
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nX: ")
            connection.settimeout(0.1)
            assert any(_closed_after(connection, b"a") for _ in range(600))
    finally:
        server.close()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"page": "short", "info": {}}', b"\xff", b"[" * 60_000]
)
def test_a_claim_that_no_page_of_ours_sends_is_refused(server: PageServer, body: bytes) -> None:
    assert pages.Line(server.address).ask("POST", "claim", body)[0] == 400


def test_one_page_at_a_time(server: PageServer) -> None:
    line = pages.Line(server.address)
    status, first = line.claim()
    assert status == 200
    assert line.claim("b" * 32) == (409, "this benchmark is open in another browser or tab\n")
    assert line.next("guess")[0] == 409
    # The same tab, opened again, is no second page; its old key is worth nothing.
    status, second = line.claim()
    assert status == 200 and second != first
    assert line.ask("POST", "beat", b"{}", headers={"Edge-Page": first})[0] == 409
    # A page that said good-bye makes room.
    for odd in (b"not its key", b"", "ü".encode(), b"\xff\0"):
        assert line.ask("POST", "bye", odd)[0] == 204
    assert line.next("\xfc")[0] == 409
    assert line.claim("ü" * 32)[0] == 409
    assert line.claim("\ud800" * 32)[0] == 400
    assert line.claim("b" * 32)[0] == 409
    line.ask("POST", "bye", second.encode())
    assert line.claim("b" * 32)[0] == 200


def test_a_page_that_has_been_silent_makes_room(page_folder: Path) -> None:
    exchange = Exchange(gone_s=0.2)
    server = PageServer(exchange, list_files(page_folder), host="127.0.0.1", port=None)
    try:
        line = pages.Line(server.address)
        assert line.claim()[0] == 200
        time.sleep(0.3)
        assert line.claim("b" * 32)[0] == 200
    finally:
        server.close()


# Where it is served.


@pytest.mark.parametrize("host", ["203.0.113.7", "example.org", "0.0.0.0", "::", "$(reboot);x", ""])
def test_only_an_address_of_this_machine_is_served_at(page_folder: Path, host: str) -> None:
    with pytest.raises(ConfigError, match=r"is no address of this machine: choose one of .*127\."):
        get_device("browser", DeviceOptions(host=host))


def test_a_port_that_is_taken(server: PageServer, page_folder: Path) -> None:
    port = pages.Line(server.address).port
    with pytest.raises(ConfigError, match=f"cannot serve at port {port}.*choose another --port"):
        get_device("browser", DeviceOptions(port=port))


def test_a_certificate_that_is_none(page_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"cert\.pem holds no certificate"):
        get_device("browser", DeviceOptions(certificate=tmp_path / "cert.pem"))


def test_a_page_by_https(page_folder: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate, both = (tmp_path / name for name in ("key.pem", "cert.pem", "both.pem"))
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    made += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    both.write_text(key.read_text() + certificate.read_text())
    with get_device("browser", DeviceOptions(certificate=both)) as device:
        assert isinstance(device, BrowserDevice)
        address = device.server.address
        trusted = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(address, context=trusted, timeout=10) as answer:
            assert address.startswith("https://127.0.0.1:") and answer.status == 200
        # One that speaks no TLS keeps nobody else from being served.
        with socket.create_connection(urllib.parse.urlsplit(address).netloc.split(":")) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with urllib.request.urlopen(address, context=trusted, timeout=10) as answer:
                assert answer.status == 200


def test_a_page_that_is_not_built_says_how(page_folder: Path) -> None:
    (page_folder / "index.html").unlink()
    with pytest.raises(ConfigError, match="is not built: run make web"):
        get_device("browser")
    (found,) = (one for one in find_devices() if one.spec == "browser")
    assert not found.formats and "make web" in str(found.reason)


def test_a_page_of_another_version_says_how(page_folder: Path) -> None:
    (page_folder / "build.json").write_text(json.dumps({"protocol": 0, "versions": {}}))
    with pytest.raises(ConfigError, match="of another version: run make web"):
        get_device("browser")


def test_an_unknown_provider(page_folder: Path) -> None:
    with pytest.raises(ConfigError, match="browser:wasm or browser:webgpu"):
        get_device("browser:metal")


def test_no_browser_comes(page_folder: Path) -> None:
    with get_device("browser", DeviceOptions(timeout_s=0.2)) as device:
        assert device.availability("onnxruntime-web").version == "1.2.3"
        assert device.availability("pytorch").reason
        assert device.describe().driver == "browser"
        with pytest.raises(MeasurementError, match=r"no browser opened http://127.* within 0\.2 s"):
            device.open(Job("a", "onnxruntime-web", page_folder / "index.html", 1, [FEED]))


# What a page says of its device.

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    "Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
)
FIREFOX = "Mozilla/5.0 (Android 14; Mobile; rv:130.0) Gecko/130.0 Firefox/130.0"
SAMSUNG = (
    "Mozilla/5.0 (Linux; Android 13; SM-S911B Build/TP1A) AppleWebKit/537.36 (KHTML, like Gecko) "
    "SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36"
)


@pytest.mark.parametrize(
    ("agent", "name", "system", "model"),
    [
        (IPHONE, "Safari 17.5", "iOS 17.5.1", "iPhone"),
        (FIREFOX, "Firefox 130.0", "Android 14", None),
        (SAMSUNG, "Samsung Internet 25.0", "Android 13", "SM-S911B"),
        ("Mozilla/5.0 (X11; Linux x86_64) Chrome/1.2 Safari/5", "Chrome 1.2", "Linux", None),
        ("curl/8", "unknown", None, None),
    ],
)
def test_the_device_is_told_by_its_user_agent(
    agent: str, name: str, system: str | None, model: str | None
) -> None:
    info = PageInfo(user_agent=agent, isolated=False, secure=False, clock_us=100)
    found = device_info(info, {}, address=None)
    assert (browser_name(info), found.os, found.model) == (name, system, model)
    assert found.details["cross_origin_isolated"] == "no" and found.kind == "real"


# The page's own code.


def test_the_pages_tokenizer_is_held_to_what_tokenizers_say() -> None:
    from tokenizers import Tokenizer

    held = json.loads((ROOT / "apps/web/tests/tokenizers.json").read_text())
    assert set(held) == {"cased", "uncased"}
    for one in held.values():
        inner = Tokenizer.from_str(json.dumps(one["tokenizer"]))
        for case in one["cases"]:
            inner.enable_truncation(case["max"], strategy="longest_first")
            found = inner.encode(case["text"], case["pair"])
            assert (found.ids, found.type_ids) == (case["ids"], case["types"])


def test_the_page_and_the_program_speak_the_same_protocol() -> None:
    source = (ROOT / "apps/web/src/protocol.ts").read_text()
    (stated,) = re.findall(r"^export const PROTOCOL = (\d+);$", source, re.MULTILINE)
    assert int(stated) == browser.PROTOCOL


def test_the_pages_own_tests() -> None:
    web = ROOT / "apps" / "web"
    vitest = web / "node_modules" / "vitest" / "vitest.mjs"
    if not vitest.is_file():
        pytest.skip("the page's tools are not installed: make web")
    done = subprocess.run(
        ["node", str(vitest), "run"], cwd=web, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-3000:]


# Where the page comes from.


def test_a_clone_without_node_and_an_installation_without_the_page_say_what_to_do(
    page_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (page_folder / "index.html").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"make web; that needs Node 20 .* is not installed"):
        get_device("browser")
    monkeypatch.setattr(browser, "_SOURCE", tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="install a wheel that was built by make wheel"):
        get_device("browser")


def test_the_page_is_built_where_the_wheel_takes_it_from() -> None:
    """One place: Vite writes there, git leaves it out, setuptools takes it in."""
    config = (ROOT / "apps/web/vite.config.ts").read_text()
    assert (ROOT / "apps/web/../../benchmark/page").resolve() == browser.PAGE
    assert 'outDir: "../../benchmark/page"' in config
    assert "/benchmark/page/" in (ROOT / ".gitignore").read_text().splitlines()
    assert '"page/**/*"' in (ROOT / "pyproject.toml").read_text()
