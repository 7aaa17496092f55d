"""Training samples per second beside TextBrewer's training loop, in turns, as ratios.

    .venv/bin/python scripts/throughput.py [--rounds 3] [--rows 640]

A 6-layer teacher of MiniLM's size and a student of 3 layers on sentences of SST-2, batches of 32.
`kd`: soft labels and labels. `tinybert`: attention, hidden states and embeddings, that recipe's
first stage. TextBrewer trains as in its examples, padded to 128 tokens, and the same loop padded
to the longest text of a batch; it gets an environment of its own below --work on first use.
Each turn is a process that trains one epoch on the same rows after a few warm-up steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("EDGE_SHARED", ROOT.parent / "shared"))
PEER = ("textbrewer==0.2.1.post1", "transformers==5.23.0", "torch==2.13.0")
PADDED, DYNAMIC = "textbrewer, padded to 128", "textbrewer, dynamic"
EDGE_SIDES = ("live", "cached", "live bf16", "cached bf16")
BATCH, LENGTH, LAYERS, WARM_STEPS = 32, 128, 3, 4


def main() -> int:
    """Compare all sides, or run one of them."""
    options = _options()
    if options.side is not None:
        side = textbrewer_epoch if options.side.startswith("textbrewer") else edge_epoch
        print(json.dumps(side(options)))
        return 0
    options.work.mkdir(parents=True, exist_ok=True)
    options.data = _rows(options)
    for recipe in options.recipes:
        compare(recipe, options)
    return 0


def compare(recipe: str, options: argparse.Namespace) -> None:
    """Run every side in turn, `rounds` times; print medians, and ratios to both of TextBrewer's."""
    sides = (PADDED, DYNAMIC, *EDGE_SIDES)
    costs: dict[str, list[Cost]] = {side: [] for side in sides}
    for number in range(options.rounds):
        # The order alternates, so that no side always runs on a warm machine.
        for side in sides if number % 2 == 0 else sides[::-1]:
            costs[side].append(_turn(recipe, side, options))
            print(f"{recipe}\t{side}\t{costs[side][-1]}", file=sys.stderr, flush=True)
    print(f"{recipe}\tsamples/s\tof padded\tof dynamic\tthe same of CPU time")
    for side in sides:
        speed = options.rows / statistics.median(cost.wall_s for cost in costs[side])
        columns = [f"{speed:.1f}"]
        for attribute in ("wall_s", "cpu_s"):
            for other in (PADDED, DYNAMIC):
                pairs = zip(costs[other], costs[side], strict=True)
                ratios = (getattr(a, attribute) / getattr(b, attribute) for a, b in pairs)
                columns.append(f"{statistics.median(ratios):.2f}")
        print("\t".join([side, *columns]), flush=True)


class Cost(NamedTuple):
    """Time of one epoch. CPU time sums all threads and does not depend on a busy machine."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> Cost:
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Cost) -> Cost:
        return Cost(self.wall_s - start.wall_s, self.cpu_s - start.cpu_s)


def edge_epoch(options: argparse.Namespace) -> Cost:
    """Train one epoch with `edge distill`."""
    from distill import DistillConfig, distill
    from distill.training.trainer import DistillTrainer

    costs: list[Cost] = []
    train = DistillTrainer.train

    def timed(self: DistillTrainer, *args: Any, **kwargs: Any) -> Any:
        start = Cost.now()
        result = train(self, *args, **kwargs)
        costs.append(Cost.now().since(start))
        return result

    DistillTrainer.train = timed  # type: ignore[method-assign]
    settings = {
        "teacher": str(options.teacher),
        "student": f"layers={LAYERS}",
        "train": str(options.data),
        "recipe": _first_stage(options),
        "max_length": LENGTH,
        "batch_size": BATCH,
        "threads": options.threads,
        "bf16": "bf16" in options.side,
    }
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        if "cached" in options.side:
            # The first run fills it.
            settings["teacher_cache"] = Path(folder) / "teacher"
        for name, length in (("warm", {"max_steps": WARM_STEPS}), ("timed", {"epochs": 1})):
            output = Path(folder) / name
            values = {**settings, **length, "output": output}
            distill(DistillConfig.build(values, where="scripts/throughput.py"))
    return costs[-1]


def _first_stage(options: argparse.Namespace) -> str:
    """Write a recipe with the first stage of a shipped one, on the labeled rows alone."""
    import yaml

    from distill.recipe.config import load_recipe

    recipe = load_recipe(options.recipes[0])
    stage = recipe.stages[0].model_copy(update={"augment": ()})
    values = recipe.model_copy(update={"stages": (stage,)}).model_dump(
        mode="json", exclude_unset=True
    )
    file: Path = options.work / f"{recipe.name}.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(file)


def textbrewer_epoch(options: argparse.Namespace) -> Cost:
    """Train one epoch with TextBrewer's GeneralDistiller."""
    import logging

    import torch
    import transformers
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    inside = options.recipes[0] == "tinybert"
    # Only the eager implementation returns attention probabilities.
    attention = "eager" if inside else "sdpa"
    auto, source = transformers.AutoModelForSequenceClassification, str(options.teacher)
    teacher = auto.from_pretrained(source, attn_implementation=attention, dtype=torch.float32)
    config = transformers.AutoConfig.from_pretrained(source, num_hidden_layers=LAYERS)
    student = auto.from_config(config, attn_implementation=attention, dtype=torch.float32)
    for model in (teacher.eval(), student.train()):
        model.config.output_hidden_states = model.config.output_attentions = inside

    def adaptor(batch: dict[str, Any], outputs: Any) -> dict[str, Any]:
        if not inside:
            return {"logits": outputs.logits, "losses": outputs.loss}
        mask = {"inputs_mask": batch["attention_mask"]}
        return {"attention": outputs.attentions, "hidden": outputs.hidden_states, **mask}

    matches = _textbrewer_matches(teacher.config.num_hidden_layers) if inside else []
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        folders = {"output_dir": folder, "log_dir": folder}
        distiller = GeneralDistiller(
            train_config=TrainingConfig(**folders, device="cpu", ckpt_steps=10**6),
            distill_config=DistillationConfig(
                temperature=1 if inside else 2,
                kd_loss_weight=0.5,
                hard_label_weight=0 if inside else 0.5,
                intermediate_matches=matches,
            ),
            model_T=teacher,
            model_S=student,
            adaptor_T=adaptor,
            adaptor_S=adaptor,
        )
        loader = _textbrewer_rows(options)
        costs = []
        for length in ({"num_steps": WARM_STEPS}, {"num_epochs": 1}):
            optimizer = torch.optim.AdamW(student.parameters(), lr=5e-5)
            start = Cost.now()
            with distiller:
                distiller.train(optimizer, loader, max_grad_norm=1.0, **length)
            costs.append(Cost.now().since(start))
    return costs[-1]


def _textbrewer_matches(layers: int) -> list[dict[str, Any]]:
    """Return the first stage of `tinybert` as TextBrewer's intermediate matches."""
    pairs = [(i, i * layers // LAYERS) for i in range(LAYERS + 1)]
    hidden = [
        {"layer_S": s, "layer_T": t, "feature": "hidden", "loss": "hidden_mse", "weight": 1}
        for s, t in pairs
    ]
    # Attentions are counted from 0.
    return hidden + [
        {
            "layer_S": s - 1,
            "layer_T": t - 1,
            "feature": "attention",
            "loss": "attention_mse",
            "weight": 1,
        }
        for s, t in pairs[1:]
    ]


def _textbrewer_rows(options: argparse.Namespace) -> Any:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(options.teacher)
    tokenizer.backend_tokenizer.no_padding()
    rows = [line.rsplit("\t", 1) for line in options.data.read_text().splitlines()[1:]]
    texts = [text for text, _ in rows]
    encoded = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
    labels = [int(label) for _, label in rows]

    def collate(batch: Sequence[int]) -> dict[str, Any]:
        padded = tokenizer.pad(
            {"input_ids": [encoded[i] for i in batch]},
            padding="max_length" if options.side == PADDED else "longest",
            max_length=LENGTH,
            return_tensors="pt",
        )
        return {**padded, "labels": torch.tensor([labels[i] for i in batch])}

    return torch.utils.data.DataLoader(
        range(len(rows)),  # type: ignore[arg-type]
        batch_size=BATCH,
        shuffle=True,
        collate_fn=collate,
    )


def _turn(recipe: str, side: str, options: argparse.Namespace) -> Cost:
    """Measure one side's epoch in a process of its own."""
    python = _peer_python(options.work) if side.startswith("textbrewer") else sys.executable
    named = {name: str(getattr(options, name)) for name in ("teacher", "data", "work")}
    named |= {"rows": str(options.rows), "threads": str(options.threads)}
    command = [str(python), __file__, "--side", side, "--recipes", recipe]
    command += [part for name, value in named.items() for part in (f"--{name}", value)]
    # Threads that wait by spinning make a busy machine several times slower.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=environment, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{recipe}, {side}: {done.stderr.decode()[-2000:]}")
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def _peer_python(work: Path) -> Path:
    """Return the Python of TextBrewer's environment, created on first use."""
    folder = work / "textbrewer"
    python = folder / "bin" / "python"
    if not (folder / ".installed").is_file():
        print("setting up the peer's environment ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", *PEER], check=True)
        (folder / ".installed").touch()
    return python


def _rows(options: argparse.Namespace) -> Path:
    """Write sentences evenly spread over the file, the same for all sides."""
    header, *lines = options.data.read_text(encoding="utf-8").splitlines()
    chosen = lines[:: max(len(lines) // options.rows, 1)][: options.rows]
    options.rows = len(chosen)
    file: Path = options.work / "rows.tsv"
    file.write_text("\n".join([header, *chosen]) + "\n", encoding="utf-8")
    return file


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, default=SHARED / "models" / "minilm-sst2")
    parser.add_argument("--data", type=Path, default=SHARED / "data/sst2/train_sentences.tsv")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "throughput")
    parser.add_argument("--recipes", type=lambda text: text.split(","), default=["kd", "tinybert"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.teacher.is_dir() or not options.data.is_file():
        parser.error(f"{options.teacher} or {options.data} is not there: name --teacher and --data")
    options.work = options.work.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())
