"""The `tokens` scorer, with tokenizers made on the spot."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from gristmill.pipelines.load_recipe import load_recipe
from gristmill.scorers.base import ScorerError
from gristmill.scorers.registry import make_scorer
from gristmill.scorers.text import TextBatch


@pytest.fixture
def tokenizer_folder(tmp_path):
    """A word-level tokenizer that would wrap texts in special tokens, truncate and pad them if it were let."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "mill": 2, "[BOS]": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 3)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_every_token_of_the_text_counts_and_no_other(tokenizer_folder, name):
    scorer = make_scorer("tokens", {"tokenizer": str(tokenizer_folder / name)})
    scorer.setup()
    texts = ["", "the mill", " \n", "the mill grinds the grain, all of it"]
    assert scorer.score(TextBatch.from_texts(texts)).to_pydict() == {"num_tokens": [0, 2, 0, 9]}


def test_the_fingerprint_is_of_the_content_not_of_the_path(tokenizer_folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "copy.json"
    other.write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    first, second = (make_scorer("tokens", {"tokenizer": str(path)}) for path in (tokenizer_folder, other))
    assert first.fingerprint() == second.fingerprint()
    other.write_text(other.read_text().replace("mill", "till"))
    assert first.fingerprint() != second.fingerprint()


def test_a_missing_or_wrong_file_is_refused(tmp_path):
    with pytest.raises(ScorerError, match=r"tokens\.tokenizer: .*nowhere cannot be read"):
        make_scorer("tokens", {"tokenizer": str(tmp_path / "nowhere")}).fingerprint()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ScorerError, match=r"tokenizer\.json is no tokenizer"):
        make_scorer("tokens", {"tokenizer": str(tmp_path)}).setup()
    with pytest.raises(ScorerError, match="option 'tokenizer' is missing"):
        make_scorer("tokens", {})


def test_a_recipe_names_its_models_relative_to_itself(tokenizer_folder):
    (tokenizer_folder / "recipe.yaml").write_text(
        "workspace: mill\ncorpus: [{path: a.jsonl, source: a}]\nscore: [rules, tokens: {tokenizer: tokenizer.json}]\n"
    )
    recipe = load_recipe(str(tokenizer_folder / "recipe.yaml"))
    assert recipe.scorer_options() == {
        "rules": {},
        "tokens": {"tokenizer": str(tokenizer_folder / "tokenizer.json")},
    }
