"""Ours beside what people glue together today, in one run, as ratios.

    .venv/bin/python scripts/peers.py latency [--texts dev.tsv --tokenizer FOLDER]
    .venv/bin/python scripts/peers.py convert

latency: int8 of a DistilBERT-size checkpoint, batch 1, one thread. ONNX against `optimum-cli`'s
export and quantize --avx512_vnni; TFLite against litert-torch and ai-edge-quantizer as they come,
padded to 128 tokens and, with --texts, at the real lengths of a data file.
convert: BERT-base to ONNX, TFLite and Core ML in fp32, fp16 and int8, verification included;
wall time and peak memory against the peers' own commands for the same files.

The peers that need an older Transformers get an environment of their own below --work, on first
use. Weights are random: right for latency, size and memory. Expect half an hour for everything.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from edge.pipeline.baseline import random_checkpoint

ROOT = Path(__file__).resolve().parent.parent
LENGTHS = (32, 64, 128)
OPTIMUM = (
    "optimum-onnx[onnxruntime]",
    "transformers<4.58",
    "torch==2.13.0",
    "coremltools==9.0",
    "numpy<2.3",
)
# What the peers' own tools need to write the same files, one program each.
LITERT_PEER = """
import sys, torch, transformers, litert_torch
from ai_edge_quantizer import quantizer, recipe
source, target = sys.argv[1:3]
model = transformers.AutoModelForSequenceClassification.from_pretrained(source).eval()
class View(torch.nn.Module):
    def forward(self, input_ids, attention_mask):
        return model(input_ids=input_ids, attention_mask=attention_mask).logits
ones = torch.ones(1, 128, dtype=torch.int32)
sample = {"input_ids": ones, "attention_mask": ones}
litert_torch.convert(View().eval(), sample_kwargs=sample).export(f"{target}/fp32.tflite")
half = {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"}
fp16 = [{"regex": ".*", "operation": "*", "algorithm_key": "float_casting", "op_config": {
    "weight_tensor_config": half, "compute_precision": "FLOAT", "explicit_dequantize": True}}]
for name, rules in (("int8", recipe.dynamic_wi8_afp32()), ("fp16", fp16)):
    work = quantizer.Quantizer(f"{target}/fp32.tflite")
    work.load_quantization_recipe(rules)
    work.quantize().export_model(f"{target}/{name}.tflite")
"""
COREML_PEER = """
import sys, numpy as np, torch, transformers, coremltools as ct
from coremltools.optimize import coreml as opt
source, target = sys.argv[1:3]
model = transformers.AutoModelForSequenceClassification.from_pretrained(
    source, attn_implementation="eager", torchscript=True).eval()
ones = torch.ones(1, 128, dtype=torch.int32)
traced = torch.jit.trace(model, (ones, ones))
names = ("input_ids", "attention_mask")
inputs = [ct.TensorType(name=name, shape=(1, 128), dtype=np.int32) for name in names]
for name, width in (("fp32", ct.precision.FLOAT32), ("fp16", ct.precision.FLOAT16)):
    made = ct.convert(traced, inputs=inputs, compute_precision=width, skip_model_load=True,
                      minimum_deployment_target=ct.target.iOS17)
    made.save(f"{target}/{name}.mlpackage")
config = opt.OptimizationConfig(opt.OpLinearQuantizerConfig(mode="linear_symmetric"))
opt.linear_quantize_weights(made, config).save(f"{target}/int8.mlpackage")
"""


def main() -> int:
    """Run one comparison and print its table."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    return int({"latency": latency, "convert": conversion}[options.what](options))


def latency(options: argparse.Namespace) -> int:
    """Interleaved latencies of int8 artifacts, ours and the peers'."""
    work = options.work
    source = random_checkpoint(work / "distilbert", "distilbert")
    optimum = optimum_files(work, source)
    plain = work / "litert"
    if not (plain / "int8.tflite").is_file():
        _peer(Path(sys.executable), LITERT_PEER, source, plain)
    ours = work / "ours"
    if not (ours / "edge.json").is_file() or options.again:
        wanted = ["--format", "onnx,tflite", "--precision", "int8"]
        _edge("convert", str(source), "-o", str(ours), *wanted)
    print("comparison\tours, ms\tpeer, ms\tours is so many times faster")
    full = _inputs([128] * 8)
    _compare(
        "ONNX int8, 128 tokens, against optimum",
        onnx(ours / "model-int8.onnx", full),
        onnx(optimum / "model_quantized.onnx", full),
        options.rounds,
    )
    mine, theirs = ours / "model-int8.tflite", plain / "int8.tflite"
    _compare(
        "TFLite int8, 128 tokens, against litert-torch + ai-edge-quantizer",
        tflite(mine, full),
        tflite(theirs, full),
        options.rounds,
    )
    if options.texts is not None:
        lengths = _lengths(options.tokenizer, options.texts)
        real = _inputs(lengths)
        _compare(
            f"TFLite int8, {len(lengths)} texts of {options.texts.name} "
            f"(median {statistics.median(lengths):.0f} tokens), against the same padded to 128",
            tflite(mine, real),
            tflite(theirs, real),
            options.rounds,
        )
    return 0


def conversion(options: argparse.Namespace) -> int:
    """Wall time and peak memory of converting BERT-base, ours and the peers'."""
    work = options.work
    source = random_checkpoint(work / "bert-base", "bert")
    python = environment(work)
    found: dict[str, tuple[float, int]] = {}
    out = work / "peer-files"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    cli = python.parent / "optimum-cli"
    task = ("--task", "text-classification")
    export = [cli, "export", "onnx", "--model", source, *task, out / "onnx"]
    found["optimum-cli export onnx"] = _measured(export)
    quantize = [cli, "onnxruntime", "quantize", "--onnx_model", out / "onnx", "--avx512_vnni"]
    found["optimum-cli onnxruntime quantize"] = _measured([*quantize, "-o", out / "onnx-int8"])
    halve = ["-m", "onnxruntime.transformers.optimizer", "--input", out / "onnx" / "model.onnx"]
    halve += ["--output", out / "fp16.onnx", "--model_type", "bert", "--float16"]
    found["onnxruntime.transformers.optimizer --float16"] = _measured([python, *halve])
    found["litert-torch, ai-edge-quantizer"] = _measured(
        [sys.executable, "-c", LITERT_PEER, source, out]
    )
    found["coremltools"] = _measured([python, "-c", COREML_PEER, source, out])
    peers_s = sum(seconds for seconds, _ in found.values())
    edge = [sys.executable, "-m", "edge.cli.main", "convert", source, "-o", work / "ours-bert"]
    edge += ["--seq-length", "128"]
    found["edge convert, verified"] = _measured(edge)
    print("command\twall, s\tpeak memory, GB")
    for name, (seconds, peak) in found.items():
        print(f"{name}\t{seconds:.0f}\t{peak / 1e9:.2f}")
    seconds, _ = found["edge convert, verified"]
    print(f"ours / sum of the peers\t{seconds / peers_s:.2f}\t")
    return 0


def environment(work: Path) -> Path:
    """The Python of the peers' environment."""
    python = work / "optimum" / "bin" / "python"
    if not (work / "optimum" / ".installed").is_file():
        print("setting up the peers' environment ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", work / "optimum"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", *OPTIMUM], check=True)
        (work / "optimum" / ".installed").touch()
    return python


def optimum_files(work: Path, source: Path) -> Path:
    """optimum's int8 of a checkpoint."""
    target = work / "optimum-int8"
    if not (target / "model_quantized.onnx").is_file():
        cli = environment(work).parent / "optimum-cli"
        task = ("--task", "text-classification")
        full = work / "optimum-fp32"
        subprocess.run([cli, "export", "onnx", "--model", source, *task, full], check=True)
        quantize = ("onnxruntime", "quantize", "--onnx_model", full, "--avx512_vnni")
        subprocess.run([cli, *quantize, "-o", target], check=True)
    return target


def onnx(path: Path, inputs: Sequence[dict[str, Any]]) -> list[Callable[[], object]]:
    """One call an input, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    wide = {spec.name: "int64" in spec.type for spec in session.get_inputs()}
    calls = []
    for values in inputs:
        feed = {n: values[n].astype(np.int64 if w else np.int32) for n, w in wide.items()}
        calls.append(lambda feed=feed: session.run(None, feed))
    return calls


def tflite(path: Path, inputs: Sequence[dict[str, Any]]) -> list[Callable[[], object]]:
    """One call an input at the shortest signature that holds it, one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
    runners = {}
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        runners[int(runner.get_input_details()["input_ids"]["shape"][1])] = runner
    calls = []
    for values in inputs:
        tokens = values["input_ids"].shape[1]
        length = min(size for size in runners if size >= tokens)
        padded = {n: np.pad(v, ((0, 0), (0, length - tokens))) for n, v in values.items()}
        names = runners[length].get_input_details()
        feed = {name: padded[name] for name in names}
        calls.append(lambda runner=runners[length], feed=feed: runner(**feed))
    return calls


def _compare(
    title: str,
    ours: Sequence[Callable[[], object]],
    theirs: Sequence[Callable[[], object]],
    rounds: int,
) -> None:
    """Both sides take turns, input by input; the ratio is that of the medians of whole rounds."""
    sums: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 2):
        totals = [0.0, 0.0]
        for pair in zip(ours, theirs, strict=True):
            for side in (0, 1) if number % 2 else (1, 0):
                start = time.perf_counter()
                pair[side]()
                totals[side] += time.perf_counter() - start
        if number >= 2:
            for side in (0, 1):
                sums[side].append(1e3 * totals[side] / len(ours))
    mine, peer = (statistics.median(side) for side in sums)
    low, high = _interval([b / a for a, b in zip(*sums, strict=True)])
    print(f"{title}\t{mine:.2f}\t{peer:.2f}\t{peer / mine:.2f} ({low:.2f}-{high:.2f})", flush=True)


def _interval(ratios: Sequence[float]) -> tuple[float, float]:
    """95% of medians of resampled rounds."""
    generator = np.random.default_rng(0)
    draws = generator.choice(np.asarray(ratios), (2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


def _inputs(lengths: Sequence[int]) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        {
            "input_ids": generator.integers(5, 30522, (1, n), dtype=np.int32),
            "attention_mask": np.ones((1, n), np.int32),
        }
        for n in lengths
    ]


def _lengths(tokenizer: Path, texts: Path, count: int = 96) -> list[int]:
    """Tokens of evenly spread texts, cut to 128; the random checkpoint has no words of its own."""
    import transformers

    rows = texts.read_text(encoding="utf-8").splitlines()[1:]
    rows = [row.split("\t")[0] for row in rows[:: max(len(rows) // count, 1)]]
    found = transformers.AutoTokenizer.from_pretrained(tokenizer)(rows)["input_ids"]
    return [min(128, len(ids)) for ids in found]


def _measured(command: Sequence[str | Path]) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of a command and its children."""
    start = time.perf_counter()
    process = psutil.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    peak = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], _resident(process))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    status = process.wait()
    done.set()
    watcher.join()
    if status:
        raise SystemExit(f"failed with {status}: {' '.join(map(str, command))[:200]}")
    return time.perf_counter() - start, peak[0]


def _resident(process: psutil.Popen) -> int:
    """Bytes of a process and all below it; shared pages count once a process, as `top` has it."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.Error:
        pass
    return total


def _peer(python: Path, program: str, source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    subprocess.run([python, "-c", program, source, target], check=True)


def _edge(*arguments: str) -> None:
    paths = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "edge.cli.main", *arguments]
    subprocess.run(command, env=paths, stdout=subprocess.DEVNULL, check=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["latency", "convert"])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--texts", type=Path, help="TSV whose first column is a text")
    parser.add_argument("--tokenizer", type=Path, help="folder with the vocabulary for --texts")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--again", action="store_true", help="convert ours anew")
    options = parser.parse_args()
    if options.texts is not None and options.tokenizer is None:
        parser.error("--texts needs --tokenizer, a folder with a real vocabulary")
    return options


if __name__ == "__main__":
    sys.exit(main())
