"""A scratch DuckDB that spills to disk, for the steps that must see every document once."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from gristmill import sql
from gristmill.pipelines.select_sql import quote

MEMORY_LIMIT = "2GB"


@contextmanager
def scratch_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database on the temporary disk (TMPDIR), gone when the block ends; it holds `MEMORY_LIMIT` in memory."""
    with tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
        connection = duckdb.connect(str(Path(folder) / "scratch.duckdb"))
        try:
            connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET temp_directory = {quote(folder)}")
            connection.execute("SET arrow_lossless_conversion = true; SET enable_progress_bar = false")
            sql.install_macros(connection)
            yield connection
        finally:
            connection.close()
