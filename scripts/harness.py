"""Validate the benchmark: compare its figures with other harnesses, and with itself.

    .venv/bin/python scripts/harness.py CHECK [BUNDLE] [--rounds 9] [--work build/harness]

loadgen     p50 and p90 beside MLPerf's loadgen (SingleStream) with the same engine
tools       p50 beside ONNX Runtime's bert_perf_test and LiteRT's benchmark_litert_model
overhead    time that the harness adds to an inference, in microseconds
repeats     the same artifact against itself, on a busy machine: coverage of 1 by the interval of
            the ratio
difference  two models of 20 and 21 equal layers: how often the interval shows the difference

Both sides take turns in one run, each in a process of its own; the output is the median of the
ratios of the rounds. BUNDLE holds fp32 ONNX and TFLite artifacts. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LOADGEN = "mlcommons-loadgen==6.0.17"
LENGTH, TURN_S = 64, 4.0
PERCENTILES = (50, 90)
# LiteRT's tool with other inputs: its own ids are outside of any vocabulary.
_LITERT_MODEL = """
import numpy as np
from ai_edge_litert.tools import benchmark_litert_model as tool
tool.fill_random_input = lambda buffer, d: buffer.write(np.ones(d["shape"], np.int32))
tool.main()
"""
# Percentile -> milliseconds.
Figures = dict[int, float]
Side = Callable[[], Figures]


def main() -> int:
    """Run one check, or loadgen's process of it."""
    options = _options()
    checks: Mapping[str, Callable[[argparse.Namespace], None]] = {
        "loadgen": loadgen,
        "tools": tools,
        "overhead": overhead,
        "repeats": repeats,
        "difference": difference,
    }
    if options.check == "loadgen-side":
        print(json.dumps(_drive(options.bundle)))
        return 0
    options.work.mkdir(parents=True, exist_ok=True)
    checks[options.check](options)
    return 0


def loadgen(options: argparse.Namespace) -> None:
    """Compare with MLPerf's loadgen in a process of its own."""
    target = options.work / "loadgen"
    if not target.is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(target)]
        subprocess.run([*command, "--no-deps", LOADGEN], check=True)

    def loadgen_turn() -> Figures:
        command = [sys.executable, str(Path(__file__)), "loadgen-side", str(options.bundle)]
        path = os.pathsep.join([str(ROOT), str(target)])
        output = _output(command, {"PYTHONPATH": path, **_one_thread()})
        return {int(name): value for name, value in json.loads(output.splitlines()[-1]).items()}

    with _edge_side(options.bundle, "onnx") as edge_side:
        _compare("loadgen, ONNX Runtime", edge_side, loadgen_turn, options.rounds)


def tools(options: argparse.Namespace) -> None:
    """Compare with the engines' own tools, which generate their inputs."""
    with _edge_side(options.bundle, "onnx") as edge_side:
        path = _artifact(options.bundle, "onnx")
        side = _perf_test(path, options.work)
        _compare("bert_perf_test, ONNX Runtime", edge_side, side, options.rounds)
    with _edge_side(options.bundle, "tflite") as edge_side:
        path = _artifact(options.bundle, "tflite")
        _compare(
            "benchmark_litert_model", edge_side, _litert_model(path, options.work), options.rounds
        )


def overhead(options: argparse.Namespace) -> None:
    """Time a model that does nothing, which leaves the harness alone."""
    from benchmark.worker.worker import Worker

    worker = Worker()
    worker._feeds = [{"input_ids": np.ones((1, LENGTH), np.int32)}] * 16
    worker._run = lambda feed: None
    runs = 200_000
    recorded, whole = [], []
    for _ in range(options.rounds):
        reply, _ = worker.answer({"do": "turn", "runs": runs, "min_s": 0, "max_s": 60}, {})
        recorded.append(statistics.median(reply["raw_ns"]) / 1e3)
        whole.append(reply["duration_s"] / runs * 1e6)
    print(f"in what is recorded\t{statistics.median(recorded):.2f} us")
    print(f"between two inferences\t{statistics.median(whole):.2f} us")


def repeats(options: argparse.Namespace) -> None:
    """Measure the coverage of a ratio whose true value is 1, under a varying load."""
    copy = options.work / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(options.bundle, copy)
    covered = 0
    with _busy_machine():
        for number in range(options.repeats):
            ratio = _ratio(options.bundle, copy, options, seed=number)
            low, high = ratio.ci95
            covered += low <= 1 <= high
            print(f"{number + 1}\t{ratio.value:.4f}\t{low:.4f}-{high:.4f}", flush=True)
    print(f"covers 1\t{covered} of {options.repeats}")


def difference(options: argparse.Namespace) -> None:
    """Compare a model of 20 layers with one of 21, whose true ratio is close to 1.05."""
    short, long = (_layers(options.work, count) for count in (20, 21))
    distinguished = 0
    for number in range(options.repeats):
        ratio = _ratio(short, long, options, seed=number)
        low, high = ratio.ci95
        distinguished += low > 1
        print(f"{number + 1}\t{ratio.value:.4f}\t{low:.4f}-{high:.4f}", flush=True)
    print(f"found\t{distinguished} of {options.repeats}")


def _ratio(bundle: Path, baseline: Path, options: argparse.Namespace, *, seed: int) -> Any:
    from benchmark import Baseline, BenchmarkConfig, benchmark

    config = BenchmarkConfig(
        bundles=(bundle,),
        baseline=Baseline(name="baseline", bundle=baseline),
        format=("onnx",),
        precision=("fp32",),
        seq_length=LENGTH,
        preset=options.preset,
        seed=seed,
    )
    return benchmark(config).rows[0].ratio_same_engine


@contextlib.contextmanager
def _edge_side(bundle: Path, form: str) -> Iterator[Side]:
    """Yield a function that runs a turn of `edge benchmark`'s worker, loaded and warm."""
    from benchmark import BenchmarkConfig
    from benchmark.config import PRESETS, Block
    from benchmark.devices import get_device
    from benchmark.measure.plan import Planner

    device = get_device("local")
    values = {"format": (form,), "precision": ("fp32",), "seq_length": LENGTH}
    planner = Planner(BenchmarkConfig(bundles=(bundle,), **values), device)
    (cell,) = planner.plan(planner.settings[0], None).timed
    with device.open(cell.job(1)) as timer:
        timer.load()
        timer.warm(PRESETS["quick"])

        def turn() -> Figures:
            recorded = timer.turn(Block(runs=1, min_s=TURN_S, max_s=2 * TURN_S))
            return _figures(np.asarray(recorded.raw_ns) / 1e6)

        yield turn


def _drive(bundle: Path) -> Figures:
    """Run this process as loadgen's system under test."""
    import mlperf_loadgen

    from benchmark.measure.inputs import make_inputs, read_texts
    from edge.bundle import Bundle
    from edge.data import Columns
    from edge.engines import get_engine

    opened = Bundle.open(bundle)
    (artifact,) = opened.select(("onnx",), ("fp32",))
    texts = read_texts(opened, LENGTH, data=None, columns=Columns(), seed=0)
    feeds = make_inputs(texts, [spec.name for spec in artifact.inputs], length=LENGTH).feeds
    session = get_engine("onnxruntime").open(opened.artifact_path(artifact), threads=1)

    def issue(samples: list[Any]) -> None:
        for sample in samples:
            session.run(feeds[sample.index])
            done = mlperf_loadgen.QuerySampleResponse(sample.id, 0, 0)
            mlperf_loadgen.QuerySamplesComplete([done])

    settings = mlperf_loadgen.TestSettings()
    settings.scenario = mlperf_loadgen.TestScenario.SingleStream
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms, settings.min_query_count = int(1000 * TURN_S), 64
    for _ in range(20):
        session.run(feeds[0])
    with tempfile.TemporaryDirectory() as folder:
        log = mlperf_loadgen.LogSettings()
        log.log_output.outdir, log.log_output.copy_summary_to_stdout = folder, False
        system = mlperf_loadgen.ConstructSUT(issue, lambda: None)
        library = mlperf_loadgen.ConstructQSL(
            len(feeds), len(feeds), _ignore_samples, _ignore_samples
        )
        mlperf_loadgen.StartTestWithLogSettings(system, library, settings, log, "")
        lines = (Path(folder) / "mlperf_log_summary.txt").read_text().splitlines()
    named = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {name.strip(): value.strip() for name, value in named.items()}
    return {p: int(values[f"{p}.00 percentile latency (ns)"]) / 1e6 for p in PERCENTILES}


def _ignore_samples(samples: object) -> None:
    """Do nothing: all samples are in memory."""


def _perf_test(model: Path, work: Path) -> Side:
    folder = work / "perf_test"

    def run() -> Figures:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(model, folder / "model.onnx")
        command = [sys.executable, "-m", "onnxruntime.transformers.bert_perf_test"]
        command += ["--model", str(folder / "model.onnx"), "-b", "1", "-s", str(LENGTH)]
        command += ["--samples", "16", "-t", "20", "-n", "1", "--mask_type", "2"]
        _output(command, _one_thread())
        (results,) = folder.glob("*.txt")
        with results.open(encoding="utf-8") as file:
            (row,) = csv.DictReader(file, delimiter="\t")
        return {p: float(row[f"Latency_P{p}"]) for p in PERCENTILES}

    return run


def _litert_model(model: Path, work: Path) -> Side:
    from ai_edge_litert.interpreter import Interpreter

    runners = Interpreter(str(model)).get_signature_list()
    (signature,) = [name for name in runners if name.endswith(str(LENGTH))] or list(runners)[:1]

    def run() -> Figures:
        result = work / "litert.json"
        command = [sys.executable, "-c", _LITERT_MODEL]
        command += [f"--model={model}", f"--signature={signature}", "--num_threads=1"]
        command += ["--num_runs=400", "--warmup_runs=20", f"--result_json={result}"]
        text = _output(command, _one_thread())
        line = next(line for line in text.splitlines() if line.startswith("Inference (median)"))
        return {50: float(line.split()[2])}

    return run


def _compare(title: str, edge_side: Side, peer_side: Side, rounds: int) -> None:
    pairs: list[tuple[Figures, Figures]] = []
    for number in range(rounds):
        # The order alternates, so that neither always runs on a warm machine.
        if number % 2:
            peer_figures, edge_figures = peer_side(), edge_side()
        else:
            edge_figures, peer_figures = edge_side(), peer_side()
        pairs.append((edge_figures, peer_figures))
        print(f"{title}\t{edge_figures}\t{peer_figures}", file=sys.stderr, flush=True)
    for percentile in pairs[0][1]:
        ratios = [
            edge_figures[percentile] / peer_figures[percentile]
            for edge_figures, peer_figures in pairs
        ]
        edge_ms = statistics.median(edge_figures[percentile] for edge_figures, _ in pairs)
        peer_ms = statistics.median(peer_figures[percentile] for _, peer_figures in pairs)
        print(
            f"{title}\tp{percentile}\tours {edge_ms:.3f} ms\ttheirs {peer_ms:.3f} ms\t"
            f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        )


def _figures(values_ms: Any) -> Figures:
    return {p: float(np.percentile(values_ms, p)) for p in PERCENTILES}


def _artifact(bundle: Path, form: str) -> Path:
    from edge.bundle import Bundle

    opened = Bundle.open(bundle)
    (artifact,) = opened.select((form,), ("fp32",))
    return opened.artifact_path(artifact).resolve()


def _layers(work: Path, count: int) -> Path:
    """Return a bundle of a small encoder with so many layers and random weights."""
    from converters import ConvertConfig, convert
    from edge.bundle import is_bundle
    from edge.pipeline.baseline import BERT_TOKENS
    from edge.precision import Precision

    bundle, folder = work / f"layers-{count}", work / f"checkpoint-{count}"
    if is_bundle(bundle):
        return bundle
    import torch
    import transformers

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(33, 127)]
    words = [*BERT_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=128,
        num_hidden_layers=count,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=LENGTH,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    convert(
        ConvertConfig(
            source=str(folder),
            output=bundle,
            format=("onnx",),
            precision=(Precision.FP32,),
            seq_length=(LENGTH,),
        )
    )
    return bundle


@contextlib.contextmanager
def _busy_machine() -> Iterator[None]:
    """Keep all cores but one busy with programs that compute and pause at random."""
    stop = threading.Event()
    count = max(1, (os.cpu_count() or 2) - 1)

    def disturb(seed: int) -> None:
        draw = random.Random(seed)
        script = "import time; t = time.time() + {:.2f}\nwhile time.time() < t: sum(range(9999))"
        while not stop.is_set():
            command = [sys.executable, "-c", script.format(draw.uniform(0.2, 3))]
            subprocess.run(command, check=False)
            time.sleep(draw.uniform(0.1, 2))

    threads = [threading.Thread(target=disturb, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _one_thread() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def _output(command: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    checks = ("loadgen", "tools", "overhead", "repeats", "difference", "loadgen-side")
    parser.add_argument("check", choices=checks)
    demo = ROOT / "build" / "demo" / "bundle"
    parser.add_argument("bundle", type=Path, nargs="?", default=demo)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "harness")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--preset", default="standard")
    options = parser.parse_intermixed_args()
    options.work = options.work.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())
