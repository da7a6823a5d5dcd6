"""Prefixes, cool-down and control tokens in the shards, character by character; their masks, accounts and manifests."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from mills import LOSSES, Numbers, Row, build, publish, publish_tokens
from tiny_models import tiny
from tokenizers import Tokenizer as HuggingFaceTokenizer

from gristmill.models.tokenizer import END_OF_TEXT, TokenizedTexts, Tokenizer
from gristmill.pipelines import write_tokens
from gristmill.pipelines.control_tokens import find_column, is_tagged
from gristmill.pipelines.feed import TokenFeed
from gristmill.pipelines.ledger import read_ledger
from gristmill.pipelines.recipe_export import Control
from gristmill.pipelines.records import doc_ids, uuid_array
from gristmill.pipelines.token_shards import open_shard, read_accounts, read_manifest
from gristmill.pipelines.verify import verify_workspace
from gristmill.scorers.base import RecipeError, SelectionError, WorkspaceError
from gristmill.scorers.doc_ids import random_keys
from gristmill.scorers.pii import Pii
from gristmill.scorers.registry import make_scorer
from gristmill.scorers.text import TextBatch

SHOWN = {"\u0120": " ", "\u010a": "\n", END_OF_TEXT: "$", "<|good|>": "+", "<|bad|>": "-"}
LENGTH = 16
SCORERS = (Pii(),)
PACKINGS = pytest.mark.parametrize("packing", ["concatenate", "best_fit"])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Every byte is a token."""
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train([], 257).save(folder)
    return folder


def rows(number=24):
    """Texts of 1 to 30 letters; every third document has no URL."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [
        Row(
            n,
            letters[n] * (1 + 7 * n % 30),
            ("web", "books")[n % 2],
            url=None if n % 3 == 0 else f"https://{letters[n]}.org/",
        )
        for n in range(number)
    ]


def make(tmp_path, documents, scorers=SCORERS):
    third = len(documents) // 3
    return build(tmp_path / "mill", [documents[:third], documents[third:]], scorers)


def export(mill, tokenizer, **said):
    dataset = publish(mill, part_bytes=100)
    return publish_tokens(mill, dataset, tokenizer=str(tokenizer), sequence_length=LENGTH, **said)


def folder(mill, *names):
    return Path(mill.workspace.dataset("s", "tokens", *names))


def contents(mill):
    root = folder(mill)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def keys(mill, seed):
    """doc_id -> its random number."""
    ids = [row.doc_id.bytes for shard in mill.rows for row in shard]
    found = random_keys(pa.chunked_array([pa.array(ids, pa.uuid())]), seed)
    return dict(zip(ids, found.tolist(), strict=True))


def in_order(mill):
    found = keys(mill, 0)
    return sorted((row for shard in mill.rows for row in shard), key=lambda row: found[row.doc_id.bytes])


def read(place, tokenizer):
    """(text, mask) of each sequence: a letter a token, `.` where it has no loss and `|` where it has."""
    loaded = HuggingFaceTokenizer.from_file(str(tokenizer / "tokenizer.json"))
    found = []
    for entry in read_manifest(place)["shards"]:
        shard = open_shard(str(place / entry["name"]))
        for row, tokens in enumerate(shard.tokens):
            names = (loaded.id_to_token(int(token)) for token in tokens)
            mask = ["|"] * len(tokens)
            for start, end in shard.masked_ranges(row):
                mask[start:end] = "." * (end - start)
            found.append(("".join(SHOWN.get(name, name) for name in names), "".join(mask)))
    return found


def cut(pieces):
    """Sequences of a stream of (text, mask)."""
    text, mask = ("".join(part) for part in zip(*pieces, strict=True))
    return [
        (text[start : start + LENGTH], mask[start : start + LENGTH])
        for start in range(0, len(text) - LENGTH + 1, LENGTH)
    ]


# Prefixes.


def test_prefixes_stand_before_documents_without_loss(tmp_path, tokenizer):
    mill = make(tmp_path, rows())
    manifest = export(mill, tokenizer, prefix={"template": "{host}> "})
    pieces = []
    for row in in_order(mill):
        prefix = f"{row.host}> " if row.host else ""
        pieces.append((f"{prefix}{row.text}$", "." * len(prefix) + "|" * (len(row.text) + 1)))
    assert read(folder(mill), tokenizer) == cut(pieces)
    assert (manifest["num_documents_with_prefix"], manifest["num_documents_lacking_field"]) == (16, 8)
    assert manifest["num_prefix_tokens"] == 16 * len("b.org> ")
    assert manifest["num_tokens_of_documents"] == sum(len(row.text) for row in rows())
    kinds = ("num_tokens_of_documents", "num_prefix_tokens", "num_control_tokens", "num_ends_of_text")
    assert sum(map(manifest.get, kinds)) == manifest["num_tokens"] + manifest["num_tokens_dropped"]
    assert manifest["prefix"] == {"template": "{host}> ", "share": 1.0, "missing": None, "cool_down": 0.0}
    assert verify_workspace(mill.workspace).problems == []


def test_best_fit_packs_prefixes_and_masks_them_and_the_padding(tmp_path, tokenizer):
    mill = make(tmp_path, rows())
    export(mill, tokenizer, packing="best_fit", prefix={"template": "{source}: ", "missing": "?"})
    expected = {}
    for row in in_order(mill):
        text, mask = f"{row.source}: {row.text}$", "." * len(f"{row.source}: ") + "|" * (len(row.text) + 1)
        for start in range(0, len(text), LENGTH):
            expected[row.doc_id.bytes, start] = text[start : start + LENGTH], mask[start : start + LENGTH]
    found = read(folder(mill), tokenizer)
    shards = [pa.ipc.open_file(path).read_all().to_pylist() for path in sorted(folder(mill).glob("*.arrow"))]
    spans = [row["spans"] for shard in shards for row in shard]
    held = set()
    for (text, mask), of_row in zip(found, spans, strict=True):
        pieces = [expected[span["doc_id"], span["offset"]] for span in of_row]
        held |= {(span["doc_id"], span["offset"]) for span in of_row}
        packed, packed_mask = ("".join(part) for part in zip(*pieces, strict=True))
        assert text == packed.ljust(LENGTH, "$")
        assert mask == packed_mask.ljust(LENGTH, ".")
    assert held == expected.keys()


def test_a_share_of_the_documents_has_prefixes_and_something_stands_for_missing_hosts(tmp_path, tokenizer):
    mill = make(tmp_path, rows())
    manifest = export(mill, tokenizer, prefix={"template": "{host}> ", "share": 0.5, "missing": "none"})
    chosen = {doc_id for doc_id, key in keys(mill, 1 << 34).items() if key < 0.5}
    pieces = []
    for row in in_order(mill):
        prefix = f"{row.host or 'none'}> " if row.doc_id.bytes in chosen else ""
        pieces.append((f"{prefix}{row.text}$", "." * len(prefix) + "|" * (len(row.text) + 1)))
    assert read(folder(mill), tokenizer) == cut(pieces)
    assert 0 < manifest["num_documents_with_prefix"] == len(chosen) < 24
    lacking = [row for row in in_order(mill) if row.doc_id.bytes in chosen and row.host is None]
    assert manifest["num_documents_lacking_field"] == len(lacking)


def test_documents_without_tokens_have_no_prefix(tmp_path, tokenizer):
    texts = TokenizedTexts(np.array([1, 2], np.uint32), np.array([0, 1, 1, 2]))
    heads = TokenizedTexts(np.array([7, 8, 9], np.uint32), np.array([0, 2, 3, 3]))
    joined = texts.preceded_by(heads.where(texts.lengths > 0))
    assert (joined.tokens.tolist(), joined.offsets.tolist()) == ([7, 8, 1, 2], [0, 3, 3, 4])


# Cool-down.


@PACKINGS
def test_the_cool_down_holds_other_documents_without_prefixes(tmp_path, tokenizer, packing):
    mill = make(tmp_path, rows())
    said = {"packing": packing, "by_source": True, "prefix": {"template": "{source}: ", "cool_down": 0.3}}
    manifest = export(mill, tokenizer, **said)
    cool_down = read_manifest(folder(mill, "cool_down"))
    apart = {doc_id for doc_id, key in keys(mill, 1 << 35).items() if key < 0.3}
    assert cool_down["num_documents"] == len(apart)
    assert manifest["num_documents"] + cool_down["num_documents"] == 24
    assert cool_down["num_prefix_tokens"] == 0 < manifest["num_prefix_tokens"]
    assert cool_down["identity"] != manifest["identity"]
    for place, is_apart in ((folder(mill), False), (folder(mill, "cool_down"), True)):
        entries = read_manifest(place)["shards"]
        assert [entry["source"] for entry in entries] == ["books", "web"]
        for entry in entries:
            with (place / entry["name"]).open("rb") as file:
                assert read_accounts(file)["identity"] == read_manifest(place)["identity"]
            shard = pa.ipc.open_file(place / entry["name"]).read_all().to_pylist()
            ids = {span["doc_id"] for row in shard for span in row["spans"]}
            assert {doc_id in apart for doc_id in ids} == {is_apart}
            assert {span["source"] for row in shard for span in row["spans"]} == {entry["source"]}
    assert not any(":" in text for text, _ in read(folder(mill, "cool_down"), tokenizer))
    (batch,) = TokenFeed(str(folder(mill, "cool_down")), batch_size=cool_down["num_rows"])
    assert batch["tokens"].shape == (cool_down["num_rows"], LENGTH)
    assert sum(row.num_in for row in read_ledger(mill.workspace, "pack:s")) == 24
    report = verify_workspace(mill.workspace)
    assert (report.problems, report.orphans) == ([], [])
    before = contents(mill)
    stamp = (folder(mill) / "manifest.json").stat().st_mtime_ns
    export(mill, tokenizer, **said)
    assert (folder(mill) / "manifest.json").stat().st_mtime_ns == stamp
    (folder(mill) / "cool_down" / cool_down["shards"][0]["name"]).unlink()
    export(mill, tokenizer, **said)
    assert contents(mill) == before
    export(mill, tokenizer)
    assert sorted(contents(mill)) == ["manifest.json", "tokens-00000-of-00001.arrow"]


def test_mosaic_reads_the_loss_mask(tmp_path, tokenizer):
    mill = make(tmp_path, rows())
    export(mill, tokenizer, also=["mds"], prefix={"template": "{source}: ", "cool_down": 0.3})
    for place in (folder(mill), folder(mill, "cool_down")):
        (shard,) = json.loads((place / "mds/index.json").read_bytes())["shards"]
        assert shard["column_names"] == ["mask", "tokens"]
        assert shard["column_encodings"] == [f"ndarray:uint8:{LENGTH}", f"ndarray:uint16:{LENGTH}"]
        content = (place / "mds" / shard["raw_data"]["basename"]).read_bytes()
        assert len(content) == shard["raw_data"]["bytes"]
        start = int(np.frombuffer(content, np.uint32, 1, 4)[0])
        samples = np.frombuffer(content, np.uint8, offset=start).reshape(shard["samples"], 3 * LENGTH)
        expected = [[int(mark == "|") for mark in mask] for _, mask in read(place, tokenizer)]
        assert samples[:, :LENGTH].tolist() == expected
        tokens = open_shard(str(place / "tokens-00000-of-00001.arrow")).tokens
        assert np.array_equal(samples[:, LENGTH:].copy().view(np.uint16), tokens)


# Control tokens.

MAIL = "write to a.b@example.org now. "
TEXTS = ["fine. ", f"{MAIL}thanks! ", MAIL * 2, "", "no end", f"yes. {MAIL}"]


def test_each_document_begins_with_the_token_of_its_score(tmp_path, tokenizer):
    mill = make(tmp_path, [Row(number, text) for number, text in enumerate(TEXTS)])
    control = {"by": "num_emails", "threshold": 1, "drop_out": 0}
    manifest = export(mill, tokenizer, control=control, prefix={"template": "{source}: "})
    pieces = []
    for row in in_order(mill):
        if row.text:
            token = "+" if row.text.count("@") <= 1 else "-"
            pieces.append((f"web: {token}{row.text}$", "." * 5 + "|" * (len(row.text) + 2)))
    assert read(folder(mill), folder(mill, "tokenizer")) == cut(pieces)
    assert manifest["control"] == {
        "by": "num_emails", "threshold": 1, "quantile": None, "direction": "lowest", "per": "document",
        "drop_out": 0, "good": "<|good|>", "bad": "<|bad|>", "scorer": "pii", "fingerprint": Pii().fingerprint(),
        "good_token": 257, "bad_token": 258,
    }  # fmt: skip
    assert manifest["tokenizer"]["vocab_size"] == 259
    assert (manifest["num_good_tokens"], manifest["num_bad_tokens"]) == (4, 1)
    assert manifest["num_control_tokens"] == 5
    assert manifest["num_tokens_of_documents"] == sum(map(len, TEXTS))
    assert sum(row.num_in for row in read_ledger(mill.workspace, "rate:s")) == len(TEXTS) - 1
    report = verify_workspace(mill.workspace)
    assert (report.problems, report.orphans) == ([], [])


@PACKINGS
def test_each_sentence_begins_with_the_token_of_its_own_score(tmp_path, tokenizer, packing):
    mill = make(tmp_path, [Row(number, text) for number, text in enumerate(TEXTS)])
    control = {"by": "num_emails", "threshold": 0, "per": "sentence", "drop_out": 0}
    manifest = export(mill, tokenizer, control=control, packing=packing)
    tagged = ["+fine. $", f"-{MAIL}+thanks! $", f"-{MAIL}-{MAIL}$", "", "+no end$", f"+yes. -{MAIL}$"]
    if packing == "concatenate":
        texts = [tagged[TEXTS.index(row.text)] for row in in_order(mill)]
        expected = cut([(text, "|" * len(text)) for text in texts])
        assert read(folder(mill), folder(mill, "tokenizer")) == expected
    else:
        found = read(folder(mill), folder(mill, "tokenizer"))
        text = "".join(
            letter for text, mask in found for letter, mark in zip(text, mask, strict=True) if mark == "|"
        )
        assert sorted(text) == sorted("".join(tagged))
        assert "+yes. -write to " in {text for text, _ in found}
    assert (manifest["num_good_tokens"], manifest["num_bad_tokens"]) == (4, 4)


def test_a_model_scores_sentences_on_their_own(tmp_path, tokenizer):
    tiny().save(tmp_path / "model")
    scorer = make_scorer("perplexity", {"model": str(tmp_path / "model")})
    sentences = [
        ["It rains. ", "The miller waits for corn. "],
        ["Flour!"],
        ["So it goes. ", "Mills stand still"],
    ]
    mill = make(tmp_path, [Row(number, "".join(parts)) for number, parts in enumerate(sentences)], ())
    mill.scorers = (scorer,)
    control = {"by": "perplexity", "quantile": 0.4, "per": "sentence", "drop_out": 0}
    manifest = export(mill, tokenizer, control=control, packing="best_fit")
    scorer.setup()
    flat = [sentence for parts in sentences for sentence in parts]
    scores = dict(zip(flat, scorer.score(TextBatch.from_texts(flat))["perplexity"].to_pylist(), strict=True))
    assert manifest["control"]["threshold"] == pytest.approx(sorted(scores.values())[1])
    found = "".join(text for text, _ in read(folder(mill), folder(mill, "tokenizer")))
    good = {sentence for sentence in flat if scores[sentence] <= sorted(scores.values())[1]}
    assert all(f"{'+' if sentence in good else '-'}{sentence[:5]}" in found for sentence in flat)
    assert (manifest["num_good_tokens"], manifest["num_bad_tokens"]) == (2, 3)


def test_the_quantile_is_that_of_the_kept_documents(tmp_path, tokenizer):
    texts = [MAIL * number + "end" for number in range(10)]
    mill = make(tmp_path, [Row(number, text) for number, text in enumerate(texts)])
    manifest = export(mill, tokenizer, control={"by": "num_emails", "quantile": 0.3, "drop_out": 0})
    assert manifest["control"]["threshold"] == 2.0
    assert (manifest["num_good_tokens"], manifest["num_bad_tokens"]) == (3, 7)
    manifest = export(
        mill, tokenizer, control={"by": "num_emails", "quantile": 0.3, "direction": "highest", "drop_out": 0}
    )
    assert (manifest["num_good_tokens"], manifest["num_bad_tokens"]) == (8, 2)


def test_control_tokens_follow_the_documents_of_kept_windows(tmp_path, tokenizer):
    texts = ["abcabc", "gaggaggag", "cc", "gaaaaa"]
    mill = make(tmp_path, [Row(number, text) for number, text in enumerate(texts)], (LOSSES,))
    top = {"by": "color_filter", "of": "tokens", "unit": "windows", "keep": 15}
    dataset = publish(mill, {"top": top}, part_bytes=1)
    control = {"by": "num_tokens", "threshold": 6, "drop_out": 0, "direction": "lowest"}
    manifest = publish_tokens(
        mill, dataset, tokenizer=str(tokenizer), sequence_length=2, control=control, packing="best_fit"
    )
    assert dataset["num_windows"] == manifest["num_documents"] > dataset["num_documents"]
    found = "".join(text for text, _ in read(folder(mill), folder(mill, "tokenizer")))
    assert manifest["num_bad_tokens"] == found.count("-") > 0
    assert found.count("-g") == found.count("-")
    assert manifest["num_good_tokens"] == found.count("+") > 0


def test_conditioned_tokens_are_the_same_bytes_for_any_parts(tmp_path, tokenizer):
    documents = [Row(number, f"{TEXTS[number % 6]}{number}") for number in range(60)]
    said = {
        "control": {"by": "num_emails", "quantile": 0.5, "per": "sentence", "drop_out": 0.2},
        "prefix": {"template": "{source}: ", "share": 0.5, "cool_down": 0.2},
    }
    one = make(tmp_path / "one", documents)
    other = make(tmp_path / "other", documents)
    export(one, tokenizer, **said)
    publish_tokens(other, publish(other), tokenizer=str(tokenizer), sequence_length=LENGTH, **said)
    assert contents(one) == contents(other)


def test_an_interrupted_export_rates_nothing_twice(tmp_path, tokenizer, monkeypatch):
    mill = make(tmp_path, [Row(number, f"{TEXTS[number % 6]}{number}") for number in range(12)])
    said = {"control": {"by": "num_emails", "quantile": 0.5, "per": "sentence", "drop_out": 0.2}}
    export(mill, tokenizer, **said)
    before = contents(mill)
    (folder(mill) / "manifest.json").unlink()
    for shard in folder(mill).glob("*.arrow"):
        shard.unlink()

    def killed(*arguments):
        raise WorkspaceError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(write_tokens, "divide_documents", killed)
        with pytest.raises(WorkspaceError, match="killed"):
            export(mill, tokenizer, **said)
    with monkeypatch.context() as patched:
        patched.setattr(write_tokens.control_tokens, "rate", killed)
        export(mill, tokenizer, **said)
    assert contents(mill) == before


def test_drop_out_is_by_hash_of_document_and_sentence():
    ids = uuid_array(doc_ids("web", "a", np.arange(2000)))
    tagged = is_tagged(ids, np.full(2000, 5), 0.1, 0)
    assert tagged.mean() == pytest.approx(0.9, abs=0.01)
    assert np.array_equal(tagged[5000:], is_tagged(ids[1000:], np.full(1000, 5), 0.1, 0))
    by_number = tagged.reshape(2000, 5)
    assert (by_number.all(axis=1) | ~by_number.any(axis=1)).mean() == pytest.approx(0.9**5, abs=0.04)
    assert is_tagged(ids, np.full(2000, 5), 0.0, 0).all()
    assert not np.array_equal(tagged, is_tagged(ids, np.full(2000, 5), 0.1, 1))


def test_tokens_that_the_tokenizer_has_keep_their_numbers(tmp_path, tokenizer):
    known = Tokenizer.load(str(tokenizer)).with_tokens(["<|bad|>", "<|more|>"])
    both = known.with_tokens(["<|good|>", "<|bad|>"])
    assert (known.token("<|bad|>"), known.vocab_size) == (257, 259)
    assert (both.token("<|bad|>"), both.token("<|good|>"), both.vocab_size) == (257, 259, 260)
    assert both.end_of_text == known.end_of_text
    with pytest.raises(KeyError):
        known.token("<|good|>")


def test_documents_that_spell_a_control_token_do_not_hold_it(tmp_path, tokenizer):
    mill = make(tmp_path, [Row(number, "say <|good|> twice: <|good|>") for number in range(4)])
    export(mill, tokenizer, control={"by": "num_emails", "threshold": 0, "drop_out": 0})
    text = "".join(text for text, _ in read(folder(mill), folder(mill, "tokenizer")))
    assert text.startswith("+say <|good|> twice: <|good|>$+say")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"by": "num_email"}, "no scorer of this recipe makes column 'num_email'.*did you mean 'num_emails'"),
        ({"by": "topic"}, "topic is string; expected a column of numbers"),
        ({"by": "neutral"}, "neutral has no better end; say `direction: highest` or `direction: lowest`"),
    ],
)
def test_a_column_that_cannot_tag_is_refused(said, message):
    with pytest.raises(RecipeError, match=f"export.tokens.control.by: {message}"):
        find_column(Control(**said, threshold=1), [Numbers(), Pii()])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "give either a threshold or a quantile"),
        ({"threshold": 1, "quantile": 0.5}, "give either a threshold or a quantile"),
        ({"threshold": 1, "good": "x", "bad": "x"}, "good and bad are both 'x'"),
    ],
)
def test_a_control_that_contradicts_itself_is_refused(said, message):
    with pytest.raises(ValueError, match=message):
        Control(by="num_emails", **said)


def test_scores_that_are_not_there_are_asked_for(tmp_path, tokenizer):
    mill = make(tmp_path, [Row(0, "text")], ())
    mill.scorers = (Pii(),)
    with pytest.raises(
        (SelectionError, RuntimeError), match="has no scores of pii; run `gristmill score` first"
    ):
        export(mill, tokenizer, control={"by": "num_emails", "threshold": 0})


def test_an_empty_dataset_has_no_threshold(tmp_path, tokenizer):
    mill = make(tmp_path, [Row(0, "")])
    manifest = export(mill, tokenizer, control={"by": "num_emails", "quantile": 0.5})
    assert manifest["shards"] == []
    assert manifest["control"]["threshold"] is None
