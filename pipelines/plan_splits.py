"""What will be read, and in which splits, decided up front and written down before anything runs.

`corpus/inputs.json` lists every file of the corpus with its size, modification time and digest, and the splits
that read it. Later inputs are appended; what is there keeps its numbers, so shards never change once ingested.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from typing import Any

from gristmill.pipelines import files, parquet
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_inputs import Input
from gristmill.pipelines.records import Piece, Split
from gristmill.pipelines.streams import SUFFIXES, compression_of
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import CorpusError, RecipeError

SHARD_BYTES = 128 << 20
"""Text a shard holds, about: 64 splits of 8 GB keep many cores busy, and 10 TB make no more than 80,000 files."""
COMPRESSION_RATIO = 4
"""Text bytes a compressed byte makes, about, for packing small files into one split."""
STRUCTURED = {"jsonl", "parquet", "warc"}
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
CARDS = (*SIDE_FILES, "readme.md")
FIELDS = ("text", "id", "url", "created", "source_field")
MAX_NAMED = 10
"""Names of files that a message shows."""


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
        warnings: One line for every file that vanished or is no longer in the recipe, and for every input with
            files that are not read.
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
        CorpusError: If nothing matches a new input, a file changed since it was ingested, or two files would share
            their doc_ids.
        RecipeError: If an input's format cannot be told, or its fields changed since it was ingested.
    """
    earlier = workspace.read_json("corpus", "inputs.json")
    inputs = [_from_json(item) for item in earlier["inputs"]] if earlier else []
    shard_bytes = earlier["shard_bytes"] if earlier else shard_bytes
    known = {(item.input.source, file.relative): (item, file) for item in inputs for file in item.files}
    seen: dict[tuple[str, str], FoundFile] = {}
    warnings = []
    num_new = 0
    for number, entry in enumerate(recipe.corpus):
        new = []
        discovered = discover(entry, place=f"corpus.{number}")
        if discovered.skipped:
            warnings.append(
                f"{entry.path}: {len(discovered.skipped)} files are not read, for their names tell no format or they "
                f"lie beside structured data: {_name_some(discovered.skipped)}"
            )
        if not discovered.files and all(item.input.path != entry.path for item in inputs):
            raise CorpusError(
                f"corpus.{number}.path: nothing matches {entry.path}; expected a file, a glob or a folder"
            )
        for file in discovered.files:
            key = (entry.source, file.relative)
            if key in seen:
                raise CorpusError(
                    f"{file.info.path}: source {entry.source!r} already has a file {file.relative!r}, and a document's "
                    "id is made of both; give one of the inputs another source"
                )
            seen[key] = file
            if key in known:
                _check_unchanged(*known[key], file, entry, place=f"corpus.{number}")
            else:
                info = file.info
                new.append(
                    InputFile(info.path, file.relative, info.size, info.modified, digest(info), file.format)
                )
        if new:
            splits = tuple(_plan_splits(len(inputs), entry, new, shard_bytes))
            inputs.append(IngestedInput(entry, tuple(new), splits))
            num_new += len(new)
    warnings += [
        f"{file.path}: ingested before, no longer among the recipe's inputs; its documents stay in the corpus"
        for key, (_, file) in known.items()
        if key not in seen
    ]
    inputs = [_as_seen(item, seen) for item in inputs]
    return IngestPlan(tuple(inputs), num_new, tuple(warnings), shard_bytes)


def commit_plan(workspace: Workspace, plan: IngestPlan) -> None:
    """Write the plan down, so that an interrupted run resumes with the same names."""
    content = {"shard_bytes": plan.shard_bytes, "inputs": [_to_json(item) for item in plan.inputs]}
    workspace.commit_json(content, "corpus", "inputs.json")


@dataclass(frozen=True)
class FoundFile:
    """A file of an input, with its path relative to the input root and its format."""

    info: files.FileInfo
    relative: str
    format: str


@dataclass(frozen=True)
class Discovered:
    """The files of an input, and the relative paths of those that lie there but are not read."""

    files: list[FoundFile]
    skipped: list[str]


def discover(entry: Input, *, place: str) -> Discovered:
    """The files of an input.

    A folder may be plain, a Hugging Face one (cards and state files are no data) or a dolma one (only
    `documents/` is read). In a folder that holds JSONL, Parquet or WARC files, loose text files are read-me files.

    Raises:
        RecipeError: If the format of a named file cannot be told, or a folder holds nothing to read.
    """
    listed = files.list_files(entry.path)
    folder = f"{entry.path.rstrip('/')}/"
    is_folder = all(info.path.startswith(folder) for info in listed)
    root = folder if is_folder else f"{files.input_root(entry.path)}/"
    named = [(info, info.path.removeprefix(root)) for info in listed]
    named = [(info, name) for info, name in named if info.path == entry.path or not files.is_hidden(name)]
    formats = [entry.format or format_of(name) for _, name in named]
    is_dolma = is_folder and any(name.startswith("documents/") for _, name in named)
    is_structured = is_folder and not entry.format and not STRUCTURED.isdisjoint(formats)
    found, skipped = [], []
    for (info, name), form in zip(named, formats, strict=True):
        if form is None and not is_folder:
            raise RecipeError(
                f"{place}.path: the name {name!r} tells no format; set `format:` to one of {', '.join(FORMATS)}"
            )
        is_side_file = is_dolma and not name.startswith("documents/")
        if form is None or is_side_file or (is_structured and form not in STRUCTURED):
            is_known = name.rpartition("/")[2].lower() in CARDS or (
                is_dolma and name.startswith("attributes/")
            )
            skipped += [] if is_known else [name]
        else:
            found.append(FoundFile(info, name, form))
    if listed and not found:
        raise RecipeError(
            f"{place}.path: no file to read in {entry.path}, only {_name_some(skipped) or 'hidden ones'}; "
            f"set `format:` to one of {', '.join(FORMATS)}"
        )
    return Discovered(found, skipped)


def _name_some(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")


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
    """A digest of a file's size and content: all of it up to 4 MB, else 64 evenly spaced samples of 64 KB.

    Raises:
        CorpusError: If the file cannot be read.
    """
    state = blake2b(str(file.size).encode(), digest_size=16)
    try:
        with files.open_read(file.path) as stream:
            if file.size <= SAMPLED_BYTES * NUM_SAMPLES:
                state.update(stream.read())
            else:
                for sample in range(NUM_SAMPLES):
                    stream.seek((file.size - SAMPLED_BYTES) * sample // (NUM_SAMPLES - 1))
                    state.update(stream.read(SAMPLED_BYTES))
    except OSError as error:
        raise CorpusError(
            f"{file.path}: cannot be read ({error.strerror or error}); mend it, or leave it out of the recipe"
        ) from error
    return state.hexdigest()


def _check_unchanged(
    item: IngestedInput, then: InputFile, found: FoundFile, entry: Input, *, place: str
) -> None:
    fields = [(name, getattr(item.input, name), getattr(entry, name)) for name in FIELDS]
    for name, before, after in [("format", then.format, found.format), *fields]:
        if before != after:
            raise RecipeError(
                f"{place}.{name}: {after!r}, but {then.path} was ingested with {before!r}; "
                "restore it, or ingest into a new workspace"
            )
    now = found.info
    if (now.size, now.modified) != (then.size, then.modified) and digest(now) != then.digest:
        raise CorpusError(
            f"{now.path}: changed since it was ingested (then {then.size} bytes, now {now.size}); restore it, give "
            "the changed file another name or source, or ingest into a new workspace"
        )


def _as_seen(item: IngestedInput, seen: dict[tuple[str, str], FoundFile]) -> IngestedInput:
    """The input where its files lie now: they may have been moved or touched, their content is the same."""
    now = {
        file.relative: seen[key].info
        for file in item.files
        if (key := (item.input.source, file.relative)) in seen
    }
    moved = tuple(
        replace(file, path=now[file.relative].path, modified=now[file.relative].modified)
        if file.relative in now
        else file
        for file in item.files
    )
    paths = {file.relative: file.path for file in moved}
    splits = tuple(
        replace(split, pieces=tuple(replace(piece, path=paths[piece.relative]) for piece in split.pieces))
        for split in item.splits
    )
    return replace(item, files=moved, splits=splits)


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
        if metadata is None or metadata.num_row_groups == 0:
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
