"""The demo: a whole curation of the English, code and boilerplate that every machine with Python carries.

Documents are the docstrings of Python modules and the documentation, licences and read-me files of the installed
packages: real near-duplicates (the same licence with another name), real boilerplate, real code. The target is the
documentation of numerical code, NumPy's docstrings, which are not in the corpus. The raters learn from docstrings of
other modules, with labels that a formula and damage done on purpose give them.
"""

import ast
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pyarrow as pa

from gristmill.pipelines import files
from gristmill.pipelines.catalog import named_query, open_catalog, run_query
from gristmill.pipelines.curate import Summary
from gristmill.pipelines.demo_labels import labelled_texts
from gristmill.pipelines.load_recipe import load_recipe
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.progress import Reporter
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.workspace import open_workspace

MAX_MODULES = 600
MAX_TARGET_MODULES = 200
MAX_FILE_BYTES = 1 << 16
TARGET = "numpy"
"""The package whose docstrings are the target."""
DOCUMENTATION = {".txt", ".md", ".rst"}
LICENCES = DOCUMENTATION | {""}
MACHINE_READ = {"entry_points.txt", "top_level.txt", "SOURCES.txt", "requires.txt", "dependency_links.txt"}
RECIPE = """\
# Docstrings, documentation and licences of the Python on this machine.
workspace: ./mill
corpus:
  - {path: input/docstrings.jsonl, source: docstrings, licence: as each package}
  - {path: input/documentation.jsonl, source: documentation, licence: as each package}
  - {path: input/licences.jsonl, source: licences, licence: as each package}
target: {path: input/target.jsonl}   # what the trained model should be good at: numerical Python
models:                              # tiny, for a demo: minutes on two cores
  tokenizer: {vocab_size: 2048, max_bytes: 2000000}
  prior: {size: 300k, context: 128, tokens: 300000, batch_tokens: 2048, learning_rate: 0.003}
  conditional: {batch_tokens: 2048, learning_rate: 0.001}
  ladder:                            # the same model, trained longer and longer: what does it learn to predict?
    rungs:
      - {size: 300k, context: 128, tokens: 60000, batch_tokens: 2048, learning_rate: 0.003}
      - {size: 300k, context: 128, tokens: 90000, batch_tokens: 2048, learning_rate: 0.003}
      - {size: 300k, context: 128, tokens: 130000, batch_tokens: 2048, learning_rate: 0.003}
  predictive_strength: {hosts: 3, documents_per_host: 40, stride: 128, epoch: 200}
  raters:                            # for show: one learns a formula, the other to see damage done on purpose
    readability: {labels: input/labels.jsonl, label: readability, group: id, kind: regression}
    cleanliness: {labels: input/labels.jsonl, label: cleanliness, group: id}
  meta_rater:                        # how much should each signal count? eight models say; 256 would know
    signals: [importance_per_ngram, readability, cleanliness, rps_doc_unigram_entropy, rps_doc_frac_no_alph_words]
    proxies: 8
    tokens: 30000
  clusters: {num_clusters: 20}       # of the prior's hidden states; where do the target's documents fall?
score:
  - rules
  - language
  - pii
  - exact_duplicate
  - minhash
  - color_filter
  - importance
  - predictive_strength
  - readability
  - cleanliness
  - meta_rater
  - embedding
  - clusters
  - facility_location: {budget: 300}
duplicates: {threshold: 0.8, prefer: [documentation, docstrings]}
select:
  - name: demo
    where:                           # in order; the first that is not true is the reason
      english: "language = 'en' and language_probability > 0.65"
      long_enough: rps_doc_word_count >= 50
      not_repetitive: gopher_repetition_pass
      sentences: c4_pass
      words: gopher_frac_alpha_words > 0.6
    deduplicate: {prefer: [documentation, docstrings]}
    top: {by: rps_doc_unigram_entropy, keep: 1/2, of: characters, direction: highest}
  - name: numerical
    where: {long_enough: rps_doc_word_count >= 50}
    deduplicate: {prefer: [documentation, docstrings], then: color_filter}
    top: {by: color_filter, keep: 1/8, of: tokens}
  - name: representative             # a few documents that stand for all
    deduplicate: {prefer: [documentation, docstrings]}
    top: {by: facility_location_rank, keep: 300}
export: {redact_pii: true}
"""
QUESTIONS = (
    "select source, count(*) as documents, round(avg(kept::int), 3) as keep_rate, mode(reason) as commonest_reason "
    "from documents join decisions using (doc_id) where selection = 'demo' group by source order by source",
    "select d.id, r.id as duplicate_of, round(jaccard, 3) as jaccard from duplicates join documents d using (doc_id) "
    "join documents r on r.doc_id = representative where jaccard < 1 order by d.num_chars desc, d.id limit 5",
    "select split_part(id, '/', 1) as package, count(*) as documents, round(avg(color_filter), 3) as color_filter, "
    "round(avg(importance_per_ngram), 3) as importance from documents join scores using (doc_id) "
    "where source = 'docstrings' group by package having count(*) >= 50 order by color_filter desc, package limit 8",
    "select source, count(*) as seed_documents, round(avg(strength), 3) as strength, "
    "round(avg(predictive_strength), 3) as by_the_classifier from strengths join score_predictive_strength "
    "using (doc_id) group by source order by strength desc, source",
    "select signal, round(weight, 3) as weight, higher_is_better from meta_rater_weights order by weight desc, signal",
    "select source, round(avg(meta_rater), 3) as meta_rater, round(avg(readability), 3) as readability, "
    "round(avg(cleanliness), 3) as cleanliness from documents join scores using (doc_id) group by source "
    "order by meta_rater desc, source",
)


NAMED_QUERY = "representatives"
SHOWN_ROWS = 8
"""Of the named query's answer."""


def run_demo(folder: str, reporter: Reporter) -> tuple[Recipe, Summary, dict[str, pa.Table]]:
    """Gather the texts, run the recipe, ask the questions.

    Args:
        folder: Where inputs, recipe and workspace go.
        reporter: Where progress goes.

    Returns:
        The recipe, what the run did, and the answers by what `gristmill sql` is asked.
    """
    root = Path(folder)
    for name, records in gather().items():
        path = root / "input" / f"{name}.jsonl"
        if not path.exists():
            lines = (json.dumps(record, ensure_ascii=True) + "\n" for record in records)
            files.commit_bytes(str(path), "".join(lines).encode())
    recipe_path = root / "recipe.yaml"
    if not recipe_path.exists():
        files.commit_bytes(str(recipe_path), RECIPE.encode())
    recipe = load_recipe(str(recipe_path))
    summary = prepare(recipe, beam_options([]), reporter).run(command="demo")
    connection = open_catalog(open_workspace(recipe.workspace))
    try:
        answers = {f'"{question}"': run_query(connection, question) for question in QUESTIONS}
        found = run_query(connection, named_query(connection, NAMED_QUERY, {}))
        return recipe, summary, answers | {f"--query {NAMED_QUERY}": found.slice(0, SHOWN_ROWS)}
    finally:
        connection.close()


def gather() -> dict[str, Iterable[dict[str, Any]]]:
    """Input -> its records, read when they are asked for."""
    modules = python_files()
    chosen = sampled(modules, MAX_MODULES)
    others = sampled(sorted(set(modules) - set(chosen)), MAX_MODULES)
    texts = {
        "docstrings": gather_docstrings(chosen),
        "target": gather_docstrings(sampled(python_files(target=True), MAX_TARGET_MODULES)),
        "documentation": gather_files(is_licence=False),
        "licences": gather_files(is_licence=True),
    }
    inputs: dict[str, Iterable[dict[str, Any]]] = {
        name: ({"id": key, "text": text} for key, text in documents) for name, documents in texts.items()
    }
    return inputs | {"labels": labelled_texts(gather_docstrings(others))}


def python_files(*, target: bool = False) -> list[tuple[str, Path]]:
    """Modules of the standard library and the installed packages, with their path below those folders.

    Args:
        target: The target's package, or all the others.
    """
    roots = dict.fromkeys(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))
    return [
        (str(path.relative_to(root)), path)
        for root in roots
        for path in sorted(root.rglob("*.py"))
        if "site-packages" not in path.relative_to(root).parts
        and (path.relative_to(root).parts[0] == TARGET) == target
    ]


def sampled(modules: list[tuple[str, Path]], max_modules: int) -> list[tuple[str, Path]]:
    """Modules at equal distances, at least `max_modules` where there are so many."""
    return modules[:: max(len(modules) // max_modules, 1)]


def gather_docstrings(modules: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, str]]:
    """Every docstring of the modules, with a name for it; what does not parse has none."""
    for name, path in modules:
        if path.stat().st_size > MAX_FILE_BYTES:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other people's escape sequences
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text:
                    yield f"{name}:{getattr(node, 'lineno', 0)}", text


def gather_files(*, is_licence: bool) -> Iterator[tuple[str, str]]:
    """Licences, or the documentation and descriptions, of the installed packages and of Python itself."""
    for distribution in sorted(distributions(), key=lambda item: item.metadata["Name"] or ""):
        for entry in sorted(distribution.files or [], key=str):
            suffixes = LICENCES if is_licence else DOCUMENTATION
            is_text = entry.suffix in suffixes and entry.name not in MACHINE_READ
            if is_text and looks_like_licence(entry.name) == is_licence:
                yield from _read(str(entry), Path(str(entry.locate())))
        if not is_licence and (description := distribution.metadata.json.get("description")):
            yield f"{distribution.metadata['Name']}:description", str(description)
    base = Path(sys.base_prefix)
    for path in sorted([*base.glob("lib/python3*/*.txt"), *base.glob("share/doc/python3*/**/*.rst")]):
        if looks_like_licence(path.name) == is_licence:
            yield from _read(path.name, path)


def looks_like_licence(name: str) -> bool:
    """Whether a file's name says that it is a licence, a notice or a list of authors."""
    return any(word in name.lower() for word in ("licen", "copying", "notice", "authors"))


def _read(name: str, path: Path) -> Iterator[tuple[str, str]]:
    if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
        text = path.read_bytes()
        if b"\0" not in text:
            yield name, text.decode("utf-8", "replace")
