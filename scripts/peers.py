"""Compare artifacts and conversion with those of other tools, as ratios within one run.

    .venv/bin/python scripts/peers.py latency [--texts dev.tsv --tokenizer FOLDER]
    .venv/bin/python scripts/peers.py convert

latency: int8 of a DistilBERT-size checkpoint, batch 1, one thread. ONNX against `optimum-cli`'s
export and quantize --avx512_vnni; TFLite against litert-torch and ai-edge-quantizer by default
settings, padded to 128 tokens and, with --texts, at the real lengths of a data file.
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
# Programs that write the same files with other tools.
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
    """Compare latencies of int8 artifacts with the peers', interleaved."""
    work = options.work
    source = random_checkpoint(work / "distilbert", "distilbert")
    optimum = optimum_files(work, source)
    plain = work / "litert"
    if not (plain / "int8.tflite").is_file():
        _peer(Path(sys.executable), LITERT_PEER, source, plain)
    bundle = work / "ours"
    if not (bundle / "edge.json").is_file() or options.again:
        chosen = ["--format", "onnx,tflite", "--precision", "int8"]
        _edge("convert", str(source), "-o", str(bundle), *chosen)
    print("comparison\tours, ms\tpeer, ms\tours is so many times faster")
    full = _inputs([128] * 8)
    _compare(
        "ONNX int8, 128 tokens, against optimum",
        onnx(bundle / "model-int8.onnx", full),
        onnx(optimum / "model_quantized.onnx", full),
        options.rounds,
    )
    converted, peer_file = bundle / "model-int8.tflite", plain / "int8.tflite"
    _compare(
        "TFLite int8, 128 tokens, against litert-torch + ai-edge-quantizer",
        tflite(converted, full),
        tflite(peer_file, full),
        options.rounds,
    )
    if options.texts is not None:
        lengths = _lengths(options.tokenizer, options.texts)
        real = _inputs(lengths)
        _compare(
            f"TFLite int8, {len(lengths)} texts of {options.texts.name} "
            f"(median {statistics.median(lengths):.0f} tokens), against the same padded to 128",
            tflite(converted, real),
            tflite(peer_file, real),
            options.rounds,
        )
    return 0


def conversion(options: argparse.Namespace) -> int:
    """Compare wall time and peak memory of converting BERT-base with the peers'."""
    work = options.work
    source = random_checkpoint(work / "bert-base", "bert")
    python = environment(work)
    costs: dict[str, tuple[float, int]] = {}
    peer_folder = work / "peer-files"
    shutil.rmtree(peer_folder, ignore_errors=True)
    peer_folder.mkdir()
    cli = python.parent / "optimum-cli"
    task = ("--task", "text-classification")
    export = [cli, "export", "onnx", "--model", source, *task, peer_folder / "onnx"]
    costs["optimum-cli export onnx"] = _measured(export)
    quantize = [
        cli,
        "onnxruntime",
        "quantize",
        "--onnx_model",
        peer_folder / "onnx",
        "--avx512_vnni",
    ]
    costs["optimum-cli onnxruntime quantize"] = _measured(
        [*quantize, "-o", peer_folder / "onnx-int8"]
    )
    to_fp16 = [
        "-m",
        "onnxruntime.transformers.optimizer",
        "--input",
        peer_folder / "onnx" / "model.onnx",
    ]
    to_fp16 += ["--output", peer_folder / "fp16.onnx", "--model_type", "bert", "--float16"]
    costs["onnxruntime.transformers.optimizer --float16"] = _measured([python, *to_fp16])
    costs["litert-torch, ai-edge-quantizer"] = _measured(
        [sys.executable, "-c", LITERT_PEER, source, peer_folder]
    )
    costs["coremltools"] = _measured([python, "-c", COREML_PEER, source, peer_folder])
    peers_s = sum(seconds for seconds, _ in costs.values())
    edge = [sys.executable, "-m", "edge.cli.main", "convert", source, "-o", work / "ours-bert"]
    edge += ["--seq-length", "128"]
    costs["edge convert, verified"] = _measured(edge)
    print("command\twall, s\tpeak memory, GB")
    for name, (seconds, peak) in costs.items():
        print(f"{name}\t{seconds:.0f}\t{peak / 1e9:.2f}")
    seconds, _ = costs["edge convert, verified"]
    print(f"ours / sum of the peers\t{seconds / peers_s:.2f}\t")
    return 0


def environment(work: Path) -> Path:
    """Return the Python of the peers' environment, created on first use."""
    python = work / "optimum" / "bin" / "python"
    if not (work / "optimum" / ".installed").is_file():
        print("setting up the peers' environment ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", work / "optimum"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", *OPTIMUM], check=True)
        (work / "optimum" / ".installed").touch()
    return python


def optimum_files(work: Path, source: Path) -> Path:
    """Return the folder of optimum's int8 model of a checkpoint."""
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
    """Return one call per input, on one thread."""
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
    """Return one call per input at the shortest signature that fits it, on one thread."""
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
    edge_calls: Sequence[Callable[[], object]],
    peer_calls: Sequence[Callable[[], object]],
    rounds: int,
) -> None:
    """Time both sides in turns, input by input; the ratio is of the medians of whole rounds."""
    sums: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 2):
        totals = [0.0, 0.0]
        for pair in zip(edge_calls, peer_calls, strict=True):
            for side in (0, 1) if number % 2 else (1, 0):
                start = time.perf_counter()
                pair[side]()
                totals[side] += time.perf_counter() - start
        if number >= 2:
            for side in (0, 1):
                sums[side].append(1e3 * totals[side] / len(edge_calls))
    edge_ms, peer = (statistics.median(side) for side in sums)
    low, high = _interval([b / a for a, b in zip(*sums, strict=True)])
    print(
        f"{title}\t{edge_ms:.2f}\t{peer:.2f}\t{peer / edge_ms:.2f} ({low:.2f}-{high:.2f})",
        flush=True,
    )


def _interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the 95% interval of the median, by resampling rounds."""
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
    """Return token counts of evenly spread texts, at most 128, by a real tokenizer."""
    import transformers

    rows = texts.read_text(encoding="utf-8").splitlines()[1:]
    rows = [row.split("\t")[0] for row in rows[:: max(len(rows) // count, 1)]]
    token_ids = transformers.AutoTokenizer.from_pretrained(tokenizer)(rows)["input_ids"]
    return [min(128, len(ids)) for ids in token_ids]


def _measured(command: Sequence[str | Path]) -> tuple[float, int]:
    """Return wall seconds and peak resident bytes of a command and its children."""
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
    """Return resident bytes of a process and its children; shared pages count in each process."""
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
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
