"""Where only the first token is read, as by most classifiers, compute only that one.

The last layer's other tokens are needed for its keys and values, not for its queries or what
follows them. A text of n tokens then costs the last layer two products of n tokens, not six.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.overrides import TorchFunctionMode

# Operators by their names in `torch`, `torch.nn.functional` and `Tensor`.
_PRODUCTS = {"linear", "matmul", "bmm"}
# Each value of the result depends on the values at its own place.
_ELEMENTWISE = {
    *("add", "radd", "sub", "rsub", "mul", "rmul", "multiply", "div", "truediv", "rtruediv"),
    *("pow", "neg", "exp", "sqrt", "rsqrt", "erf", "tanh", "sigmoid", "gelu", "relu", "silu"),
    *("clamp", "where", "masked_fill", "dropout", "to", "float", "type_as", "contiguous"),
}
_IN_PLACE = {"iadd", "isub", "imul", "add_", "sub_", "mul_"}
_TOLERANCE = 1e-4


class UnsupportedCut(Exception):
    """More than the first token is read, or an operator is not known to leave the others out."""


@dataclass(frozen=True)
class _FirstOnly:
    """A tensor that holds the first token's values only.

    axis: dimension of size 1 that would have `length` tokens.
    """

    tensor: Tensor
    axis: int
    length: Any


class FirstToken(TorchFunctionMode):
    """While active, one product is computed for the first token alone, and so is what follows it.

    product: the number of that product among all, counted from 0; None computes every token.
    Raises UnsupportedCut where the other tokens are needed.
    """

    def __init__(self, product: int | None) -> None:
        super().__init__()
        self._product = product
        self._first_only: dict[int, _FirstOnly] = {}
        self.products = 0
        # How many products were before each softmax.
        self.before_softmax: list[int] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").removeprefix("__").removesuffix("__")
        if name in _PRODUCTS:
            args = self._cut(name, args) if self.products == self._product else args
            self.products += 1
        elif name == "softmax":
            self.before_softmax.append(self.products)
        if not any(self._mark(value) for value in _tensors([*args, *kwargs.values()])):
            return func(*args, **kwargs)
        return self._follow(name, func, args, kwargs)

    def require_whole(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return outputs that hold all of their tokens; raise UnsupportedCut for others."""
        if any(self._mark(value) for value in outputs.values()):
            raise UnsupportedCut
        return outputs

    def _mark(self, value: Any) -> _FirstOnly | None:
        return self._first_only.get(id(value))

    def _marked(self, result: Any, axis: int, length: Any) -> Any:
        for tensor in _tensors(result):
            # The tensor is held, so that no other gets its id.
            self._first_only[id(tensor)] = _FirstOnly(tensor, axis % tensor.ndim, length)
        return result

    def _cut(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """(batch, sequence, features), or (..., queries, features) of attention, cut to one."""
        value = args[0]
        axis = 1 if name == "linear" else value.ndim - 2
        if value.ndim < 3 or (value.ndim > 3 and name == "linear") or self._mark(value):
            raise UnsupportedCut
        first = self._marked(value.narrow(axis, 0, 1), axis, value.shape[axis])
        return (first, *args[1:])

    def _follow(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run an operator on tensors of which at least one has the first token only."""
        mark = self._mark(args[0]) if args else None
        # What changes a whole tensor in place would leave its other tokens as they were.
        if name in _ELEMENTWISE or (name in _IN_PLACE and mark is not None):
            return self._elementwise(func, args, kwargs)
        if name == "cat":
            dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
            return self._elementwise(func, args, kwargs, besides=dim)
        if mark is None:
            result = func(*args, **kwargs)
        elif name in ("view", "reshape"):
            return self._view(func, mark, args[1:])
        elif name == "getitem":
            return self._getitem(func, mark, args[1])
        else:
            result = func(*args, **kwargs)
            axis = _axis_after(name, mark, args, kwargs)
            others = [self._mark(value) for value in _tensors([*args[1:], *kwargs.values()])]
            if axis is not None and not any(others):
                return self._marked(result, axis, mark.length)
        if any(True for _ in _tensors(result)):
            raise UnsupportedCut
        # A shape or a data type.
        return result

    def _elementwise(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        besides: int | None = None,
    ) -> Any:
        """besides: a dimension in which tensors are joined, not laid over each other."""
        marks = [m for v in _tensors([*args, *kwargs.values()]) if (m := self._mark(v)) is not None]
        # Counted from the end, as shapes are broadcast.
        axes = {mark.axis - mark.tensor.ndim for mark in marks}
        if len(axes) > 1 or (besides is not None and besides in (axes | {marks[0].axis})):
            raise UnsupportedCut
        axis = axes.pop()

        def first(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(first(each) for each in value)
            if not isinstance(value, Tensor) or self._mark(value) or value.ndim < -axis:
                return value
            return value if _same(value.shape[axis], 1) else value.narrow(axis, 0, 1)

        result = func(*first(args), **{key: first(value) for key, value in kwargs.items()})
        return self._marked(result, axis, marks[0].length)

    def _view(self, func: Callable[..., Any], mark: _FirstOnly, given: tuple[Any, ...]) -> Any:
        """Another shape, in which the tokens are a dimension of their own."""
        sizes = list(given[0] if isinstance(given[0], (list, tuple)) else given)
        shape = [*mark.tensor.shape]
        shape[mark.axis] = mark.length
        before, after = mark.axis, len(shape) - mark.axis
        if len(sizes) > before and _agree(sizes[:before], shape[:before]):
            axis = before
        elif len(sizes) >= after and _agree(sizes[len(sizes) - after + 1 :], shape[before + 1 :]):
            axis = len(sizes) - after
        else:
            raise UnsupportedCut
        if not any(_same(sizes[axis], size) for size in (mark.length, 1, -1)):
            raise UnsupportedCut
        sizes[axis] = 1
        return self._marked(func(mark.tensor, sizes), axis, mark.length)

    def _getitem(self, func: Callable[..., Any], mark: _FirstOnly, index: Any) -> Any:
        """A part of every token, or the first token, which from there on is whole."""
        parts = list(index) if isinstance(index, tuple) else [index]
        if not all(part is ... or isinstance(part, (int, slice)) for part in parts):
            raise UnsupportedCut
        place = parts.index(...) if ... in parts else len(parts)
        missing = mark.tensor.ndim - len(parts) + (place < len(parts))
        parts[place : place + 1] = [slice(None)] * missing
        chosen = parts[mark.axis]
        if chosen in (0, slice(0, 1), slice(None, 1)):
            return func(mark.tensor, index)
        if chosen != slice(None):
            raise UnsupportedCut
        dropped = sum(isinstance(part, int) for part in parts[: mark.axis])
        return self._marked(func(mark.tensor, index), mark.axis - dropped, mark.length)


def find_cut(run: Callable[[FirstToken], dict[str, Tensor]]) -> int | None:
    """The earliest product that the outputs need for the first token alone; None without one.

    run: computes the outputs on a probe of several texts, padding included.
    """
    whole = FirstToken(None)
    expected = _attempt(run, whole)
    if expected is None or not whole.before_softmax:
        return None
    # A softmax each layer: the products of the last one are behind that of the layer before.
    last_layer = [0, *whole.before_softmax][-2]
    for product in range(last_layer, whole.products):
        outputs = _attempt(run, FirstToken(product))
        if outputs is not None and all(_close(outputs[name], expected[name]) for name in expected):
            return product
    return None


def _attempt(
    run: Callable[[FirstToken], dict[str, Tensor]], mode: FirstToken
) -> dict[str, Tensor] | None:
    try:
        return run(mode)
    except Exception:  # a model's code may raise anything when a tensor has fewer tokens
        return None


def _close(outputs: Tensor, expected: Tensor) -> bool:
    return outputs.shape == expected.shape and torch.allclose(
        outputs, expected, rtol=_TOLERANCE, atol=_TOLERANCE
    )


def _axis_after(
    name: str, mark: _FirstOnly, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int | None:
    """The tokens' dimension in what an operator makes of a tensor; None where it mixes tokens."""
    axis, ndim = mark.axis, mark.tensor.ndim
    if name == "linear":
        return axis if axis < ndim - 1 else None
    if name in ("matmul", "bmm"):
        return -2 if axis == ndim - 2 else None
    if name in ("layer_norm", "rms_norm"):
        shape = args[1] if len(args) > 1 else kwargs["normalized_shape"]
        return axis if axis < ndim - len(shape) else None
    if name == "transpose":
        first, second = (dim % ndim for dim in args[1:])
        return {first: second, second: first}.get(axis, axis)
    if name == "permute":
        order = args[1] if isinstance(args[1], (list, tuple)) else args[1:]
        return [dim % ndim for dim in order].index(axis)
    if name in ("softmax", "mean", "chunk", "split", "unbind", "squeeze"):
        return _axis_beside(name, mark, args, kwargs)
    return None


def _axis_beside(
    name: str, mark: _FirstOnly, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int | None:
    """The same for operators that work along one dimension."""
    place = 2 if name in ("chunk", "split") else 1
    dim = kwargs.get("dim", args[place] if len(args) > place else None)
    if not isinstance(dim, int) or dim % mark.tensor.ndim == mark.axis:
        return None
    keeps = name not in ("mean", "unbind", "squeeze") or kwargs.get("keepdim", False)
    return mark.axis - (not keeps and dim % mark.tensor.ndim < mark.axis)


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among arguments or results."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Sequence) and not isinstance(values, str):
        for value in values:
            yield from _tensors(value)


def _same(first: Any, second: Any) -> bool:
    """Whether two sizes are equal whatever a flexible one turns out to be."""
    return bool(statically_known_true(first == second))


def _agree(sizes: Sequence[Any], shape: Sequence[Any]) -> bool:
    return len(sizes) == len(shape) and all(map(_same, sizes, shape))
