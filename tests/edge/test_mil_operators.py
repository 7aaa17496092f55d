"""MIL operators in numpy, against coremltools' own constant folding and against PyTorch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edge.console import hush
from edge.engines.mil.elementwise import erf
from edge.engines.mil.operators import MOVES, OPERATORS
from edge.engines.mil.steps import round_to_fp16

RANDOM = np.random.default_rng(7)


def _floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def _ints(*values: int) -> Any:
    return np.array(values, np.int32)


def _int(value: int) -> Any:
    return np.int32(value)


def _bools(*values: bool) -> Any:
    return np.array(values, np.bool_)


# A cube, a positive one and one of small numbers with ties.
X = _floats(2, 3, 4)
POSITIVE = np.abs(X) + np.float32(0.1)
WHOLE = RANDOM.integers(-3, 9, (2, 3, 4)).astype(np.int32)
NAMED = [
    *("abs", "ceil", "cos", "erf", "exp", "exp2", "floor", "relu", "relu6", "round", "sigmoid"),
    *("sign", "sin", "softplus", "softsign", "square", "tanh"),
]
PAIRED = [
    *("add", "equal", "floor_div", "greater", "greater_equal", "less", "less_equal", "maximum"),
    *("minimum", "mod", "mul", "not_equal", "real_div", "sub"),
]
REDUCED = ["l1_norm", "l2_norm", "log_sum_exp", "max", "mean", "min", "prod", "sum", "sum_square"]

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {"x": X}) for name in NAMED),
    *((name, {"x": X, "y": _floats(3, 1)}) for name in PAIRED),
    *((name, {"x": WHOLE, "y": _ints(2)}) for name in ("add", "floor_div", "mod", "less")),
    *(("reduce_" + name, {"x": X, "axes": _ints(0, -1)}) for name in REDUCED),
    ("argsort", {"x": X, "axis": _int(1)}),
    ("argsort", {"x": X, "ascending": np.bool_(True)}),
    ("band_part", {"x": X, "lower": _int(1), "upper": _int(0)}),
    ("band_part", {"x": X, "lower": _int(-1), "upper": _int(1)}),
    ("clip", {"x": X, "alpha": np.float32(-0.5), "beta": np.float32(0.7)}),
    ("concat", {"values": (X, _floats(2, 5, 4)), "axis": _int(-2)}),
    ("cumsum", {"x": X, "axis": _int(1)}),
    ("cumsum", {"x": X, "axis": _int(2), "reverse": np.bool_(True)}),
    ("elu", {"x": X, "alpha": np.float32(0.3)}),
    ("expand_dims", {"x": X, "axes": _ints(0, -1)}),
    ("fill", {"shape": _ints(2, 3), "value": np.float32(1.5)}),
    ("fill_like", {"ref_tensor": X, "value": np.float32(2.5)}),
    ("gather", {"x": X, "indices": _ints(2, 0, 1), "axis": _int(1)}),
    ("gather", {"x": X, "indices": _int(1), "axis": _int(-1)}),
    ("gather", {"x": X, "indices": np.array([[0, 2], [1, 1]], np.int32), "axis": _int(1),
                "batch_dims": _int(1)}),
    ("gather", {"x": X, "indices": np.array([[0, 3], [1, 2]], np.int32), "axis": _int(2),
                "batch_dims": _int(1)}),
    ("gather_along_axis", {"x": X, "indices": np.abs(WHOLE) % 3, "axis": _int(1)}),
    ("gelu", {"x": X}),
    ("gelu", {"x": X, "mode": "TANH_APPROXIMATION"}),
    ("gelu", {"x": X, "mode": "SIGMOID_APPROXIMATION"}),
    ("identity", {"x": X}),
    ("inverse", {"x": X}),
    ("layer_norm", {"x": X, "axes": _ints(-1), "gamma": _floats(4), "beta": _floats(4)}),
    ("layer_norm", {"x": X, "axes": _ints(1, 2), "epsilon": np.float32(1e-3)}),
    ("leaky_relu", {"x": X, "alpha": np.float32(0.2)}),
    ("linear", {"x": X, "weight": _floats(5, 4), "bias": _floats(5)}),
    ("linear_activation", {"x": X, "alpha": np.float32(2), "beta": np.float32(1)}),
    ("log", {"x": POSITIVE}),
    ("logical_and", {"x": X > 0, "y": _bools(True, False, True, True)}),
    ("logical_not", {"x": X > 0}),
    ("logical_or", {"x": X > 0, "y": _bools(True, False, True, True)}),
    ("logical_xor", {"x": X > 0, "y": _bools(True, False, True, True)}),
    ("l2_norm", {"x": _floats(2, 3, 4, 5)}),
    ("matmul", {"x": X, "y": _floats(4, 5)}),
    ("matmul", {"x": X, "y": _floats(2, 5, 3), "transpose_x": True, "transpose_y": True}),
    ("non_zero", {"x": WHOLE}),
    ("pad", {"x": X, "pad": _ints(1, 2, 0, 3), "constant_val": np.float32(9)}),
    ("pad", {"x": X, "pad": _ints(1, 2), "mode": "reflect"}),
    ("pad", {"x": X, "pad": _ints(1, 2), "mode": "replicate"}),
    ("pow", {"x": POSITIVE, "y": np.float32(1.5)}),
    ("prelu", {"x": _floats(2, 3, 4, 5), "alpha": _floats(3)}),
    ("range_1d", {"start": _int(2), "end": _int(11), "step": _int(3)}),
    ("range_1d", {"start": np.float32(0), "end": np.float32(1), "step": np.float32(0.25)}),
    ("reduce_argmax", {"x": X, "axis": _int(1), "keep_dims": True}),
    ("reduce_argmin", {"x": X}),
    ("reduce_log_sum", {"x": POSITIVE, "axes": _ints(1)}),
    ("reduce_sum", {"x": X}),
    ("reduce_mean", {"x": X, "axes": _ints(-1), "keep_dims": True}),
    ("reshape", {"x": X, "shape": _ints(0, -1, 2)}),
    ("reshape", {"x": X, "shape": _ints(6, 4)}),
    ("reverse", {"x": X, "axes": _ints(0, 2)}),
    ("rsqrt", {"x": POSITIVE}),
    ("scaled_tanh", {"x": X, "alpha": np.float32(2), "beta": np.float32(0.5)}),
    ("select", {"cond": X > 0, "a": X, "b": _floats(2, 3, 4)}),
    ("shape", {"x": X}),
    ("sigmoid_hard", {"x": X, "alpha": np.float32(0.2), "beta": np.float32(0.5)}),
    ("slice_by_index", {"x": X, "begin": _ints(0, 1, -3), "end": _ints(2, 3, -1)}),
    ("slice_by_index", {"x": X, "begin": _ints(0, 2, 3), "end": _ints(2, 0, 0),
                        "stride": _ints(1, -1, -2), "end_mask": _bools(True, False, True)}),
    ("slice_by_index", {"x": X, "begin": _ints(1, -1, 0), "end": _ints(0, 0, 3),
                        "begin_mask": _bools(False, False, True),
                        "squeeze_mask": _bools(True, True, False)}),
    ("slice_by_size", {"x": X, "begin": _ints(0, -2, 1), "size": _ints(1, 2, -1)}),
    ("slice_update", {"x": X, "update": _floats(2, 1, 2), "begin": _ints(0, 1, 1),
                      "end": _ints(2, 2, 3)}),
    ("softmax", {"x": X * 50, "axis": _int(1)}),
    ("split", {"x": X, "axis": _int(2), "num_splits": _int(2)}),
    ("split", {"x": X, "axis": _int(1), "split_sizes": _ints(1, 2)}),
    ("sqrt", {"x": POSITIVE}),
    ("squeeze", {"x": _floats(1, 3, 1, 2), "axes": _ints(0)}),
    ("squeeze", {"x": _floats(1, 3, 1, 2)}),
    ("stack", {"values": (X, _floats(2, 3, 4)), "axis": _int(1)}),
    ("threshold", {"x": X, "alpha": np.float32(0.1)}),
    ("tile", {"x": X, "reps": _ints(1, 2, 3)}),
    ("topk", {"x": X, "k": _int(2), "axis": _int(1)}),
    ("topk", {"x": X, "k": _int(3), "ascending": np.bool_(True)}),
    ("transpose", {"x": X, "perm": _ints(2, 0, -2)}),
    ("quantize", {"input": X, "scale": np.float32(0.01), "zero_point": np.int8(3),
                  "output_dtype": "int8"}),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _quiet_numpy() -> Iterator[None]:
    """As when a program runs: overflow and division by zero are results, not warnings."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture(scope="session")
def ct() -> Any:
    with hush():
        return pytest.importorskip("coremltools", reason="coremltools has no wheel here")


def _folded(ct: Any, name: str, inputs: dict[str, Any]) -> tuple[Any, ...]:
    """What coremltools computes itself when every input is a constant."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil import Function

    with hush(), Function({}, opset_version=ct.target.iOS18):
        results = getattr(mb, name)(**inputs)
    several = results if isinstance(results, (tuple, list)) else (results,)
    return tuple(result.val for result in several)


@pytest.mark.parametrize(("name", "inputs"), CASES, ids=lambda value: str(value)[:30])
def test_operator_agrees_with_coremltools(ct: Any, name: str, inputs: dict[str, Any]) -> None:
    expected = _folded(ct, name, inputs)
    assert all(value is not None for value in expected), "coremltools does not fold this operator"
    given = {k: v if isinstance(v, (str, tuple)) else np.asarray(v) for k, v in inputs.items()}
    actual = OPERATORS[name](**given)
    tensors = actual if isinstance(actual, tuple) else (actual,)
    for value, wanted in zip(tensors, expected, strict=True):
        assert np.shape(value) == np.shape(wanted)
        np.testing.assert_allclose(
            np.asarray(value, np.float64), np.asarray(wanted, np.float64), rtol=2e-6, atol=2e-6
        )


def test_parameters_are_those_of_every_version_of_coremltools(ct: Any) -> None:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    refused = {"lstm": {"peephole", "peephole_back"}}
    for name, function in OPERATORS.items():
        known = set(inspect.signature(function).parameters)
        for target in (ct.target.iOS15, ct.target.iOS16, ct.target.iOS17, ct.target.iOS18):
            definition = SSAOpRegistry.core_ops[name].get(target)
            if definition is not None:
                wanted = set(definition.input_spec.input_types) - refused.get(name, set())
                assert wanted <= known, f"{name} of {target.name}"


def test_operators_that_skip_rounding_exist() -> None:
    assert set(OPERATORS) >= MOVES
    assert not MOVES & {"add", "cast", "mul", "linear", "matmul", "softmax", "cumsum"}


def test_fp16_rounding_is_that_of_numpy() -> None:
    every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].astype(np.float32)
    spacing = np.spacing(np.abs(finite).astype(np.float16)).astype(np.float32)
    halfway = finite + np.sign(finite) * spacing / 2
    beside = [np.nextafter(halfway, np.float32(limit)) for limit in (-np.inf, np.inf)]
    random = RANDOM.integers(0, 1 << 32, 400_000, np.uint32).view(np.float32)
    for values in (finite, halfway, *beside, random):
        within = values[np.abs(values) < 65520.0]
        assert within.size > 50_000
        for given in (values, within, within[::2], within[:100]):
            expected = given.astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(round_to_fp16(given), expected)


def test_erf_is_accurate() -> None:
    x = np.concatenate([np.linspace(-6, 6, 20001), np.geomspace(1e-30, 1, 99)]).astype(np.float32)
    exact = np.array([math.erf(value) for value in x])
    np.testing.assert_allclose(erf(x), exact, rtol=5e-7, atol=0)
    ends = np.array([-np.inf, np.inf, np.nan, 0.0], np.float32)
    np.testing.assert_allclose(erf(ends), [-1, 1, np.nan, 0], rtol=5e-7)


def _agrees(actual: Any, expected: Any) -> None:
    assert actual.shape == tuple(expected.shape)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "groups"),
    [
        ((9,), (3,), 1, 1, 1),
        ((9,), (4,), 2, 2, 3),
        ((9,), (1,), 1, 1, 6),
        ((7, 8), (3, 2), 2, 1, 2),
    ],
)
def test_convolution_agrees_with_torch(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: int, dilation: int, groups: int
) -> None:
    import torch

    x, weight, bias = _floats(2, 6, *size), _floats(12, 6 // groups, *kernel), _floats(12)
    options = {"stride": stride, "padding": 2, "dilation": dilation, "groups": groups}
    function = getattr(torch.nn.functional, f"conv{len(size)}d")
    expected = function(*(torch.from_numpy(value) for value in (x, weight, bias)), **options)
    actual = OPERATORS["conv"](
        x,
        weight,
        bias,
        strides=_ints(*[stride] * len(size)),
        pad_type="custom",
        pad=_ints(*[2, 2] * len(size)),
        dilations=_ints(*[dilation] * len(size)),
        groups=_int(groups),
    )
    _agrees(actual, expected)


@pytest.mark.parametrize(("pad_type", "before", "after"), [("same", 1, 2), ("same_lower", 2, 1)])
def test_convolution_pads_the_longer_side(pad_type: str, before: int, after: int) -> None:
    import torch

    x, weight = _floats(1, 2, 8), _floats(3, 2, 4)
    padded = torch.nn.functional.pad(torch.from_numpy(x), (before, after))
    expected = torch.nn.functional.conv1d(padded, torch.from_numpy(weight))
    _agrees(OPERATORS["conv"](x, weight, pad_type=pad_type), expected)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("whole", [True, False])
def test_lstm_agrees_with_torch(direction: str, whole: bool) -> None:
    import torch

    both = direction == "bidirectional"
    torch.manual_seed(3)
    layer = torch.nn.LSTM(5, 4, bidirectional=both)
    # torch's gates are input, forget, cell, output; MIL's input, forget, output, cell.
    order = np.concatenate([np.arange(8), np.arange(12, 16), np.arange(8, 12)])
    weights = {name: value.detach().numpy()[order] for name, value in layer.named_parameters()}
    named = {}
    for suffix, mine in (("", ""), ("_reverse", "_back"))[: 2 if both else 1]:
        named[f"weight_ih{mine}"] = weights[f"weight_ih_l0{suffix}"]
        named[f"weight_hh{mine}"] = weights[f"weight_hh_l0{suffix}"]
        named[f"bias{mine}"] = weights[f"bias_ih_l0{suffix}"] + weights[f"bias_hh_l0{suffix}"]
    x, width = _floats(6, 2, 5), 2 if both else 1
    h, c = _floats(2, 4 * width), _floats(2, 4 * width)
    starts = tuple(torch.from_numpy(np.stack(np.split(value, width, -1))) for value in (h, c))
    given = np.flip(x, 0).copy() if direction == "reverse" else x
    with torch.no_grad():
        states, (last_h, last_c) = layer(torch.from_numpy(given), starts)
    last = torch.cat(list(last_h), -1)
    if direction == "reverse":
        states = states.flip(0)
    actual = OPERATORS["lstm"](
        x, h, c, **named, direction=direction, output_sequence=np.bool_(whole)
    )
    _agrees(actual[0], states if whole else last[None])
    _agrees(actual[1], last)
    _agrees(actual[2], torch.cat(list(last_c), -1))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "groups", "padding", "extra"),
    [
        ((5,), (3,), 1, 1, 1, 0, 0),
        ((5,), (4,), 3, 2, 2, 2, 1),
        ((4, 5), (3, 2), 2, 1, 3, 1, 1),
    ],
)
def test_transposed_convolution_agrees_with_torch(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: int,
    dilation: int,
    groups: int,
    padding: int,
    extra: int,
) -> None:
    import torch

    x, weight, bias = _floats(2, 6, *size), _floats(6, 4, *kernel), _floats(4 * groups)
    function = getattr(torch.nn.functional, f"conv_transpose{len(size)}d")
    expected = function(
        *(torch.from_numpy(value) for value in (x, weight, bias)),
        stride=stride,
        padding=padding,
        output_padding=extra,
        groups=groups,
        dilation=dilation,
    )
    actual = OPERATORS["conv_transpose"](
        x,
        weight,
        bias,
        pad=_ints(*[padding, padding] * len(size)),
        pad_type="custom",
        output_shape=_ints(*expected.shape) if extra else None,
        strides=_ints(*[stride] * len(size)),
        dilations=_ints(*[dilation] * len(size)),
        groups=_int(groups),
    )
    _agrees(actual, expected)
    if not padding:
        _agrees(OPERATORS["conv_transpose"](x, weight, bias), expected)


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_transposed_convolution_of_the_same_size_grows_by_the_stride(kernel: int) -> None:
    import torch

    x, weight = _floats(1, 2, 5), _floats(2, 3, kernel)
    tensors = (torch.from_numpy(x), torch.from_numpy(weight))
    whole = torch.nn.functional.conv_transpose1d(*tensors, stride=2)
    start = (whole.shape[-1] - 10) // 2
    actual = OPERATORS["conv_transpose"](x, weight, pad_type="same", strides=_ints(2))
    _agrees(actual, whole[..., start : start + 10])


@pytest.mark.parametrize("mode", ["add", "sub", "mul", "max", "min", "update"])
def test_scattering_agrees_with_torch(mode: str) -> None:
    import torch

    data, updates = _floats(3, 5, 4), _floats(3, 2, 4)
    rows = np.array([3, 0], np.int32)
    if mode != "update":
        # Two writes to one place both count.
        rows[1] = 3
    along = np.broadcast_to(rows[None, :, None], updates.shape)
    reduce = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin", "sub": "sum"}
    start, change = torch.from_numpy(data), torch.from_numpy(updates)
    if mode == "sub":
        change = -change
    places = torch.from_numpy(along.astype(np.int64))
    if mode == "update":
        expected = start.scatter(1, places, change)
    else:
        expected = start.scatter_reduce(1, places, change, reduce[mode])
    _agrees(OPERATORS["scatter"](data, rows, updates, _int(1), mode), expected)
    _agrees(OPERATORS["scatter_along_axis"](data, along, updates, _int(-2), mode), expected)
    # (row, column) of each slice of four
    pairs = np.stack(np.broadcast_arrays(np.arange(3)[:, None], rows[None]), -1)
    _agrees(OPERATORS["scatter_nd"](data, pairs, updates, mode), expected)


def test_scattering_divides_and_refuses() -> None:
    data = np.full((3, 2), 8.0, np.float32)
    halves = np.full((2, 2), 2.0, np.float32)
    divided = OPERATORS["scatter"](data, _ints(1, 1), halves, mode="div")
    np.testing.assert_array_equal(divided, [[8, 8], [2, 2], [8, 8]])
    with pytest.raises(IndexError, match="index 3 is out of bounds for a dimension of size 3"):
        OPERATORS["scatter_nd"](data, np.array([[3], [0]]), halves)
    with pytest.raises(ValueError, match="unknown mode 'xor'"):
        OPERATORS["scatter"](data, _ints(1, 1), halves, mode="xor")


@pytest.mark.parametrize("kind", ["none", "added", "boolean"])
def test_attention_agrees_with_torch(kind: str) -> None:
    import torch

    query, key, value = _floats(2, 3, 4, 8), _floats(2, 3, 5, 8), _floats(2, 3, 5, 6)
    allowed = RANDOM.random((2, 1, 4, 5)) < 0.7
    allowed[..., 0] = True
    mask = {"none": None, "added": _floats(2, 1, 4, 5), "boolean": allowed}[kind]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(part) for part in (query, key, value)),
        attn_mask=None if mask is None else torch.from_numpy(mask),
    )
    _agrees(OPERATORS["scaled_dot_product_attention"](query, key, value, mask), expected)


def test_other_layers_agree_with_torch() -> None:
    import torch

    x, mean, gamma = _floats(2, 3, 5), _floats(3), _floats(3)
    variance, beta = np.abs(_floats(3)), _floats(3)
    tensors = (torch.from_numpy(value) for value in (x, mean, variance, gamma, beta))
    expected = torch.nn.functional.batch_norm(*tensors)
    _agrees(OPERATORS["batch_norm"](x, mean, variance, gamma, beta), expected)
    expected = torch.nn.functional.instance_norm(
        torch.from_numpy(x), weight=torch.from_numpy(gamma), bias=torch.from_numpy(beta)
    )
    _agrees(OPERATORS["instance_norm"](x, gamma, beta), expected)
    left, right = _floats(2, 3, 1, 4), _floats(2, 4, 5, 6)
    wide = torch.from_numpy(left).expand(2, 3, 5, 4)
    equation = "nchw,nwhu->nchu"
    expected = torch.einsum(equation, wide, torch.from_numpy(right))
    _agrees(OPERATORS["einsum"]((left, right), equation), expected)
    ids = torch.tensor([[0, 2], [1, 1]])
    hot = OPERATORS["one_hot"](ids.numpy(), _int(3), axis=_int(1))
    _agrees(hot, torch.nn.functional.one_hot(ids, 3).movedim(-1, 1))
    _agrees(OPERATORS["silu"](x), torch.nn.functional.silu(torch.from_numpy(x)))


def test_gather_nd_takes_slices_at_coordinates() -> None:
    x = np.arange(24).reshape(2, 3, 4)
    taken = OPERATORS["gather_nd"](x, np.array([[1, 2], [0, 0]]))
    np.testing.assert_array_equal(taken, [x[1, 2], x[0, 0]])
    batched = OPERATORS["gather_nd"](x, np.array([[[2], [0]], [[1], [1]]]), batch_dims=_int(1))
    np.testing.assert_array_equal(batched, [[x[0, 2], x[0, 0]], [x[1, 1], x[1, 1]]])


def test_interleaved_and_exclusive_forms() -> None:
    pair = (np.array([[1, 2], [3, 4]]), np.array([[5, 6], [7, 8]]))
    woven = OPERATORS["concat"](pair, _int(0), np.bool_(True))
    np.testing.assert_array_equal(woven, [[1, 2], [5, 6], [3, 4], [7, 8]])
    scalars = OPERATORS["concat"]((np.array(1), np.array(2)), _int(0))
    np.testing.assert_array_equal(scalars, [1, 2])
    counts = np.array([1, 2, 3])
    for backwards, expected in ((False, [0, 1, 3]), (True, [5, 3, 0])):
        total = OPERATORS["cumsum"](counts, _int(0), np.bool_(True), np.bool_(backwards))
        np.testing.assert_array_equal(total, expected)


def test_negative_indices_left_the_definition_in_ios_17() -> None:
    x, index = _floats(4, 2), _ints(-1)
    np.testing.assert_array_equal(OPERATORS["gather"](x, index), x[-1:])
    with pytest.raises(IndexError, match="index -1 is out of bounds for a dimension of size 4"):
        OPERATORS["gather"](x, index, validate_indices=np.bool_(False))
