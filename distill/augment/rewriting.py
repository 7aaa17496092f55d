"""Rewriting a text at random: a text and a source of chance in, a text out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from distill.augment.classes import WordClasses
from distill.augment.proposals import Candidates
from distill.augment.words import replaced, spans
from distill.recipe.augmentations import Rules

Rewrite = Callable[[str, np.random.Generator], str]


@dataclass(frozen=True)
class Replace:
    """Each word with `probability` by one of its candidates, where it has any."""

    candidates: Mapping[str, Candidates]
    probability: float

    def __call__(self, text: str, random: np.random.Generator) -> str:
        places = spans(text)
        # Two draws a word whatever it has, so that one word's candidates change no other word.
        chosen = random.random(len(places)) < self.probability
        ranks = random.random(len(places))
        words = {
            index: options[int(ranks[index] * len(options))]
            for index, options in enumerate(self.candidates[text])
            if chosen[index] and options
        }
        return replaced(text, places, words)


@dataclass(frozen=True)
class ApplyRules:
    """Masks words, replaces others within their class, and may leave a run of words only.

    Source: Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural
    Networks", 3.3.
    """

    rules: Rules
    classes: WordClasses
    mask_token: str

    def __call__(self, text: str, random: np.random.Generator) -> str:
        rules, places = self.rules, spans(text)
        words = {}
        for index, draw in enumerate(random.random(len(places))):
            start, end = places[index]
            if draw < rules.mask:
                words[index] = self.mask_token
            elif draw < rules.mask + rules.same_class:
                words[index] = self.classes.draw(text[start:end], random)
        if not places or random.random() >= rules.ngram:
            return replaced(text, places, words)
        count = min(int(random.integers(rules.shortest, rules.longest + 1)), len(places))
        first = int(random.integers(len(places) - count + 1))
        begin, stop = places[first][0], places[first + count - 1][1]
        inside = [(s - begin, e - begin) for s, e in places[first : first + count]]
        kept = {i - first: word for i, word in words.items() if first <= i < first + count}
        return replaced(text[begin:stop], inside, kept)
