"""Hugging Face tokenizers: train, load and save a `tokenizer.json`, encode texts into one flat array."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as HuggingFaceTokenizer

FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
END_OF_TEXT = "<|endoftext|>"
ENCODED_TEXTS = 256
"""Texts encoded at once: an encoding holds 100 bytes a token and more beside the token."""
USUAL_ENDS = (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>")


@dataclass(frozen=True)
class TokenizedTexts:
    """Tokens of n texts, end to end.

    Args:
        tokens: Identifiers, uint32[t].
        offsets: Text i has the tokens from offsets[i] to offsets[i + 1], int64[n + 1].
    """

    tokens: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each text, int64[n]."""
        return np.diff(self.offsets)

    def preceded_by(self, heads: "TokenizedTexts") -> "TokenizedTexts":
        """Each text with the tokens of another before it.

        Args:
            heads: n texts.
        """
        places = np.repeat(self.offsets[:-1], heads.lengths)
        return TokenizedTexts(np.insert(self.tokens, places, heads.tokens), self.offsets + heads.offsets)

    def where(self, mask: npt.NDArray[np.bool_]) -> "TokenizedTexts":
        """The same texts, without tokens where `mask` is False."""
        kept = np.repeat(mask, self.lengths)
        return TokenizedTexts(self.tokens[kept], np.append(0, np.cumsum(self.lengths * mask)))


class Tokenizer:
    """A tokenizer of the `tokenizers` library.

    Args:
        tokenizer: What the library loaded.
        end_of_text: The token that ends a document, None where the tokenizer names none.
    """

    def __init__(self, tokenizer: HuggingFaceTokenizer, end_of_text: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._end_of_text = end_of_text

    @classmethod
    def load(cls, path: str) -> "Tokenizer":
        """Load a tokenizer from its JSON file or the folder that holds it.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If the file is no tokenizer.
        """
        file = _existing(path)
        try:
            loaded = HuggingFaceTokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare exceptions
            raise ValueError(f"{file} is no tokenizer: {error}") from error
        return cls(loaded, _named_end(file.with_name(CONFIG_FILE)))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Train byte-level BPE (Radford et al. 2019, GPT-2): every text can be encoded, and decodes to itself.

        Args:
            texts: What the merges are counted on.
            vocab_size: Tokens, with the 256 bytes and the end of text.
        """
        tokenizer = HuggingFaceTokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer, END_OF_TEXT)

    @staticmethod
    def digest(path: str) -> str:
        """BLAKE2b of the tokenizer's file, 32 hexadecimal digits.

        Raises:
            FileNotFoundError: If there is none.
        """
        return hashlib.blake2b(_existing(path).read_bytes(), digest_size=16).hexdigest()

    @property
    def vocab_size(self) -> int:
        """One more than the largest token."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def end_of_text(self) -> int:
        """The token that ends a document, and that every window starts from.

        Raises:
            ValueError: If the tokenizer has none.
        """
        for token in (self._end_of_text, *USUAL_ENDS):
            if token is not None and (found := self._tokenizer.token_to_id(token)) is not None:
                return found
        raise ValueError(
            f"the tokenizer names no end of text; expected `eos_token` in {CONFIG_FILE}, or one of "
            f"{', '.join(USUAL_ENDS)} in the vocabulary"
        )

    @property
    def special_tokens(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens that the tokenizer puts before and after a text."""
        bare, whole = (self._tokenizer.encode("a", add_special_tokens=added).ids for added in (False, True))
        places = range(len(whole) - len(bare) + 1)
        start = next(place for place in places if whole[place : place + len(bare)] == bare)
        return tuple(whole[:start]), tuple(whole[start + len(bare) :])

    def with_tokens(self, names: Sequence[str]) -> "Tokenizer":
        """A tokenizer that also has these tokens, each numbered after all others where it is new."""
        extended = HuggingFaceTokenizer.from_str(self._tokenizer.to_str())
        for name in names:
            extended.add_special_tokens([AddedToken(name, normalized=False, special=True)])
        return Tokenizer(extended, self._end_of_text)

    def token(self, name: str) -> int:
        """The number of a token.

        Raises:
            KeyError: If there is none of this name.
        """
        found = self._tokenizer.token_to_id(name)
        if found is None:
            raise KeyError(name)
        return found

    def save(self, folder: Path) -> None:
        """Write the tokenizer as Hugging Face directories hold it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(folder / FILE))
        end = self._tokenizer.id_to_token(self.end_of_text)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "bos_token": end}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n")

    def count(self, texts: pa.LargeStringArray) -> npt.NDArray[np.int64]:
        """Tokens of each text, without the special ones around it.

        Args:
            texts: n texts.

        Returns:
            int64, shape (n,).
        """
        return np.fromiter(map(len, self._encode(texts)), np.int64)

    def encode(self, texts: pa.LargeStringArray) -> TokenizedTexts:
        """Tokens of n texts, without special ones around them."""
        tokens = [np.array(encoding.ids, np.uint32) for encoding in self._encode(texts)]
        offsets = np.cumsum([0, *map(len, tokens)])
        return TokenizedTexts(np.concatenate([np.empty(0, np.uint32), *tokens]), offsets)

    def char_offsets(self, text: str) -> list[int]:
        """Characters of a text before each of its tokens, and of the whole text."""
        starts = [start for start, _ in self._tokenizer.encode(text, add_special_tokens=False).offsets]
        return [*starts, len(text)]

    def _encode(self, texts: pa.LargeStringArray) -> Iterator[Any]:
        for start in range(0, len(texts), ENCODED_TEXTS):
            part = texts[start : start + ENCODED_TEXTS].to_pylist()
            yield from self._tokenizer.encode_batch_fast(part, add_special_tokens=False)


def tokenizer_file(path: str) -> Path:
    """The JSON file a path means."""
    return Path(path) / FILE if Path(path).is_dir() else Path(path)


def _existing(path: str) -> Path:
    file = tokenizer_file(path)
    if not file.is_file():
        raise FileNotFoundError(f"no tokenizer at {path}: expected a {FILE} or a folder that holds one")
    return file


def _named_end(config: Path) -> str | None:
    """The end-of-text token that a Hugging Face configuration names."""
    if not config.is_file():
        return None
    named = json.loads(config.read_text()).get("eos_token")
    return named["content"] if isinstance(named, dict) else named
