"""Personal data: what is one, what only looks like one, and that redaction leaves none."""

import gzip
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.scorers.pii import KINDS, Pii, redact
from gristmill.scorers.text import TextBatch

CORPUS = Path(__file__).resolve().parents[3] / "shared/data/corpus/mixed-02.jsonl.gz"
EMAIL, IP, PHONE = range(len(KINDS))

FOUND = {
    EMAIL: [
        "miller@example.com",
        "j.r.miller+mill@mail.example.co.uk",
        "MILLER@EXAMPLE.ORG",
        "o'brien@example.ie",
        "someone@163.com",
        "x@1and1.de",
        "a_b%c@sub-domain.example.museum",
    ],
    IP: [
        "192.168.0.1",
        "8.8.8.80",
        "255.255.255.255",
        "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        "2001:db8::1",
        "fe80::1ff:fe23:4567:890a",
        "fd12:3456::",
    ],
    PHONE: [
        "212-555-0123",
        "(212) 555-0123",
        "(212)555-0123",
        "212.555.0123",
        "1-800-555-0123",
        "+1 (212) 555-0123",
        "+12125550123",
        "+44 20 7946 0958",
        "+49-40-54715-224",
        "+33 1 23 45 67 89",
        "+81 3-1234-5678",
    ],
}
AROUND = ["{}", "call {}.", "({})", "<{}>", "at {}, or", "\n{}\n", "“{}”", "see: {};", "地址{}。", "{}..."]

NOT_FOUND = [
    "@miller",
    "user@localhost",
    "a @ b.com",
    "icon@2x.png",
    "git@",
    "me@example.c",
    "version 1.2.3.4",
    "1.2.3",
    "1.2.3.4.5",
    "10.20.30.40.50",
    "256.1.1.1",
    "192.168.0.999",
    "v10.20.30.40",
    "package-10.20.30.40.tar.gz",
    "Agent/10.20.30.40",
    "10.20.30.40-beta",
    "3.14.15.92a",
    "01:23:45:67:89:ab",
    "12:30:45",
    "std::vector",
    "dead::beef",
    "ab:cd:ef:01:23:45:67:89:ab:cd:ef:01:23:45:67:89",
    "978-0-306-40615-7",
    "0-306-40615-2",
    "ISBN 978-316-148-4100",
    "2024-01-31",
    "31.12.2024",
    "1990-2000",
    "$1,234.56",
    "123-45-6789",
    "555-0123",
    "3.141592653589793",
    "212 555 0123",
    "112-555-0123",
    "1234567890",
    "+1",
    "+5 to +10",
    "x + 12",
    "4111-1111-1111-1111",
    "212-555-01234",
    "#212-555-0123-77",
    "IEEE 802.11.10.20.30",
]


def counts(*texts):
    return redact(pa.array(texts, pa.large_string()))[1].tolist()


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind in FOUND for text in FOUND[kind]])
def test_found_whatever_stands_beside_it(kind, text, around):
    redacted, found = redact(pa.array([around.format(text)], pa.large_string()))
    assert redacted.to_pylist() == [around.format(KINDS[kind].token)]
    assert found.tolist() == [[int(kind == column) for column in range(len(KINDS))]]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_one_is_left_alone(text):
    assert counts(text, f"see {text}.", f"({text})") == [[0, 0, 0]] * 3


@pytest.mark.parametrize(
    ("text", "redacted", "expected"),
    [
        ("10.0.0.1:8080, http://10.0.0.2/x, 10.0.0.0/24", "<IP>:8080, http://<IP>/x, <IP>/24", [0, 3, 0]),
        ("::ffff:10.0.0.1 [2001:db8::1]:80", "::ffff:<IP> [<IP>]:80", [0, 2, 0]),
        ("10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4", "<IP> <IP> <IP> <IP>", [0, 4, 0]),
        ("212-555-0123/212-555-0124", "<PHONE>/<PHONE>", [0, 0, 2]),
        ("tel:+12125550123", "tel:<PHONE>", [0, 0, 1]),
        ("a@b.com,c@d.org;mailto:e@f.net", "<EMAIL>,<EMAIL>;mailto:<EMAIL>", [3, 0, 0]),
        ("<EMAIL> a@b.com <IP> \\1", "<EMAIL> <EMAIL> <IP> \\1", [1, 0, 0]),
        ("", "", [0, 0, 0]),
    ],
)
def test_redact(text, redacted, expected):
    texts, found = redact(pa.array([text], pa.large_string()))
    assert texts.to_pylist() == [redacted]
    assert found.tolist() == [expected]


parts = st.sampled_from([text for texts in FOUND.values() for text in texts] + NOT_FOUND)
glue = st.sampled_from(["", " ", "/", ".", "-", ":", ",", "\n", "+", "a", "1", "é", "//"])


@given(st.lists(st.lists(st.tuples(parts, glue), max_size=6).map(lambda pairs: "".join(map("".join, pairs)))))
@example(texts=["2001:db8::1212.555.0123", "192.168.0.1+12125550123"])
def test_redacting_again_changes_nothing(texts):
    once, found = redact(pa.array(texts, pa.large_string()))
    again, found_again = redact(once)
    assert again.equals(once)
    assert not found_again.any()
    scores = Pii().score(TextBatch.from_texts(texts)) if texts else None
    assert scores is None or np.array_equal(np.column_stack([column.to_numpy() for column in scores]), found)


def test_real_text_is_redacted_completely():
    if not CORPUS.exists():
        pytest.skip("the shared corpus is not here")
    with gzip.open(CORPUS) as lines:
        texts = pa.array([json.loads(line)["text"] for line in islice(lines, 3000)], pa.large_string())
    once, found = redact(texts)
    assert (found.sum(axis=0) > [500, 0, 20]).all()
    assert not redact(once)[1].any()
