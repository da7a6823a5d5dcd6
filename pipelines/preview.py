"""The plan of a run before it runs: inputs, what is cached, what will run, and what it will cost."""

from collections.abc import Iterator, Sequence
from itertools import chain

from gristmill.pipelines import files
from gristmill.pipelines.cluster_duplicates import STAGE as DEDUP
from gristmill.pipelines.curate import Curation
from gristmill.pipelines.ledger import LedgerRow, read_ledger
from gristmill.pipelines.model_files import read_manifest
from gristmill.pipelines.plan_splits import IngestPlan
from gristmill.pipelines.read_documents import STAGE as INGEST
from gristmill.pipelines.read_documents import is_written
from gristmill.pipelines.score_documents import Shard, plan_scores, stage_of
from gristmill.pipelines.select_documents import stage_of as select_stage
from gristmill.pipelines.token_plan import divide_stage, pack_stage
from gristmill.pipelines.train_models import is_trained
from gristmill.pipelines.workspace import FORMAT_VERSION, Workspace
from gristmill.pipelines.write_dataset import stage_of as export_stage
from gristmill.scorers.base import CorpusScorer, DerivedScorer, WorkspaceError


def preview(curation: Curation) -> Iterator[str]:
    """The plan, line by line; nothing is written.

    Raises:
        GristmillError: What a run would raise before it starts.
    """
    workspace = Workspace(curation.recipe.workspace.rstrip("/"))
    identity = workspace.read_json("workspace.json")
    if identity is not None and identity.get("format") != FORMAT_VERSION:
        raise WorkspaceError(
            f"{workspace.root}: format {identity.get('format')!r}, expected {FORMAT_VERSION}"
        )
    plan = curation.plan_ingest(workspace)
    yield f"workspace  {workspace.root}" + ("" if identity else "  (new)")
    for item in plan.inputs:
        num_bytes = sum(file.size for file in item.files)
        yield f"input      {item.input.source}: {len(item.files):,} files, {_size(num_bytes)}, {item.input.path}"
    for warning in plan.warnings:
        yield f"warning    {warning}"
    new = [split for split in plan.splits if not is_written(workspace, split)]
    new_bytes = sum(split.num_bytes for split in new)
    shards = [Shard(**shard) for shard in workspace.read_json("corpus", "shards.json") or []]
    history = _history(workspace, [INGEST])
    average = _mean_document(history)
    known = f", about {round(new_bytes / average):,} documents" if new_bytes and average else ""
    done = f"{len(plan.splits) - len(new)} of {len(plan.splits)} splits cached"
    cost = (
        f"to read about {_size(new_bytes)}{known}; {_cost(history, new_bytes)}" if new else "nothing to read"
    )
    yield f"ingest     {done}; {cost}"
    yield from _preview_scores(curation, workspace, shards, plan, new_bytes)
    if curation.recipe.duplicates is not None:
        rule = curation.recipe.duplicates
        history = _history(workspace, [DEDUP])
        num_bytes = sum(shard.num_bytes for shard in shards) + new_bytes
        cost = _cost(history, num_bytes)
        yield f"dedup      from {rule.threshold:g}, {rule.num_bands} bands of {rule.rows_per_band} rows; {cost}"
    total = sum(shard.num_bytes for shard in shards) + new_bytes
    for compiled in curation.selections:
        name = compiled.selection.name
        history = _history(workspace, [select_stage(name)])
        yield f"select     {name}: {' > '.join(compiled.selection.steps())}; {_size(total)}; {_cost(history, total)}"
        history = _history(workspace, [export_stage(name)])
        cost = _cost(history, sum(row.num_bytes for row in history))
        yield f"export     {name}: {workspace.dataset(name)}; {cost}"
        if spec := curation.recipe.export.tokens:
            history = _history(workspace, [divide_stage(name), pack_stage(name)])
            cost = _cost(history, sum(row.num_bytes for row in history))
            packing = f"{spec.packing}, sequences of {spec.sequence_length:,}"
            yield f"tokens     {name}: tokenizer {spec.tokenizer}, {packing}; {cost}"


def _preview_scores(
    curation: Curation, workspace: Workspace, shards: Sequence[Shard], plan: IngestPlan, new_bytes: int
) -> Iterator[str]:
    for name in curation.trained:
        yield f"train      {name}: {'there' if read_manifest(workspace, name) else 'to train'}"
    for scorer in curation.scorers:
        if not is_trained(workspace, curation.recipe, scorer.name):
            num_bytes = sum(shard.num_bytes for shard in shards) + new_bytes
            yield f"score      {scorer.name}: after its models are trained; {_size(num_bytes)}"
            continue
        if isinstance(scorer, DerivedScorer):
            if not all(is_trained(workspace, curation.recipe, other.name) for other in curation.scorers):
                yield f"score      {scorer.name}: after the models of other scores are trained"
                continue
            (scorer,) = (found for found in chain(*curation.derived(shards)) if found.name == scorer.name)
        missing = [task.shard for task in plan_scores(workspace, shards, [scorer])]
        if isinstance(scorer, CorpusScorer) and new_bytes:
            missing = list(shards)
        num_bytes = sum(shard.num_bytes for shard in missing) + new_bytes
        stage = stage_of(scorer)
        history = _history(workspace, [stage]) or _history_of_scorer(workspace, scorer.name)
        cached = f"{len(shards) - len(missing)} of {len(shards)} shards cached"
        cost = f"{_size(num_bytes)}; {_cost(history, num_bytes)}" if num_bytes else "nothing to score"
        yield f"score      {scorer.name} ({scorer.fingerprint()}): {cached}; {cost}"


def _history(workspace: Workspace, stages: Sequence[str]) -> list[LedgerRow]:
    return [row for stage in stages for row in read_ledger(workspace, stage)]


def _history_of_scorer(workspace: Workspace, name: str) -> list[LedgerRow]:
    """Rows of an older version of a scorer: its speed is the best guess for the new one's."""
    prefix = f"score-{name}-"
    names = [item.path.rpartition("/")[2] for item in files.list_folder(workspace.path("ledger"))]
    stages = [
        item.removesuffix(".parquet")
        for item in names
        if item.startswith(prefix) and item.endswith(".parquet")
    ]
    return _history(workspace, stages)


def _mean_document(history: Sequence[LedgerRow]) -> float | None:
    num_out = sum(row.num_out for row in history)
    return sum(row.num_bytes for row in history) / num_out if num_out else None


def _cost(history: Sequence[LedgerRow], num_bytes: int) -> str:
    timed = [row for row in history if row.seconds is not None]
    seconds = sum(row.seconds or 0.0 for row in timed)
    measured = sum(row.num_bytes for row in timed)
    if not measured:
        return "no history to estimate its cost from"
    peak = max((row.peak_bytes or 0 for row in timed), default=0)
    memory = f", {_size(peak)} of memory a worker" if peak else ""
    return f"about {seconds / measured * num_bytes:,.1f} s of one worker{memory}"


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:,.0f} {unit}" if unit == "B" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
