"""How the answers of each task are read: what a distribution runs over, and where labels are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.tasks.text_classification import MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """How the answers of a task are compared.

    outputs: their names. per_token: each token has its own, (B, L, C), and labels are (B, L).
    over_tokens: the classes are the tokens of the text, (B, L), and labels are positions, one for
    each output, (B, outputs). Otherwise (B, C), and labels are (B,) or (B, C). vectors: the C
    numbers are no classes but a vector, and labels are similarities of two of them.
    """

    outputs: tuple[str, ...] = ("logits",)
    per_token: bool = False
    over_tokens: bool = False
    vectors: bool = False

    @property
    def whole(self) -> bool:
        """Whether a text has one answer, not one for each of its tokens."""
        return not (self.per_token or self.over_tokens)

    @property
    def classifies_texts(self) -> bool:
        """Whether that answer has classes, or is a score."""
        return self.whole and not self.vectors

    def classes(self, mask: Tensor) -> Tensor | None:
        """What a distribution runs over, where that differs from row to row."""
        return mask.bool() if self.over_tokens else None

    def labelled(self, labels: Tensor, mask: Tensor) -> Tensor:
        """True where there is a label: (B,), per token (B, L), over tokens (B, outputs)."""
        from distill.losses.distributions import IGNORED

        known = ~labels.isnan() if labels.is_floating_point() else labels != IGNORED
        if self.per_token:
            return known & mask.bool()
        return known.all(-1) if known.ndim == 2 and not self.over_tokens else known


def label_loss(problem_type: str | None) -> Callable[..., Tensor]:
    """The loss of a label, one value a row or token: the problem type's."""
    from distill.losses import distributions

    found: dict[str, Callable[..., Tensor]] = {
        REGRESSION: distributions.squared_error,
        MULTI_LABEL: distributions.binary_cross_entropy,
    }
    return found.get(problem_type or "", distributions.cross_entropy)
