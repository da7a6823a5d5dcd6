"""The `.bin` files of fastText 0.9 (Joulin et al. 2017): read without the library, and one word's vector set to zero.

    magic, version                   int32 each
    options                          12 int32, 1 float64
    dictionary                       sizes, then word, count and kind of each entry; words first, then labels
    input vectors, output vectors    whether quantised, then rows and columns as int64 and float32 values

Vectors of n-grams follow those of words in the input matrix.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

END_OF_LINE = "</s>"
"""The word that fastText reads at the end of a line."""
MAGIC = 793712314
VERSION = 12
SUPERVISED = 3
SOFTMAX = 3
_START = struct.Struct("<14id")
_SIZES = struct.Struct("<iiiqq")
_COUNT_AND_KIND = 9
_MATRIX = struct.Struct("<?qq")

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FastTextFile:
    """A supervised model whose vectors are numbers, memory-mapped.

    Args:
        words: Words in the order of their vectors.
        labels: Labels with fastText's prefix, in the order of theirs.
        word_ngrams: Words in the longest n-gram.
        is_softmax: Whether the probabilities of the labels are a softmax.
        has_subwords: Whether words have vectors of their characters too.
        inputs: Vectors of words, then those of n-grams, float32[words + buckets, dim].
        outputs: Vectors of labels, float32[labels, dim].
        inputs_start: Byte of the file at which `inputs` starts.
    """

    words: list[bytes]
    labels: list[str]
    word_ngrams: int
    is_softmax: bool
    has_subwords: bool
    inputs: Matrix
    outputs: Matrix
    inputs_start: int

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a file; 0.5 s for a million words.

        Returns:
            The model, or None if it is of another version, not supervised, quantised (`.ftz`) or pruned.

        Raises:
            ValueError: If the file ends too early, which fastText itself does not survive.
        """
        try:
            return cls._read(path)
        except struct.error as error:
            raise ValueError("the file ends too early") from error

    @classmethod
    def _read(cls, path: Path) -> Self | None:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            magic, version, *options, _ = _START.unpack_from(data)
            *_, word_ngrams, loss, model, _, _, max_chars, _ = options
            if (magic, version, model) != (MAGIC, VERSION, SUPERVISED):
                return None
            _, num_words, num_labels, _, num_pruned = _SIZES.unpack_from(data, _START.size)
            entries, position = [], _START.size + _SIZES.size
            for _ in range(num_words + num_labels):
                end = data.find(b"\0", position)
                entries.append(data[position:end])
                position = end + 1 + _COUNT_AND_KIND
            is_quantised, *shape = _MATRIX.unpack_from(data, position)
            if is_quantised or num_pruned >= 0:
                return None
            inputs_start = position + _MATRIX.size
            position = inputs_start + 4 * shape[0] * shape[1]
            _, *output_shape = _MATRIX.unpack_from(data, position)
            outputs_start = position + _MATRIX.size
            outputs = data[outputs_start : outputs_start + 4 * output_shape[0] * output_shape[1]]
            if len(outputs) < 4 * output_shape[0] * output_shape[1]:
                raise struct.error
        return cls(
            words=entries[:num_words],
            labels=[label.decode() for label in entries[num_words:]],
            word_ngrams=word_ngrams,
            is_softmax=loss == SOFTMAX,
            has_subwords=max_chars > 0,
            inputs=np.memmap(path, "<f4", "r", inputs_start, tuple(shape)),
            outputs=np.frombuffer(outputs, "<f4").reshape(output_shape),
            inputs_start=inputs_start,
        )


def zero_word(path: Path, word: str) -> None:
    """Set the vector of a word in a file to zero; n-grams that hold the word keep theirs.

    Raises:
        ValueError: If the file holds no such word or is none that `FastTextFile.read` takes.
    """
    model = FastTextFile.read(path)
    if model is None or word.encode() not in model.words:
        raise ValueError(f"{path} is no supervised fastText model with the word {word!r}")
    num_bytes = 4 * model.inputs.shape[1]
    with path.open("r+b") as file:
        file.seek(model.inputs_start + num_bytes * model.words.index(word.encode()))
        file.write(bytes(num_bytes))
