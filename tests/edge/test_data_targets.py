"""A column of targets is understood as a whole, and what does not fit is refused by its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.data import Table, read_table
from edge.data.classes import Classes, classes_of
from edge.errors import DataError
from edge.tasks import Task, get_task
from edge.tasks.summary import target_column

NAMES = ("negative", "positive")
STARS = tuple(f"{i} star{'s' * (i > 1)}" for i in range(1, 6))
SETS = ("a", "b", "c")


def table(targets: list[Any], **changes: Any) -> Table:
    return Table("data", ["a film"] * len(targets), None, targets, **changes)


def classes(*labels: str) -> Task:
    return get_task("text-classification", labels=labels)


def sets(*labels: str) -> Task:
    return get_task("text-classification", labels=labels, problem_type="multi_label_classification")


@pytest.mark.parametrize(
    ("labels", "targets", "expected"),
    [
        (NAMES, ["positive", "negative"], [1, 0]),
        (NAMES, ["Positive", "NEGATIVE "], [1, 0]),
        (NAMES, [1, 0], [1, 0]),
        (NAMES, ["1.0", "0.0"], [1, 0]),
        (NAMES, [True, False], [1, 0]),
        (("no", "No"), ["No", "no"], [1, 0]),
        (("2", "1"), [1, 2.0, "2"], [1, 0, 0]),
        (("LABEL_1", "LABEL_0"), ["0", "1"], [1, 0]),
        (("NA", "EU"), ["NA", "EU"], [0, 1]),
        (("1 star", "2 stars"), ["2 stars", "1 star"], [1, 0]),
    ],
)
def test_classes_are_names_or_numbers(
    labels: tuple[str, ...], targets: list[Any], expected: list[int]
) -> None:
    assert classes(*labels).targets(table(targets)).tolist() == expected


@pytest.mark.parametrize(
    ("labels", "targets", "message"),
    [
        (NAMES, ["positive", ""], r"row 2: a label is missing \(''\)"),
        (NAMES, ["positive", "NaN"], r"row 2: a label is missing \('NaN'\)"),
        (NAMES, [1, float("nan")], r"row 2: a label is missing \(nan\)"),
        (NAMES, [1, None, None], r"row 2 has no label \(2 of 3 rows\)"),
        (NAMES, ["positive", "positve"], "row 2: .*'positve' .* did you mean 'positive'"),
        (NAMES, ["positive", "1"], "row 2: label '1' is a number where row 1 has the name"),
        (NAMES, ["0", "positive"], "row 2: label 'positive' is a name where row 1 has the number"),
        (NAMES, [0, True], "row 2: label True is a truth value where row 1 has the number 0"),
        (NAMES, [0, 0.5], "row 2: label 0.5 is a score, and the model has 2 classes"),
        (NAMES, [0, -1], "row 2: label -1 is not one of .* -1 in some data sets, leave them out"),
        (NAMES, [0, 2], "row 2: label 2 is not one of the checkpoint's 2 labels"),
        (NAMES, [0, [0, 1]], r"row 2: label \[0, 1\] is a list"),
        (NAMES, ["inf", "1"], "row 1: label 'inf' is"),
        (("1", "2"), [1, 0], "row 2: label 0 is not one of the checkpoint's 2 labels"),
        (("a", "a"), ["a"], "row 1: label 'a' is not one of"),
        (STARS, [1, 2], "label 1 may be the model's label at position 1, '2 stars', or the one"),
    ],
)
def test_what_is_no_class_is_refused_by_its_row(
    labels: tuple[str, ...], targets: list[Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        classes(*labels).targets(table(targets))


def test_a_schema_names_the_classes_whatever_their_order() -> None:
    named = table([0, 1, 1], target_names=("positive", "negative"))
    assert classes(*NAMES).targets(named).tolist() == [1, 0, 0]
    more = table([0, 1], target_names=("Positive", "negative", "neutral"))
    assert classes(*NAMES).targets(more).tolist() == [1, 0]
    with pytest.raises(DataError, match="row 2: label 'neutral' is not one of"):
        classes(*NAMES).targets(table([1, 2], target_names=("positive", "negative", "neutral")))
    with pytest.raises(DataError, match="row 1: label 'pos' is not one of .*mean 'positive'"):
        classes(*NAMES).targets(table([1, 0], target_names=("neg", "pos")))
    with pytest.raises(DataError, match="row 2: label 5 is no position among the file's 2 classes"):
        classes(*NAMES).targets(table([1, 5], target_names=NAMES))


def test_numbers_that_meet_names_are_told() -> None:
    column = target_column(classes(*NAMES), table([0, 1, 1]))
    assert column is not None
    assert (column.kind, column.counts) == ("numbers", {"negative": 1, "positive": 2})
    assert column.warning is not None
    assert "0 = negative, 1 = positive" in column.warning
    column = target_column(classes("LABEL_0", "LABEL_1"), table([0, 0]))
    assert column is not None
    assert (column.warning, column.counts) == (None, {"LABEL_0": 2, "LABEL_1": 0})
    column = target_column(classes("LABEL_0", "LABEL_1", "LABEL_2"), table([0, 2]))
    assert column is not None
    assert column.warning is not None
    assert "no row has LABEL_1" in column.warning
    named = table([0, 1], target_names=NAMES)
    column = target_column(classes("LABEL_0", "LABEL_1"), named)
    assert column is not None
    assert column.warning is not None
    assert "negative = LABEL_0, positive = LABEL_1" in column.warning


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([[0, 1, 0], [1, 1, 0]], [[0, 1, 0], [1, 1, 0]]),
        ([[0.0, 1.0, 0.0]], [[0, 1, 0]]),
        ([[False, True, True]], [[0, 1, 1]]),
        ([[0, 2], [1], []], [[1, 0, 1], [0, 1, 0], [0, 0, 0]]),
        ([["a", "c"], "b", []], [[1, 0, 1], [0, 1, 0], [0, 0, 0]]),
        (["a,c", "", " b "], [[1, 0, 1], [0, 0, 0], [0, 1, 0]]),
        (["", ""], [[0, 0, 0], [0, 0, 0]]),
        (["[0, 1, 0]", "[1, 1, 0]"], [[0, 1, 0], [1, 1, 0]]),
        (["['a', 'c']", '["b"]', "[]"], [[1, 0, 1], [0, 1, 0], [0, 0, 0]]),
        (["0,2", "1"], [[1, 0, 1], [0, 1, 0]]),
        (["0,1,0", "1,1,0"], [[0, 1, 0], [1, 1, 0]]),
        (["0.0,1.0,0.0"], [[0, 1, 0]]),
    ],
)
def test_several_labels_are_names_numbers_or_flags(
    targets: list[Any], expected: list[list[int]]
) -> None:
    assert sets(*SETS).targets(table(targets)).tolist() == expected


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["a", "a,d"], "row 2: label 'd' is not one of the checkpoint's 3 labels"),
        (["a", "a,,b"], "row 2 has an empty label"),
        (["a", float("nan")], r"row 2: a label is missing \(nan\)"),
        (["a", None], "row 2 has no label"),
        (["a", "nan"], "row 2: a label is missing"),
        ([[0, 1, 0], [0, 1]], "row 1: one label is there twice"),
        ([["a"], ["a", 1]], "row 2: label 1 is a number where row 1 has the name 'a'"),
        (["a", "a,a"], "row 2: one label is there twice"),
        ([[0], [3]], "row 2: label 3 is not one of"),
        (["[0]", "b"], "row 2 has 'b', no list in brackets"),
    ],
)
def test_several_labels_that_do_not_fit_are_refused(targets: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        sets(*SETS).targets(table(targets))


def test_lists_that_are_numbers_as_well_as_flags_are_refused() -> None:
    with pytest.raises(DataError, match=r"labels \[0, 1\], which may be numbers of labels or a"):
        sets("a", "b").targets(table([[0, 1], [1, 0]]))
    with pytest.raises(DataError, match="which may be numbers of labels or a flag for each"):
        sets("a", "b").targets(table(["0,1", "1,0"]))
    assert sets("a", "b").targets(table([[0, 1], [1, 1]])).tolist() == [[0, 1], [1, 1]]
    assert sets("a", "b").targets(table([[0, 1], [1]])).tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("bad", ["high", "", "nan", "inf", None, "1,5"])
def test_scores_are_numbers_in_every_row(bad: Any) -> None:
    task = get_task("text-classification", labels=("score",))
    assert task.targets(table(["1", 2, "-0.5", "1e-3"])).tolist() == [1, 2, -0.5, 0.001]
    with pytest.raises(DataError, match=r"data row 2.* (regression target|no regression)"):
        task.targets(table([1.0, bad]))


def test_the_row_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"two\nlines",positive\nb,negative\nc,ugly\n')
    with pytest.raises(DataError, match="line 5, row 3: label 'ugly'"):
        classes(*NAMES).targets(read_table(path))
    with pytest.raises(DataError, match="line 5, row 3: label 'ugly'"):
        classes(*NAMES).targets(read_table(path).take([2, 0]).head(1))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["b", "a", "b"], ("a", "b")),
        ([0, 1, 2], ("LABEL_0", "LABEL_1", "LABEL_2")),
        (["0.0", "1.0", "3.0", "2.0"], ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")),
        ([1, 2, 3, 4], ("1", "2", "3", "4")),
        ([-1, 0, 1], ("-1", "0", "1")),
        (["0", "2"], ("LABEL_0", "LABEL_1", "LABEL_2")),
        (["0", "7"], ("0", "7")),
        ([0.5, 1.0], ("LABEL_0",)),
        ([0, None, 1], ("LABEL_0", "LABEL_1")),
    ],
)
def test_classes_are_those_of_the_data(targets: list[Any], expected: tuple[str, ...]) -> None:
    found = classes_of(table(targets))
    assert found == Classes(expected)
    task = get_task("text-classification", labels=found.labels)
    task.targets(table([value for value in targets if value is not None]))


def test_lists_are_several_labels() -> None:
    several = "multi_label_classification"
    assert classes_of(table([["b"], ["a", "b"], []])) == Classes(("a", "b"), several)
    flags = ("LABEL_0", "LABEL_1", "LABEL_2")
    assert classes_of(table([[0, 1, 0], [1, 1, 0]])) == Classes(flags, several)
    assert classes_of(table([[0, 1, 2], [1]])) == Classes(flags, several)
    assert classes_of(table(["['b']", '["a", "b"]', "[]"])) == Classes(("a", "b"), several)
    assert classes_of(table(["[0, 1, 0]", "[1, 1, 0]"])) == Classes(flags, several)
    assert classes_of(table(["[BAD]", "[GOOD]"])) == Classes(("[BAD]", "[GOOD]"))
    named = table([[1, 0], [0, 1]], target_names=("b", "a"))
    assert classes_of(named) == Classes(("b", "a"), several)
    assert sets("a", "b").targets(named).tolist() == [[1, 1], [1, 1]]


def test_one_class_is_told_as_such() -> None:
    with pytest.raises(DataError, match="one class only, 'good' in every row: training needs at"):
        classes_of(table(["good", "good"]))


def test_names_of_a_schema_are_no_scores() -> None:
    regression = get_task("text-classification", labels=("LABEL_0",))
    with pytest.raises(DataError, match=r"holds classes \(pos, neg\), and a regression needs num"):
        regression.targets(table([0, 1], target_names=("pos", "neg")))


def test_names_of_a_schema_are_all_in_order_or_all_by_name() -> None:
    task = classes("LABEL_0", "LABEL_1")
    assert task.targets(table([0, 1], target_names=("LABEL_1", "LABEL_0"))).tolist() == [1, 0]
    assert task.targets(table([0, 1], target_names=("LABEL_1", "other"))).tolist() == [0, 1]


def test_more_digits_than_python_reads_are_no_class() -> None:
    with pytest.raises(DataError, match="row 2: label '999"):
        classes("LABEL_0", "LABEL_1").targets(table(["0", "9" * 5000]))


@pytest.mark.parametrize("bad", ["", "NA", "null", float("nan"), "3", 3])
def test_a_missing_label_is_no_class(bad: Any) -> None:
    with pytest.raises(DataError, match="row 2: "):
        classes_of(table(["good", bad, "bad"]))


def test_names_in_a_parquet_schema_are_read(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])}
    )
    rows = {"text": ["a", "b", "c"], "label": [0, 1, -1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    read = read_table(tmp_path / "a.parquet")
    assert (read.target_names, read.targets) == (("pos", "neg"), [0, 1, None])
    task = classes("neg", "pos")
    assert task.targets(read.head(2)).tolist() == [1, 0]
    with pytest.raises(DataError, match=r"row 3 has no label \(1 of 3 rows\): leave such rows out"):
        task.targets(read)


def test_null_is_no_class(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [{"text": "a", "label": 1}, {"text": "b", "label": None}]
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=r"line 2, row 2: a label is missing \(nan\)"):
        classes(*NAMES).targets(read_table(path))
    assert read_table(path, targets=False).targets is None


def tags(values: list[Any], **changes: Any) -> Table:
    words = [["a"] * len(v) if isinstance(v, list) else ["a"] for v in values]
    return Table("data", [" ".join(w) for w in words], None, values, words=words, **changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([["O"], ["B-PER", ""]], r"row 2: tag 2 is missing \(''\)"),
        ([["O"], [None]], "row 2: tag 1 is missing"),
        ([["O"], [1]], "row 2: tag 1 is a number where the first tag, 'O', is a name"),
        ([["B-PER"], ["PER"]], "row 2: tags 'PER' and 'B-PER' are of two schemes"),
        ([["S-PER"], ["O", "U-PER"]], "row 2: tags 'S-PER' and 'U-PER' are of two schemes"),
        ([["O"], ["Q-PER"]], "row 2: tag 'Q-PER' is not one of the model's"),
        ([["O"], "O"], "row 2 has 'O' for its tags"),
    ],
)
def test_tags_of_two_kinds_are_refused(values: list[Any], message: str) -> None:
    task = get_task("token-classification", labels=("O", "B-PER", "I-PER"))
    with pytest.raises(DataError, match=message):
        task.targets(tags(values))


def test_tags_of_a_model_without_names_are_positions() -> None:
    task = get_task("token-classification", labels=("LABEL_0", "LABEL_1"))
    assert task.targets(tags([[1, 0]])) == [["LABEL_1", "LABEL_0"]]
    assert task.targets(tags([["1", "0"]])) == [["LABEL_1", "LABEL_0"]]
    named = tags([[1, 0]], target_names=("O", "B-X"))
    assert task.targets(named) == [["LABEL_1", "LABEL_0"]]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["a,b", "c", "a"], "label 'a,b' may be one label or several, since 'a' is in another one"),
        (["a, b", "b ,c"], "since 'b' is in another one too: write lists of names"),
        (["caf\u00e9", "cafe\u0301"], "in two forms of Unicode, "),
        ([["caf\u00e9"], ["cafe\u0301"]], "in two forms of Unicode, "),
        ([[], []], "has no label in any row: training needs at least two"),
    ],
)
def test_classes_that_may_be_others_are_refused(targets: list[Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        classes_of(table(targets))
    assert message in str(caught.value)


def test_a_class_may_have_a_comma_in_its_name() -> None:
    assert classes_of(table(["a, b", "c,", "d,"])).labels == ("a, b", "c,", "d,")
