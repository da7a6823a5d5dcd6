"""Select: SQL decides, shard by shard over aligned side files; a decision for every document, and no rescoring.

A first pass judges every document by the block lists and predicates and keeps, in a temporary DuckDB file, one
narrow row a document (about 60 bytes on disk before compression, 100 where groups are thinned, and 16 more a window
that is scored). Groups, duplicates and budgets are settled on those rows; a last pass writes the decisions. DuckDB
spills to disk beyond 2 GB, so memory does not grow with the corpus; disk does, and time does, linearly. The launcher
needs 60 GB of temporary disk for 10^9 documents.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill import sql
from gristmill.pipelines import files
from gristmill.pipelines.budget import find_cut
from gristmill.pipelines.choose_units import choose_units
from gristmill.pipelines.cluster_duplicates import read_clusters
from gristmill.pipelines.ledger import LedgerRow, commit_ledger, peak_bytes, read_footer, write_side_file
from gristmill.pipelines.recipe import Block
from gristmill.pipelines.sample_weights import sampling_key
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.scratch import scratch_database
from gristmill.pipelines.select_sql import NEAR, RANDOM_KEY, SIMHASH, Budget, CompiledSelection, quote
from gristmill.pipelines.thin_groups import thin_groups
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers import schema
from gristmill.scorers.base import Scorer, SelectionError
from gristmill.scorers.doc_ids import random_keys

QUOTA_SEED = 1 << 32
BATCH_SEED = 1 << 33
BLOCKED = {"hosts": "host", "urls": "url", "ids": "id", "doc_ids": "doc_id"}


@dataclass(frozen=True)
class FunnelStep:
    """How many documents and characters a step met and kept."""

    step: str
    num_in: int
    num_kept: int
    num_chars_in: int
    num_chars_kept: int

    @property
    def keep_rate(self) -> float:
        """Share of documents kept, 1 where none arrived."""
        return self.num_kept / self.num_in if self.num_in else 1.0


@dataclass(frozen=True)
class _Decided:
    """What the manifest of the decisions says of them.

    Args:
        funnel: One entry a step.
        kept: Digest of which documents and windows are kept.
        num_windows: Windows kept, None where whole documents are chosen.
    """

    funnel: list[FunnelStep]
    kept: str
    num_windows: int | None


@dataclass(frozen=True)
class BlockLists:
    """Hosts, URLs, ids and doc_ids that must not be in any dataset."""

    hosts: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    doc_ids: frozenset[str] = frozenset()

    def digest(self) -> str:
        """Identity of the entries."""
        return blake2b(
            repr([sorted(entries) for entries in asdict(self).values()]).encode(), digest_size=8
        ).hexdigest()


def read_block_lists(block: Block) -> BlockLists:
    """Entries of the recipe's lists: one a line, blanks and `#` comments skipped; hosts in lower case."""
    entries = {
        kind: {
            line.strip()
            for path in paths
            for line in files.read_bytes(path).decode().splitlines()
            if line.strip() and not line.lstrip().startswith("#")
        }
        for kind, paths in block.model_dump().items()
    }
    entries["hosts"] = {host.lower() for host in entries["hosts"]}
    entries["doc_ids"] = {doc_id.lower() for doc_id in entries["doc_ids"]}
    return BlockLists(**{kind: frozenset(values) for kind, values in entries.items()})


def select_documents(
    workspace: Workspace,
    shards: Sequence[Shard],
    scorers: Sequence[Scorer],
    compiled: CompiledSelection,
    block_lists: BlockLists,
) -> list[FunnelStep]:
    """Decide on every document and commit the decisions with their manifest.

    Args:
        workspace: Where side files and decisions lie.
        shards: The corpus.
        scorers: The scorers whose side files carry the columns.
        compiled: The selection.
        block_lists: What must not be kept.

    Returns:
        The funnel, one entry a step.

    Raises:
        SelectionError: If scores are missing, or a keep rate leaves its bounds (the decisions are committed then).
    """
    identity = selection_identity(shards, scorers, compiled, block_lists)
    name = compiled.selection.name
    manifest = workspace.read_json("decisions", name, "manifest.json")
    if manifest is None or manifest["identity"] != identity or not _is_whole(workspace, name, shards):
        files.delete([workspace.path("decisions", name, "manifest.json")])
        decided = _decide(workspace, shards, scorers, compiled, block_lists)
        content = {"identity": identity, **asdict(decided)}
        workspace.commit_json(content, "decisions", name, "manifest.json")
        funnel = decided.funnel
    else:
        funnel = [FunnelStep(**step) for step in manifest["funnel"]]
    check_keep_rates(compiled, funnel)
    return funnel


def _is_whole(workspace: Workspace, name: str, shards: Sequence[Shard]) -> bool:
    present = {item.path for item in files.list_folder(workspace.path("decisions", name))}
    return all(workspace.decisions(name, shard.name) in present for shard in shards)


def selection_identity(
    shards: Sequence[Shard], scorers: Sequence[Scorer], compiled: CompiledSelection, block_lists: BlockLists
) -> dict[str, Any]:
    """Everything that decisions depend on."""
    return {
        "selection": compiled.selection.model_dump(mode="json"),
        "expanded": compiled.expanded,
        "macros": blake2b(sql.read_sql("macros.sql").encode(), digest_size=8).hexdigest(),
        "block": block_lists.digest(),
        "scorers": {scorer.name: scorer.fingerprint() for scorer in scorers if compiled.reads(scorer)},
        "duplicates": compiled.near and compiled.near.model_dump(mode="json"),
        "shards": blake2b(repr([asdict(shard) for shard in shards]).encode(), digest_size=16).hexdigest(),
        "columns": schema.DECISIONS.names,
    }


def _decide(
    workspace: Workspace,
    shards: Sequence[Shard],
    scorers: Sequence[Scorer],
    compiled: CompiledSelection,
    block_lists: BlockLists,
) -> _Decided:
    """Judge every document, settle the budgets, and write the decisions."""
    started = time.monotonic()
    with scratch_database() as connection:
        judge = _Judge(connection, compiled, block_lists)
        for number, shard in enumerate(shards):
            table = read_columns(workspace, shard, scorers, compiled.columns)
            try:
                judge.judge(number, table)
            except duckdb.Error as error:
                message = str(error).partition("\n")[0]
                raise SelectionError(
                    f"selection {compiled.selection.name!r} on {shard.name}: {message}"
                ) from error
        connection.execute(
            "CREATE TABLE superseded (shard INTEGER, position INTEGER, superseded_at VARCHAR, survivor UUID)"
        )
        connection.execute("CREATE TABLE kept_windows (shard INTEGER, position INTEGER, number INTEGER)")
        if compiled.selection.thin is not None:
            thin_groups(connection, compiled.selection.thin.max_distance)
        if compiled.selection.deduplicate is not None:
            drop_duplicates(connection)
        verdict = _final_verdict(drop_beyond_budgets(connection, compiled))
        rows = []

        def write_all() -> Iterator[pa.Table]:
            for number, shard in enumerate(shards):
                row, decisions = _write_decisions(
                    connection, workspace, compiled.selection.name, number, shard, verdict
                )
                rows.append(row)
                yield decisions

        digest = kept_digest(write_all())
        seconds = (time.monotonic() - started) / max(len(rows), 1)
        rows = [replace(row, seconds=seconds, peak_bytes=peak_bytes()) for row in rows]
        commit_ledger(workspace, stage_of(compiled.selection.name), rows)
        funnel = _funnel(connection, compiled.selection.steps(), verdict)
        ((num_windows,),) = connection.execute("SELECT count(*) FROM kept_windows").fetchall()
        return _Decided(funnel, digest, num_windows if compiled.window_scores is not None else None)


def kept_digest(decisions: Iterable[pa.Table]) -> str:
    """Identity of which documents and windows are kept, from the columns `kept` and `windows` of each shard."""
    state = blake2b(digest_size=16)
    for of_shard in decisions:
        state.update(np.packbits(of_shard["kept"].to_numpy()).tobytes())
        windows = of_shard["windows"].drop_null()
        for numbers in (pc.list_value_length(windows), pc.list_flatten(windows)):
            state.update(numbers.to_numpy().tobytes())
    return state.hexdigest()


def read_columns(
    workspace: Workspace, shard: Shard, scorers: Sequence[Scorer], columns: Sequence[str]
) -> pa.Table:
    """The text-free columns of a shard and the score columns wanted, side by side.

    Rows are joined by position, with doc_id as the check.

    Raises:
        SelectionError: If a side file is missing, stale, or holds other documents.
    """
    names = {"doc_id", "id", "url", "host", "source", "num_chars", "blank", *columns} & set(
        schema.DOCUMENTS.names
    )
    with files.open_read(workspace.documents(shard.name)) as file:
        table = files.read_table(file, columns=sorted(names))
    if NEAR in columns:
        table = table.append_column(NEAR, read_clusters(workspace, shard))
    for scorer in scorers:
        wanted = [name for name in scorer.schema().names if name in columns]
        if not wanted:
            continue
        path = workspace.scores(scorer.name, scorer.fingerprint(), shard.name)
        footer = read_footer(path)
        if footer is None or footer["content"] != shard.content:
            raise SelectionError(f"{shard.name} has no scores of {scorer.name}; run `gristmill score` first")
        with files.open_read(path) as file:
            scores = files.read_table(file, columns=["doc_id", *wanted])
        if not scores["doc_id"].equals(table["doc_id"]):
            raise SelectionError(
                f"{path}: its doc_ids are not those of {shard.name}; delete it and score again"
            )
        for name in wanted:
            table = table.append_column(name, scores[name])
    return table


class _Judge:
    """The first pass: block lists and predicates, and the keys that the later steps sort by."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, compiled: CompiledSelection, block_lists: BlockLists
    ) -> None:
        self.connection = connection
        seeds = {"quota_key": QUOTA_SEED, "batch_key": BATCH_SEED}
        if compiled.selection.sample is not None:
            seeds["sample_key"] = compiled.selection.sample.seed
        keys_used = {*(budget.key for budget in compiled.budgets), compiled.batch_key, _sample_key(compiled)}
        self.seeds = {key: seeds[key] for key in RANDOM_KEY.values() if key in keys_used}
        for kind, entries in asdict(block_lists).items():
            entries = pa.table({"entry": pa.array(sorted(entries), pa.string())})
            connection.register("entries", entries)
            connection.execute(f"CREATE TABLE blocked_{kind} AS SELECT entry FROM entries")
        self.query = self._query(compiled)
        keys = "".join(f", key_{b.step} DOUBLE, weight_{b.step} BIGINT" for b in compiled.budgets)
        connection.execute(
            "CREATE TABLE judged (shard INTEGER, position INTEGER, doc_id UUID, source VARCHAR, num_chars BIGINT, "
            "step VARCHAR, reason VARCHAR, group_hash UUID, simhash UBIGINT, "
            "exemplar_preference STRUCT(rank INTEGER, score DOUBLE), duplicate_hash UUID, "
            "preference STRUCT(rank INTEGER, score DOUBLE), sample_key DOUBLE, batch_key DOUBLE, "
            f"window_scores STRUCT(key DOUBLE, weight BIGINT)[]{keys})"
        )

    def judge(self, number: int, table: pa.Table) -> None:
        """Judge the rows of one shard."""
        table = table.append_column("shard_number", pa.array(np.full(len(table), number, np.int32)))
        table = table.append_column("position", pa.array(np.arange(len(table), dtype=np.int32)))
        for key, seed in self.seeds.items():
            table = table.append_column(key, pa.array(random_keys(table["doc_id"], seed)))
        self.connection.register("stored", table)
        self.connection.execute(self.query)
        self.connection.unregister("stored")

    def _query(self, compiled: CompiledSelection) -> str:
        computed = "".join(f", ({text}) AS {name}" for name, text in compiled.expanded.items())
        cases = " ".join(
            f"WHEN {condition} THEN row('{step}', {reason})"
            for condition, step, reason in self._rules(compiled)
        )
        thinning = (compiled.group, compiled.group and SIMHASH, compiled.exemplar_preference)
        deduplicating = (compiled.duplicate_key, compiled.preference)
        topping = (_sample_key(compiled), compiled.batch_key, compiled.window_scores)
        choosing = ", ".join(expression or "NULL" for expression in (*thinning, *deduplicating, *topping))
        keys = "".join(f", {budget.key}, {budget.weight}" for budget in compiled.budgets)
        return (
            "INSERT INTO judged SELECT shard_number, position, doc_id, source, num_chars, verdict[1], verdict[2], "
            f"{choosing}{keys} "
            f"FROM (SELECT *, CASE {cases} END AS verdict FROM (SELECT *{computed} FROM stored))"
        )

    def _rules(self, compiled: CompiledSelection) -> Iterator[tuple[str, str, str]]:
        """Condition under which a document is dropped, step, and SQL for the reason, in order."""
        yield "blank", "empty", "'empty'"
        for kind, column in BLOCKED.items():
            yield f"{column}::VARCHAR IN (SELECT entry FROM blocked_{kind})", "block", f"'blocked_{column}'"
        for step, predicate in compiled.predicates.items():
            yield f"({predicate}) IS NULL", step, self._missing(compiled, predicate, step)
            yield f"NOT ({predicate})", step, f"'{step}'"
        for budget in compiled.budgets:
            sources = ", ".join(quote(source) for source in budget.keep if source is not None)
            concerned = f"source IN ({sources}) AND " if sources else ""
            missing = f"{concerned}({budget.key} IS NULL OR NOT isfinite({budget.key}))"
            yield missing, budget.step, self._missing(compiled, budget.key, budget.step)

    def _missing(self, compiled: CompiledSelection, expression: str, step: str) -> str:
        """SQL that names the first column of an expression that is null, else the step itself."""
        cases = "".join(
            f" WHEN {column} IS NULL THEN '{column}'" for column in compiled.columns_of(expression)
        )
        return f"'missing:' || (CASE{cases} ELSE '{step}' END)" if cases else f"'missing:{step}'"


def drop_duplicates(connection: duckdb.DuckDBPyConnection) -> None:
    """Keep one member of each duplicate cluster among those that passed every rule, and name it to the others.

    DuckDB groups the survivors' hashes on disk where memory ends.
    """
    connection.execute(
        "CREATE TEMP TABLE clusters AS SELECT duplicate_hash, "
        "min(row(preference.rank, preference.score, doc_id))[3] AS survivor "
        "FROM judged ANTI JOIN superseded USING (shard, position) WHERE step IS NULL "
        "GROUP BY duplicate_hash HAVING count(*) > 1"
    )
    connection.execute(
        "INSERT INTO superseded SELECT shard, position, 'duplicate', survivor "
        "FROM judged ANTI JOIN superseded USING (shard, position) JOIN clusters USING (duplicate_hash) "
        "WHERE step IS NULL AND doc_id <> survivor ORDER BY shard, position"
    )
    connection.execute("DROP TABLE clusters")


def drop_beyond_budgets(connection: duckdb.DuckDBPyConnection, compiled: CompiledSelection) -> dict[str, str]:
    """Find where each budget ends; a `top` by windows or batches drops what it does not keep.

    Returns:
        Step -> SQL condition that holds for the rows beyond its budget.
    """
    if not compiled.budgets:
        return {}
    keys = "".join(f", key_{b.step}, weight_{b.step}" for b in compiled.budgets)
    connection.execute(
        f"CREATE TABLE remaining AS SELECT doc_id, source, sample_key{keys} FROM judged "
        "ANTI JOIN superseded USING (shard, position) WHERE step IS NULL"
    )
    beyond: dict[str, str] = {}
    top = compiled.selection.top
    for budget in compiled.budgets:
        conditions = []
        still_in = " AND ".join(["true", *(f"NOT ({condition})" for condition in beyond.values())])
        if budget.step == "top" and top is not None and (top.unit == "windows" or top.batch is not None):
            choose_units(connection, top, still_in)
            continue
        key = _order(connection, budget, still_in)
        for source, amount in budget.keep.items():
            of_source = f"source = {quote(source)}" if source is not None else "true"
            rows = (
                f"(SELECT {key} AS key, doc_id, 0 AS number, weight_{budget.step} AS weight "
                f"FROM remaining WHERE {of_source} AND {still_in})"
            )
            cut = find_cut(connection, rows, amount)
            if cut is not None:
                conditions.append(f"({of_source} AND row({key}, doc_id, 0) > {cut.as_sql()})")
        beyond[budget.step] = " OR ".join(conditions) or "false"
    return beyond


def _sample_key(compiled: CompiledSelection) -> str | None:
    """The column with the random numbers that losses weigh, None where none do."""
    is_weighted = any(budget.weights is not None for budget in compiled.budgets)
    return RANDOM_KEY["sample"] if is_weighted else None


def _order(connection: duckdb.DuckDBPyConnection, budget: Budget, still_in: str) -> str:
    """SQL for the number by which a budget orders the rows of `remaining` and `judged`, the least first."""
    key = f"key_{budget.step}"
    if budget.weights is None:
        return key
    ((low, high),) = connection.execute(
        f"SELECT min({key}), max({key}) FROM remaining WHERE {still_in}"
    ).fetchall()
    return key if low is None else sampling_key(budget.weights, key, RANDOM_KEY[budget.step], low, high)


def _final_verdict(beyond: dict[str, str]) -> str:
    """SQL for the step that dropped a row of `judged` joined with `superseded`, null where it is kept."""
    cases = "".join(f" WHEN {condition} THEN '{step}'" for step, condition in beyond.items())
    return (
        f"CASE WHEN step IS NOT NULL THEN step WHEN superseded_at IS NOT NULL THEN superseded_at{cases} END"
    )


def _write_decisions(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    name: str,
    number: int,
    shard: Shard,
    verdict: str,
) -> tuple[LedgerRow, pa.Table]:
    table = connection.sql(
        "SELECT doc_id, last IS NULL AS kept, last AS step, coalesce(reason, last) AS reason, survivor, windows FROM "
        f"(SELECT *, {verdict} AS last FROM judged LEFT JOIN superseded USING (shard, position) "
        f"WHERE shard = {number}) LEFT JOIN (SELECT position, list(number ORDER BY number) AS windows "
        f"FROM kept_windows WHERE shard = {number} GROUP BY position) USING (position) ORDER BY position"
    ).to_arrow_table()
    decisions = table.cast(schema.DECISIONS)
    reasons = {
        item["values"]: item["counts"]
        for item in pc.value_counts(decisions["reason"].drop_null()).to_pylist()
    }
    num_kept = pc.sum(decisions["kept"]).as_py() or 0
    row = LedgerRow(
        stage_of(name),
        shard.name,
        num_in=shard.num_rows,
        num_out=num_kept,
        num_dropped=sum(reasons.values()),
        num_bytes=shard.num_bytes,
        reasons=dict(sorted(reasons.items())),
    )
    footer = {"stage": row.stage, "num_in": row.num_in, "num_kept": num_kept, "reasons": row.reasons}
    write_side_file(workspace.decisions(name, shard.name), decisions, footer)
    return row, decisions


def stage_of(selection: str) -> str:
    """The ledger's name for one selection."""
    return f"select:{selection}"


def _funnel(connection: duckdb.DuckDBPyConnection, steps: Sequence[str], verdict: str) -> list[FunnelStep]:
    dropped = {
        step: (count, chars)
        for step, count, chars in connection.execute(
            f"SELECT {verdict} AS last, count(*), sum(num_chars)::BIGINT FROM judged "
            "LEFT JOIN superseded USING (shard, position) GROUP BY last"
        ).fetchall()
    }
    num_in = sum(count for count, _ in dropped.values())
    num_chars_in = sum(chars for _, chars in dropped.values())
    funnel = []
    for step in steps:
        count, chars = dropped.get(step, (0, 0))
        funnel.append(FunnelStep(step, num_in, num_in - count, num_chars_in, num_chars_in - chars))
        num_in, num_chars_in = num_in - count, num_chars_in - chars
    return funnel


def check_keep_rates(compiled: CompiledSelection, funnel: Sequence[FunnelStep]) -> None:
    """Stop at a step that keeps more or less than its selection expects.

    Raises:
        SelectionError: With the step, its keep rate and the bounds.
    """
    for step in funnel:
        low, high = compiled.selection.keep_rates.get(step.step, (0.0, 1.0))
        if not low <= step.keep_rate <= high:
            raise SelectionError(
                f"selection {compiled.selection.name!r}: step {step.step!r} keeps {step.keep_rate:.2%} of "
                f"{step.num_in:,} documents, expected between {low:.2%} and {high:.2%}; look at "
                "`gristmill sql WORKSPACE --query funnel`, then change the rule or its keep_rates"
            )
