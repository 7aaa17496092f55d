"""The arithmetic of narrowing: which units to keep, projections, the way back, smaller attention.

All in 64 bits. N units become n. Matrices of projections are (n, N).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Less than this is rounding.
TINY = 1e-12


def chosen_units(covariance: Tensor, count: int) -> Tensor:
    """The `count` units from which linear regression tells the others best, chosen greedily.

    covariance: (N, N). Gives indices, ascending. Each choice is the unit of most variance that
    the ones before it leave unexplained: a Cholesky decomposition with pivots.
    """
    rest = covariance.clone()
    chosen: list[int] = []
    for _ in range(count):
        left = rest.diagonal().clone()
        left[chosen] = -1.0
        unit = int(left.argmax())
        chosen.append(unit)
        column = rest[:, unit] / rest[unit, unit].clamp(min=TINY).sqrt()
        rest -= column.outer(column)
    return torch.tensor(sorted(chosen))


def selection(units: Tensor, width: int) -> Tensor:
    """The projection that keeps some of `width` units."""
    return torch.eye(width, dtype=torch.float64)[units]


def eigenvectors(square: Tensor) -> Tensor:
    """Those of a symmetric matrix (N, N), in columns, of the largest eigenvalue first."""
    return torch.linalg.eigh(square).eigenvectors.flip(-1)


def principal(covariance: Tensor, count: int) -> Tensor:
    """The projection to the components of most variance, turned so that its outputs sum to 0.

    A LayerNorm takes the mean of its units away, which these do not have: of `count` units one
    fewer carries something. Eigenvectors have either sign; the one with a positive sum is taken.
    """
    found = eigenvectors(covariance)[:, : count - 1]
    found = found * torch.where(found.sum(0) < 0, -1.0, 1.0)
    return _centred_basis(count) @ found.T


def _centred_basis(count: int) -> Tensor:
    """Orthonormal columns that each sum to 0, (count, count - 1)."""
    index = torch.arange(1, count, dtype=torch.float64)
    # Helmert's: 1 / sqrt(k (k + 1)) k times, then -k times that.
    basis = torch.ones(count, count - 1, dtype=torch.float64).triu()
    basis[index.long(), torch.arange(count - 1)] = -index
    return basis / (index * (index + 1)).sqrt()


def way_back(projection: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """R (N, n) and c (N,) with which R y + c is nearest to x on average, y being projection @ x."""
    shared = covariance @ projection.T
    own = projection @ shared
    # A projection may have a direction that nothing varies in.
    back = shared @ torch.linalg.pinv(own, rtol=1e-10, hermitian=True)
    return back, mean - back @ (projection @ mean)


def strongest(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest, ascending."""
    return scores.topk(count).indices.sort().values


def factors(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Two matrices of `rank` columns whose product is nearest to left @ right.T.

    left: (A, d), right: (B, d). Gives (A, rank) and (B, rank), each with half of the scale.
    """
    a, small_a = torch.linalg.qr(left)
    b, small_b = torch.linalg.qr(right)
    u, scale, v = torch.linalg.svd(small_a @ small_b.T)
    root = scale[:rank].sqrt()
    return a @ u[:, :rank] * root, b @ v[:rank].T * root


@dataclass(frozen=True)
class Heads:
    """The four linear layers of attention, one head after another.

    query, key, value: (heads, d, N + 1), each bias as one more input that is always 1.
    output: (heads, d, M). bias: of the output, (M,).
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    bias: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All but the bias."""
        return self.query, self.key, self.value, self.output


def fewer_heads(heads: Heads, mean: Tensor, variance: Tensor, count: int) -> Heads:
    """The `count` heads whose output varies most; the others leave their mean in the bias.

    mean, variance: of each unit that the output layer reads, (heads, d).
    """
    scores = (variance * heads.output.square().sum(-1)).sum(-1)
    kept = strongest(scores, count)
    lost = torch.ones(len(scores), dtype=torch.bool)
    lost[kept] = False
    bias = heads.bias + (mean[lost, :, None] * heads.output[lost]).sum((0, 1))
    query, key, value, output = (part[kept] for part in heads.parts)
    return Heads(query, key, value, output, bias)


def smaller_heads(heads: Heads, size: int) -> Heads:
    """Heads of `size` units, fewer than they have, whose scores and outputs are the nearest.

    query . key / sqrt(d) and output . value are each one bilinear form a head, whose nearest of
    lower rank its singular values tell. Attention adds to 1, so the bias of values moves on.
    """
    scale = math.sqrt(size / heads.query.shape[1])
    # Whatever the attention, a head adds its value's bias: (heads, d) to (M,).
    constant = (heads.value[..., -1, None] * heads.output).sum((0, 1))
    query, key, value, output = [], [], [], []
    for q, k, v, o in zip(heads.query, heads.key, heads.value, heads.output, strict=True):
        left, right = factors(q.T, k.T, size)
        query.append(left.T * scale)
        key.append(right.T)
        read, write = factors(v[:, :-1].T, o.T, size)
        value.append(torch.nn.functional.pad(read.T, (0, 1)))
        output.append(write.T)
    return Heads(
        torch.stack(query),
        torch.stack(key),
        torch.stack(value),
        torch.stack(output),
        heads.bias + constant,
    )


def joined_heads(heads: Heads, several: int) -> Heads:
    """Each head is `several` of them side by side: it looks where they do on average."""
    scale = math.sqrt(several) / several
    query, key, value, output = (
        part.unflatten(0, (-1, several)).flatten(1, 2) for part in heads.parts
    )
    return Heads(query * scale, key, value, output, heads.bias)


def padded_heads(heads: Heads, query: Tensor, value: Tensor) -> Heads:
    """Heads with more units that change nothing yet, and can learn.

    query, value: what the new units read, (heads, units, N + 1). Keys and output are 0 there.
    """
    added = query.shape[1]
    scale = math.sqrt(1 + added / heads.query.shape[1])
    key, output = (torch.nn.functional.pad(p, (0, 0, 0, added)) for p in (heads.key, heads.output))
    return Heads(
        torch.cat([heads.query * scale, query], 1),
        key,
        torch.cat([heads.value, value], 1),
        output,
        heads.bias,
    )
