"""Metadata prefixes: a template and the rows of a dataset -> the text that stands before each document.

As in MeCo (arXiv 2501.01956), whose host is what stands between scheme and first slash; here it is in lower case,
without user and port, as in SQL. Hashed hosts do as well there as plain ones.
"""

from string import Formatter

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.pipelines.records import hosts, uuid_text
from gristmill.scorers.duplicates import hash128

HASH_DIGITS = 12
LAST_LABEL = r"\.(?P<suffix>[a-z][a-z0-9-]*)$"
COLUMNS = ("source", "url", "created")
"""Of a dataset, what fields are made from."""


def prefix_texts(
    documents: pa.RecordBatch, template: str, missing: str | None
) -> tuple[pa.LargeStringArray, pa.BooleanArray]:
    """The prefix of each document, and which documents lack a field of the template.

    Args:
        documents: n rows with `COLUMNS`.
        template: Text with fields in braces, as in `recipe_export.Prefix`.
        missing: Stands for a missing field.

    Returns:
        n texts, empty where a field is missing that nothing stands for, and n booleans.
    """
    pieces = [pa.scalar("", pa.large_string())]
    lacks = pa.array([False] * len(documents))
    for text, name, _, _ in Formatter().parse(template):
        pieces.append(pa.scalar(text, pa.large_string()))
        if name is not None:
            values = _field(documents, name)
            lacks = pc.or_(lacks, values.is_null())
            pieces.append(values if missing is None else values.fill_null(missing))
    *joined, separator = [*pieces, pieces[0]]
    columns = [piece if isinstance(piece, pa.Array) else pa.repeat(piece, len(documents)) for piece in joined]
    texts = pc.binary_join_element_wise(*columns, separator, null_handling="emit_null")
    return texts.fill_null(""), lacks


def _field(documents: pa.RecordBatch, name: str) -> pa.LargeStringArray:
    if name in ("source", "url"):
        values = documents[name]
    elif name == "year":
        values = pc.year(documents["created"])
    elif name == "host":
        values = hosts(documents["url"])
    elif name == "suffix":
        values = pc.struct_field(pc.extract_regex(hosts(documents["url"]), LAST_LABEL), "suffix")
    else:
        host = hosts(documents["url"])
        hashes = uuid_text(hash128(host.fill_null("").cast(pa.large_string())))
        digits = pc.utf8_slice_codeunits(pc.replace_substring(hashes, "-", ""), 0, HASH_DIGITS)
        values = pc.if_else(host.is_valid(), digits, None)
    return values.cast(pa.large_string())
