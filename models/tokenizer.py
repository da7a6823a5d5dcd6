"""Hugging Face tokenizers: load a `tokenizer.json`, count tokens."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer as HuggingFaceTokenizer

FILE = "tokenizer.json"


class Tokenizer:
    """A tokenizer of the `tokenizers` library.

    Args:
        tokenizer: What the library loaded.
    """

    def __init__(self, tokenizer: HuggingFaceTokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @classmethod
    def load(cls, path: str) -> "Tokenizer":
        """Load a tokenizer from its JSON file or the folder that holds it.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If the file is no tokenizer.
        """
        file = tokenizer_file(path)
        if not file.is_file():
            raise FileNotFoundError(f"no tokenizer at {path}: expected a {FILE} or a folder that holds one")
        try:
            return cls(HuggingFaceTokenizer.from_file(str(file)))
        except Exception as error:  # the library raises bare exceptions
            raise ValueError(f"{file} is no tokenizer: {error}") from error

    @staticmethod
    def digest(path: str) -> str:
        """BLAKE2b of the tokenizer's file, 32 hexadecimal digits."""
        return hashlib.blake2b(tokenizer_file(path).read_bytes(), digest_size=16).hexdigest()

    def count(self, texts: pa.LargeStringArray) -> npt.NDArray[np.int64]:
        """Tokens of each text, without the special ones around it.

        Args:
            texts: n texts.

        Returns:
            int64, shape (n,).
        """
        encodings = self._tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        return np.fromiter(map(len, encodings), np.int64, len(texts))


def tokenizer_file(path: str) -> Path:
    """The JSON file a path means."""
    return Path(path) / FILE if Path(path).is_dir() else Path(path)
