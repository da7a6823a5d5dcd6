"""Control tokens: which token stands before each document, or each sentence, by its score.

    rate = each row group of the dataset -> its documents, or their sentences, with their scores
    tag  = scores -> the good token, the bad one, or by a seeded hash none

Conditional training of "Pretraining language models with human preferences" (arXiv 2302.08582): the loss counts on
control tokens as in its code; at generation a prompt begins with the good one, and both are banned. It tags sentences
only, by scores at or below a threshold. Here sentences are scored as texts of their own; scores of documents are read.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.models.tokenizer import TokenizedTexts, Tokenizer
from gristmill.pipelines import files
from gristmill.pipelines.exact_quantile import exact_quantile
from gristmill.pipelines.ledger import read_footer, record_task
from gristmill.pipelines.recipe_export import Control
from gristmill.pipelines.recipe_values import nearest
from gristmill.pipelines.records import parse_uuids, uuid_array
from gristmill.pipelines.score_documents import score_batch, views
from gristmill.pipelines.token_plan import CELLS, Rater, TokenPlan, rate_stage
from gristmill.pipelines.token_shards import ACCOUNTS_KEY, FOLDER
from gristmill.pipelines.write_dataset import read_decisions
from gristmill.scorers.base import RecipeError, Scorer, SelectionError, WorkspaceError
from gristmill.scorers.doc_ids import random_keys, uuid_halves
from gristmill.scorers.sentences import cut_sentences
from gristmill.scorers.text import TextBatch

READ_ROWS = 1024
THRESHOLD = "threshold.json"
DROP_OUT_SEED = 1 << 36
RATINGS = pa.schema(
    [
        pa.field("num_bytes", pa.large_list(pa.int64()), nullable=False),
        pa.field("scores", pa.large_list(pa.float64()), nullable=False),
    ]
)
"""One row a document: UTF-8 bytes and score of each of its segments, which are itself or its sentences."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Controls:
    """What decides on control tokens.

    Args:
        good: Number of the token.
        bad: Number of the token.
        threshold: The last good score.
    """

    good: int
    bad: int
    threshold: float


def find_column(control: Control, scorers: Sequence[Scorer]) -> tuple[Scorer, bool]:
    """The scorer that makes the column, and whether lower is better.

    Raises:
        RecipeError: If there is none, or it is no number, or has no better end.
    """
    place = "export.tokens.control.by"
    columns = {column.name: (scorer, column) for scorer in scorers for column in scorer.columns}
    if control.by not in columns:
        hint = nearest(control.by, columns)
        raise RecipeError(f"{place}: no scorer of this recipe makes column {control.by!r}{hint}")
    scorer, column = columns[control.by]
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise RecipeError(f"{place}: {control.by} is {column.type}; expected a column of numbers")
    if control.direction is not None:
        return scorer, control.direction == "lowest"
    if column.higher_is_better is None:
        raise RecipeError(
            f"{place}: {control.by} has no better end; say `direction: highest` or `direction: lowest`"
        )
    return scorer, not column.higher_is_better


def rate(plan: TokenPlan, rater: Rater, group: int, scorer: Scorer | None) -> None:
    """Leave the scores of one row group: its documents' as stored, or its sentences' by `scorer`, after setup."""
    started = time.monotonic()
    with files.open_read(plan.part(group)) as file:
        reader = pq.ParquetFile(file)
        batches = reader.iter_batches(
            READ_ROWS, [plan.row_groups[group].number], ["doc_id", "text"], use_threads=False
        )
        rated = list(
            _rate_documents(plan, rater, group, batches)
            if scorer is None
            else _rate_sentences(scorer, rater.column, batches)
        )
    table = pa.Table.from_batches(rated, RATINGS)
    num_bytes = pc.sum(pc.list_flatten(table["num_bytes"])).as_py()
    accounts = {"identity": plan.identity, "num_documents": len(table), "num_bytes": num_bytes}
    schema = RATINGS.with_metadata({ACCOUNTS_KEY: json.dumps(accounts).encode()})
    with files.committed(plan.ratings(group)) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_table(table.combine_chunks())
    row = plan.ledger_row(rate_stage(plan.selection), group, len(table), num_bytes)
    record_task(plan.workspace, replace(row, seconds=time.monotonic() - started))


def read_ratings(plan: TokenPlan, group: int) -> pa.Table:
    """The scores of one row group, `RATINGS`."""
    with files.open_read(plan.ratings(group)) as file:
        return pa.ipc.open_file(file).read_all().combine_chunks()


def find_threshold(plan: TokenPlan, control: Control) -> float | None:
    """The score from which on segments are good: the recipe's, or the quantile of all scores; None of no scores."""
    if control.quantile is None:
        return control.threshold

    def read() -> Iterator[npt.NDArray[np.float64]]:
        for group in range(len(plan.row_groups)):
            yield pc.list_flatten(read_ratings(plan, group)["scores"]).to_numpy()

    return exact_quantile(read, control.quantile)


def commit_threshold(plan: TokenPlan, control: Control) -> None:
    """Find the threshold once all row groups are rated, and leave it for the workers of the next pass."""
    content = {"threshold": find_threshold(plan, control)}
    plan.workspace.commit_json(content, "datasets", plan.selection, FOLDER, CELLS, THRESHOLD)


def read_controls(plan: TokenPlan, tokenizer: Tokenizer) -> Controls | None:
    """What decides on control tokens once they are rated; None without them, or without a document.

    Args:
        plan: What is tokenised.
        tokenizer: With the control tokens.
    """
    if (control := plan.spec.control) is None:
        return None
    found = plan.workspace.read_json("datasets", plan.selection, FOLDER, CELLS, THRESHOLD)
    if found["threshold"] is None:
        return None
    return Controls(tokenizer.token(control.good), tokenizer.token(control.bad), found["threshold"])


def cut_segments(text: pa.LargeStringArray, ratings: pa.Table) -> pa.LargeStringArray:
    """The segments of n documents, end to end."""
    num_bytes = pc.list_flatten(ratings["num_bytes"]).to_numpy()
    offsets = np.append(0, np.cumsum(num_bytes))
    buffer = TextBatch(pa.RecordBatch.from_arrays([text], ["text"])).buffer
    if offsets[-1] != len(buffer):
        raise WorkspaceError(
            f"segments of {offsets[-1]:,} bytes for documents of {len(buffer):,}; text was lost or gained, which is "
            "a bug"
        )
    return pa.LargeStringArray.from_buffers(len(num_bytes), pa.py_buffer(offsets), pa.py_buffer(buffer))


def tag(scores: npt.NDArray[np.float64], threshold: float, *, lower_is_better: bool) -> Mask:
    """Which scores are good: at least as good as the threshold."""
    return scores <= threshold if lower_is_better else scores >= threshold


def is_tagged(
    doc_ids: pa.ExtensionArray, num_segments: npt.NDArray[np.int64], drop_out: float, seed: int
) -> Mask:
    """Which segments have a token, by a hash of doc_id, the segment's number and the seed.

    Args:
        doc_ids: n UUIDs.
        num_segments: Of each document, s together, int64[n].
        drop_out: Share of the segments without one.
        seed: Any whole number.

    Returns:
        bool[s].
    """
    halves = np.repeat(uuid_halves(doc_ids), num_segments, axis=0)
    first = np.repeat(np.cumsum(num_segments) - num_segments, num_segments)
    halves[:, 1] += (np.arange(len(halves)) - first).astype(np.uint64)
    return random_keys(pa.chunked_array([uuid_array(halves)]), DROP_OUT_SEED + seed) >= drop_out


def control_heads(is_good: Mask, tagged: Mask, good: int, bad: int) -> TokenizedTexts:
    """The control token of each of s segments, where it has one."""
    tokens = np.where(is_good, good, bad).astype(np.uint32)[tagged]
    return TokenizedTexts(tokens, np.append(0, np.cumsum(tagged)))


def _rate_documents(
    plan: TokenPlan, rater: Rater, group: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    scores = _kept_scores(plan, rater, plan.row_groups[group].part)
    known = scores["doc_id"].combine_chunks().storage
    for batch in batches:
        found = pc.index_in(parse_uuids(batch["doc_id"]).storage, known)
        if found.null_count:
            raise WorkspaceError(
                f"{plan.part(group)}: {found.null_count:,} documents without a score of {rater.column}; "
                "expected those that the decisions keep; run `gristmill select` and export again"
            )
        each = np.arange(len(batch) + 1)
        yield _ratings(
            each,
            pc.binary_length(batch["text"]),
            scores["score"].take(found).combine_chunks(),
        )


def _kept_scores(plan: TokenPlan, rater: Rater, part: str) -> pa.Table:
    """doc_id and score of the kept documents that one file of the dataset holds."""
    tables = []
    for shard in rater.shards[part]:
        path = plan.workspace.scores(rater.scorer.name, rater.fingerprint, shard)
        if read_footer(path) is None:
            raise SelectionError(f"{shard} has no scores of {rater.scorer.name}; run `gristmill score` first")
        with files.open_read(path) as file:
            scores = files.read_table(file, columns=["doc_id", rater.column])
        tables.append(scores.filter(read_decisions(plan.workspace, plan.selection, shard)["kept"]))
    table = pa.concat_tables(tables).rename_columns(["doc_id", "score"])
    return table.set_column(1, "score", table["score"].cast(pa.float64()))


def _rate_sentences(
    scorer: Scorer, column: str, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        documents = TextBatch(batch)
        sentences = cut_sentences(documents)
        num_bytes = documents.byte_position(sentences.ends) - documents.byte_position(sentences.starts)
        offsets = np.append(0, np.cumsum(num_bytes))
        texts = pa.LargeStringArray.from_buffers(
            len(sentences), pa.py_buffer(offsets), pa.py_buffer(documents.buffer)
        )
        doc_ids = parse_uuids(batch["doc_id"]).take(pa.array(sentences.documents))
        rows = pa.RecordBatch.from_arrays([doc_ids, texts], ["doc_id", "text"])
        scores = [
            score_batch(scorer, TextBatch(view), "sentences")[column].cast(pa.float64())
            for view in views([rows], [scorer])
        ]
        yield _ratings(
            sentences.splits, pa.array(num_bytes), pa.chunked_array(scores, pa.float64()).combine_chunks()
        )


def _ratings(offsets: npt.NDArray[np.int64], num_bytes: pa.Array, scores: pa.DoubleArray) -> pa.RecordBatch:
    lists = [
        pa.LargeListArray.from_arrays(offsets, values) for values in (num_bytes.cast(pa.int64()), scores)
    ]
    return pa.RecordBatch.from_arrays(lists, schema=RATINGS)
