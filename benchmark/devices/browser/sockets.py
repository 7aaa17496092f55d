"""Addresses of this machine, TLS, and connections with a deadline."""

from __future__ import annotations

import io
import ipaddress
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import psutil

from edge.errors import ConfigError


class TimedReader(io.RawIOBase):
    """Reader of a connection with a deadline, after which it raises TimeoutError.

    idle_s: seconds until the first deadline, and the timeout for sending.
    """

    def __init__(self, connection: socket.socket, idle_s: float) -> None:
        self._connection, self._idle_s = connection, idle_s
        self.allow(idle_s)

    def allow(self, duration_s: float) -> None:
        """Set the deadline, so many seconds from now."""
        self._deadline = time.monotonic() + duration_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left_s)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(self._idle_s)


def bindable_address(host: str) -> str:
    """Return the address of this machine to bind; raises ConfigError for any other host."""
    if host == "localhost":
        return "127.0.0.1"
    known = machine_addresses()
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError:
        address = ""
    if address not in known:
        raise ConfigError(
            f"--host {host!r} is no address of this machine: choose one of {', '.join(known)}"
        )
    return address


def machine_addresses() -> list[str]:
    """Return the addresses of this machine's network interfaces, without link-local ones."""
    families = (socket.AF_INET, socket.AF_INET6)
    entries = [entry for group in psutil.net_if_addrs().values() for entry in group]
    addresses = [entry.address for entry in entries if entry.family in families]
    return list(dict.fromkeys(a for a in addresses if "%" not in a and not a.startswith("fe80")))


def with_tls(plain: socket.socket, certificate: Path) -> socket.socket:
    """Wrap a socket in TLS; raises ConfigError for a file without a certificate and its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate)
    except (OSError, ssl.SSLError) as error:
        plain.close()
        raise ConfigError(
            f"{certificate} holds no certificate with its key in PEM form: {error}"
        ) from None
    # The handshake belongs to the thread of a connection, not to the one that accepts them.
    return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)


def authority(host: str, port: int, scheme: str) -> str:
    """Return host and port as in a browser's Host header."""
    name = f"[{host}]" if ":" in host else host.lower()
    usual = {"http": 80, "https": 443}[scheme]
    return name if port == usual else f"{name}:{port}"
