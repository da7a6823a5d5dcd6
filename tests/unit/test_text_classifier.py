"""fastText models in a form of their own: the library's probabilities, files, and how texts become lines."""

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.models.fasttext_file import END_OF_LINE, FastTextFile, zero_word
from gristmill.models.fasttext_words import cut_words, hash_words
from gristmill.models.linear_classifier import BYTES_PER_BLOCK
from gristmill.models.one_line import one_line, read_family, save_family
from gristmill.models.text_classifier import FILE, TextClassifier

LINES = [
    "__label__hq the miller grinds the corn, die Mühle mahlt das Korn",
    "__label__cc buy cheap watches now 磨坊 磨碎 谷物 the end",
    "__label__hq flour and bread from the mill by the river",
    "__label__cc click here to win the river of naïve watches",
]
FASTTEXT_ADDS = 1e-5

pieces = st.sampled_from(
    ["the", " ", "mill", "\n", "Mühle", "磨坊 磨碎", "watches now", "unseen", "\t", "\0", "\u3000", "x" * 99]
)
texts = st.lists(st.lists(pieces | st.text(max_size=5), max_size=20).map("".join), max_size=6)


def strings(values):
    return pa.array(values, pa.large_string())


def train(folder, lines=LINES, **options):
    (folder / "train.txt").write_text("\n".join(lines * 10) + "\n")
    options = {"dim": 6, "bucket": 50, "epoch": 20, "lr": 0.5, "wordNgrams": 2, "minCount": 1} | options
    model = fasttext.train_supervised(str(folder / "train.txt"), thread=1, verbose=0, **options)
    model.save_model(str(folder / "model.bin"))
    return folder / "model.bin"


def ask_fasttext(path, values, label):
    model = fasttext.load_model(str(path))
    found = [dict(map(reversed, model.f.predict(f"{value}\n", -1, 0.0, "strict"))) for value in values]
    return np.array([by_label.get(f"__label__{label}", FASTTEXT_ADDS) for by_label in found]) - FASTTEXT_ADDS


@pytest.fixture(scope="module", params=[1, 2, 3], ids=["words", "bigrams", "trigrams"])
def model(request, tmp_path_factory):
    return train(tmp_path_factory.mktemp("model"), wordNgrams=request.param)


@given(values=texts)
@example(values=[])
@example(values=["", " ", "the"])
@example(values=[" the mill \x0b\x0c", "磨坊" * 200, "é" * 77])
def test_probabilities_are_those_of_fasttext(model, values):
    classifier = TextClassifier.load(model)
    assert classifier._linear is not None
    lines = one_line(strings(values)).to_pylist()
    for label in ("hq", "cc"):
        found = classifier.probability(strings(values), label)
        assert found.dtype == np.float32
        assert found == pytest.approx(ask_fasttext(model, lines, label), abs=3e-6)


def test_blocks_of_texts_change_nothing(model):
    values = [f"the mill {number} watches" for number in range(40)] + ["the river " * (BYTES_PER_BLOCK // 10)]
    classifier = TextClassifier.load(model)
    together = classifier.probability(strings(values * 2), "hq")
    alone = [classifier.probability(strings([value]), "hq")[0] for value in values]
    assert together.tolist() == alone * 2


@pytest.mark.parametrize(
    "options",
    [{"loss": "ova"}, {"loss": "hs"}, {"minn": 2, "maxn": 3}, {"lines": [*LINES, "__label__xx third"]}],
    ids=["one versus all", "hierarchical", "subwords", "three labels"],
)
def test_other_models_are_asked_through_the_library(tmp_path, options):
    path = train(tmp_path, **options)
    classifier = TextClassifier.load(path)
    assert classifier._linear is None
    assert {"cc", "hq"} <= set(classifier.labels)
    found = classifier.probability(strings(["the mill", "watches"]), "hq")
    assert found == pytest.approx(ask_fasttext(path, ["the mill", "watches"], "hq"), abs=2e-5)
    assert found[0] > found[1]


def test_a_quantised_model(tmp_path):
    trained = fasttext.load_model(str(train(tmp_path, bucket=300)))
    trained.quantize()
    trained.save_model(str(tmp_path / "model.ftz"))
    assert FastTextFile.read(tmp_path / "model.ftz") is None
    classifier = TextClassifier.load(tmp_path / "model.ftz")
    good, bad = classifier.probability(strings(["the mill", "watches"]), "hq")
    assert good > 0.5 > bad


def test_a_model_that_knows_nothing_of_a_text(tmp_path):
    path = train(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"</s>\0", b"<ss>\0"))
    assert TextClassifier.load(path).probability(strings(["", "the mill"]), "cc")[0] == 0
    assert ask_fasttext(path, [""], "cc") == pytest.approx(0)


def test_a_file_holds_the_vectors_of_fasttext(model):
    read, trained = FastTextFile.read(model), fasttext.load_model(str(model))
    assert [word.decode() for word in read.words] == trained.words
    assert read.labels == trained.labels
    assert np.array_equal(read.inputs, trained.get_input_matrix())
    assert np.array_equal(read.outputs, trained.get_output_matrix())


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_that_ends_too_early(tmp_path, share):
    path = train(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="the file ends too early"):
        TextClassifier.load(path)


def test_zeroing_a_word_changes_no_other(tmp_path):
    path = train(tmp_path)
    before = fasttext.load_model(str(path))
    zero_word(path, END_OF_LINE)
    after = fasttext.load_model(str(path))
    end = after.get_word_id(END_OF_LINE)
    assert not after.get_input_vector(end).any()
    assert before.get_input_vector(end).any()
    # All else stays, vectors of n-grams with the end of a line too, as PreSelect has it.
    others = np.delete(np.arange(len(after.get_input_matrix())), end)
    assert np.array_equal(after.get_input_matrix()[others], before.get_input_matrix()[others])
    assert np.array_equal(after.get_output_matrix(), before.get_output_matrix())
    with pytest.raises(ValueError, match=r"no supervised fastText model with the word 'unseen'"):
        zero_word(path, "unseen")


@given(
    words=st.lists(st.text(min_size=1, max_size=40).filter(lambda word: not set(word) & set(" \n\r\t\v\f\0")))
)
@example(words=["a", "é", "磨坊", "x" * 500] * 20)
def test_hashes_are_fnv(words):
    hashed = hash_words(pa.array([word.encode() + b" " for word in words], pa.large_binary()))
    for word, fasttext_hash, key in zip(words, hashed.fasttext.tolist(), hashed.keys.tolist(), strict=True):
        narrow, wide = 2166136261, 14695981039346656037
        for byte in word.encode():
            narrow = (narrow ^ (byte | (0xFFFFFF00 if byte > 127 else 0))) * 16777619 % 2**32
            wide = (wide ^ byte) * 1099511628211 % 2**64
        assert key == wide
        assert fasttext_hash == (narrow if narrow < 2**31 else narrow - 2**32) % 2**64


def test_words_are_cut_at_ascii_white_space():
    words = cut_words(strings(["the\tmill\x0b by", "", "\u3000a\xa0b c\0d"]))
    cut = [word.decode() for word in words.to_pylist()]
    assert "".join(cut) == "the\tmill\x0b by </s>  </s> \u3000a\xa0b c\0d </s> "
    assert [word.strip(" \t\x0b\0") for word in cut] == [
        "the", "mill", "by", "</s>", "</s>", "\u3000a\xa0b", "c", "d", "</s>",
    ]  # fmt: skip


def test_what_fasttext_reserves_becomes_blank():
    values = strings(["a\nb", "__label__x y", "", "a </s> c"])
    assert one_line(values).to_pylist() == ["a b", " x y", "", "a   c"]


@given(values=texts)
@example(values=[f"a{char}b{char}" for char in "\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2028\u2029\u3000"])
@example(values=["\r\n a\r\nb\n\r c \r\n"])
def test_the_dclm_family_joins_lines_as_its_script_does(values):
    joined = [" ".join(value.strip().splitlines()) for value in values]
    expected = [value.replace("__label__", " ").replace("</s>", " ") for value in joined]
    assert one_line(strings(values), "dclm").to_pylist() == expected


def test_a_model_keeps_its_family(tmp_path):
    path = train(tmp_path)
    path.rename(tmp_path / FILE)
    separated = strings(["the mill\u2028watches"])
    as_words = TextClassifier.load(tmp_path).probability(separated, "hq")
    save_family(tmp_path, "dclm")
    assert read_family(tmp_path) == "dclm"
    assert read_family(tmp_path / FILE) is None
    joined = TextClassifier.load(tmp_path).probability(separated, "hq")
    assert joined != as_words
    assert TextClassifier.load(tmp_path / FILE, "dclm").probability(separated, "hq") == joined
    assert TextClassifier.load(tmp_path / FILE).probability(separated, "hq") == as_words
    with pytest.raises(ValueError, match="became lines by 'dclm', and 'default' is asked for"):
        TextClassifier.load(tmp_path, "default")
    (tmp_path / "normalisation.json").write_text('{"family": "other"}')
    with pytest.raises(ValueError, match="found the family 'other', expected one of default, dclm"):
        TextClassifier.load(tmp_path)
