"""A mistake in a data file is told before anything heavy is loaded, by every command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_RUN = """
import json, sys
from edge.cli.main import main
codes = []
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as stop:
        codes.append(stop.code)
print(json.dumps([codes, [name for name in ("torch", "transformers") if name in sys.modules]]))
"""


def test_a_wrong_column_is_told_before_torch_is_loaded(
    bert_checkpoint: Path, tmp_path: Path
) -> None:
    data = tmp_path / "a.tsv"
    data.write_text("text\tlabel\na film\t1\n")
    source, wrong = str(bert_checkpoint), ("--label-column", "lable")
    commands = [
        ["distill", "--teacher", source, "--train", str(data), *wrong],
        ["distill", "--recipe", "finetune", "--train", str(data), *wrong],
        ["distill", "--teacher", source, "--train", str(tmp_path / "none.tsv")],
        ["convert", source, "--samples", str(data), "--text-column", "txet"],
        ["run", "default", "--teacher", source, "--train", str(data), "--eval", str(data), *wrong],
    ]
    commands = [[*command, "--output", str(tmp_path / "out")] for command in commands]
    commands.append(["exits", source, "--data", str(data), *wrong])
    found = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert json.loads(found.stdout) == [[2] * len(commands), []], found.stderr
    assert found.stderr.count("did you mean 'label'?") == 4
    assert found.stderr.count("did you mean 'text'?") == 1
    assert found.stderr.count("does not exist: check the path") == 1
