"""The language of a document and how probable it is.

The default is py3langid's model, run by `models/language_identifier.py` on the first 1,000 bytes of a
document. Accuracy and documents/s of one core, texts cut to their first characters
(`tests/bench/bench_language.py`):

                                            default          py3langid       resiliparse
    sentences of 63 shared languages    20  0.884  98,000/s  0.884 21,000/s  0.002 267,000/s
    (lingua test data)                  50  0.960  70,000/s  0.960  7,900/s  0.578 121,000/s
                                       100  0.980  31,000/s  0.980  4,900/s  0.741 114,000/s
    Wikipedia in 11 languages          100  0.918  48,000/s  0.918  6,300/s  0.874  99,000/s
                                       300  0.980  13,000/s  0.980  2,300/s  0.963  98,000/s
                                      1000  0.998  11,000/s  0.999    900/s  0.993  39,000/s
                                    10,000  1.000   4,400/s  1.000    170/s  1.000   5,400/s

resiliparse is no match on short texts, and its score is a distance where recipes need a probability. The
model is
calibrated: of the texts it gives more than 0.65, 97 to 99.9 % are right. A language it does not know gets the
nearest one it does, often with a high probability: where that matters, name a fastText model of more
languages.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.language_identifier import MAX_BYTES, LanguageIdentifier
from gristmill.models.text_classifier import TextClassifier
from gristmill.scorers.base import Column, ModelPath, Scorer, ScorerError
from gristmill.scorers.text import TextBatch

UNDETERMINED = "und"
"""ISO 639-2 code for an undetermined language."""


@dataclass(frozen=True, kw_only=True)
class Language(Scorer):
    """The likeliest language and its probability.

    Args:
        model: fastText language model (lid.176, GlotLID, ...), used with its own labels on whole documents.
            None takes the default: ISO 639-1 codes, ISO 639-3 where there is none ("zxx" is text in no
            language), judged by the first 1,000 bytes after leading white space.
    """

    name: ClassVar[str] = "language"
    version: ClassVar[int] = 2

    model: ModelPath | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The label and its probability."""
        source = "langid.py (Lui and Baldwin 2012) as retrained by py3langid; fastText (Joulin et al. 2017)"
        return (
            Column(
                name="language",
                type=pa.string(),
                description="Likeliest language; 'und' for text without letters the model knows",
                unit="language code",
                empty=UNDETERMINED,
                source=source,
                deviation=f"the default model sees the first {MAX_BYTES} bytes",
            ),
            Column(
                name="language_probability",
                type=pa.float32(),
                description="Probability of that language; 0 for 'und'",
                unit="probability",
                minimum=0,
                maximum=1,
                empty=0.0,
                source=source,
                deviation=f"the default model sees the first {MAX_BYTES} bytes",
            ),
        )

    def model_digests(self) -> dict[str, str]:
        """The model's bytes, also of the default."""
        return {
            "model": LanguageIdentifier.digest() if self.model is None else TextClassifier.digest(self._path)
        }

    def setup(self) -> None:
        """Load the model; the default takes 1 s and 100 MB."""
        _ = self._classifier

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Classify n documents."""
        texts = pc.utf8_trim_whitespace(batch.text)
        labels, probabilities = self._classifier.predict(texts)
        language = pa.array(labels, pa.string())
        # fastText has an answer for no words at all: the most frequent language of its training data.
        is_undetermined = pc.or_(pc.equal(pc.binary_length(texts), 0), pc.equal(language, ""))
        return pa.RecordBatch.from_arrays(
            [
                pc.if_else(is_undetermined, UNDETERMINED, language),
                pc.if_else(
                    is_undetermined, pa.scalar(0, pa.float32()), pa.array(probabilities, pa.float32())
                ),
            ],
            schema=self.schema(),
        )

    @cached_property
    def _classifier(self) -> TextClassifier | LanguageIdentifier:
        if self.model is None:
            return LanguageIdentifier.load()
        try:
            return TextClassifier.load(self._path)
        except ValueError as error:
            raise ScorerError(f"language: {self.model} is no supervised fastText model ({error})") from error

    @property
    def _path(self) -> Path:
        path = Path(self.model or "")
        if not path.is_file():
            raise ScorerError(
                f"language: model {self.model!r} is no file; give the path of a fastText .bin or .ftz"
            )
        return path
