"""What becomes of a text's words before a model reads them, as data."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat

from edge.config import Config


class Masking(Config):
    """Which tokens of a plain text are hidden for a model to guess.

    share: of a text's tokens. rare: a token that occurs `count` times is chosen in proportion to
    max(count, 1) to the power of -rare; all alike at 0.
    Source of `rare`: Lample and Conneau 2019, "Cross-lingual Language Model Pretraining", 3.1;
    DistilBERT trains with 0.7.
    """

    share: PositiveFloat = Field(default=0.15, lt=1)
    rare: NonNegativeFloat = 0.0


class Mixing(Config):
    """Words that are read at random in the student's own tokens or in its teacher's.

    share: the probability of the student's.
    Source: Zhao et al. 2019, "Extremely Small BERT Models from Mixed-Vocabulary Training", 3.
    """

    share: PositiveFloat = Field(default=0.5, lt=1)
