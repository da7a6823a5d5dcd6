"""A seeded sample of a recipe, end to end, in a workspace of its own.

Documents are sampled by a seeded hash of their doc_id while they are read, so they keep the ids of the full run and
the ledger counts the others as dropped. Of more than 1 GB of input, a seeded choice of splits is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from gristmill.pipelines.curate import Curation
from gristmill.pipelines.plan_splits import IngestPlan, plan_ingest
from gristmill.pipelines.read_documents import Limits, group_blocks
from gristmill.pipelines.records import Split, doc_ids
from gristmill.pipelines.workspace import Workspace

MAX_READ_BYTES = 1 << 30
SPLIT_BYTES = 8 << 20
NUM_PROBED = 16
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
    """The same curation over about `num_documents` documents, in `<workspace>-sample-<num_documents>`."""
    workspace = f"{curation.recipe.workspace.rstrip('/')}-sample-{num_documents}"
    recipe = curation.recipe.model_copy(update={"workspace": workspace})
    return SampledCuration(
        recipe, curation.scorers, curation.selections, curation.options, curation.reporter, num_documents
    )


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
    """How many documents splits hold, about, from the first blocks of a few of them."""
    step = max(len(splits) // NUM_PROBED, 1)
    num_records = num_bytes = 0
    for split in splits[::step]:
        for _, block in islice(group_blocks(split, replace(limits, block_bytes=1 << 20)), 1):
            num_records += block.count()
            num_bytes += block.num_bytes
    return round(sum(split.num_bytes for split in splits) / num_bytes * num_records) if num_bytes else 0
