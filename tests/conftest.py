"""Fixtures shared by all tests.

shared_data   folder of real data beside the repository; the test is skipped where it is absent
extractor     one main-text extractor with its child process for the whole session
ingest        a function: a recipe's inputs -> an ingested corpus, by the pure functions, without Beam
"""

from pathlib import Path

import pytest

from gristmill.pipelines.extract_html import Extractor

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared/data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real data in shared/data beside the repository")
    return SHARED_DATA


@pytest.fixture(scope="session")
def extractor():
    with Extractor() as extractor:
        yield extractor


@pytest.fixture
def ingest(tmp_path, extractor):
    from corpora import ingest as ingest_corpus

    def run(*inputs, root=None, **options):
        return ingest_corpus(str(root or tmp_path / "mill"), inputs, extractor, **options)

    return run
