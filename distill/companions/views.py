"""The student itself, reading something else than the row: a text of the same class, or changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.companions.base import Cast, Companion, Scene
from distill.data.views import view_inputs
from distill.recipe.companions import Partner, Transformed
from distill.recipe.terms import STUDENT, Name
from distill.signals.capture import FEATURES, Inputs, Need, Signals, answer_layer, capture
from distill.signals.shapes import Setting
from edge.errors import ConfigError
from edge.tasks.text_classification import REGRESSION, SINGLE_LABEL


class PartnerAnswers(Companion):
    """What the student says of another text of the same class, without gradient."""

    def __init__(self, config: Partner, cast: Cast) -> None:
        super().__init__()
        problem = cast.setting.problem_type
        if not cast.setting.reading.classifies_texts or problem == REGRESSION:
            what = "a score" if problem == REGRESSION else cast.setting.task
            raise ConfigError(
                f"companion {config.name} is another text of the same class, {what} has none: "
                "use text classification"
            )
        self._name = config.name
        self.shapes = {config.name: None}
        # Not a submodule: the student would be saved and trained twice.
        self._student = (cast.student,)

    def forward(self, scene: Scene) -> dict[Name, Signals]:
        inputs = view_inputs(scene.inputs, self._name)
        with torch.no_grad():
            return {self._name: capture(self._student[0], inputs, frozenset())}


class JointAnswers(Companion):
    """Which class a changed text has and how it was changed, asked in one; and the mean of all.

    A member answers for the texts that were changed in its way, (B, C + 1): the classes, and
    `changed in another way` as one more. Its cross-entropy with the class is that of the joint
    question, -log softmax over all pairs of class and change. The first member's texts are as they
    are. The aggregate is the mean over changes of the scores that are right about the change.
    """

    def __init__(self, config: Transformed, cast: Cast) -> None:
        super().__init__()
        _check_single_label(config.name, cast.setting)
        answers = answer_layer(cast.student)
        self._members, self._aggregate = config.readers, config.members[-1]
        self.head = nn.Linear(answers.in_features, answers.out_features * len(self._members))
        self.shapes = dict.fromkeys(config.members)
        self.asks = {STUDENT: frozenset({Need(FEATURES, 0)})}
        self._student = (cast.student,)

    def forward(self, scene: Scene) -> dict[Name, Signals]:
        count = len(self._members)
        texts = [self._features(scene.inputs, name) for name in self._members[1:]]
        features = [scene.said[STUDENT].features[0], *texts]
        # (B, changes, classes) of each changed text
        scores = [self.head(one).float().unflatten(-1, (count, -1)) for one in features]
        right = [score[:, i] for i, score in enumerate(scores)]
        answers = {
            name: torch.cat([right[i], _others(scores[i], i)], -1)
            for i, name in enumerate(self._members)
        }
        answers[self._aggregate] = torch.stack(right).mean(0)
        return {name: Signals({"logits": logits}) for name, logits in answers.items()}

    def _features(self, inputs: Inputs, view: Name) -> Tensor:
        needs = frozenset({Need(FEATURES, 0)})
        return capture(self._student[0], view_inputs(inputs, view), needs).features[0]


def _others(scores: Tensor, own: int) -> Tensor:
    """log of the sum over all classes and other changes of exp(score), (B, 1)."""
    rest = torch.cat([scores[:, :own], scores[:, own + 1 :]], 1)
    return rest.flatten(1).logsumexp(-1, keepdim=True)


def _check_single_label(name: Name, setting: Setting) -> None:
    problem = setting.problem_type or SINGLE_LABEL
    classifies = setting.reading.classifies_texts
    if not classifies or problem != SINGLE_LABEL:
        what = problem if classifies else setting.task
        raise ConfigError(
            f"companion {name} asks for one class of a whole text together with its change, "
            f"{what} has none: use text classification with one label"
        )
