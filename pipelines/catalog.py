"""The SQL catalog: a disposable DuckDB file of views over the committed files of a workspace.

Views name their files one by one, from the manifests, never by a glob, so they show only what is committed. The file
is written aside and swapped; nothing depends on it. A workspace on a bucket is read through a local copy of its
text-free files, each fetched again when it changed; its texts are streamed from the bucket by each query that names
them.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset

from gristmill import sql
from gristmill.pipelines import files
from gristmill.pipelines.model_files import LOG_FILE, PROXIES_FILE, STRENGTHS_FILE, read_manifest
from gristmill.pipelines.select_sql import quote
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers import schema
from gristmill.scorers.base import QueryError, WorkspaceError

DATABASE = "catalog.duckdb"
STRENGTH_MODEL = "predictive_strength"
TAKEDOWNS = pa.schema(
    [
        ("selection", pa.string()),
        ("doc_id", pa.string()),
        ("id", pa.string()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("file", pa.string()),
        ("reason", pa.string()),
    ]
)
DATASETS = "selection VARCHAR, num_documents BIGINT, num_bytes BIGINT, num_files BIGINT, path VARCHAR"
RUNS = (
    "run VARCHAR, started TIMESTAMP, seconds DOUBLE, command VARCHAR, status VARCHAR, message VARCHAR, "
    "version VARCHAR"
)
DUPLICATE_REPORT = (
    "num_members BIGINT, num_clusters BIGINT, largest_cluster BIGINT, num_parted BIGINT, "
    "num_oversized_buckets BIGINT, largest_bucket BIGINT"
)
SIGNATURES = pa.schema([schema.DOC_ID, ("minhash_signature", pa.binary()), ("num_shingles", pa.int64())])
CONTRIBUTIONS = pa.schema([schema.DOC_ID, ("meta_rater_contributions", pa.list_(pa.float32()))])
REPRESENTATIVES = pa.schema(
    [
        schema.DOC_ID,
        ("facility_location_representative", pa.uuid()),
        ("facility_location_similarity", pa.float64()),
    ]
)
MODELS = "scorer VARCHAR, fingerprint VARCHAR, option VARCHAR, digest VARCHAR"
SCORE_COLUMNS = (
    "column_name VARCHAR, scorer VARCHAR, version INTEGER, fingerprint VARCHAR, options JSON, unit VARCHAR, "
    "minimum DOUBLE, maximum DOUBLE, higher_is_better BOOLEAN, description VARCHAR, follows VARCHAR, "
    "deviation VARCHAR, libraries JSON"
)
ABLATIONS = (
    "selection VARCHAR, seed BIGINT, multiple BIGINT, num_tokens BIGINT, epochs DOUBLE, training_loss DOUBLE, "
    "bits_per_byte DOUBLE, seconds DOUBLE"
)
ABLATION_TASKS = (
    "selection VARCHAR, seed BIGINT, multiple BIGINT, num_tokens BIGINT, task VARCHAR, num_questions BIGINT, "
    "accuracy DOUBLE, standard_error DOUBLE, chance DOUBLE"
)
RUNGS = "position INTEGER, rung VARCHAR, average DOUBLE, task_loss DOUBLE, bits_per_character DOUBLE"
MIXTURES = (
    "domain VARCHAR, ratio DOUBLE, num_tokens BIGINT, domain_loss DOUBLE, general_loss DOUBLE, "
    "general_error DOUBLE"
)
META_RATER = "meta_rater"
META_RATER_WEIGHTS = "position BIGINT, signal VARCHAR, weight DOUBLE, higher_is_better BOOLEAN"
FUNNEL = (
    "selection VARCHAR, position INTEGER, step VARCHAR, num_in BIGINT, num_kept BIGINT, num_chars_in BIGINT, "
    "num_chars_kept BIGINT"
)


def open_catalog(workspace: Workspace) -> duckdb.DuckDBPyConnection:
    """A connection that can read the workspace and nothing else, with `texts` over the corpus shards."""
    folder = _local_folder(workspace)
    database = build_catalog(workspace, folder)
    connection = duckdb.connect(str(database), read_only=True)
    connection.register("texts", _texts(workspace))
    connection.execute(f"SET allowed_directories = [{quote(str(folder))}]")
    connection.execute("SET enable_progress_bar = false; SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def run_query(connection: duckdb.DuckDBPyConnection, text: str) -> pa.Table:
    """The answer to one SELECT.

    Raises:
        QueryError: If it is not one SELECT, or DuckDB refuses it.
    """
    try:
        statements = connection.extract_statements(text)
        kinds = [statement.type for statement in statements]
        if kinds not in ([duckdb.StatementType.SELECT], [duckdb.StatementType.EXPLAIN]):
            found = ", ".join(kind.name for kind in kinds) or "nothing"
            raise QueryError(f"expected one SELECT; found {found}. The workspace is read-only in SQL")
        answer = connection.sql(text).to_arrow_table()
    except duckdb.Error as error:
        raise QueryError(str(error).partition("\n")[0] + _hint(str(error))) from error
    return answer.rename_columns(_distinct(answer.column_names))


def _distinct(names: Sequence[str]) -> list[str]:
    """Column names of which none hides another: `x`, `x_1`, as DuckDB names them in a table."""
    found: list[str] = []
    for name in names:
        number, candidate = 0, name
        while candidate in found:
            number, candidate = number + 1, f"{name}_{number + 1}"
        found.append(candidate)
    return found


def named_query(connection: duckdb.DuckDBPyConnection, name: str, parameters: Mapping[str, str]) -> str:
    """The text of a named query with its parameters filled in.

    Raises:
        QueryError: If the query is unknown, a parameter is missing or unknown, or a column is not in `scores`.
    """
    from gristmill.pipelines.recipe_values import nearest

    queries = sql.queries()
    if name not in queries:
        raise QueryError(f"no query {name!r}{nearest(name, queries)}")
    query = queries[name]
    if parameters.keys() != query.parameters.keys():
        expected = ", ".join(query.parameters) or "none"
        raise QueryError(
            f"query {name!r} takes parameters {expected}; found {', '.join(parameters) or 'none'}"
        )
    values = {}
    columns = [row[0] for row in connection.execute("DESCRIBE scores").fetchall()]
    for parameter, kind in query.parameters.items():
        value = parameters[parameter]
        if kind == "column" and value not in columns:
            raise QueryError(f"{parameter}: no score column {value!r}{nearest(value, columns)}")
        values[parameter] = f'"{value}"' if kind == "column" else quote(value)
    return query.text.format(**values) if values else query.text


def build_catalog(workspace: Workspace, folder: Path) -> Path:
    """Write the catalog aside and swap it in.

    Args:
        workspace: Where the manifests lie.
        folder: Local folder of the side files: the workspace itself, or the copy of one on a bucket.

    Returns:
        Path of the DuckDB file.
    """
    if workspace.read_json("workspace.json") is None:
        raise WorkspaceError(f"{workspace.root}: no workspace here; expected one made by `gristmill run`")
    shards = [shard["name"] for shard in workspace.read_json("corpus", "shards.json") or []]
    listed = {
        item.path.removeprefix(workspace.root).lstrip("/"): item for item in files.list_folder(workspace.root)
    }
    names = set(listed)
    local = _Mirror(workspace, folder, listed)
    handle, aside = tempfile.mkstemp(suffix=".duckdb", dir=folder)
    os.close(handle)
    os.unlink(aside)
    connection = duckdb.connect(aside)
    sql.install_macros(connection)
    builder = _Builder(connection)
    builder.files(
        "raw_documents", schema.DOCUMENTS, [local(f"documents/{shard}.parquet") for shard in shards]
    )
    rejects = [f"rejects/{shard}.parquet" for shard in shards]
    builder.files("raw_rejects", schema.REJECTS, [local(name) for name in rejects if name in names])
    ledgers = sorted(name for name in names if name.startswith("ledger/") and name.endswith(".parquet"))
    builder.files("raw_ledger", schema.LEDGER, [local(name) for name in ledgers])
    takedowns = sorted(name for name in names if name.startswith("takedowns/") and name.endswith(".parquet"))
    logs = sorted(name for name in names if name.startswith("models/") and name.endswith(f"/{LOG_FILE}"))
    builder.files("raw_training", schema.TRAINING, [local(name) for name in logs])
    builder.files("raw_takedowns", TAKEDOWNS, [local(name) for name in takedowns])
    _add_decisions(builder, workspace, shards, names, local)
    _add_scores(builder, workspace, shards, names, local)
    _add_duplicates(builder, workspace, shards, names, local)
    _add_records(builder, workspace, names)
    _add_ablations(builder, workspace, names)
    _add_strengths(builder, workspace, names, local)
    _add_mixtures(builder, workspace, names)
    _add_meta_rater(builder, workspace, names, local)
    for name, view in sql.views().items():
        connection.execute(f"CREATE VIEW {name} AS {view.text}")
        connection.execute(f"COMMENT ON VIEW {name} IS {quote(view.description)}")
    connection.close()
    target = folder / DATABASE
    os.replace(aside, target)
    return target


def _texts(workspace: Workspace) -> pa.Table | pa.dataset.Dataset:
    """The corpus as DuckDB scans it, batch by batch; a bucket's shards are opened only by a query that reads them."""
    shards = [workspace.corpus(shard["name"]) for shard in workspace.read_json("corpus", "shards.json") or []]
    if not shards:
        return schema.CORPUS.empty_table()
    if files.is_local(workspace.root):
        return pa.dataset.dataset(shards, schema=schema.CORPUS, format="ipc")
    listed = {item.path: item for item in files.list_folder(workspace.path("corpus"))}
    ipc = pa.dataset.IpcFileFormat()
    fragments = [ipc.make_fragment(files.LateFile(listed[shard])) for shard in shards]
    return pa.dataset.FileSystemDataset(fragments, schema.CORPUS, ipc)


class _Mirror:
    """Local paths of workspace files; where the workspace is on a bucket, of copies that are as old as they."""

    def __init__(self, workspace: Workspace, folder: Path, listed: Mapping[str, files.FileInfo]) -> None:
        self.is_local = files.is_local(workspace.root)
        self.folder = folder
        self.listed = listed

    def __call__(self, name: str) -> str:
        target = self.folder / name
        if not self.is_local:
            original = self.listed[name]
            modified = round(original.modified * 1e9)
            if not target.exists() or target.stat().st_mtime_ns != modified:
                files.commit_bytes(str(target), files.read_bytes(original.path))
                os.utime(target, ns=(modified, modified))
        return str(target)


class _Builder:
    """Creates the raw relations."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def files(self, name: str, kind: pa.Schema, paths: Sequence[str]) -> None:
        """A view over Parquet files, in order; empty with the right columns where there are none."""
        if paths:
            self.connection.execute(f"CREATE VIEW {name} AS {scan(paths)}")
        else:
            self.connection.register("empty", kind.empty_table())
            self.connection.execute(f"CREATE TABLE {name} AS SELECT * FROM empty")
            self.connection.unregister("empty")

    def rows(self, name: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        """A small table."""
        self.connection.execute(f"CREATE TABLE {name} ({columns})")
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self.connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)


def scan(paths: Sequence[str]) -> str:
    """SQL that reads Parquet files in order."""
    return f"SELECT * FROM read_parquet([{', '.join(quote(path) for path in paths)}])"


def _add_decisions(
    builder: _Builder, workspace: Workspace, shards: Sequence[str], names: set[str], local: _Mirror
) -> None:
    parts = []
    funnel = []
    for name in sorted(names):
        if not (name.startswith("decisions/") and name.endswith("/manifest.json")):
            continue
        selection = name.split("/")[1]
        paths = [
            local(f"decisions/{selection}/{shard}.parquet")
            for shard in shards
            if f"decisions/{selection}/{shard}.parquet" in names
        ]
        if paths:
            parts.append(f"SELECT {quote(selection)} AS selection, * FROM ({scan(paths)})")
        steps = workspace.read_json("decisions", selection, "manifest.json")["funnel"]
        funnel += [
            (selection, position, *step.values()) for position, step in enumerate(map(_ordered_step, steps))
        ]
    if parts:
        builder.connection.execute(f"CREATE VIEW raw_decisions AS {' UNION ALL '.join(parts)}")
    else:
        builder.files("raw_decisions", pa.schema([pa.field("selection", pa.string()), *schema.DECISIONS]), [])
    builder.rows("funnel", FUNNEL, funnel)


def _ordered_step(step: dict[str, Any]) -> dict[str, Any]:
    return {name: step[name] for name in ("step", "num_in", "num_kept", "num_chars_in", "num_chars_kept")}


def _add_scores(
    builder: _Builder, workspace: Workspace, shards: Sequence[str], names: set[str], local: _Mirror
) -> None:
    current = workspace.read_json("scores", "current.json") or {}
    described = []
    models = []
    joined = ["raw_documents"]
    columns = ["doc_id"]
    for scorer, fingerprint in sorted(current.items()):
        manifest = workspace.read_json("scores", scorer, fingerprint, "manifest.json")
        paths = [f"scores/{scorer}/{fingerprint}/{shard}.parquet" for shard in shards]
        paths = [local(path) for path in paths if path in names]
        if not paths:
            continue
        builder.connection.execute(f"CREATE VIEW score_{scorer} AS {scan(paths)}")
        joined.append(f"score_{scorer}")
        columns += [column["name"] for column in manifest["columns"] if not _is_bytes(column["type"])]
        options, libraries = json.dumps(manifest["options"]), json.dumps(manifest["libraries"])
        described += [
            (
                column["name"], scorer, manifest["version"], fingerprint, options, column["unit"], column["minimum"],
                column["maximum"], column["higher_is_better"], column["description"], column["source"],
                column["deviation"], libraries,
            )
            for column in manifest["columns"]
        ]  # fmt: skip
        models += [(scorer, fingerprint, option, value) for option, value in manifest["models"].items()]
    computed = "".join(
        f", ({text}) AS {name}"
        for name, text in sql.rule_sets().items()
        if _binds(builder.connection, text, joined)
    )
    tables = joined[0] + "".join(f" LEFT JOIN {name} USING (doc_id)" for name in joined[1:])
    builder.connection.execute(f"CREATE VIEW scores AS SELECT {', '.join(columns)}{computed} FROM {tables}")
    exact = (
        "SELECT doc_id, exact_duplicate_hash FROM score_exact_duplicate "
        "JOIN raw_documents USING (doc_id) WHERE NOT blank"
    )
    if "score_exact_duplicate" in joined:
        builder.connection.execute(f"CREATE VIEW raw_exact_duplicate AS {exact}")
    else:
        empty = pa.schema([schema.DOC_ID, pa.field("exact_duplicate_hash", pa.uuid())])
        builder.files("raw_exact_duplicate", empty, [])
    if "score_meta_rater" in joined:
        builder.connection.execute(
            "CREATE VIEW raw_contributions AS SELECT doc_id, meta_rater_contributions FROM score_meta_rater"
        )
    else:
        builder.files("raw_contributions", CONTRIBUTIONS, [])
    if "score_facility_location" in joined:
        wanted = ", ".join(REPRESENTATIVES.names)
        builder.connection.execute(
            f"CREATE VIEW raw_representatives AS SELECT {wanted} FROM score_facility_location"
        )
    else:
        builder.files("raw_representatives", REPRESENTATIVES, [])
    if "score_minhash" in joined:
        builder.connection.execute("CREATE VIEW raw_minhash AS SELECT * FROM score_minhash")
    else:
        builder.files("raw_minhash", SIGNATURES, [])
    builder.rows("raw_score_columns", SCORE_COLUMNS, described)
    builder.rows("raw_models", MODELS, models)


def _is_bytes(kind: str) -> bool:
    """Whether a column holds bytes or vectors that say nothing to a reader of `scores`; `score_<scorer>` has them."""
    return kind.startswith(("fixed_size_binary", "list"))


def _binds(connection: duckdb.DuckDBPyConnection, expression: str, tables: Sequence[str]) -> bool:
    """Whether every column of an expression is in the tables."""
    joined = tables[0] + "".join(f" LEFT JOIN {name} USING (doc_id)" for name in tables[1:])
    try:
        connection.execute(f"EXPLAIN SELECT {expression} FROM {joined}")
    except duckdb.BinderException:
        return False
    return True


def _add_duplicates(
    builder: _Builder, workspace: Workspace, shards: Sequence[str], names: set[str], local: _Mirror
) -> None:
    near = [f"duplicates/{shard}.parquet" for shard in shards]
    builder.files("raw_near_duplicates", schema.DUPLICATES, [local(path) for path in near if path in names])
    buckets = [local(name) for name in ("duplicates/buckets.parquet",) if name in names]
    builder.files("raw_duplicate_buckets", schema.DUPLICATE_BUCKETS, buckets)
    found = workspace.read_json("duplicates", "manifest.json")
    report = found and (
        found["num_clusters"] + found["num_near_duplicates"],
        found["num_clusters"],
        found["largest_cluster"],
        found["num_parted"],
        found["num_oversized_buckets"],
        found["largest_bucket"],
    )
    builder.rows("raw_duplicate_report", DUPLICATE_REPORT, [report] if report else [])


def _add_records(builder: _Builder, workspace: Workspace, names: set[str]) -> None:
    datasets = []
    runs = []
    for name in sorted(names):
        folder, _, last = name.rpartition("/")
        if last == "manifest.json" and re.fullmatch(r"datasets/[^/]+", folder):  # token shards have their own
            content = workspace.read_json(*name.split("/"))
            datasets.append(
                (
                    content["selection"],
                    content["num_documents"],
                    content["num_bytes"],
                    len(content["files"]),
                    folder,
                )
            )
        elif folder == "runs":
            content = workspace.read_json("runs", last)
            runs.append(
                [
                    content[key]
                    for key in ("run", "started", "seconds", "command", "status", "message", "version")
                ]
            )
    builder.rows("raw_datasets", DATASETS, datasets)
    builder.rows("raw_runs", RUNS, runs)


def _add_ablations(builder: _Builder, workspace: Workspace, names: set[str]) -> None:
    trainings, tasks = [], []
    for name in sorted(names):
        if name.startswith("ablations/") and name.count("/") == 2:
            found = workspace.read_json(*name.split("/"))
            key = [found[column] for column in ("selection", "seed", "multiple", "num_tokens")]
            measured = ("epochs", "training_loss", "bits_per_byte", "seconds")
            trainings.append([*key, *(found[column] for column in measured)])
            judged = ("num_questions", "accuracy", "standard_error", "chance")
            tasks += [
                [*key, task, *(accuracy[column] for column in judged)]
                for task, accuracy in found["tasks"].items()
            ]
    builder.rows("raw_ablations", ABLATIONS, trainings)
    builder.rows("raw_ablation_tasks", ABLATION_TASKS, tasks)


def _add_strengths(builder: _Builder, workspace: Workspace, names: set[str], local: _Mirror) -> None:
    manifest = read_manifest(workspace, STRENGTH_MODEL)
    paths = [
        local(name) for name in (f"models/{STRENGTH_MODEL}/{STRENGTHS_FILE}",) if manifest and name in names
    ]
    builder.files("raw_strengths", schema.STRENGTHS, paths)
    rungs = manifest["rungs"] if manifest else []
    columns = ("rung", "average", "task_loss", "bits_per_character")
    rows = [(position, *(rung[name] for name in columns)) for position, rung in enumerate(rungs, start=1)]
    builder.rows("raw_rungs", RUNGS, rows)


def _add_mixtures(builder: _Builder, workspace: Workspace, names: set[str]) -> None:
    rows = []
    for name in sorted(names):
        if name.startswith("mixtures/ratio-"):
            found = workspace.read_json(*name.split("/"))
            ratio = float(Fraction(found["ratio"]))
            observed = ("num_tokens", "domain_loss", "general_loss", "general_error")
            rows += [
                [found["domain"], ratio, *(row[column] for column in observed)]
                for row in found["observations"]
            ]
    builder.rows("raw_mixtures", MIXTURES, rows)


def _add_meta_rater(builder: _Builder, workspace: Workspace, names: set[str], local: _Mirror) -> None:
    manifest = read_manifest(workspace, META_RATER)
    paths = [local(name) for name in (f"models/{META_RATER}/{PROXIES_FILE}",) if manifest and name in names]
    builder.files("raw_proxies", schema.PROXIES, paths)
    signals = manifest["signals"] if manifest else []
    rows = [(position, *signal) for position, signal in enumerate(signals, start=1)]
    builder.rows("raw_meta_rater_weights", META_RATER_WEIGHTS, rows)


def _local_folder(workspace: Workspace) -> Path:
    if files.is_local(workspace.root):
        return Path(workspace.root).resolve()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "gristmill" / hashlib.blake2b(workspace.root.encode(), digest_size=8).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _hint(message: str) -> str:
    return (
        "; nouns: " + ", ".join(sql.views()) + ", scores, texts" if "Catalog Error: Table" in message else ""
    )
