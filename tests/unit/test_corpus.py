"""What the corpus manifest reports."""

from mills import Row, build

from gristmill.pipelines.corpus import count_duplicate_ids


def test_ids_shared_within_a_source_count_once_each(tmp_path):
    shards = [
        [Row(1, "a", id="x"), Row(2, "b", id="y"), Row(3, "c", id="x")],
        [
            Row(4, "d", id="x"),
            Row(5, "e", id="y", source="books"),
            Row(6, "f"),
            Row(7, "g"),
            Row(8, "h", id="y"),
        ],
    ]
    mill = build(tmp_path, shards, scorers=())
    assert count_duplicate_ids(mill.workspace, mill.shards) == 2
    assert count_duplicate_ids(mill.workspace, mill.shards[:1]) == 1
    assert count_duplicate_ids(mill.workspace, []) == 0
