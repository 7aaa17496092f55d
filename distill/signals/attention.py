"""Recording what attention computes inside, layer by layer, in any supported architecture.

Most architectures of Transformers call a function of its AttentionInterface; a recorder registered
there sees queries, keys and values on their way to SDPA. The others get forward hooks. Scores are
made again of queries and keys: probabilities that a model returns have been through dropout.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

from torch import Tensor

_IMPLEMENTATION = "sdpa_recorded"


class Attention(NamedTuple):
    """One layer's attention before its softmax: query @ key^T * scale + bias.

    query, key, value: (B, heads, L, d), after rotary positions where there are any. bias: what
    relative positions add, broadcast to (B, heads, L, L). attended: (B, 1, L, L), true where a
    layer that sees a part of the text looks; None where it sees all of it.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    bias: Tensor | None = None
    attended: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        """(B, heads, L, L), finite everywhere; padding is not masked."""
        scores = self.query @ self.key.transpose(-1, -2) * self.scale
        return scores if self.bias is None else scores + self.bias


@dataclass
class Recorder:
    """Keeps the attentions of some layers, counted from 1 in the order in which they run."""

    layers: frozenset[int]
    found: dict[int, Attention] = field(default_factory=dict)
    count: int = 0

    def add(self, attention: Attention) -> None:
        self.count += 1
        if self.count in self.layers:
            self.found[self.count] = attention


@dataclass(frozen=True)
class _Names:
    """Where an architecture that calls no attention function keeps its three projections."""

    query: str
    key: str
    value: str
    # A Conv1d's output is (B, width, L).
    channels_first: bool = False


_HOOKED = {
    "convbert": _Names("query", "key", "value"),
    "deberta-v2": _Names("query_proj", "key_proj", "value_proj"),
    "mpnet": _Names("q", "k", "v"),
    "squeezebert": _Names("query", "key", "value", channels_first=True),
}
_RECORDER: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def attention_shape(config: Any) -> tuple[int, int] | None:
    """Heads and their common width; None for an architecture whose attention is not recorded."""
    if config.model_type not in _HOOKED and not _calls_interface(config):
        return None
    heads = config.num_attention_heads
    width = getattr(config, "true_hidden_size", config.hidden_size)
    if config.model_type == "convbert":
        # Half of each head is a convolution.
        heads = max(1, heads // config.head_ratio)
        width = width // heads // 2 * heads
    elif config.model_type == "deberta-v2":
        width = heads * getattr(config, "attention_head_size", width // heads)
    return heads, width


def _calls_interface(config: Any) -> bool:
    from transformers import MODEL_MAPPING

    try:
        return bool(MODEL_MAPPING[type(config)]._supports_attention_backend)
    except KeyError:
        return False


@contextmanager
def recording(model: Any, layers: frozenset[int]) -> Iterator[Recorder]:
    """Record the attention of `layers` (from 1) in what `model` runs inside the block."""
    recorder = Recorder(layers)
    names = _HOOKED.get(model.config.model_type)
    record = _by_function(model, recorder) if names is None else _by_hooks(model, names, recorder)
    with record:
        yield recorder


@contextmanager
def _by_function(model: Any, recorder: Recorder) -> Iterator[None]:
    _register()
    parts = (part for part in model.modules() if hasattr(part, "config"))
    configs = list({id(part.config): part.config for part in parts}.values())
    before = [config._attn_implementation for config in configs]
    token = _RECORDER.set(recorder)
    try:
        for config in configs:
            config._attn_implementation = _IMPLEMENTATION
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation
        _RECORDER.reset(token)


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_IMPLEMENTATION, _recorded_sdpa)
    # Without a mask of the same name, Transformers passes no mask at all.
    AttentionMaskInterface.register(_IMPLEMENTATION, sdpa_mask)


def _recorded_sdpa(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    recorder = _RECORDER.get()
    if recorder is not None:
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        window = options.get("sliding_window") is not None
        bias = options.get("position_bias")
        attended = attention_mask if window else None
        recorder.add(Attention(query, key, value, scale, bias, attended))
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return output, None


@contextmanager
def _by_hooks(model: Any, names: _Names, recorder: Recorder) -> Iterator[None]:
    parts = (names.query, names.key, names.value)
    with ExitStack() as stack:
        for module in model.modules():
            if all(hasattr(module, part) for part in parts):
                stack.enter_context(_hooked(module, parts, names, recorder))
        yield


@contextmanager
def _hooked(module: Any, parts: Sequence[str], names: _Names, recorder: Recorder) -> Iterator[None]:
    seen: dict[str, Tensor] = {}
    signature = inspect.signature(module.forward)

    def keep(part: str, _: Any, inputs: Any, output: Tensor) -> None:
        # DeBERTa sends its relative positions through the same projections, afterwards.
        seen.setdefault(part, output)

    def start(_: Any, args: Any, options: dict[str, Any]) -> None:
        seen.clear()
        given = signature.bind_partial(*args, **options).arguments
        if given.get("position_bias") is not None:
            seen["bias"] = given["position_bias"]

    def finish(*_: Any) -> None:
        recorder.add(_attention(module, parts, names, seen))
        seen.clear()

    handles = [getattr(module, part).register_forward_hook(partial(keep, part)) for part in parts]
    handles.append(module.register_forward_pre_hook(start, with_kwargs=True))
    handles.append(module.register_forward_hook(finish))
    make_bias = getattr(module, "disentangled_attention_bias", None)
    if make_bias is not None:

        def kept_bias(*args: Any) -> Tensor:
            seen["bias"] = make_bias(*args)
            return seen["bias"]

        module.disentangled_attention_bias = kept_bias
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if make_bias is not None:
            del module.disentangled_attention_bias


def _attention(
    module: Any, parts: Sequence[str], names: _Names, seen: dict[str, Tensor]
) -> Attention:
    heads = module.num_attention_heads

    def split(projected: Tensor) -> Tensor:
        if names.channels_first:
            projected = projected.transpose(1, 2)
        # (B, L, heads * d) to (B, heads, L, d)
        return projected.unflatten(-1, (heads, -1)).transpose(1, 2)

    query, key, value = (split(seen[part]) for part in parts)
    # DeBERTa sums up to three scores and divides by the square root of their number as well.
    kinds = 1 + sum(kind in getattr(module, "pos_att_type", ()) for kind in ("c2p", "p2c"))
    bias = seen.get("bias")
    if bias is not None and bias.ndim == 3:
        bias = bias.unflatten(0, (-1, heads))
    return Attention(query, key, value, 1 / math.sqrt(query.shape[-1] * kinds), bias)
