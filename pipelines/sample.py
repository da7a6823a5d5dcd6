"""A seeded sample of a recipe, end to end, in a workspace of its own.

Documents are sampled by a seeded hash of their doc_id while they are read, so they keep the ids of the full run and
the ledger counts the others as dropped. Of more than 1 GB of input, a seeded choice of splits is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gristmill.pipelines import parquet
from gristmill.pipelines.curate import Curation
from gristmill.pipelines.plan_splits import COMPRESSION_RATIO, IngestPlan, plan_ingest
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.read_documents import Limits, group_blocks
from gristmill.pipelines.records import Split, doc_ids
from gristmill.pipelines.streams import compression_of, expansion
from gristmill.pipelines.workspace import Workspace

MAX_READ_BYTES = 1 << 30
SPLIT_BYTES = 8 << 20
NUM_PROBED = 16
PROBED_BYTES = 4 << 20
SEED = 0


@dataclass(frozen=True)
class SampledCuration(Curation):
    """A curation that keeps about `num_documents` of what it reads."""

    num_documents: int = 0

    def plan_ingest(self, workspace: Workspace) -> IngestPlan:
        """Small splits of the inputs, as many as may be read, and the share of their documents that is kept."""
        plan = plan_ingest(workspace, self.recipe, shard_bytes=SPLIT_BYTES)
        chosen = choose_splits(plan.splits, MAX_READ_BYTES)
        names = {split.name for split in chosen}
        inputs = tuple(
            replace(item, splits=tuple(split for split in item.splits if split.name in names))
            for item in plan.inputs
        )
        limits = Limits(SPLIT_BYTES, self.recipe.max_document_bytes)
        expected = estimate_documents(chosen, limits)
        share = min(self.num_documents / expected, 1.0) if expected else 1.0
        return replace(plan, inputs=inputs, sampled_share=share)


def sampled(curation: Curation, num_documents: int) -> SampledCuration:
    """The same curation over about `num_documents` documents, in `<workspace>-sample-<num_documents>`.

    It trains models of its own there.
    """
    workspace = f"{curation.recipe.workspace.rstrip('/')}-sample-{num_documents}"
    recipe = curation.recipe.model_copy(update={"workspace": workspace})
    prepared = prepare(recipe, curation.options, curation.reporter)
    return SampledCuration(**vars(prepared), num_documents=num_documents)


def choose_splits(splits: Sequence[Split], max_bytes: int) -> list[Split]:
    """Splits in a seeded order until they hold `max_bytes`, returned in their own order."""
    order = doc_ids(f"sample-{SEED}", "", range(len(splits)))[:, 0].argsort(kind="stable")
    chosen: list[int] = []
    num_bytes = 0
    for position in order.tolist():
        if chosen and num_bytes + splits[position].num_bytes > max_bytes:
            continue
        chosen.append(position)
        num_bytes += splits[position].num_bytes
    return [splits[position] for position in sorted(chosen)]


def estimate_documents(splits: Sequence[Split], limits: Limits) -> int:
    """How many documents splits hold, about, from a few of them."""
    probed = splits[:: max(len(splits) // NUM_PROBED, 1)]
    num_bytes = sum(split.num_bytes for split in probed)
    num_documents = sum(count_documents(split, limits) for split in probed)
    return round(num_documents / num_bytes * sum(split.num_bytes for split in splits)) if num_bytes else 0


def count_documents(split: Split, limits: Limits) -> float:
    """How many documents a split holds, about: as its files or footers say, or as its first block lets expect."""
    if split.format in ("text", "html"):
        return len(split.pieces)
    if split.format == "parquet":
        return sum(parquet.count_rows(piece) for piece in split.pieces)
    _, block = next(group_blocks(split, replace(limits, block_bytes=PROBED_BYTES)))
    if not block.payload:
        return 0
    if split.format == "warc":
        num_documents = sum(page.dropped is None for page in block.payload)
        num_bytes = block.payload[-1].offset + len(block.payload[-1].body)
    else:
        num_documents, num_bytes = block.payload.count(b"\n"), block.num_bytes
    path = split.pieces[0].path
    num_text_bytes = split.num_bytes * (expansion(path) / COMPRESSION_RATIO if compression_of(path) else 1)
    return num_documents / num_bytes * num_text_bytes
