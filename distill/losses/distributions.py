"""Losses as pure functions: one value a sample or a token, reduced explicitly by `masked_mean`.

Shapes: B samples, L tokens, C labels, H hidden units, A heads of d units. Student first, teacher
second. Arithmetic is float32 whatever the inputs are, and no gradient reaches the teacher's side.
`valid` is a boolean mask of what a distribution runs over; what it leaves out may be anything,
infinities included, and is chosen by that mask alone. Losses of what happens inside a layer are
in `distill.losses.relations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Loss = Callable[[Tensor, Tensor], Tensor]
# The label that says there is none.
IGNORED = -100
# Far below any score and finite, so that a row in which nothing is valid stays finite as well.
_NEVER = -1e30
# Numbers of a temporary where rows are worked on in slices: on a CPU what its caches hold and its C
# library keeps, elsewhere enough to fill the device.
_SLICE = {"cpu": 2**18}
_SLICE_ELSEWHERE = 2**26


def masked_mean(values: Tensor, mask: Tensor | None = None, total: Tensor | None = None) -> Tensor:
    """sum(values * mask) / total: padding neither adds to the sum nor to the count.

    values, mask: the same shape. total: the count to divide by; by default what the mask selects.
    A batch accumulated in parts passes the count of the whole, so that parts add up to its mean.
    Masked values may be anything, infinities included.
    """
    if mask is not None:
        values = torch.where(mask.bool(), values, values.new_zeros(()))
        total = mask.sum().clamp(min=1) if total is None else total
    return values.sum() / (values.numel() if total is None else total)


def text_mean(states: Tensor, mask: Tensor) -> Tensor:
    """The mean of each text's real tokens, (B, L, H) to (B, H); mask: (B, L)."""
    real = mask.unsqueeze(-1).to(states.dtype)
    return (states * real).sum(1) / real.sum(1).clamp(min=1)


def softmax_kl(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, valid: Tensor | None = None
) -> Tensor:
    """T^2 * KL(softmax(t / T) || softmax(s / T)), (..., C) to (...).

    T^2 keeps the size of the gradients the same at every temperature. Cross-entropy with soft
    labels has the same gradient: it is larger by the teacher's entropy, which no student changes.
    valid: (..., C), where the classes differ from row to row, as the tokens of a text do.
    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", 2.
    """
    student, teacher = torch.broadcast_tensors(student, teacher.detach())
    classes = student.shape[-1]
    if valid is not None:
        valid = valid.expand_as(student).reshape(-1, classes)
    found: Tensor = _SoftmaxKL.apply(  # type: ignore[no-untyped-call]
        student.reshape(-1, classes), teacher.reshape(-1, classes), temperature, valid
    )
    return found.view(student.shape[:-1])


class _SoftmaxKL(torch.autograd.Function):
    """`softmax_kl` of (R, C), some rows at a time, the gradient with it.

    A vocabulary's logits are hundreds of megabytes: with a temporary of their size for each
    operation, fresh pages of memory took nearly half of a step.
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, temperature: float, valid: Tensor | None
    ) -> Tensor:
        gradient = torch.empty_like(student) if ctx.needs_input_grad[0] else None
        found = student.new_empty(len(student), dtype=torch.float32)
        for part in _slices(student):
            classes = None if valid is None else valid[part]
            log_q = log_softmax(student[part].float() / temperature, classes)
            log_p = log_softmax(teacher[part].float() / temperature, classes)
            p = log_p.exp()
            torch.sum(p * (log_p - log_q), -1, out=found[part])
            if gradient is not None:
                gradient[part] = log_q.exp_().sub_(p).mul_(temperature)
        ctx.save_for_backward(gradient)
        return found.mul_(temperature**2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *found: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        weighted = torch.empty_like(gradient)
        for part in _slices(gradient):
            weighted[part] = gradient[part] * found[0][part].unsqueeze(-1)
        return weighted, None, None, None


def _slices(rows: Tensor) -> Iterator[slice]:
    """Parts of (R, C) whose temporaries are small, in order."""
    numbers = _SLICE.get(rows.device.type, _SLICE_ELSEWHERE)
    size = max(1, numbers // max(1, rows.shape[-1]))
    return (slice(start, start + size) for start in range(0, len(rows), size))


def softmax_reverse_kl(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, valid: Tensor | None = None
) -> Tensor:
    """T^2 * KL(softmax(s / T) || softmax(t / T)), (..., C) to (...): `softmax_kl` the other way.

    The learner leaves out what the other finds unlikely before it covers all that is likely.
    Source: Gu et al. 2024, "MiniLLM", 2.1.
    """
    s = log_softmax(student.float() / temperature, valid)
    t = log_softmax(teacher.detach().float() / temperature, valid)
    return (s.exp() * (s - t)).sum(-1) * temperature**2


def sigmoid_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 * sum over labels of KL(Bernoulli(sigmoid(t / T)) || Bernoulli(sigmoid(s / T))).

    (B, C) to (B,): `softmax_kl` where each label is a question of its own.
    """
    t, s = teacher.detach().float() / temperature, student.float() / temperature
    p = torch.sigmoid(t)
    yes = p * (F.logsigmoid(t) - F.logsigmoid(s))
    no = (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return (yes + no).sum(-1) * temperature**2


def sigmoid_reverse_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 * sum over labels of KL(Bernoulli(sigmoid(s / T)) || Bernoulli(sigmoid(t / T))).

    (B, C) to (B,): `softmax_reverse_kl` where each label is a question of its own.
    """
    s, t = student.float() / temperature, teacher.detach().float() / temperature
    p = torch.sigmoid(s)
    yes = p * (F.logsigmoid(s) - F.logsigmoid(t))
    no = (1 - p) * (F.logsigmoid(-s) - F.logsigmoid(-t))
    return (yes + no).sum(-1) * temperature**2


def logits_mse(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """mean over labels of (s - t)^2, (..., C) to (...). valid: as in `softmax_kl`.

    Source: Ba and Caruana 2014, "Do Deep Nets Really Need to be Deep?", 2.1.
    """
    distance = student.float() - teacher.detach().float()
    if valid is None:
        return distance.square().mean(-1)
    # Before the square: the gradient of an infinity that is left out would not be a number.
    distance = distance.masked_fill(~valid, 0.0)
    return distance.square().sum(-1) / valid.expand_as(distance).sum(-1).clamp(min=1)


def margin_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """For each candidate, the mean over the others j and over C of ((s_i - s_j) - (t_i - t_j))^2.

    (G, N, C) to (G, N): N >= 2 candidates of each of G questions. Only differences of scores are
    fitted, so that a bi-encoder need not reach the range of a cross-encoder's scores.
    Source: Hofstaetter et al. 2020, "Improving Efficient Neural Ranking Models with Cross-
    Architecture Knowledge Distillation", Margin-MSE, there of one pair a question.
    """
    distance = student.float() - teacher.detach().float()
    pairs = distance.unsqueeze(2) - distance.unsqueeze(1)  # (G, N, N, C), 0 on the diagonal
    return pairs.square().mean(-1).sum(-1) / (distance.shape[1] - 1)


def info_nce(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """-log of the softmax of cos(s_i, t_j) / T over the batch's j, at j = i; (B, H) to (B,).

    Each student state has to find its own teacher state among those of the other rows.
    Source: Sun et al. 2020, "Contrastive Distillation on Intermediate Representations for Language
    Model Compression" (CoDIR), 3, with the rows of the batch for negatives; van den Oord et al.
    2018, "Representation Learning with Contrastive Predictive Coding", eq. 4.
    """
    s, t = F.normalize(student.float(), dim=-1), F.normalize(teacher.detach().float(), dim=-1)
    scores = matmul(s, t.T) / temperature
    own = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, own, reduction="none")


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32, where autocast would choose less."""
    with torch.autocast(a.device.type, enabled=False):
        return a.float() @ b.float()


def log_softmax(logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """log softmax over C, (..., C) to (..., C). valid: as in `softmax_kl`."""
    logits = logits.float()
    return F.log_softmax(logits if valid is None else logits.masked_fill(~valid, _NEVER), dim=-1)


def cross_entropy(logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """-log softmax(logits)[label], (..., C) and (...) to (...); 0 where the label is -100.

    valid: as in `softmax_kl`.
    """
    flat, classes = labels.long().flatten(), logits.shape[-1]
    # Most tokens of a text that is guessed have no label: theirs are not looked at.
    rows = (flat != IGNORED).nonzero().squeeze(-1)
    own = logits.reshape(-1, classes).index_select(0, rows).float()
    if valid is not None:
        some = valid.expand_as(logits).reshape(-1, classes).index_select(0, rows)
        own = own.masked_fill(~some, _NEVER)
    found = F.cross_entropy(own, flat[rows], reduction="none")
    values = found.new_zeros(len(flat)).index_copy(0, rows, found)
    return values.view(labels.shape)


def vocabulary_cross_entropy(logits: Tensor, labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """-log softmax(logits of the label's vocabulary)[label], 0 where the label is -100.

    (..., C) and (...) to (...): C runs through vocabularies of `sizes`, one after the other.
    Source: Zhao et al. 2019, "Extremely Small BERT Models from Mixed-Vocabulary Training", 3: a
    softmax for each vocabulary, used for the words that were read in it.
    """
    labels, start, values = labels.long(), 0, []
    for part, size in zip(logits.split(list(sizes), dim=-1), sizes, strict=True):
        own = (labels >= start) & (labels < start + size)
        values.append(cross_entropy(part, labels.sub(start).masked_fill(~own, IGNORED)))
        start += size
    return torch.stack(values).sum(0)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """mean over labels of -log sigmoid(+-logit), (B, C) and (B, C) of 0 and 1 to (B,)."""
    entropy = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")
    return entropy.mean(-1)


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """(score - label)^2, (B, 1) and (B,) to (B,)."""
    return (logits.float().squeeze(-1) - labels.float()).square()


def states_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """mean over units of (s - t)^2, (..., H) to (...).

    Source: Jiao et al. 2020, "TinyBERT", eq. 8.
    """
    return (student.float() - teacher.detach().float()).square().mean(-1)


def states_normalized_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """|s/|s| - t/|t||^2, (..., H) to (...): direction only, between 0 and 4.

    Source: Sun et al. 2019, "Patient Knowledge Distillation", eq. 7.
    """
    s, t = F.normalize(student.float(), dim=-1), F.normalize(teacher.detach().float(), dim=-1)
    return (s - t).square().sum(-1)


def states_layer_normed_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """mean over units of (n(s) - n(t))^2, (..., H) to (...), n(x) = (x - mean x) / std x.

    Between 0 and 4: where a state stands and how large it is do not count, as in models without
    layer norms. Source: Sun et al. 2020, "MobileBERT", 3.3, eq. 1, each feature map normalised.
    """
    s, t = (F.layer_norm(side.float(), side.shape[-1:]) for side in (student, teacher.detach()))
    return (s - t).square().mean(-1)


def states_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos(s, t), (..., H) to (...).

    Source: Sanh et al. 2019, "DistilBERT", 3.
    """
    return 1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=-1)


# By the names of the recipe language.
STATE_LOSSES: dict[str, Loss] = {
    "mse": states_mse,
    "normalized_mse": states_normalized_mse,
    "layer_normed_mse": states_layer_normed_mse,
    "cosine": states_cosine,
}
