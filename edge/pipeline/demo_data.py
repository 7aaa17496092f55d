"""Generated support messages with four intents that depend on word order, not on words alone.

Most messages name two topics, one settled and one open, and the open one is the label: "The refund
came, but my parcel is missing" is about delivery, the reverse about refunds. Some are ambiguous, as
in a real inbox, so that no model reaches 100%.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

LABELS = ("account", "billing", "delivery", "refund")
# Only the subject determines the topic; the predicates fit any topic.
_SUBJECTS: dict[str, tuple[str, ...]] = {
    "account": (
        "my password",
        "the login code",
        "my profile",
        "the e-mail address on file",
        "my user name",
        "the reset link",
        "the app sign-in",
    ),
    "billing": (
        "the invoice",
        "the charge on my card",
        "the monthly fee",
        "the discount",
        "the payment of {amount}",
        "the receipt",
        "the bill for {day}",
    ),
    "delivery": (
        "my parcel",
        "the courier",
        "the tracking page",
        "order {number}",
        "the shipment",
        "the box",
        "the drop-off on {day}",
    ),
    "refund": (
        "the refund of {amount}",
        "my return",
        "the money back for order {number}",
        "the return label",
        "the credit note",
        "the reimbursement",
        "the exchange",
    ),
}
_OPEN = (
    "is still missing",
    "is wrong again",
    "does not work",
    "has not come since {day}",
    "was never confirmed",
    "is not what you promised",
    "has been stuck for a week",
    "keeps failing",
    "cannot be found",
    "is worse than before",
)
_SETTLED = (
    "is fine now",
    "came on {day}",
    "works again",
    "was put right",
    "is all right this time",
    "was confirmed on {day}",
    "is what you promised",
    "was no trouble",
    "is sorted out",
)
_CONTRASTS = (
    "{settled}, but {open}",
    "{open}, although {settled}",
    "even though {settled}, {open}",
    "{settled}; what is left is that {open}",
    "it is not that {other}, it is that {open}",
    "{settled}. still, {open}",
    "{open}. at least {settled}",
)
_SINGLE = ("{open}", "{open}, and nobody answers", "for the third time: {open}", "{open}, why?")
_OPENINGS = ("", "", "", "hello, ", "hi there, ", "good morning. ", "sorry to bother you, ")
_ENDINGS = ("", "", "", " please help", " what can i do?", " thanks", " this is urgent!")
_VAGUE = (
    "it still does not work, please help",
    "i wrote to you on {day} and nothing happened",
    "same problem as last time with number {number}",
    "can somebody please call me back about {number}?",
)
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "the weekend", "last week")
_VAGUE_SHARE = 0.04
_SINGLE_SHARE = 0.15


@dataclass(frozen=True)
class Message:
    """One text and its intent."""

    text: str
    label: str


def messages(count: int, *, seed: int) -> list[Message]:
    """Return `count` messages; the same seed gives the same messages on every machine."""
    source = random.Random(seed)
    return [_message(source) for _ in range(count)]


def to_tsv(rows: list[Message]) -> str:
    """Format the rows as a TSV file with the columns text and label."""
    return "text\tlabel\n" + "".join(f"{row.text}\t{row.label}\n" for row in rows)


def _message(source: random.Random) -> Message:
    label, other = source.sample(LABELS, 2)
    kind = source.random()
    if kind < _VAGUE_SHARE:
        return Message(_filled(source.choice(_VAGUE), source), label)
    subject, other_subject = source.choice(_SUBJECTS[label]), source.choice(_SUBJECTS[other])
    shapes = _SINGLE if kind < _VAGUE_SHARE + _SINGLE_SHARE else _CONTRASTS
    body = source.choice(shapes).format(
        open=f"{subject} {source.choice(_OPEN)}",
        settled=f"{other_subject} {source.choice(_SETTLED)}",
        other=f"{other_subject} {source.choice(_OPEN)}",
    )
    text = f"{source.choice(_OPENINGS)}{body}{source.choice(_ENDINGS)}"
    return Message(_filled(text, source), label)


def _filled(text: str, source: random.Random) -> str:
    """Replace the placeholders of days, amounts and order numbers with random values."""
    while "{" in text:
        text = text.replace("{day}", source.choice(_DAYS), 1)
        text = text.replace("{amount}", f"{source.randint(5, 300)} euros", 1)
        text = text.replace("{number}", str(source.randint(1000, 9999)), 1)
    return text
