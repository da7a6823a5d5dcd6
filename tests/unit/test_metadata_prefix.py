"""Metadata prefixes: the text that a template gives, and what becomes of missing fields."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from pydantic import ValidationError

from gristmill.pipelines.metadata_prefix import prefix_texts
from gristmill.pipelines.recipe_export import Prefix

DOCUMENTS = pa.RecordBatch.from_pydict(
    {
        "source": ["web", "web", "books"],
        "url": ["https://en.Wikipedia.org/wiki/Mill", "http://u@10.0.0.1:80/x", None],
        "created": pa.array([datetime(2020, 5, 1, tzinfo=UTC), None, None], pa.timestamp("us", tz="UTC")),
    }
)


@pytest.mark.parametrize(
    ("template", "missing", "expected", "lacking"),
    [
        ("URL: {host}\n\n", None, ["URL: en.wikipedia.org\n\n", "URL: 10.0.0.1\n\n", ""], [False, False, True]),
        ("URL: {host}; ", "?", ["URL: en.wikipedia.org; ", "URL: 10.0.0.1; ", "URL: ?; "], [False, False, True]),
        ("{suffix} ", None, ["org ", "", ""], [False, True, True]),
        ("{source} {year}: ", "none", ["web 2020: ", "web none: ", "books none: "], [False, True, True]),
        ("{url}", None, ["https://en.Wikipedia.org/wiki/Mill", "http://u@10.0.0.1:80/x", ""], [False, False, True]),
        ("{{text}} ", None, ["{text} "] * 3, [False] * 3),
    ],
)  # fmt: skip
def test_a_prefix_is_the_template_with_the_documents_fields(template, missing, expected, lacking):
    texts, lacks_field = prefix_texts(DOCUMENTS, template, missing)
    assert texts.to_pylist() == expected
    assert lacks_field.to_pylist() == lacking


def test_hashed_hosts_tell_hosts_apart_and_nothing_else():
    urls = ["https://a.example/1", "https://A.example/2", "https://b.example/1", None]
    columns = {"source": ["web"] * 4, "url": urls, "created": pa.nulls(4, pa.timestamp("us", tz="UTC"))}
    texts, _ = prefix_texts(pa.RecordBatch.from_pydict(columns), "{host_hash} ", None)
    one, same, other, none = texts.to_pylist()
    assert one == same != other
    assert (len(one), none) == (13, "")
    assert "example" not in one


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{hots}", "unknown field {hots}; allowed: host, host_hash, .*did you mean 'host'"),
        ("{host!r}", "{host} has a format; expected the name of a field alone"),
        ("{host", "write {{ and }} for braces that are text"),
    ],
)
def test_a_template_with_other_fields_is_refused(template, message):
    with pytest.raises(ValidationError, match=message):
        Prefix(template=template)
