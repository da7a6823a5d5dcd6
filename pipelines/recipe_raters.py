"""What a recipe says of raters: models that read a document and give it a value on one dimension."""

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from gristmill.pipelines.recipe_values import Count, Rate, Section, Seed, Text


class LabelFiles(Section):
    """Labelled texts, JSON lines: one file that is divided here, or one for each part."""

    whole: Text | None = None
    train: Text | None = None
    val: Text | None = None
    test: Text | None = None

    def paths(self) -> dict[str, str]:
        """Key -> path of the files."""
        return {key: path for key, path in self.model_dump().items() if path is not None}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.paths().keys() not in ({"whole"}, {"train", "val", "test"}):
            raise ValueError(
                f"found {', '.join(self.paths()) or 'no file'}; expected one file, or each of train, val and test"
            )
        return self


class Encoder(Section):
    """A Hugging Face encoder to fine-tune: its `path`, and how; `window` is in tokens."""

    path: Text
    epochs: Count = 10
    batch_size: Count = 64
    learning_rate: Rate = 5e-5
    window: Count = 2048
    seed: Seed = 42


class RaterModel(Section):
    """A rater: given by its `path`, or trained on `labels`: a linear head over words and pairs, or an `encoder`.

    `text` and `label` name fields; `classes` says what labels in words are worth. In `classification` each different
    label is a class. One file is divided into train, val and test by a hash of its texts, or of the field `group`: what
    shares a value of it stays together.
    """

    path: Text | None = None
    labels: LabelFiles | None = None
    kind: Literal["classification", "regression"] = "classification"
    text: Text = "text"
    label: Text = "label"
    classes: dict[str, float] = {}
    group: Text | None = None
    encoder: Encoder | None = None
    seed: Seed = 0

    @field_validator("labels", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        return {"whole": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.path is not None and (training := self.model_fields_set - {"path"}):
            raise ValueError(
                f"{min(training)} is of raters that are trained here; leave it out beside a path"
            )
        if self.group is not None and self.labels is not None and self.labels.whole is None:
            raise ValueError("group says how one file is divided; leave it out where each part has a file")
        return self

    @property
    def lacking(self) -> str | None:
        """Why it cannot be made."""
        if self.labels is not None:
            return None
        return "nothing to train it from; expected `labels`, a `path`, or the scorer's `model`"

    def model_paths(self) -> dict[str, str]:
        """Key -> path of the rater or the encoder that is given."""
        given = {"path": self.path, "encoder.path": None if self.encoder is None else self.encoder.path}
        return {key: path for key, path in given.items() if path is not None}

    def label_paths(self) -> dict[str, str]:
        """Key -> path of the files with labels."""
        return {} if self.labels is None else self.labels.paths()

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """The same with every path changed."""
        path = None if self.path is None else change(self.path)
        changed = {key: change(file) for key, file in self.label_paths().items()}
        labels = None if self.labels is None else self.labels.model_copy(update=changed)
        encoder = self.encoder and self.encoder.model_copy(update={"path": change(self.encoder.path)})
        return self.model_copy(update={"path": path, "labels": labels, "encoder": encoder})


class RaterModels(Section):
    """The raters, by the dimension that their scorer is named after."""

    professionalism: RaterModel = RaterModel()
    readability: RaterModel = RaterModel()
    reasoning: RaterModel = RaterModel()
    cleanliness: RaterModel = RaterModel()
    educational_value: RaterModel = RaterModel()
    advertisement: RaterModel = RaterModel()
    fluency: RaterModel = RaterModel()
    toxicity: RaterModel = RaterModel()
    machine_written: RaterModel = RaterModel()
    rater: RaterModel = RaterModel()

    def of(self, dimension: str) -> RaterModel:
        """One of them."""
        found: RaterModel = getattr(self, dimension)
        return found

    def paths(self) -> dict[str, str]:
        """Key -> path of every rater and encoder that is given."""
        return {
            f"{dimension}.{key}": path
            for dimension in DIMENSIONS
            for key, path in self.of(dimension).model_paths().items()
        }

    def label_paths(self) -> dict[str, str]:
        """Key -> path of all files with labels."""
        return {
            f"{dimension}.labels.{key}".removesuffix(".whole"): path
            for dimension in DIMENSIONS
            for key, path in self.of(dimension).label_paths().items()
        }

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """The same with every path changed."""
        return self.model_copy(update={name: self.of(name).with_paths(change) for name in DIMENSIONS})


DIMENSIONS = tuple(RaterModels.model_fields)
