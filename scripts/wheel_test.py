"""Install the wheel into a new environment outside the clone, and test it there.

    .venv/bin/python scripts/wheel_test.py [DIST]

DIST is a folder with one wheel (dist). Libraries come from the current environment, by a .pth file
with its packages, which leaves the editable project out. So nothing is downloaded.

Tests: the commands, the data files, a tiny checkpoint converted to a verified bundle, and that
bundle timed in a headless Chromium (EDGE_CHROMIUM: its path). Without a Chromium the last test is
skipped, which is a failure if EDGE_REQUIRE_TOOLS is set.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

CHROMIUM = Path(os.environ.get("EDGE_CHROMIUM", "/usr/bin/chromium"))
REQUIRED = "EDGE_REQUIRE_TOOLS"
_LIMIT_S = 600
_CLONE_VARIABLES = ("PYTHONPATH", "VIRTUAL_ENV")
_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz")
_CHECKPOINT = """
import json, pathlib, sys, transformers
folder, words = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
size = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=64, **size)
transformers.BertForSequenceClassification(config).save_pretrained(folder)
(folder / "vocab.txt").write_text("\\n".join(words) + "\\n")
transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
"""
_PLACES = "import benchmark, converters, distill, edge; print(*(m.__file__ for m in ({})))"


class Installed:
    """A new environment with the wheel, in a folder that is the working directory of commands."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder, environment = folder, folder / "environment"
        venv.create(environment, with_pip=False)
        self.bin = environment / "bin"
        argv = ["-m", "pip", "--python", self.bin / "python", "install", "-q", "--no-index"]
        command = [sys.executable, *argv, "--disable-pip-version-check", "--no-deps", wheel]
        # Outside the clone and without PYTHONPATH: else pip treats the clone as installed.
        inherited = {k: v for k, v in os.environ.items() if k not in _CLONE_VARIABLES}
        subprocess.run(list(map(str, command)), check=True, cwd=folder, env=inherited)
        (packages,) = environment.glob("lib/python3.*/site-packages")
        (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.env = {**inherited, "EDGE_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}

    def run(self, program: str, *arguments: object) -> str:
        """Run a program of the environment; return its output."""
        argv = [str(self.bin / program), *map(str, arguments)]
        print("wheel_test:", program, *map(str, arguments[:2]), file=sys.stderr)
        done = subprocess.run(
            argv, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=_LIMIT_S
        )
        if done.returncode:
            raise SystemExit(f"wheel_test: {argv} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout


def main() -> int:
    """Run all tests until the first fault."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "dist").resolve()
    (wheel,) = folder.glob("*.whl")
    with tempfile.TemporaryDirectory(prefix="edge-wheel-") as work:
        installed = Installed(Path(work).resolve(), wheel)
        check_commands(installed)
        bundle = convert(installed)
        if CHROMIUM.is_file():
            time_in_a_browser(installed, bundle)
        elif os.environ.get(REQUIRED):
            raise SystemExit(f"wheel_test: {CHROMIUM} does not exist, and {REQUIRED} is set")
        else:
            print(f"wheel_test: left out: {CHROMIUM} does not exist, so no browser was opened")
    print(f"wheel_test: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB, works")
    return 0


def check_commands(installed: Installed) -> None:
    """Check that packages, data files and the browser page are the wheel's."""
    names = ("benchmark", "converters", "distill", "edge")
    script = installed.folder / "places.py"
    script.write_text(_PLACES.format(", ".join(names)))
    places = installed.run("python", script).split()
    assert all(Path(place).is_relative_to(installed.folder) for place in places), places
    licenses = (Path(places[0]).parent / "page" / "licenses.txt").read_text(encoding="utf-8")
    assert all(name in licenses for name in ("onnxruntime-web", "@litertjs/core")), licenses
    assert "benchmark" in installed.run("edge", "--help")
    assert "default" in installed.run("edge", "recipes")
    doctor = json.loads(installed.run("edge", "doctor", "--json"))
    assert doctor["ok"], doctor
    devices = {tool["name"]: tool for tool in doctor["tools"] if tool["kind"] == "device"}
    assert devices["browser"]["works"], devices["browser"]


def convert(installed: Installed) -> Path:
    """Convert a tiny random checkpoint to a verified bundle."""
    checkpoint, bundle = installed.folder / "checkpoint", installed.folder / "bundle"
    script = installed.folder / "checkpoint.py"
    script.write_text(_CHECKPOINT)
    installed.run("python", script, checkpoint, json.dumps(_WORDS))
    chosen = ("--format", "onnx", "--precision", "fp32", "--seq-length", "32")
    installed.run("edge", "convert", checkpoint, "--output", bundle, *chosen)
    installed.run("edge", "verify", bundle)
    return bundle


def time_in_a_browser(installed: Installed, bundle: Path) -> None:
    """Run `edge benchmark --device browser`, and open its address in Chromium."""
    argv = [str(installed.bin / "edge"), "benchmark", str(bundle), "--device", "browser"]
    argv += ["--baseline", "none", "--timeout", "120", "--json"]
    print("wheel_test: edge benchmark --device browser", file=sys.stderr)
    with (
        (installed.folder / "rows.json").open("w+") as rows,
        subprocess.Popen(
            argv, cwd=installed.folder, env=installed.env, stdout=rows, stderr=-1, text=True
        ) as process,
    ):
        assert process.stderr is not None
        log_lines, browser = [], None
        try:
            for line in process.stderr:
                log_lines.append(line)
                address = re.search(r"open (http://\S+) in a browser", line)
                if address is not None:
                    browser = open_page(address[1], installed.folder)
            process.wait(_LIMIT_S)
        finally:
            process.kill()
            if browser is not None:
                browser.terminate()
                browser.wait()
        rows.seek(0)
        assert process.returncode == 0, "".join(log_lines)
        (row,) = json.load(rows)["rows"]
    assert row["device"]["driver"] == "browser" and row["check"]["status"] == "passed", row
    assert row["latency_ms"]["p50"] > 0, row


def open_page(address: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a headless Chromium with a page."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    argv = [CHROMIUM, *flags, f"--user-data-dir={folder / 'profile'}", address]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(argv, stdout=quiet, stderr=quiet, start_new_session=True)


if __name__ == "__main__":
    raise SystemExit(main())
