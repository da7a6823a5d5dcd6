"""What will be read, and in which splits, decided up front and written down before anything runs.

`corpus/inputs.json` lists every file of the corpus with its size, modification time and digest, and the splits
that read it. Later inputs are appended; what is there keeps its numbers, so shards never change once ingested.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

from gristmill.pipelines import files, parquet
from gristmill.pipelines.recipe import Input, Recipe
from gristmill.pipelines.records import Piece, Split
from gristmill.pipelines.streams import SUFFIXES, compression_of
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import CorpusError, RecipeError

SHARD_BYTES = 128 << 20
"""Text a shard holds, about: 64 splits of 8 GB keep many cores busy, and 10 TB make no more than 80,000 files."""
COMPRESSION_RATIO = 4
"""Text bytes a compressed byte makes, about, for packing small files into one split."""
SAMPLED_BYTES = 64 << 10
NUM_SAMPLES = 64
FORMATS = {
    "jsonl": (".jsonl", ".json", ".ndjson"),
    "parquet": (".parquet",),
    "warc": (".warc", ".wet"),
    "text": (".txt", ".text", ".md", ".rst"),
    "html": (".html", ".htm", ".xhtml"),
}
SIDE_FILES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
FIELDS = ("format", "text", "id", "url", "created", "source_field")


@dataclass(frozen=True)
class InputFile:
    """A file as it was when it was ingested."""

    path: str
    relative: str
    size: int
    modified: float
    digest: str
    format: str


@dataclass(frozen=True)
class IngestedInput:
    """Files ingested together from one entry of a recipe, with the splits that read them."""

    input: Input
    files: tuple[InputFile, ...]
    splits: tuple[Split, ...]


@dataclass(frozen=True)
class IngestPlan:
    """Every input of the workspace, old and new, and what differs from when they were ingested.

    Args:
        inputs: In the order of their numbers.
        num_new_files: How many files are not in the workspace yet.
        warnings: One line for every input that vanished or is no longer in the recipe.
        shard_bytes: Text a shard holds, about.
        sampled_share: Share of the documents that ingest keeps, 1 but for samples.
    """

    inputs: tuple[IngestedInput, ...]
    num_new_files: int
    warnings: tuple[str, ...]
    shard_bytes: int
    sampled_share: float = 1.0

    @property
    def splits(self) -> list[Split]:
        """All splits in order."""
        return [split for item in self.inputs for split in item.splits]


def plan_ingest(workspace: Workspace, recipe: Recipe, *, shard_bytes: int = SHARD_BYTES) -> IngestPlan:
    """Compare the recipe's inputs with the workspace and plan splits for what is new.

    Args:
        workspace: Where earlier plans lie; may be empty.
        recipe: The inputs wanted.
        shard_bytes: Text a shard holds, about; a workspace keeps the number it was made with.

    Raises:
        CorpusError: If a file changed since it was ingested, or two files would share their doc_ids.
        RecipeError: If an input's format cannot be told, or its fields changed since it was ingested.
    """
    earlier = workspace.read_json("corpus", "inputs.json")
    inputs = [_from_json(item) for item in earlier["inputs"]] if earlier else []
    shard_bytes = earlier["shard_bytes"] if earlier else shard_bytes
    known = {(item.input.source, file.relative): (item, file) for item in inputs for file in item.files}
    matched = set()
    num_new = 0
    for number, entry in enumerate(recipe.corpus):
        new = []
        for path, relative, form in discover(entry, place=f"corpus.{number}"):
            key = (entry.source, relative)
            if key in matched:
                raise CorpusError(
                    f"{path.path}: source {entry.source!r} already has a file {relative!r}, and a document's id is "
                    "made of both; give one of the inputs another source"
                )
            matched.add(key)
            if key in known:
                _check_unchanged(*known[key], path, entry, place=f"corpus.{number}")
            else:
                new.append(InputFile(path.path, relative, path.size, path.modified, digest(path), form))
        if new:
            splits = tuple(_plan_splits(len(inputs), entry, new, shard_bytes))
            inputs.append(IngestedInput(entry, tuple(new), splits))
            num_new += len(new)
    warnings = [
        f"{file.path}: ingested before, no longer among the recipe's inputs; its documents stay in the corpus"
        for key, (_, file) in known.items()
        if key not in matched
    ]
    return IngestPlan(tuple(inputs), num_new, tuple(warnings), shard_bytes)


def commit_plan(workspace: Workspace, plan: IngestPlan) -> None:
    """Write the plan down, so that an interrupted run resumes with the same names."""
    content = {"shard_bytes": plan.shard_bytes, "inputs": [_to_json(item) for item in plan.inputs]}
    workspace.commit_json(content, "corpus", "inputs.json")


def discover(entry: Input, *, place: str) -> Iterator[tuple[files.FileInfo, str, str]]:
    """The files of an input, each with its path relative to the input root and its format.

    A folder may be plain, a Hugging Face one (cards and state files are no data) or a dolma one (only
    `documents/` is read). In a folder that holds JSONL, Parquet or WARC files, loose text files are read-me files.
    """
    root = files.input_root(entry.path)
    found = [(item, item.path.removeprefix(root).lstrip("/")) for item in files.list_files(entry.path)]
    found = [(item, relative) for item, relative in found if not files.is_hidden(relative)]
    is_folder = root.rstrip("/") == entry.path.rstrip("/")
    if is_folder and any(relative.startswith("documents/") for _, relative in found):
        found = [(item, relative) for item, relative in found if relative.startswith("documents/")]
    if entry.format:
        yield from ((item, relative, entry.format) for item, relative in found)
        return
    formats = [format_of(relative) for _, relative in found]
    structured = is_folder and any(form in ("jsonl", "parquet", "warc") for form in formats)
    for (item, relative), form in zip(found, formats, strict=True):
        if is_folder and (form is None or (structured and form in ("text", "html"))):
            continue
        if form is None:
            raise RecipeError(
                f"{place}.path: the name {relative!r} tells no format; set `format:` to one of {', '.join(FORMATS)}"
            )
        yield item, relative, form


def format_of(relative: str) -> str | None:
    """The format a file name announces, None for none."""
    name = relative.rpartition("/")[2].lower()
    if name in SIDE_FILES:
        return None
    stem = name
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    return next((form for form, suffixes in FORMATS.items() if stem.endswith(suffixes)), None)


def digest(file: files.FileInfo) -> str:
    """A digest of a file's size and content: all of it up to 4 MB, else 64 evenly spaced samples of 64 KB."""
    state = blake2b(str(file.size).encode(), digest_size=16)
    with files.open_read(file.path) as stream:
        if file.size <= SAMPLED_BYTES * NUM_SAMPLES:
            state.update(stream.read())
        else:
            for sample in range(NUM_SAMPLES):
                stream.seek((file.size - SAMPLED_BYTES) * sample // (NUM_SAMPLES - 1))
                state.update(stream.read(SAMPLED_BYTES))
    return state.hexdigest()


def _check_unchanged(
    item: IngestedInput, then: InputFile, now: files.FileInfo, entry: Input, *, place: str
) -> None:
    for name in FIELDS:
        before, after = getattr(item.input, name), getattr(entry, name)
        if before != after:
            raise RecipeError(
                f"{place}.{name}: {after!r}, but {then.path} was ingested with {before!r}; "
                "restore it, or ingest into a new workspace"
            )
    if (now.size, now.modified) != (then.size, then.modified) and digest(now) != then.digest:
        raise CorpusError(
            f"{now.path}: changed since it was ingested (then {then.size} bytes, now {now.size}); restore it, give "
            "the changed file another name or source, or ingest into a new workspace"
        )


def _plan_splits(number: int, entry: Input, new: list[InputFile], shard_bytes: int) -> list[Split]:
    groups = []
    for form in sorted({file.format for file in new}):
        pieces = (cut for file in new if file.format == form for cut in _cut(file, entry, shard_bytes))
        groups += [(form, *group) for group in pack(pieces, shard_bytes)]
    return [
        Split(f"part-{number:05d}-{position:05d}", entry, form, tuple(pieces), num_bytes)
        for position, (form, pieces, num_bytes) in enumerate(groups)
    ]


def pack(pieces: Iterable[tuple[Piece, int]], shard_bytes: int) -> Iterator[tuple[list[Piece], int]]:
    """Group pieces in order so that each group holds about one shard of text, and none is split.

    Args:
        pieces: Each with its size in bytes of text, about.
        shard_bytes: A group is closed before it would exceed this.

    Yields:
        The pieces of each group, and its size in bytes of text, about.
    """
    group: list[Piece] = []
    held = 0
    for piece, size in pieces:
        if group and held + size > shard_bytes:
            yield group, held
            group, held = [], 0
        group.append(piece)
        held += size
    if group:
        yield group, held


def _cut(file: InputFile, entry: Input, shard_bytes: int) -> Iterator[tuple[Piece, int]]:
    whole = Piece(file.path, file.relative)
    compressed = compression_of(file.path) is not None
    if file.format == "parquet":
        metadata = parquet.read_metadata(file.path, entry)
        if metadata is None:
            yield whole, file.size
            return
        groups = [
            (group, metadata.row_group(group).total_byte_size) for group in range(metadata.num_row_groups)
        ]
        rows = ((Piece(file.path, file.relative, group, group + 1), size) for group, size in groups)
        for run, size in pack(rows, shard_bytes):
            yield Piece(file.path, file.relative, run[0].start, run[-1].end), size
    elif file.format == "jsonl" and not compressed and file.size > shard_bytes:
        for start in range(0, file.size, shard_bytes):
            end = min(start + shard_bytes, file.size)
            yield Piece(file.path, file.relative, start, end), end - start
    else:
        yield whole, file.size * (COMPRESSION_RATIO if compressed else 1)


def _to_json(item: IngestedInput) -> dict[str, Any]:
    return {
        "input": item.input.model_dump(),
        "files": [asdict(file) for file in item.files],
        "splits": [
            {
                "name": split.name,
                "format": split.format,
                "pieces": [asdict(piece) for piece in split.pieces],
                "num_bytes": split.num_bytes,
            }
            for split in item.splits
        ],
    }


def _from_json(item: dict[str, Any]) -> IngestedInput:
    entry = Input.model_validate(item["input"])
    splits = [
        Split(
            split["name"],
            entry,
            split["format"],
            tuple(Piece(**piece) for piece in split["pieces"]),
            split["num_bytes"],
        )
        for split in item["splits"]
    ]
    return IngestedInput(entry, tuple(InputFile(**file) for file in item["files"]), tuple(splits))
