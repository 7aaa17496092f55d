"""Error of int8 sentence embeddings by kind of activation, and the effect of padding.

    .venv/bin/python scripts/activations.py CHECKPOINT TEXTS [--count 100]

CHECKPOINT is a BERT-like sentence-embedding model; TEXTS has one text per line. First ONNX and
TFLite run each text alone and padded to the longest; three mean cosines are printed: alone and
padded with the checkpoint's outputs, and with each other. Time is the lower quartile of processor
time for a text of full length, the artifacts in turn. Then, in PyTorch, weights are quantized to
int8, and one kind of linear layer at a time gets 8-bit activations, per tensor or per token.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from converters import ConvertConfig, convert  # noqa: E402
from edge.bundle import Bundle  # noqa: E402
from edge.checkpoint import load_model, open_checkpoint  # noqa: E402
from edge.engines import runtime_engine  # noqa: E402
from edge.engines.runner import Runner, bundle_tokenizer  # noqa: E402
from edge.precision import SMALL_ELEMENTS  # noqa: E402
from edge.quantization import fake_quantize_activations, quantize  # noqa: E402
from edge.reference import Reference  # noqa: E402
from edge.tokenization import Encoding  # noqa: E402

LENGTH = 128
ROUNDS = 25


def main() -> None:
    """Convert, then print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--count", type=int, default=100)
    args = parser.parse_args()
    texts = args.texts.read_text(encoding="utf-8").splitlines()[: args.count]
    with tempfile.TemporaryDirectory() as folder:
        values = {"source": args.checkpoint, "output": Path(folder) / "bundle"}
        values |= {"format": ["onnx", "tflite"], "precision": ["fp32", "int8"]}
        convert(ConvertConfig.build({**values, "seq_length": [LENGTH]}))
        bundle = Bundle.open(Path(folder) / "bundle")
        encodings = bundle_tokenizer(bundle).encode(texts, max_length=LENGTH)
        measure(args.checkpoint, bundle, encodings)
    ablate(args.checkpoint, encodings)


def of_tensor(x: torch.Tensor) -> torch.Tensor:
    """Round to 8 bits between the smallest and the largest value of all tokens."""
    return fake_quantize_activations(x)


def of_token(x: torch.Tensor) -> torch.Tensor:
    """Round to 8 bits between the smallest and the largest value of each token."""
    return fake_quantize_activations(x, (-1,))


def kind(name: str) -> str:
    """Return the kind of a linear layer: one of four, by the names of BERT's modules."""
    if any(word in name for word in ("query", "key", "value")):
        return "query, key, value"
    if "attention" in name:
        return "attention output"
    return "intermediate" if "intermediate" in name else "output"


def ablate(source: str, encodings: list[Encoding]) -> None:
    """Print a row for each kind of linear layer."""
    checkpoint = open_checkpoint(source)
    model = load_model(checkpoint)
    reference = list(Reference(checkpoint, model).infer(encodings))
    for parameter in model.parameters():
        if parameter.dim() == 2 and parameter.numel() >= SMALL_ELEMENTS:
            values, scales = quantize(parameter.detach().numpy(), 8)
            parameter.data = torch.from_numpy(values * scales)
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    kinds = list(dict.fromkeys(kind(name) for name, _ in layers if "layer" in name))
    for chosen in ([], *([each] for each in kinds), kinds):
        for rounding in (of_tensor, of_token) if chosen else (of_tensor,):
            handles = [
                layer.register_forward_pre_hook(_hook(rounding))
                for name, layer in layers
                if "layer" in name and kind(name) in chosen
            ]
            outputs = list(Reference(checkpoint, model).infer(encodings))
            for handle in handles:
                handle.remove()
            label = " + ".join(chosen) or "weights only"
            print(f"{label:70s} {rounding.__name__:10s} {_cosine(outputs, reference):.5f}")


def _hook(rounding: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    return lambda module, inputs: (rounding(inputs[0]),)


def measure(source: str, bundle: Bundle, encodings: list[Encoding]) -> None:
    """Print a row for each artifact."""
    checkpoint = open_checkpoint(source)
    reference = list(Reference(checkpoint, load_model(checkpoint)).infer(encodings))
    runners = {a.name: _open(bundle, a) for a in bundle.manifest.artifacts}
    for name, runner in runners.items():
        alone = [next(runner.infer([each])) for each in encodings]
        padded = [next(runner.infer([each], length=LENGTH)) for each in encodings]
        figures = (_cosine(alone, reference), _cosine(padded, reference), _cosine(alone, padded))
        print(name, *(f"{figure:.5f}" for figure in figures))
    longest = Encoding((encodings[0].input_ids * LENGTH)[:LENGTH], None)
    durations_s: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, runner in runners.items():
            start = time.process_time()
            next(runner.infer([longest], length=LENGTH))
            durations_s[name].append(time.process_time() - start)
    for name, seconds in durations_s.items():
        print(f"{name}: {1e3 * float(np.quantile(seconds, 0.25)):.2f} ms")


def _open(bundle: Bundle, artifact: Any) -> Runner:
    return Runner(bundle, artifact, runtime_engine(artifact.target_runtimes[0]), threads=1)


def _cosine(outputs: list[Any], reference: list[Any]) -> float:
    """Return the mean cosine over texts."""
    pairs = [[o["sentence_embedding"].astype(float) for o in each] for each in (outputs, reference)]
    return float(np.mean([a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(*pairs, strict=True)]))


if __name__ == "__main__":
    main()
