"""MIL operators that work element by element, activations included.

Each function takes MIL's own parameter names. Floats are float32 arrays whatever the program says:
the caller rounds results to the declared type.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edge.engines.base import Array

# erf(x) = x P(x^2) / Q(x^2) on [-3.9, 3.9], where erf is 1 within float32: coefficients, highest
# degree first, from a least-squares fit to erf reweighted until its largest errors were equal.
_ERF_LIMIT = 3.9
_ERF_P = (2.050420562e-06, 2.874512657e-04, 3.836643416e-03, 5.296621099e-02, 1.919356734e-01)
_ERF_Q = (3.823076986e-05, 1.181676285e-03, 1.510874461e-02, 1.147559956e-01, 5.034303665e-01)
_ERF_AT_ZERO = 1.128378987


def _unary(function: Callable[[Array], Array]) -> Callable[..., Array]:
    def operator(x: Array) -> Array:
        return function(x)

    return operator


def _binary(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def operator(x: Array, y: Array) -> Array:
        return function(x, y)

    return operator


def erf(x: Array) -> Array:
    """Error function with a relative error below 5e-7; scipy's is exact and many times slower."""
    inside = np.clip(x, -_ERF_LIMIT, _ERF_LIMIT)
    square = inside * inside
    inside *= _polynomial(square, (*_ERF_P, _ERF_AT_ZERO))
    inside /= _polynomial(square, (*_ERF_Q, 1.0))
    return np.clip(inside, -1.0, 1.0)


def _polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Horner's rule, highest degree first, without a new array for each degree."""
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total *= x
        total += np.float32(coefficient)
    return total


def gelu(x: Array, mode: str = "EXACT") -> Array:
    """Gaussian error linear unit, arXiv 1606.08415, section 2."""
    if mode == "TANH_APPROXIMATION":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1.0 + np.tanh(inner))
    if mode == "SIGMOID_APPROXIMATION":
        return x * sigmoid(1.702 * x)
    if mode != "EXACT":
        raise ValueError(f"unknown mode '{mode}'")
    result = erf(x * math.sqrt(0.5))
    result += 1.0
    result *= 0.5 * x
    return result


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)); where the exponential overflows to inf the result is a true 0."""
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x: Array, axis: Array | int = -1) -> Array:
    """Softmax along one axis; a row of -inf alone gives nan, as it must."""
    axis = int(axis)
    weights = np.exp(x - x.max(axis=axis, keepdims=True))
    weights /= weights.sum(axis=axis, keepdims=True)
    return weights


def _clip(x: Array, alpha: Array, beta: Array) -> Array:
    return np.minimum(np.maximum(x, alpha), beta)


def _prelu(x: Array, alpha: Array) -> Array:
    # alpha: (C,), for x: (n, C, ...)
    slope = alpha.reshape((-1,) + (1,) * (x.ndim - 2))
    return np.maximum(x, 0.0) + slope * np.minimum(x, 0.0)


def _leaky_relu(x: Array, alpha: Array) -> Array:
    return np.where(x < 0, alpha * x, x)


def _elu(x: Array, alpha: Array) -> Array:
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0.0)), x)


def _log(x: Array, epsilon: Array | float = 1e-45) -> Array:
    return np.log(x + np.float32(epsilon))


def _rsqrt(x: Array, epsilon: Array | float = 1e-12) -> Array:
    return 1.0 / np.sqrt(x + np.float32(epsilon))


def _inverse(x: Array, epsilon: Array | float = 1e-4) -> Array:
    return 1.0 / (x + np.float32(epsilon))


def _threshold(x: Array, alpha: Array) -> Array:
    return np.maximum(x, alpha)


def _linear_activation(x: Array, alpha: Array, beta: Array) -> Array:
    return alpha * x + beta


def _scaled_tanh(x: Array, alpha: Array, beta: Array) -> Array:
    return alpha * np.tanh(beta * x)


def _sigmoid_hard(x: Array, alpha: Array, beta: Array) -> Array:
    return np.clip(alpha * x + beta, 0.0, 1.0)


def _select(cond: Array, a: Array, b: Array) -> Array:
    return np.where(cond, a, b)


def _cast(x: Array, dtype: str) -> Array:
    # The caller converts every result to its declared type, which a cast's `dtype` repeats.
    return x


ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "abs": _unary(np.abs),
    "add": _binary(np.add),
    "cast": _cast,
    "ceil": _unary(np.ceil),
    "clip": _clip,
    "cos": _unary(np.cos),
    "elu": _elu,
    "equal": _binary(np.equal),
    "erf": erf,
    "exp": _unary(np.exp),
    "exp2": _unary(np.exp2),
    "floor": _unary(np.floor),
    "floor_div": _binary(np.floor_divide),
    "gelu": gelu,
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "identity": _unary(lambda x: x),
    "inverse": _inverse,
    "leaky_relu": _leaky_relu,
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "linear_activation": _linear_activation,
    "log": _log,
    "logical_and": _binary(np.logical_and),
    "logical_not": _unary(np.logical_not),
    "logical_or": _binary(np.logical_or),
    "logical_xor": _binary(np.logical_xor),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "mod": _binary(np.mod),
    "mul": _binary(np.multiply),
    "not_equal": _binary(np.not_equal),
    "pow": _binary(np.power),
    "prelu": _prelu,
    "real_div": _binary(np.true_divide),
    "relu": _unary(lambda x: np.maximum(x, 0)),
    "relu6": _unary(lambda x: np.clip(x, 0, 6)),
    "round": _unary(np.round),
    "rsqrt": _rsqrt,
    "scaled_tanh": _scaled_tanh,
    "select": _select,
    "sigmoid": sigmoid,
    "sigmoid_hard": _sigmoid_hard,
    "sign": _unary(np.sign),
    "silu": _unary(lambda x: x * sigmoid(x)),
    "sin": _unary(np.sin),
    "softmax": softmax,
    "softplus": _unary(lambda x: np.logaddexp(x, np.float32(0.0))),
    "softsign": _unary(lambda x: x / (1.0 + np.abs(x))),
    "sqrt": _unary(np.sqrt),
    "square": _unary(np.square),
    "sub": _binary(np.subtract),
    "tanh": _unary(np.tanh),
    "threshold": _threshold,
}
