"""The ways to get more training texts, as data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator
from typing_extensions import Self

from edge.config import Config
from edge.data import Columns
from edge.provenance import InputPath
from edge.sources import CheckpointSource, DataSource

Share = Annotated[float, Field(ge=0, le=1)]


class _Method(Config):
    """What all methods share: the same seed gives the same texts, whatever trains on them."""

    seed: int = Field(default=0, ge=0)


class _Replacement(_Method):
    """Words replaced by one of some candidates.

    copies: of each text. probability: of a word to be replaced. candidates: how many words one
    is drawn from. vectors: a text file of word vectors (GloVe, word2vec) to find neighbours in,
    instead of the embeddings of the model.
    Source: Jiao et al. 2020, "TinyBERT", algorithm 1 and section 4.1.
    """

    copies: PositiveInt = 20
    probability: Share = 0.4
    candidates: PositiveInt = 15
    vectors: InputPath | None = None


class MaskedLM(_Replacement):
    """Words of one token by what a masked language model puts there, others by a neighbour.

    model: a checkpoint with the head of a masked language model. together: how many words of a
    text it guesses at once; that many times faster, and less sure the more there are.
    """

    method: Literal["masked-lm"]
    model: CheckpointSource
    together: PositiveInt = 1


class NearestEmbedding(_Replacement):
    """Every word by one of its nearest neighbours. model: whose embeddings; the teacher's."""

    method: Literal["nearest-embedding"]
    model: CheckpointSource | None = None


class Rules(_Method):
    """Masking, replacement by a word of the same class, and a run of words instead of the text.

    copies: of each text. mask, same_class: the probability of a word; ngram: that of a text, of
    which `shortest` to `longest` words are left. lexicon: lines of a word, a tab and its class,
    such as its part of speech; without one, classes are learned from what stands beside a word.
    Source: Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural
    Networks", 3.3, where the class is the part of speech that a tagger finds.
    """

    method: Literal["rules"]
    copies: PositiveInt = 20
    mask: Share = 0.1
    same_class: Share = 0.1
    ngram: Share = 0.25
    shortest: PositiveInt = 1
    longest: PositiveInt = 5
    lexicon: InputPath | None = None

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.mask + self.same_class > 1:
            raise ValueError("mask and same_class are shares of the same words: at most 1 together")
        if self.shortest > self.longest:
            raise ValueError(f"shortest {self.shortest} is more than longest {self.longest}")
        return self


class Unlabelled(_Method):
    """Texts of a file without labels (or whose labels are not read).

    source: a data file or data set; by default what the run names with --unlabelled.
    split_sentences: take texts apart where a sentence ends.
    min_words, max_words: shorter and longer ones are left out. limit: how many, drawn at random.
    """

    method: Literal["unlabelled"]
    source: DataSource | None = None
    columns: Columns = Columns()
    split_sentences: bool = True
    min_words: PositiveInt = 2
    max_words: PositiveInt = 128
    limit: PositiveInt | None = None

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is more than max_words {self.max_words}")
        return self


Augmentation = Annotated[
    MaskedLM | NearestEmbedding | Rules | Unlabelled, Field(discriminator="method")
]
