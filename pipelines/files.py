"""Files on any path Beam can open (local, gs://, s3://, hdfs://), and the one way a file is committed.

On a local disk a committed file is written under an attempt-unique temporary name, flushed to the disk and
renamed; on a bucket it is uploaded in one piece to its final name. A reader never sees half a file.
"""

import io
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileSystem
from apache_beam.io.filesystems import FileSystems

from gristmill.scorers.base import CorpusError

NUM_THREADS = 16
Item = TypeVar("Item")
Result = TypeVar("Result")
TEMPORARY_PREFIX = ".tmp-"
REFUSALS: dict[object, type[OSError]] = {403: PermissionError, 404: FileNotFoundError}


@dataclass(frozen=True, order=True)
class FileInfo:
    """A file that exists: path, size in bytes, and modification time in seconds since the epoch."""

    path: str
    size: int
    modified: float


def is_local(path: str) -> bool:
    """Whether the path lies on a local disk."""
    return "://" not in path


def schemes() -> list[str]:
    """Of the file systems that are there: what stands before `://` in their paths."""
    known = (kind.scheme() for kind in FileSystem.get_all_subclasses())
    return sorted(scheme for scheme in known if scheme is not None)


def join(base: str, *parts: str) -> str:
    """Join path components in the way of the base's file system."""
    return FileSystems.join(base, *parts)


def open_read(path: str) -> BinaryIO:
    """Open a file for reading raw bytes, never decompressed by its extension.

    Raises:
        OSError: If it is absent or may not be read, on a bucket as on a disk.
    """
    try:
        return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    except (
        Exception
    ) as error:  # every bucket's client raises a class of its own, with the HTTP status as `code`
        kind = REFUSALS.get(getattr(error, "code", None))
        if kind is None:
            raise
        raise kind(f"{path}: {error}") from error


def read_table(file: BinaryIO, **options: Any) -> pa.Table:
    """A Parquet file, read on the calling thread.

    Arrow's own threads, reading through a Python file, abort some processes as they end (apache/arrow#34314, #50482):
    5 of 20 dry runs on busy cores.
    """
    return pq.read_table(file, use_threads=False, **options)


class LateFile(io.RawIOBase):
    """A file opened by its first read, so that a dataset of many files on a bucket costs nothing to declare."""

    def __init__(self, info: FileInfo) -> None:
        super().__init__()
        self._info = info
        self._position = 0

    @cached_property
    def _stream(self) -> BinaryIO:
        return open_read(self._info.path)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Say where the next read starts."""
        self._position = offset + (0, self._position, self._info.size)[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        self._stream.seek(self._position)
        content = self._stream.read(size)
        self._position += len(content)
        return content


def read_bytes(path: str) -> bytes:
    """The whole content of a small file."""
    with open_read(path) as file:
        return file.read()


def exists(path: str) -> bool:
    """Whether a file or a local folder is there."""
    return FileSystems.exists(path)


@contextmanager
def committed(path: str) -> Iterator[BinaryIO]:
    """A binary file that appears at `path`, whole, when the block ends, and not at all when it raises."""
    if is_local(path):
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(folder)
    else:
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as target:
                shutil.copyfileobj(file, target, 1 << 20)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def commit_bytes(path: str, content: bytes) -> None:
    """Write a small file, whole or not at all."""
    with committed(path) as file:
        file.write(content)


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Results in order, 16 at a time: on a bucket, small files cost the waiting and nothing else."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(function, items))


def delete(paths: list[str]) -> None:
    """Delete files; those already gone are no error."""
    present = [path for path in paths if exists(path)]
    if present:
        FileSystems.delete(present)


def delete_folder(folder: str) -> None:
    """Delete a folder and every file below it."""
    delete([item.path for item in list_folder(folder)])
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)


def file_info(path: str) -> FileInfo:
    """Size and modification time of one file that is there."""
    if is_local(path):
        status = os.stat(path)
        return FileInfo(path, status.st_size, status.st_mtime)
    (info,) = _match(path)
    return info


def list_folder(folder: str) -> list[FileInfo]:
    """Every file below a folder, in path order; an empty list where the folder is absent.

    Raises:
        CorpusError: If a local folder, or one below it, cannot be read.
    """
    if is_local(folder):
        return sorted(_walk(folder))
    pattern = folder.rstrip("/") + "/**"
    return _match(pattern)


def list_files(pattern: str) -> list[FileInfo]:
    """The files a path names: a file, a glob (`*` stays inside a folder, `**` does not), or a folder.

    Args:
        pattern: Any path Beam can open.

    Raises:
        CorpusError: If a local folder cannot be read.
    """
    if not is_local(pattern):
        return _match(pattern) or list_folder(pattern)
    if os.path.isfile(pattern):  # also where its name looks like a glob
        return [file_info(pattern)]
    if os.path.isdir(pattern):
        return list_folder(pattern)
    return sorted(_walk(input_root(pattern) or "/", pattern))


def input_root(pattern: str) -> str:
    """The part of a path before its first glob character, cut at a folder: what relative paths are relative to."""
    wildcard = min((i for i in (pattern.find(c) for c in "*?[") if i >= 0), default=None)
    if wildcard is None:
        return pattern if is_local(pattern) and os.path.isdir(pattern) else pattern.rpartition("/")[0]
    return pattern[:wildcard].rpartition("/")[0]


def is_hidden(relative: str) -> bool:
    """Whether any component starts with `.` or `_`, which the field's readers skip (`_SUCCESS`, `.crc`)."""
    return any(fnmatch(part, "[._]*") for part in relative.split("/"))


def _match(pattern: str) -> list[FileInfo]:
    try:
        found = FileSystems.match([pattern])[0].metadata_list
    except BeamIOError as error:
        raise CorpusError(f"{pattern}: cannot be listed: {error}") from error
    return sorted(
        FileInfo(item.path, item.size_in_bytes, item.last_updated_in_seconds or 0.0)
        for item in found
        if not item.path.endswith("/")
    )


def _walk(folder: str, pattern: str | None = None) -> Iterator[FileInfo]:
    """The files below a local folder, without looking into folders that hold no match of the pattern."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise CorpusError(f"{error.filename}: the folder is not readable ({error.strerror})") from error

    may_match = _matcher(pattern) if pattern else lambda path, *, is_folder: True
    if not os.path.isdir(folder):
        return
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if may_match(os.path.join(parent, name), is_folder=True)]
        for path in (os.path.join(parent, name) for name in folders):
            if os.path.islink(path) and _holds(os.path.realpath(path), os.path.realpath(parent)):
                raise CorpusError(f"{path}: a link to a folder that holds it; remove it")
        for path in (os.path.join(parent, name) for name in names):
            if may_match(path, is_folder=False):
                yield from _look_at(path)


def _holds(folder: str, path: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")


def _look_at(path: str) -> Iterator[FileInfo]:
    """A file's information, nothing where it was renamed or deleted since its folder was listed."""
    try:
        status = os.stat(path)
    except OSError as error:
        if not os.path.lexists(path):
            return
        raise CorpusError(f"{path}: cannot be looked at ({error.strerror}); a dangling link?") from error
    if not stat.S_ISREG(status.st_mode):
        raise CorpusError(f"{path}: not a regular file; move it, or name the files to read")
    yield FileInfo(path, status.st_size, status.st_mtime)


def _matcher(pattern: str) -> Callable[..., bool]:
    """Whether a file matches a glob, or a folder may hold files that do, by the rules Beam has for buckets."""
    parts = pattern.split("/")
    starts = ["/".join(parts[: number + 1]) for number in range(len(parts))]
    expressions = [re.compile(FileSystem.translate_pattern(start)) for start in starts]
    first_deep = next((number for number, part in enumerate(parts) if "**" in part), len(parts))

    def may_match(path: str, *, is_folder: bool) -> bool:
        depth = path.count("/")
        if not is_folder:
            return expressions[-1].match(path) is not None
        return depth >= first_deep or (depth < len(parts) - 1 and expressions[depth].match(path) is not None)

    return may_match
