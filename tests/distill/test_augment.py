from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from edge.data import Table, read_table
from edge.errors import CheckpointError, ConfigError, DataError
from edge.tasks import get_task
from tests.distill.conftest import BAD, GOOD, NEUTRAL, open_teacher

TASK = get_task("text-classification", labels=("negative", "positive"))


def method(name: str, **values: Any) -> Any:
    from distill.augment import Augmentation

    return TypeAdapter(Augmentation).validate_python({"method": name, **values})


def table(*texts: str, pairs: list[str] | None = None) -> Table:
    return Table("rows.tsv", list(texts), pairs, [0] * len(texts))


@pytest.fixture(scope="module")
def teacher(checkpoint: Path) -> Any:
    return open_teacher(checkpoint)


@pytest.fixture(scope="module")
def masked_lm(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Knows words, single letters, and words in pieces."""
    return tiny_checkpoint(tmp_path_factory.mktemp("masked-lm"), task="fill-mask")


@pytest.fixture
def make(teacher: Any, tmp_path: Path) -> Callable[..., Table]:
    from distill.augment import augment

    def run(rows: Table, how: Any, **options: Any) -> Table:
        options = {"task": TASK, "teacher": teacher, "folder": tmp_path / "cache", **options}
        return augment(rows, how, **options)

    return run


def test_words_of_a_text() -> None:
    from distill.augment.words import key, replaced, spans

    text = "It 's Ann's 2nd film—not 好片, was it?"
    words = [text[start:end] for start, end in spans(text)]
    assert words == ["It", "s", "Ann's", "2nd", "film", "not", "好", "片", "was", "it"]
    places = spans("The film was bad .")
    assert replaced("The film was bad .", places, {3: "good", 0: "a"}) == "A film was good ."
    assert replaced("The film", spans("The film"), {0: "[MASK]"}) == "[MASK] film"
    assert key("A  Film, was bad!") == key("a film was bad .") != key("a film was good")
    assert key("?!") != key("...")


def test_sentences_end_where_a_reader_ends_them() -> None:
    from distill.augment.words import sentences

    text = 'Dr. Lee left at 3.5 p.m. sharp. "Why?" Nobody knew! e.g. J. Smith of the U.S. Navy...'
    assert sentences(text) == [
        "Dr. Lee left at 3.5 p.m. sharp.",
        '"Why?"',
        "Nobody knew! e.g. J. Smith of the U.S. Navy...",
    ]
    assert sentences("很好。不错！ 是吗？对") == ["很好。", "不错！", "是吗？", "对"]
    assert sentences("no end here") == ["no end here"]
    assert sentences("  ") == []


def test_whole_words_of_word_pieces_and_of_bytes(masked_lm: Path) -> None:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from distill.augment.vocabulary import Vocabulary

    pieces = Vocabulary(AutoTokenizer.from_pretrained(masked_lm), masked_lm)
    assert {"film", "not", "b", "7"} < set(pieces.words)
    assert not {"##a", "[MASK]", "!"} & set(pieces.words)
    assert pieces.pieces(["film", "cd"])[0] == [int(pieces.ids[pieces.words.index("film")])]
    assert len(pieces.pieces(["film", "cd"])[1]) == 2
    names = ["<s>", "Ġ", "Ġgood", "good", "g", "o", "d", "Ġfine", "!"]
    inner = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    # Without merges only an added token can be a whole word.
    inner.add_tokens([tokenizers.AddedToken("fine", normalized=False, lstrip=True)])
    bytes_ = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=inner), Path("bytes"))
    assert "fine" in bytes_.words
    assert "good" not in bytes_.words


def test_the_masked_lm_proposes_what_it_would_say(masked_lm: Path) -> None:
    """Against one text, one word and one forward pass at a time, without any gathering."""
    import torch

    from distill.augment.proposals import Reader, by_masked_lm
    from distill.augment.vocabulary import EmbeddingSpace, Vocabulary, neighbours
    from edge.checkpoint import load_model, load_tokenizer, open_checkpoint
    from edge.tokenization import Tokenizer

    opened = open_checkpoint(masked_lm)
    model, tokenizer = load_model(opened), load_tokenizer(opened)
    vocabulary = Vocabulary(tokenizer, masked_lm)
    reader = Reader(model, Tokenizer.of(tokenizer, folder=masked_lm), vocabulary, max_length=8)
    embeddings = model.get_input_embeddings().weight.detach().numpy()
    space = EmbeddingSpace(vocabulary, embeddings)
    texts = ["The film was good .", "a bad ab plot , of the great film"]
    found = by_masked_lm(texts, reader, space, 4)
    ids = tokenizer(texts[0])["input_ids"]
    for word, own in enumerate(["the", "film", "was", "good"]):
        masked = [*ids]
        masked[word + 1] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([masked])).logits[0, word + 1]
        ranked = sorted(
            zip(vocabulary.ids, vocabulary.words, strict=True), key=lambda w: -logits[w[0]]
        )
        best = [name for _, name in ranked if name != own][:4]
        assert sorted(found[texts[0]][word]) == sorted(best)
    pairs = by_masked_lm(texts[:1], replace(reader, together=2), space, 4)
    both = [*ids]
    both[1] = both[3] = tokenizer.mask_token_id
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([both])).logits[0, 3, vocabulary.ids]
    best = [vocabulary.words[i] for i in logits.argsort(descending=True)]
    assert set(pairs[texts[0]][2]) == set([name for name in best if name != "was"][:4])
    # Of several tokens: by their mean. Beyond the 8 tokens that are read: nothing.
    a, b = (embeddings[tokenizer.convert_tokens_to_ids(piece)] for piece in ("a", "##b"))
    middle = (a + b) / 2
    units = space.vectors / np.linalg.norm(space.vectors, axis=1, keepdims=True)
    nearest = np.argsort(-(units @ middle))[:4]
    assert found[texts[1]][2] == sorted(space.words[i] for i in nearest)
    # Of a word that the model sees a part of, it guesses nothing.
    cut = "a bad plot of the abc"
    expected = neighbours(["abc"], space, 4)["abc"]
    assert by_masked_lm([cut], reader, space, 4)[cut][5] == expected
    assert [bool(words) for words in found[texts[1]]] == [True] * 4 + [False] * 4


@pytest.mark.parametrize("architecture", ["distilbert", "electra", "mobilebert", "modernbert"])
def test_only_the_guessed_words_are_computed(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, architecture: str
) -> None:
    """Heads differ by architecture; what they say at a masked token does not."""
    import torch

    from distill.augment.proposals import Reader, _Blank, _logits
    from distill.augment.vocabulary import Vocabulary
    from edge.checkpoint import load_model, load_tokenizer, open_checkpoint
    from edge.models.inputs import accepted
    from edge.tokenization import Tokenizer

    opened = open_checkpoint(tiny_checkpoint(tmp_path, architecture, task="fill-mask"))
    model, tokenizer = load_model(opened), load_tokenizer(opened)
    reader = Reader(
        model, Tokenizer.of(tokenizer, folder=tmp_path), Vocabulary(tokenizer, tmp_path), 32
    )
    texts = ["the film was good", "not bad of a great plot"]
    encodings = reader.tokenizer.encode(texts, max_length=32)
    batch = [[_Blank(0, 1, 2)], [_Blank(1, 0, 1), _Blank(1, 4, 5)]]
    found = _logits(batch, encodings, reader)
    inputs = {
        name: torch.from_numpy(column).long()
        for name, column in reader.tokenizer.pad(encodings, 8).items()
    }
    places = (torch.tensor([0, 1, 1]), torch.tensor([2, 1, 5]))
    inputs["input_ids"][places] = tokenizer.mask_token_id
    with torch.no_grad():
        expected = model(**accepted(model, inputs)).logits[places]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_replacement_keeps_its_probability_and_its_candidates(teacher: Any) -> None:
    from distill.augment.rewriting import Replace

    text = "one two three four"
    rewrite = Replace({text: [["a", "b"], [], ["c"], ["d"]]}, probability=0.4)
    found = [rewrite(text, np.random.default_rng(i)).split() for i in range(2000)]
    counts = [Counter(words[i] for words in found) for i in range(4)]
    assert set(counts[0]) == {"one", "a", "b"}
    assert counts[0]["a"] / 2000 == pytest.approx(0.2, abs=0.03)
    assert counts[1] == {"two": 2000}
    assert counts[2]["c"] / 2000 == pytest.approx(0.4, abs=0.04)


def test_masked_lm_copies_are_new_and_the_same_again(
    make: Callable[..., Table], masked_lm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    import distill.augment.making as making

    rows = table("the film was good .", "a bad plot", "the film was good .")
    how = method("masked-lm", model=str(masked_lm), copies=5, candidates=3)
    first = make(rows, how)
    assert first.targets is None
    assert len(set(first.texts)) == len(first) > 6
    assert not set(first.texts) & set(rows.texts)
    file = Path(first.source)
    text = file.read_text(encoding="utf-8")
    file.unlink()
    # Nothing depends on how many threads there are, or on what ran before.
    torch.set_num_threads(2)
    torch.manual_seed(7)
    assert make(rows, how).texts == first.texts
    torch.set_num_threads(1)
    assert file.read_text(encoding="utf-8") == text
    other = make(rows, method("masked-lm", model=str(masked_lm), copies=5, candidates=3, seed=1))
    assert other.source != first.source
    assert other.texts != first.texts
    monkeypatch.setattr(making, "_rewrite", None)
    assert make(rows, how).texts == first.texts
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".jsonl", ".jsonl"]


def test_nearest_neighbours_of_the_teachers_own_embeddings(
    make: Callable[..., Table], teacher: Any
) -> None:
    from distill.augment.vocabulary import EmbeddingSpace, Vocabulary, neighbours

    vectors = teacher.model.get_input_embeddings().weight.detach().numpy()
    space = EmbeddingSpace(Vocabulary(teacher.tokenizer, Path("teacher")), vectors)
    near = neighbours(["fine", "Fine"], space, 2)
    own = space.vectors[space.words.index("fine")]
    cosines = space.vectors @ own / np.linalg.norm(space.vectors, axis=1)
    expected = sorted(space.words[i] for i in np.argsort(-cosines)[1:3])
    assert near == {"fine": expected, "Fine": expected}
    made = make(table("fine"), method("nearest-embedding", probability=1, candidates=2))
    assert sorted(made.texts) == expected


def test_neighbours_from_a_file_of_vectors(make: Callable[..., Table], tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("4 2\nfine 1 0\nlovely 0.9 0.1\nsad -1 0\n, 1 0\n", encoding="utf-8")
    how = method("nearest-embedding", probability=1, candidates=1, vectors=file, copies=1)
    assert make(table("Fine , music"), how).texts == ["Lovely , music"]
    file.write_text("4 2\nfine 1 0\nlovely 0.9\n", encoding="utf-8")
    with pytest.raises(DataError, match="not a text file of word vectors .line 3 has 1 numbers"):
        make(table("Fine"), how)


def test_rules_mask_replace_and_cut(teacher: Any) -> None:
    from distill.augment.classes import WordClasses
    from distill.augment.rewriting import ApplyRules

    counts = Counter({"one": 1, "two": 3, "red": 5})
    classes = WordClasses(counts, {"one": "number", "two": "number", "red": "colour"})
    rules = method("rules", mask=0.2, same_class=0.3, ngram=0)
    text = "one red , one"
    rewrite = ApplyRules(rules, classes, "[MASK]")
    found = [rewrite(text, np.random.default_rng(i)).split() for i in range(4000)]
    first = Counter(words[0] for words in found)
    assert first["[MASK]"] / 4000 == pytest.approx(0.2, abs=0.03)
    # As often as it occurs: three in four of those that are replaced.
    assert first["two"] / 4000 == pytest.approx(0.3 * 0.75, abs=0.03)
    assert set(first) == {"one", "two", "[MASK]"}
    assert {words[1] for words in found} == {"red", "[MASK]"}
    cut = ApplyRules(method("rules", mask=0, same_class=0, ngram=1, longest=2), classes, "")
    pieces = {cut(text, np.random.default_rng(i)) for i in range(200)}
    assert pieces == {"one", "red", "one red", "red , one"}


def test_classes_are_learned_from_what_stands_beside_a_word() -> None:
    from distill.augment.classes import learn_classes

    random = np.random.default_rng(0)
    nouns, verbs = ([f"{kind}{i}x" for i in range(30)] for kind in ("n", "v"))
    texts = [
        f"the {random.choice(nouns)} will {random.choice(verbs)} a {random.choice(nouns)} ."
        for _ in range(800)
    ]
    texts.append("the rarelyx will stop")
    classes = learn_classes(texts, seed=0)
    drawn = [classes.draw("n3x", np.random.default_rng(i)) for i in range(100)]
    assert {word[0] for word in drawn} == {"n"}
    assert len(set(drawn)) > 5
    assert classes.draw("unheard", random) == "unheard"
    # A rare word joins the words that end as it does.
    assert classes.draw("rarelyx", np.random.default_rng(0)) != "rarelyx"
    again = learn_classes(texts, seed=0)
    assert [again.draw("n3x", np.random.default_rng(i)) for i in range(100)] == drawn


def test_rules_with_a_lexicon(make: Callable[..., Table], tmp_path: Path) -> None:
    file = tmp_path / "lexicon.tsv"
    file.write_text("fine\tADJ\nsad\tADJ\nfilm\tNOUN\n", encoding="utf-8")
    how = method("rules", lexicon=file, mask=0, same_class=1, ngram=0)
    assert set(make(table("fine film", "sad music"), how).texts) == {"sad film", "fine music"}
    file.write_text("fine ADJ\n", encoding="utf-8")
    with pytest.raises(DataError, match="lexicon .* line 1 is not a word, a tab and its class"):
        make(table("fine film"), how)


def test_rules_write_the_teachers_mask_token(make: Callable[..., Table], teacher: Any) -> None:
    made = make(table("fine film"), method("rules", mask=1, same_class=0, ngram=0, copies=2))
    assert made.texts == ["[MASK] [MASK]"]
    assert teacher.tokenizer(made.texts[0])["input_ids"] == [2, 4, 4, 3]


def test_pairs_change_on_one_side_the_other_and_both(make: Callable[..., Table]) -> None:
    rows = table("fine film", pairs=["sad plot"])
    made = make(rows, method("rules", mask=1, same_class=0, ngram=0, copies=3))
    masked = "[MASK] [MASK]"
    assert made.pairs is not None
    assert list(zip(made.texts, made.pairs, strict=True)) == [
        (masked, "sad plot"),
        ("fine film", masked),
        (masked, masked),
    ]


def test_unlabelled_text_without_what_is_known_or_evaluated(
    make: Callable[..., Table], tmp_path: Path
) -> None:
    file = tmp_path / "reviews.txt"
    file.write_text(
        "A fine film. A Sad, sad plot!\nno\nlong music here. A fine film\nactor and scene\n"
        f"{'word ' * 9}\n",
        encoding="utf-8",
    )
    how = method("unlabelled", source=str(file), max_words=8)
    held_out = table("a sad sad plot")
    made = make(table("long music here"), how, exclude=[held_out])
    assert made.texts == ["A fine film.", "actor and scene"]
    assert made.targets is None
    whole = make(table("x"), method("unlabelled", source=str(file), split_sentences=False))
    assert whole.texts[0] == "A fine film. A Sad, sad plot!"
    one = make(table("x"), method("unlabelled", source=str(file), limit=1))
    assert len(one) == 1
    assert len(make(table("x"), how)) == 4
    # The file is read again when it has changed, and when more is held out.
    file.write_text("quite other words\n", encoding="utf-8")
    assert make(table("x"), how).texts == ["quite other words"]
    with pytest.raises(DataError, match="unlabelled gives no text that rows.tsv lacks"):
        make(table("x"), how, exclude=[table("Quite other words!")])


def test_unlabelled_pairs(make: Callable[..., Table], tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("sentence1\tsentence2\na b. C d\te f\n", encoding="utf-8")
    rows = table("fine film", pairs=["sad plot"])
    made = make(rows, method("unlabelled", source=str(file)))
    assert (made.texts, made.pairs) == (["a b. C d"], ["e f"])
    lines = tmp_path / "lines.txt"
    lines.write_text("a b c\n", encoding="utf-8")
    with pytest.raises(DataError, match="lines.txt has single texts where rows.tsv has pairs"):
        make(rows, method("unlabelled", source=str(lines)))


@pytest.mark.parametrize("name", ["token-classification", "question-answering", "fill-mask"])
def test_tasks_that_label_words_are_refused(make: Callable[..., Table], name: str) -> None:
    with pytest.raises(ConfigError, match=f"augmentation rules gives texts .* and {name} learns"):
        make(table("fine film"), method("rules"), task=get_task(name))


def test_a_masked_lm_that_is_not_one(make: Callable[..., Table], checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="has no weights for|missing|cannot be loaded"):
        make(table("fine film"), method("masked-lm", model=str(checkpoint)))
    with pytest.raises(CheckpointError, match="augmentation masked-lm: checkpoint ./none does not"):
        make(table("fine film"), method("masked-lm", model="./none"))


def test_settings_that_cannot_be() -> None:
    from distill.recipe.augmentations import Rules, Unlabelled

    with pytest.raises(ConfigError, match="shares of the same words: at most 1 together"):
        Rules.build({"method": "rules", "mask": 0.6, "same_class": 0.5})
    with pytest.raises(ConfigError, match="shortest 6 is more than longest 5"):
        Rules.build({"method": "rules", "shortest": 6})
    with pytest.raises(ConfigError, match="min_words 9 is more than max_words 8"):
        Unlabelled.build({"method": "unlabelled", "source": "a", "min_words": 9, "max_words": 8})
    with pytest.raises(ConfigError, match="unknown key 'copys', did you mean 'copies'?"):
        Rules.build({"method": "rules", "copys": 2})


def test_a_file_that_is_interrupted_is_not_there(
    make: Callable[..., Table], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import distill.augment.making as making

    def interrupted(*_: Any) -> Any:
        yield "made text", None
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "_rewrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(table("fine film"), method("rules"))
    assert not list(tmp_path.rglob("*.*"))


def test_mixing_knows_which_labels_are_known() -> None:
    from distill.augment import mix, targets_of

    mixed = mix(table("a", "b"), Table("more", ["c"], None, None))
    assert mixed.texts == ["a", "b", "c"]
    assert targets_of(TASK, mixed).tolist() == [0, 0, -100]
    score = get_task("text-classification", labels=("score",))
    rows = mix(Table("r", ["a"], None, ["2.5"]), Table("more", ["c"], None, None))
    known, unknown = targets_of(score, rows)
    assert known == 2.5
    assert np.isnan(unknown)
    several = get_task(
        "text-classification", labels=("x", "y"), problem_type="multi_label_classification"
    )
    rows = mix(Table("r", ["a"], None, ["x,y"]), Table("more", ["c"], None, None))
    assert targets_of(several, rows).tolist() == [[1, 1], [-100, -100]]
    with pytest.raises(DataError, match="has no labels at all"):
        targets_of(TASK, Table("none", ["a"], None, [None]))
    with pytest.raises(DataError, match="rows.tsv and more: one holds pairs, one does not"):
        mix(table("a"), Table("more", ["c"], ["d"], None))


def test_encoded_rows_are_those_of_the_tokenizer(
    teacher: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import distill.augment.mixing as mixing
    from edge.tokenization import Tokenizer

    monkeypatch.setattr(mixing, "_CHUNK_ROWS", 2)
    tokenizer = Tokenizer.of(teacher.tokenizer, folder=checkpoint)
    rows = mixing.mix(
        table("fine film", "sad", "long music"), Table("m", ["poor plot"], None, None)
    )
    found = mixing.encode_rows(rows, mixing.targets_of(TASK, rows), tokenizer, max_length=8)
    expected = tokenizer.encode(rows.texts, max_length=8)
    assert found["input_ids"][:] == [encoding.input_ids for encoding in expected]
    assert found["token_type_ids"][:] == [encoding.token_type_ids for encoding in expected]
    assert found["length"][:] == [4, 3, 4, 4]
    assert found["labels"][:] == [0, 0, 0, -100]
    assert found["rows"][:] == [0, 1, 2, 3]


def test_the_file_is_one_that_anything_reads(make: Callable[..., Table]) -> None:
    made = make(table("fine film"), method("rules", mask=1, same_class=0, ngram=0, copies=1))
    lines = Path(made.source).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"text": "[MASK] [MASK]"}]
    assert read_table(made.source, targets=False).texts == made.texts


@pytest.mark.parametrize("change", ["flipped", "cut", "emptied", "version", "lexicon"])
def test_only_whole_texts_of_the_same_inputs_are_taken_again(
    make: Callable[..., Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    import edge.provenance

    rows, lexicon = table("a fine film", "the sad plot"), tmp_path / "words.tsv"
    lexicon.write_text("".join(f"{word}\tnoun\n" for word in (*NEUTRAL, *GOOD, *BAD)))
    how = method("rules", copies=1, lexicon=str(lexicon))
    first = make(rows, how)
    file = Path(first.source)
    text = file.read_text()
    if change == "flipped":
        file.write_text(text.replace("e", "a", 1))
    elif change == "cut":
        file.write_text("".join(text.splitlines(keepends=True)[:-1]))
    elif change == "emptied":
        file.write_text("")
    elif change == "version":
        monkeypatch.setattr(edge.provenance, "__version__", "99")
    else:
        lexicon.write_text(lexicon.read_text().replace("film\tnoun", "film\tverb"))
    again = make(rows, how)
    if change in {"version", "lexicon"}:
        assert again.source != first.source
    else:
        assert (again.source, again.texts) == (first.source, first.texts)
        assert file.read_text() == text
