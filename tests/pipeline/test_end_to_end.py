"""A whole recipe over every format: twice, interrupted, grown, chosen again, taken down; always the same bytes.

Data files are compared byte by byte; the ledger and the runs hold times and are left out.
"""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pyarrow.parquet as pq
import pytest
from corpora import gzip_members, html, http, warc_record, write_lines, write_table

from gristmill.pipelines.catalog import open_catalog, run_query
from gristmill.pipelines.load_recipe import load_recipe
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.verify import collect_garbage, verify_workspace
from gristmill.pipelines.workspace import open_workspace

DATA = ("corpus", "documents", "rejects", "scores", "decisions", "datasets")
RECIPE = """
workspace: {root}/mill
corpus:
  - {{path: {root}/raw/a.jsonl, source: web, url: link, created: date}}
  - {{path: {root}/raw/b.jsonl.gz, source: web}}
  - {{path: "{root}/raw/tables/*.parquet", source: books, text: content}}
  - {{path: {root}/raw/notes, source: notes}}
  - {{path: {root}/raw/pages, source: pages}}
  - {{path: "{root}/raw/*.warc.gz", source: crawl, licence: CC-BY}}
block: {{hosts: [{root}/hosts.txt], ids: [{root}/ids.txt]}}
score: [rules, language, pii, exact_duplicate]
select:
  - name: good
    where: {{english: "language = 'en'", long_enough: "gopher_word_count > 8"}}
    deduplicate: {{prefer: [books, web]}}
    top: {{by: gopher_word_count, direction: highest, keep: 3/4, of: characters}}
  - name: some
    sample: {{keep: 20, seed: 3}}
export: {{redact_pii: true}}
max_reject_rate: 0.5
"""


def prose(number):
    """English of its own for each number."""
    words = ["mill", "grain", "river", "wheel", "stone", "flour", "bread", "farmer", "harvest", "barn"]
    chosen = random.Random(number).choices(words, k=12 + number % 7)
    return f"The {' and the '.join(chosen)} are here, says number {number}. Write to m{number}@example.com!"


def write_inputs(root):
    """About 60 documents in every format, with rejects, duplicates and blanks."""
    raw = root / "raw"
    lines = [
        {
            "text": prose(n),
            "id": f"a{n}",
            "link": f"https://h{n % 3}.example/{n}",
            "date": f"20{10 + n}-01-02",
        }
        for n in range(12)
    ]
    write_lines(
        raw / "a.jsonl", *lines, b"{broken", b'{"text": "  "}', {"text": "Zu kurz, und es ist Deutsch."}
    )
    gzipped = "".join(json.dumps({"text": prose(n), "id": f"b{n}"}) + "\n" for n in range(6, 20))
    (raw / "b.jsonl.gz").write_bytes(gzip.compress(gzipped.encode(), mtime=0))
    write_table(raw / "tables/t.parquet", {"content": [prose(n) for n in range(15, 27)]}, row_group_size=5)
    for folder, suffix, numbers in (("notes", "txt", range(30, 36)), ("pages", "html", range(40, 46))):
        (raw / folder).mkdir()
        for number in numbers:
            text = prose(number).encode() if suffix == "txt" else html(prose(number))
            (raw / folder / f"{number}.{suffix}").write_bytes(text)
    bodies = {n: http(html(prose(n)), status="200 OK" if n % 4 else "404 Not Found") for n in range(50, 62)}
    records = [warc_record(url=f"http://w{n % 2}.example/{n}", body=body) for n, body in bodies.items()]
    (raw / "c.warc.gz").write_bytes(gzip_members(warc_record("warcinfo", url=None), *records))
    (root / "hosts.txt").write_text("h1.example\n")
    (root / "ids.txt").write_text("# none yet\n")
    (root / "recipe.yaml").write_text(RECIPE.format(root=root))


def run(root, *overrides, stages=None):
    recipe = load_recipe(str(root / "recipe.yaml"), overrides)
    curation = prepare(recipe, beam_options([]))
    return curation.run(stages) if stages else curation.run()


def data(mill):
    """Every data file with its bytes."""
    files = [path for kind in DATA for path in sorted((mill / kind).rglob("*")) if path.is_file()]
    assert not [path for path in files if path.name.startswith(".tmp-")]
    return {str(path.relative_to(mill)): path.read_bytes() for path in files}


def stamps(mill, *kinds):
    files = [path for kind in kinds for path in sorted((mill / kind).rglob("*")) if path.is_file()]
    return {str(path.relative_to(mill)): path.stat().st_mtime_ns for path in files}


def ask(mill, question):
    with open_catalog(open_workspace(str(mill))) as connection:
        return run_query(connection, question).to_pylist()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The recipe, run once; tests must not change what lies here."""
    root = tmp_path_factory.mktemp("made")
    write_inputs(root)
    return root, run(root)


@pytest.fixture
def root(made, tmp_path):
    """A copy of the workspace over the same inputs, free to change."""
    shutil.copytree(made[0] / "mill", tmp_path / "mill")
    text = (made[0] / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(text.replace(f"{made[0]}/mill", f"{tmp_path}/mill"))
    return tmp_path


def test_everything_is_accounted_for(made):
    mill, summary = made[0] / "mill", made[1]
    names = ("num_in", "num_out", "num_rejected")
    totals = {name: sum(getattr(row, name) for row in summary.ingested) for name in names}
    assert totals["num_out"] == len(ask(mill, "SELECT * FROM documents"))
    assert ask(mill, "SELECT count(*) AS n FROM documents WHERE source = 'crawl'") == [{"n": 9}]
    assert totals["num_rejected"] == len(ask(mill, "SELECT * FROM rejects")) == 1
    for name, funnel in summary.funnels.items():
        assert funnel[0].num_in == totals["num_out"]
        assert funnel[-1].num_kept == summary.datasets[name]["num_documents"] > 0
    steps = {step.step: step.num_in - step.num_kept for step in summary.funnels["good"]}
    assert steps["empty"] == 1
    assert steps["block"] == 4
    assert steps["duplicate"] > 5
    assert verify_workspace(open_workspace(str(mill))).problems == []


PLANS = {"corpus/inputs.json", "corpus/shards.json"}
"""What every run writes again, with the same content where nothing is new."""


def test_again_does_nothing_and_elsewhere_gives_the_same_bytes(made, root):
    before = stamps(root / "mill", *DATA)
    summary = run(root)
    after = stamps(root / "mill", *DATA)
    assert {name for name in after if after[name] != before.get(name)} <= PLANS
    assert summary.funnels == made[1].funnels
    assert ask(root / "mill", "SELECT status FROM runs") == [{"status": "finished"}] * 2
    shutil.rmtree(root / "mill")
    run(root)
    assert_same(made[0] / "mill", root / "mill")


def assert_same(first, second):
    expected, found = data(first), data(second)
    assert list(found) == list(expected)
    assert [name for name, content in expected.items() if found[name] != content] == []


def test_adding_an_input_leaves_old_shards_untouched(root):
    new = root / "new.jsonl"
    write_lines(new, *[{"text": prose(number), "id": f"n{number}"} for number in range(70, 80)])
    recipe = root / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("block:", f"  - {{path: {new}, source: new}}\nblock:"))
    before = stamps(root / "mill", "corpus", "documents", "scores")
    run(root)
    after = stamps(root / "mill", "corpus", "documents", "scores")
    assert {name for name, stamp in before.items() if after[name] != stamp} == PLANS
    assert len(after) == len(before) + 3 + 4
    os.rename(root / "mill", root / "grown")
    run(root)
    assert_same(root / "grown", root / "mill")


def test_choosing_again_never_scores_again(root):
    before = stamps(root / "mill", "corpus", "documents", "scores")
    changed = "select.0.where={long_enough: gopher_word_count > 40}"
    summary = run(root, changed, stages=["select", "export"])
    assert stamps(root / "mill", "corpus", "documents", "scores") == before
    question = "SELECT min(gopher_word_count) AS n FROM decisions JOIN scores USING (doc_id) "
    (kept,) = ask(root / "mill", question + "WHERE kept AND selection = 'good'")
    assert kept["n"] > 40
    files = [root / "mill/datasets/good" / file["name"] for file in summary.datasets["good"]["files"]]
    assert sum(pq.read_metadata(file).num_rows for file in files) == summary.funnels["good"][-1].num_kept


def test_taking_down_names_what_must_go_and_the_next_run_drops_it(root):
    question = "SELECT id FROM decisions JOIN documents USING (doc_id) WHERE kept AND selection = 'good' "
    gone = sorted(row["id"] for row in ask(root / "mill", question + "AND id IS NOT NULL"))[:2]
    (root / "ids.txt").write_text("\n".join(gone))
    lists = f"block.ids=[{root}/ids.txt]"
    notes = run(root, lists, stages=["select"]).notes
    assert any(note.startswith("dataset 'good' holds 2 documents on a block list") for note in notes)
    listed = ask(root / "mill", "SELECT id, reason FROM takedowns WHERE selection = 'good' ORDER BY id")
    assert listed == [{"id": name, "reason": "blocked_id"} for name in gone]
    assert run(root, lists).notes == []
    assert ask(root / "mill", "SELECT * FROM takedowns") == []
    files = (root / "mill/datasets/good").glob("*.parquet")
    assert not set(gone) & {value for file in files for value in pq.read_table(file)["id"].to_pylist()}


SCORER = """
from dataclasses import dataclass
import pyarrow as pa
import pyarrow.compute as pc
from gristmill.scorers.base import Column, Scorer

@dataclass(frozen=True, kw_only=True)
class Vowels(Scorer):
    name = "vowels"
    version = 1
    letters: str = "aeiou"

    @property
    def columns(self):
        return (Column(name="num_vowels", type=pa.int64(), description="Vowels.", unit="characters", minimum=0),)

    def score(self, batch):
        counts = pc.count_substring_regex(batch.text, f"[{self.letters}]").cast(pa.int64())
        return pa.RecordBatch.from_arrays([counts], schema=self.schema())
"""


def test_a_scorer_of_an_installed_package_is_like_any_other(root, monkeypatch):
    package = root / "site"
    described = package / "vowel_scorer-1.0.dist-info"
    described.mkdir(parents=True)
    (package / "vowel_scorer.py").write_text(SCORER)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: vowel-scorer\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[gristmill.scorers]\nvowels = vowel_scorer:Vowels\n")
    monkeypatch.syspath_prepend(str(package))
    before = stamps(root / "mill", "scores")
    scorers = "score=[{vowels: {letters: ae}}, exact_duplicate]"
    run(root, scorers, "select={name: v, top: {by: num_vowels, direction: highest, keep: 5}}")
    after = stamps(root / "mill", "scores")
    assert {name for name in before if after[name] != before[name]} == {
        "scores/current.json",
        "scores/wanted.json",
    }
    question = "SELECT text, num_vowels, kept FROM decisions JOIN score_vowels USING (doc_id) "
    rows = ask(root / "mill", question + "JOIN texts USING (doc_id) WHERE selection = 'v'")
    assert all(row["num_vowels"] == sum(map(row["text"].count, "ae")) for row in rows)
    kept = sorted((row["num_vowels"] for row in rows if row["kept"]), reverse=True)
    assert kept == sorted((row["num_vowels"] for row in rows), reverse=True)[:5]
    (column,) = ask(root / "mill", "SELECT options FROM score_columns WHERE scorer = 'vowels'")
    assert json.loads(column["options"]) == {"letters": "ae"}


# A process that has imported everything forks one run for each line it reads, so that ten kills do not cost ten starts.
NURSERY = """
import os, sys
from gristmill.pipelines.cli import main
from gristmill.pipelines import curate, preview, sample
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        main(line.split())
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def test_killing_a_run_at_any_moment_loses_nothing_but_time(made, root):
    shutil.rmtree(root / "mill")
    chance = random.Random(20)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as nursery:

        def live(seconds):
            """Run for so long; whether the run came to its end by itself."""
            nursery.stdin.write(f"run {root}/recipe.yaml --quiet\n")
            nursery.stdin.flush()
            pid = int(nursery.stdout.readline())
            if seconds is not None:
                time.sleep(seconds)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return int(nursery.stdout.readline())

        statuses = [live(chance.uniform(0.05, 1.6)) for _ in range(10)]
        assert signal.SIGKILL in statuses
        assert live(None) == 0
        nursery.stdin.close()
    workspace = open_workspace(str(root / "mill"))
    report = verify_workspace(workspace)
    assert report.problems == []
    collect_garbage(workspace, report)
    assert_same(made[0] / "mill", root / "mill")
    runs = ask(root / "mill", "SELECT status, count(*) AS n FROM runs GROUP BY 1 ORDER BY 1")
    assert {row["status"] for row in runs} <= {"finished", "running"}
