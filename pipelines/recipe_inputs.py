"""What a recipe says of inputs: of the corpus, the target, and the tasks that models are judged by."""

from typing import Literal

from pydantic import model_validator

from gristmill.pipelines.recipe_values import Section, Text

TWIN_SOURCES = "is the source of two entries; give every entry a source of its own"
Format = Literal["jsonl", "parquet", "warc", "text", "html"]


class Input(Section):
    """One input of the corpus: a file, a glob, or a folder (plain, Hugging Face or dolma layout).

    `text`, `id`, `url` and `created` name fields of the input; dots reach into nested objects.
    """

    path: Text
    source: Text
    format: Format | None = None
    source_field: Text | None = None
    text: Text = "text"
    id: Text = "id"
    url: Text | None = None
    created: Text | None = None
    licence: Text | None = None


class Target(Input):
    """What the trained model should be good at: documents, or questions joined with their correct answers.

    `only` keeps the records whose fields have the given values. With `choices` and `answer`, fields with the possible
    answers and the number of the right one, `text` is a question: the right answer takes the place of its blank `_`, or
    follows it.
    """

    source: Text = "target"
    only: dict[str, str] = {}
    choices: Text | None = None
    answer: Text | None = None

    def as_input(self) -> Input:
        """How the target is read; what is made of its records is decided afterwards."""
        return Input(**self.model_dump(include=set(Input.model_fields)))

    @model_validator(mode="after")
    def _check_answers(self) -> "Target":
        if (self.choices is None) != (self.answer is None):
            raise ValueError(
                "choices and answer go together: the possible answers, and the number of the right one"
            )
        if self.source_field is not None:
            raise ValueError("source_field: a target's records have the source of their entry; leave it out")
        return self


class Task(Target):
    """Multiple-choice questions that ablations ask, read like those of a target; `source` names the task."""

    source: Text
    text: Text = "prompt"
    choices: Text = "choices"
    answer: Text = "label"
