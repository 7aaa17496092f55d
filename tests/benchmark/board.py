"""A real sshd on this machine's loopback, which stands for a board."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

SSHD = Path("/usr/sbin/sshd")


@dataclass(frozen=True)
class Board:
    """temporary: where it makes temporary files. tools: first on its PATH. config: of ssh."""

    process: psutil.Process
    temporary: Path
    tools: Path
    config: Path

    def leftovers(self) -> list[str]:
        """What is still there after some time to remove it."""
        deadline = time.monotonic() + 20
        while any(self.temporary.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [path.name for path in self.temporary.iterdir()]

    def cut(self) -> None:
        """End every connection, as a board does whose power is gone."""
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name().startswith("sshd"):
                    child.kill()


@contextlib.contextmanager
def running_sshd(root: Path) -> Iterator[Board]:
    """An sshd with keys, port and configuration of its own, called "board" by ssh."""
    for name in ("temporary", "tools", "bin"):
        (root / name).mkdir()
    for name in ("host", "user", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)]
        subprocess.run(command, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (root / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {root}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {root}/user.pub\nStrictModes no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nMaxStartups 100\n"
        f"SetEnv TMPDIR={root}/temporary PATH={root}/tools:/usr/bin:/bin\n"
    )
    host_key = (root / "host.pub").read_text().split()
    (root / "known").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
    common = f"HostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\nIdentitiesOnly yes\n"
    (root / "config").write_text(
        f"Host stranger\nIdentityFile {root}/stranger\nUserKnownHostsFile {root}/known\n{common}"
        f"Host unknown\nIdentityFile {root}/user\nUserKnownHostsFile {root}/nothing\n{common}"
        f"Host off\nHostName 127.0.0.1\nPort 1\n"
        f"Host board*\nIdentityFile {root}/user\nUserKnownHostsFile {root}/known\n{common}"
    )
    with _privilege_separation():
        log = (root / "log").open("wb")
        process = subprocess.Popen(
            [str(SSHD), "-D", "-e", "-f", str(root / "sshd_config")], stdout=log, stderr=log
        )
        try:
            _wait_for(port)
            tools = root / "tools"
            yield Board(psutil.Process(process.pid), root / "temporary", tools, root / "config")
        finally:
            process.terminate()
            process.wait()
            log.close()


@contextlib.contextmanager
def _privilege_separation() -> Iterator[None]:
    """Root's sshd insists on this folder, which the system's service makes otherwise."""
    folder = Path("/run/sshd")
    if os.getuid() or folder.exists():
        yield
        return
    folder.mkdir(mode=0o755)
    try:
        yield
    finally:
        folder.rmdir()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "sshd does not answer"
            time.sleep(0.05)
