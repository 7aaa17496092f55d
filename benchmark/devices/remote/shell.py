"""A shell on another machine through the user's `ssh`, and a temporary folder there.

One connection stays open. Its command creates the folder, waits for the end of its input and then
removes the folder: so no file is left there if this process or the network ends. Short commands
share that connection; a worker has its own.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from edge.console import human_bytes
from edge.errors import ConfigError, EdgeError, MeasurementError, StorageError

# Exit code of ssh itself, without a connection or if it loses it.
CONNECTION_LOST = 255
# A lost board is noticed after 15 s, before TCP does.
_OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
    *("-o", "ClearAllForwardings=yes", "-o", "ForwardAgent=no", "-T"),
)
_CONNECT_S, _COMMAND_S, _CLOSE_S = 60.0, 60.0, 10.0
_FOLDER = "@@folder "
# Disks before memory: `/tmp` is often held in memory, which a model would then have less of.
_KEEPER = (
    "trap : HUP INT PIPE TERM; "
    'for b in "${TMPDIR:-/var/tmp}" /tmp "$HOME"; do '
    'd=$(mktemp -d "$b/edge-XXXXXXXX" 2>/dev/null) && break; done; '
    f'echo "{_FOLDER}$d"; cat >/dev/null; [ -n "$d" ] || exit 1; '
    # A worker that ends at this moment may still write a file.
    'rm -rf "$d" 2>/dev/null || { sleep 1; rm -rf "$d"; }'
)
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~%:+-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
# Message of ssh -> remedy, for mistakes of the user.
_MISTAKES = (
    ("Could not resolve hostname", "no such host: check the name, or add it to ~/.ssh/config"),
    (
        "IDENTIFICATION HAS CHANGED",
        "its key is not the one known here: if the system there was installed anew, run "
        "`ssh-keygen -R HOST` and then `ssh HOST` once",
    ),
    (
        "Host key verification failed",
        "its key is not known here: run `ssh HOST` once and accept it",
    ),
    (
        "Permission denied",
        "it does not accept your key: run `ssh-copy-id HOST`, since passwords are not asked for",
    ),
    ("Bad owner or permissions", "your ssh settings may be written to by others: run `ssh HOST`"),
    ("Bad configuration option", "your ssh settings have a mistake: run `ssh HOST` to see it"),
)


def check_host(host: str | None) -> str:
    """Return a host for `ssh`; raises ConfigError for one that a shell or ssh might misread."""
    if not host:
        raise ConfigError("name a host: --device ssh:HOST, as you would call it with ssh")
    user, at, name = host.rpartition("@")
    if not _HOST.fullmatch(name) or (at and not _USER.fullmatch(user)):
        raise ConfigError(
            f"'{host}' is not a host: use [USER@]NAME of letters, digits, dots and dashes, and "
            "put anything else, such as a port, into ~/.ssh/config"
        )
    return host


class Shell:
    """A connection to a host. Close it: that also removes `folder`.

    Raises ConfigError if the host cannot be used as named, MeasurementError if it does not answer;
    each is one line.
    """

    def __init__(self, host: str | None, *, timeout_s: float) -> None:
        self.host = check_host(host)
        self._timeout_s = timeout_s
        program = shutil.which("ssh")
        if program is None:
            raise ConfigError("there is no ssh here: install it (Debian: openssh-client)")
        self._ssh = [program, *_OPTIONS]
        with contextlib.ExitStack() as stack:
            self._log: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-"))
            self._shared = f"ControlPath={sockets}/c"
            self._keeper = self._start_keeper()
            stack.callback(self._end_keeper)
            self.folder = self._read_folder()
            self._open = stack.pop_all()

    def run(self, script: str, *, timeout_s: float = _COMMAND_S) -> str:
        """Return the output of a POSIX shell script, with any exit code.

        Raises MeasurementError if the connection is lost.
        """
        return self._finish("exec sh -s", script.encode(), timeout_s).stdout.decode(
            errors="replace"
        )

    def check(self, command: Sequence[str]) -> str:
        """Run a command in `folder`, return its output; raises MeasurementError if it fails."""
        line = f"cd {shlex.quote(self.folder)} && {shlex.join(command)}"
        done = self._finish(_in_sh(line), b"", self._timeout_s)
        if done.returncode:
            raise MeasurementError(
                f"{self.host}: {command[0]} failed there: {_last_line(done.stderr)}"
            )
        return done.stdout.decode(errors="replace")

    def put(self, source: bytes | Path, name: str) -> str:
        """Write a file below `folder`, return its path; raises StorageError if the disk is full."""
        path = f"{self.folder}/{name}"
        part, whole = shlex.quote(f"{path}.part"), shlex.quote(path)
        command = _in_sh(
            f"mkdir -p {shlex.quote(path.rpartition('/')[0])} && cat >{part} && mv {part} {whole}"
        )
        with contextlib.ExitStack() as stack:
            data = source if isinstance(source, bytes) else stack.enter_context(source.open("rb"))
            done = self._finish(command, data, self._timeout_s)
        if done.returncode:
            raise StorageError(
                f"{self.host}: {name} cannot be written to {self.folder}: {_last_line(done.stderr)}"
            )
        return path

    def require_space(self, needed_bytes: int) -> None:
        """Raise StorageError if the disk of `folder` has less free space."""
        lines = self.run(f"export LC_ALL=C; df -Pk {shlex.quote(self.folder)}").splitlines()
        columns = lines[-1].split() if lines else []
        if len(columns) < 4 or not columns[3].isdigit():
            return
        free = int(columns[3]) * 1024
        if free < needed_bytes:
            raise StorageError(
                f"{self.host}: {human_bytes(needed_bytes)} are needed in {self.folder} and "
                f"{human_bytes(free)} are free: free some space there, or set TMPDIR for that "
                "account to a folder on another disk"
            )

    def command(self, line: str) -> list[str]:
        """Return the command that runs a shell line in `folder`, over a connection of its own."""
        # Not through the shared connection: servers allow ten sessions in one.
        inside = f"cd {shlex.quote(self.folder)} && {line}"
        return [*self._ssh, "-o", "ControlPath=none", "--", self.host, _in_sh(inside)]

    def close(self) -> None:
        """Remove `folder` and end the connection; safe to call twice."""
        self._open.close()

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *self._ssh,
                *("-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-o", self._shared),
                *("--", self.host, _in_sh(_KEEPER)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Ctrl-C reaches this process only, which then ends the connection in order.
            start_new_session=True,
        )

    def _end_keeper(self) -> None:
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        try:
            with contextlib.suppress(OSError):
                self._keeper.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._keeper.wait(_CLOSE_S)
        finally:
            self._keeper.kill()
            self._keeper.wait()
            self._keeper.stdout.close()

    def _read_folder(self) -> str:
        """Return the folder that the keeper created."""
        line = self._first_line()
        if line.startswith(_FOLDER):
            folder = line[len(_FOLDER) :]
            if not folder:
                raise StorageError(
                    f"{self.host}: no folder can be made in TMPDIR, /var/tmp, /tmp or HOME there: "
                    "free some space, or set TMPDIR for that account"
                )
            return folder
        if line:
            raise ConfigError(
                f"{self.host} prints '{line[:60]}' before any command: keep its shell's start-up "
                "files silent for commands"
            )
        self._end_keeper()
        self._log.seek(0)
        raise self._refusal(self._log.read().decode(errors="replace"))

    def _first_line(self) -> str:
        """Return the keeper's first line of output; "" if it ends, or takes too long."""
        assert self._keeper.stdout is not None
        deadline, received = time.monotonic() + min(_CONNECT_S, self._timeout_s), b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._keeper.stdout, selectors.EVENT_READ)
            while b"\n" not in received and selector.select(max(0.0, deadline - time.monotonic())):
                part = self._keeper.stdout.read1(4096)  # type: ignore[attr-defined]
                if not part:
                    break
                received += part
        return received.partition(b"\n")[0].decode(errors="replace").strip()

    def _refusal(self, output: str) -> EdgeError:
        for sign, advice in _MISTAKES:
            if sign in output:
                return ConfigError(f"{self.host}: {advice.replace('HOST', self.host)}")
        reason = _last_line(output.encode()) or "no answer"
        return MeasurementError(
            f"{self.host} cannot be reached ({reason}): is it switched on, and does "
            f"`ssh {self.host}` work?"
        )

    def _finish(
        self, command: str, data: bytes | IO[bytes], timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command with its input through the shared connection, until it ends."""
        argv = [*self._ssh, "-o", "ControlMaster=no", "-o", self._shared, "--", self.host, command]
        source: dict[str, Any] = {"input": data} if isinstance(data, bytes) else {"stdin": data}
        try:
            done = subprocess.run(
                argv,
                **source,
                capture_output=True,
                timeout=timeout_s,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                f"{self.host} did not answer within {timeout_s:g} s: {RETRY_ADVICE}"
            ) from None
        if done.returncode == CONNECTION_LOST:
            raise MeasurementError(f"{connection_lost(self.host)} ({_last_line(done.stderr)})")
        return done


RETRY_ADVICE = "check its power and its network, and run the same command again"


def connection_lost(host: str) -> str:
    """Return the message for a lost connection."""
    return f"the connection to {host} was lost: {RETRY_ADVICE}"


def _in_sh(line: str) -> str:
    """Quote a line for the account's login shell, which runs it in `sh`."""
    return f"sh -c {shlex.quote(line)}"


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
