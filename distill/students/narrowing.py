"""Narrower students made of their teacher: fewer hidden units, heads, neurons, embedding units.

The hidden states run through all layers, so one matrix P takes them to the student's width
everywhere: what writes them is multiplied by P, what reads them by the best way back,

    x = mean + R (P x - P mean),  R = C P' (P C P')^-1,

with the mean and covariance C of what that module reads of real texts. P chooses units (`slice`) or
takes principal components (`svd`). A LayerNorm gets the weights and biases that come nearest.
Source of carrying a projection of the residual stream into the weights: Ashkboos et al. 2024,
"SliceGPT", 3; the fit to data is this project's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.students.calibration import Line, Moments, Watcher, watch
from distill.students.projection import (
    TINY,
    Heads,
    chosen_units,
    fewer_heads,
    joined_heads,
    padded_heads,
    principal,
    selection,
    smaller_heads,
    strongest,
    way_back,
)
from edge.errors import ConfigError, UserError

Method = Literal["slice", "svd"]
Batches = Sequence[Mapping[str, Tensor]]

# What an axis of a weight counts: hidden units, units of the embeddings' own width, those of
# heads, feed-forward neurons, units between the two layers of a head.
STREAM, EMBEDDING, HEADS, NEURONS, POOLED = "stream", "embedding", "heads", "neurons", "pooled"
# Embeddings are hidden units, unless something widens them.
_TABLE = "table"
_WIDENS = re.compile(r"(embeddings_project|embedding_hidden_mapping_in)$")


@dataclass(frozen=True)
class _Rule:
    """Which axes the modules have whose names match: a Linear's, an Embedding's, a norm's."""

    pattern: str
    out: str | None = None
    read: str | None = None


_RULES = (
    _Rule(r"(word|position|token_type)_embeddings", out=_TABLE),
    _Rule(r"embeddings\.LayerNorm", out=_TABLE),
    _Rule(r"(embeddings_project|embedding_hidden_mapping_in)", out=STREAM, read=EMBEDDING),
    _Rule(r"attention(\.self)?\.(query|key|value|[qkv]_lin)", out=HEADS, read=STREAM),
    _Rule(r"attention\.(output\.dense|out_lin)", out=STREAM, read=HEADS),
    _Rule(r"(intermediate\.dense|ffn\.lin1)", out=NEURONS, read=STREAM),
    _Rule(r"(layer\.\d+\.output\.dense|ffn\.lin2)", out=STREAM, read=NEURONS),
    _Rule(r"(layer\.\d+(\.attention)?\.output\.LayerNorm)", out=STREAM),
    _Rule(r"(sa_layer_norm|output_layer_norm)", out=STREAM),
    _Rule(r"(pooler\.dense|pre_classifier|classifier\.dense)", out=POOLED, read=STREAM),
    _Rule(r"(transform\.dense|vocab_transform|lm_head\.dense|predictions\.dense)", _TABLE, STREAM),
    _Rule(r"(predictions\.LayerNorm|vocab_layer_norm|lm_head\.layer_norm)", out=_TABLE),
    _Rule(r"(transform\.LayerNorm)", out=_TABLE),
    _Rule(r"(decoder|vocab_projector|generator_lm_head)", read=_TABLE),
    _Rule(r"(classifier|classifier\.out_proj)", read=POOLED),
    _Rule(r"qa_outputs", read=STREAM),
)


def narrow(
    teacher: Any,
    student: Any,
    modules: Mapping[str, str],
    batches: Batches,
    method: Method,
) -> None:
    """Give a student the weights of its teacher, made to fit.

    modules: the teacher's module that each of the student's comes from, by name. batches: texts to
    fit on. Raises UserError for an architecture whose axes are not known, ConfigError for a student
    that is wider than its teacher.
    """
    pairs = [_pair(teacher, student, *names) for names in modules.items()]
    _check_sizes(teacher.config, student.config)
    with torch.no_grad():
        fit = _Fit(teacher, student, [pair for pair in pairs if pair.rule], method)
        fit.measure(batches)
        for pair in pairs:
            fit.write(pair)


@dataclass(frozen=True)
class _Pair:
    """A module of the student and the teacher's it comes from."""

    name: str
    source: str
    ours: Any
    theirs: Any
    rule: _Rule | None

    @property
    def layer(self) -> str:
        """The student's layer it belongs to."""
        found = re.search(r"\.(\d+)\.", self.name)
        return found[1] if found else ""

    @property
    def letter(self) -> str:
        """q, k or v."""
        return self.name.rpartition(".")[2][0]

    @property
    def measured(self) -> str:
        """The teacher's module that reads the same; keys and values read what queries do."""
        found = re.sub(r"\.(key|value)$", ".query", self.source)
        return re.sub(r"\.[kv]_lin$", ".q_lin", found)


def _pair(teacher: Any, student: Any, name: str, source: str) -> _Pair:
    ours, theirs = student.get_submodule(name), teacher.get_submodule(source)
    found = (rule for rule in _RULES if re.search(rf"(^|\.)({rule.pattern})$", source))
    rule = next(found, None)
    shapes = [[p.shape for p in module.parameters(recurse=False)] for module in (ours, theirs)]
    if rule is None and shapes[0] != shapes[1]:
        raise UserError(
            f"{teacher.config.model_type} cannot be made narrower, nothing is known of its "
            f"'{source}': keep its width, or add init=random"
        )
    return _Pair(name, source, ours, theirs, rule)


def _check_sizes(teacher: Any, student: Any) -> None:
    for name in ("hidden_size", "intermediate_size", "hidden_dim", "embedding_size"):
        ours, theirs = getattr(student, name, 0), getattr(teacher, name, 0)
        if ours > theirs:
            raise ConfigError(
                f"{name} {ours} is more than the teacher's {theirs}, which has nothing to fill it "
                "with: ask for less, or add init=random"
            )


class _Fit:
    """What is measured of the teacher, and the student's weights that follow from it."""

    def __init__(self, teacher: Any, student: Any, pairs: Sequence[_Pair], method: Method) -> None:
        self._teacher, self._pairs, self._method = teacher, pairs, method
        self._heads = teacher.config.num_attention_heads, student.config.num_attention_heads
        widened = any(_WIDENS.search(pair.source) for pair in pairs)
        pooled = any(pair.rule is not None and pair.rule.out == POOLED for pair in pairs)
        self._called = {
            _TABLE: EMBEDDING if widened else STREAM,
            POOLED: POOLED if pooled else STREAM,
        }
        self._words = teacher.get_input_embeddings().weight
        self._moments: dict[str, Moments] = {}
        self._projections: dict[str, Tensor] = {}
        self._lines: dict[str, Line] = {}
        # By space and layer, for those whose units are chosen.
        self._kept: dict[tuple[str, str], Tensor] = {}

    def measure(self, batches: Batches) -> None:
        """Read the texts twice: for moments, then for norms, which need the projections."""
        watchers: dict[str, Watcher] = {}
        readers: dict[str, list[str]] = {STREAM: [], EMBEDDING: []}
        for pair in self._pairs:
            if not self._is_reader(pair) or pair.measured in watchers:
                continue
            space = self._read(pair)
            moments = self._moments[pair.measured] = Moments(full=space in readers)
            watchers[pair.measured] = _adds(moments)
            if space in readers:
                readers[space].append(pair.measured)
        watch(self._teacher, batches, watchers)
        for space, names in readers.items():
            self._project(space, names)
        for pair in self._pairs:
            if self._read(pair) in (NEURONS, POOLED):
                self._choose(pair)
        lines: dict[str, Watcher] = {}
        for pair in self._pairs:
            matrix = self._projections.get(self._out(pair))
            if isinstance(pair.theirs, nn.LayerNorm) and matrix is not None:
                line = self._lines[pair.source] = Line()
                lines[pair.source] = _compares(line, matrix)
        if lines:
            watch(self._teacher, batches, lines)

    def write(self, pair: _Pair) -> None:
        """Set the weights of one of the student's modules."""
        ours, theirs = pair.ours, pair.theirs
        if pair.rule is None:
            for mine, value in zip(ours.parameters(False), theirs.parameters(False), strict=True):
                mine.copy_(value)
        elif isinstance(ours, nn.Embedding):
            ours.weight.copy_(self._encode(pair, theirs.weight.double().T).T)
        elif isinstance(ours, nn.LayerNorm):
            line = self._lines.get(pair.source)
            fitted = (theirs.weight, theirs.bias) if line is None else line.fit()
            ours.weight.copy_(fitted[0])
            ours.bias.copy_(fitted[1])
        elif self._read(pair) == HEADS:
            self._write_attention(pair)
        elif self._out(pair) != HEADS:
            self._write_linear(pair)

    def _write_linear(self, pair: _Pair) -> None:
        weight, bias = _double(pair.theirs)
        if self._is_tied(pair):
            pair.ours.bias.copy_(bias)
            return
        back, constant = self._way(pair)
        pair.ours.weight.copy_(self._encode(pair, weight @ back))
        if pair.ours.bias is not None:
            pair.ours.bias.copy_(self._encode(pair, bias + weight @ constant))

    def _write_attention(self, output: _Pair) -> None:
        """All four linear layers of an attention, of which this is the last."""
        parts = {
            pair.letter: pair
            for pair in self._pairs
            if self._out(pair) == HEADS and pair.layer == output.layer
        }
        heads = self._narrow_heads([parts[letter] for letter in "qkv"], output)
        for letter, rows in zip("qkv", (heads.query, heads.key, heads.value), strict=True):
            flat = rows.flatten(0, 1)
            parts[letter].ours.weight.copy_(flat[:, :-1])
            parts[letter].ours.bias.copy_(flat[:, -1])
        output.ours.weight.copy_(heads.output.flatten(0, 1).T)
        output.ours.bias.copy_(heads.bias)

    def _narrow_heads(self, parts: Sequence[_Pair], output: _Pair) -> Heads:
        theirs, ours = self._heads
        query, key, value = (self._read_rows(pair) for pair in parts)
        weight, bias = (self._encode(output, part) for part in _double(output.theirs))
        heads = Heads(query, key, value, weight.T.unflatten(0, (theirs, -1)), bias)
        before, after = heads.query.shape[1], output.ours.in_features // ours
        if before * theirs == after * ours:
            # As wide as before: the same units, counted as other heads.
            query, key, value, weight = (part.reshape(ours, after, -1) for part in heads.parts)
            return Heads(query, key, value, weight, bias)
        if ours > theirs:
            raise ConfigError(
                f"heads={ours} is more than the teacher's {theirs}, which has nothing to fill them "
                "with: ask for less, or add init=random"
            )
        several = max(1, min(after // before, theirs // ours))
        moments = self._moments[output.measured]
        mean, spread = (part.unflatten(0, (theirs, -1)) for part in (moments.mean, moments.spread))
        heads = fewer_heads(heads, mean, spread, ours * several)
        if after < before:
            return smaller_heads(heads, after)
        new = [_rows(parts[i].ours, ours)[:, several * before :] for i in (0, 2)]
        return padded_heads(joined_heads(heads, several), query=new[0], value=new[1])

    def _read_rows(self, pair: _Pair) -> Tensor:
        """Queries, keys or values of all heads, as they read the student's states."""
        back, constant = self._way(pair)
        weight, bias = _double(pair.theirs)
        rows = torch.cat([weight @ back, (bias + weight @ constant)[:, None]], -1)
        return rows.unflatten(0, (self._heads[0], -1))

    def _project(self, space: str, readers: Sequence[str]) -> None:
        """Decide what a space keeps, from all that is read of it."""
        if not readers:
            return
        spreads = [self._moments[name].spread for name in readers]
        # Later layers' states are larger; each counts alike, and one that never varies not at all.
        total = torch.stack([s / s.trace().clamp(min=TINY) for s in spreads]).sum(0)
        sizes = [p.ours.in_features for p in self._pairs if p.rule and self._read(p) == space]
        if self._method == "slice":
            self._projections[space] = selection(chosen_units(total, sizes[0]), len(total))
        else:
            self._projections[space] = principal(total, sizes[0])

    def _choose(self, pair: _Pair) -> None:
        """Keep the units that move what reads them most."""
        count = pair.ours.in_features
        if count < pair.theirs.in_features:
            scores = self._moments[pair.measured].spread * pair.theirs.weight.double().square().sum(
                0
            )
            self._kept[self._read(pair), pair.layer] = strongest(scores, count)

    def _encode(self, pair: _Pair, values: Tensor) -> Tensor:
        """What a module writes, (N, ...), in the student's width."""
        space = self._out(pair)
        if space in self._projections:
            return self._projections[space] @ values
        kept = self._kept.get((space, pair.layer))
        if kept is None and space == POOLED:
            # Nothing reads the pooler of a bare encoder: any of its units will do.
            return values[: pair.ours.out_features]
        return values if kept is None else values[kept]

    def _way(self, pair: _Pair) -> tuple[Tensor, Tensor]:
        """What takes the student's activations back to what a module of the teacher reads."""
        space, width = self._read(pair), pair.theirs.in_features
        if space in self._projections:
            moments = self._moments[pair.measured]
            return way_back(self._projections[space], moments.mean, moments.spread)
        back = torch.eye(width, dtype=torch.float64)
        kept = self._kept.get((space, pair.layer))
        if kept is None:
            return back, back.new_zeros(width)
        # Units that are gone leave their mean.
        return back[:, kept], self._moments[pair.measured].mean.index_fill(0, kept, 0.0)

    def _is_reader(self, pair: _Pair) -> bool:
        """Whether a module's input has to be measured."""
        if not isinstance(pair.theirs, nn.Linear) or pair.rule is None or self._is_tied(pair):
            return False
        narrower: bool = pair.ours.in_features < pair.theirs.in_features
        return narrower and pair.rule.read is not None

    def _is_tied(self, pair: _Pair) -> bool:
        return getattr(pair.theirs, "weight", None) is self._words

    def _out(self, pair: _Pair) -> str:
        return self._space(pair.rule.out if pair.rule else None)

    def _read(self, pair: _Pair) -> str:
        return self._space(pair.rule.read if pair.rule else None)

    def _space(self, name: str | None) -> str:
        return self._called.get(name or "", name or "")


def _double(linear: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias; a bias that is not there is 0."""
    weight = linear.weight.double()
    return weight, weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.double()


def _rows(linear: Any, heads: int) -> Tensor:
    """What a linear layer reads by, head by head, its bias last."""
    weight, bias = _double(linear)
    return torch.cat([weight, bias[:, None]], -1).unflatten(0, (heads, -1))


def _adds(moments: Moments) -> Watcher:
    return lambda given, _: moments.add(given)


def _compares(line: Line, matrix: Tensor) -> Watcher:
    """Tells a line what a norm would read in the student's width, and what it should give."""

    def tell(given: Tensor, output: Tensor) -> None:
        x, y = given.double() @ matrix.T, output.double() @ matrix.T
        line.add(nn.functional.layer_norm(x, x.shape[-1:]), y)

    return tell
