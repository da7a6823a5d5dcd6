"""The tokens that ablations train on: of the documents that a selection keeps, or of random ones."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines import files
from gristmill.pipelines.cut_windows import cut_windows
from gristmill.pipelines.sample_texts import Sample, is_sampled
from gristmill.pipelines.score_documents import Shard, read_batches
from gristmill.pipelines.train_language_models import write_stream
from gristmill.pipelines.workspace import Workspace
from gristmill.pipelines.write_dataset import read_decisions
from gristmill.scorers.color_filter import ColorFilter

RANDOM = "random"
SURPLUS = 1.2
"""Documents are sampled for so many times the tokens wanted, since a sample's length is not known before."""
KEY_SEED = 1 << 33
"""Apart from the seeds of other samples: whether a document is drawn depends on nothing that a scorer saw."""


@dataclass(frozen=True)
class Pool:
    """The documents that a training may take: those a selection keeps, or all that are neither blank nor blocked.

    Args:
        workspace: Where they are.
        shards: The corpus.
        name: `RANDOM`, or the selection.
        selection: Whose decisions tell which documents they are.
        cutter: The scorer whose windows the selection keeps, on this machine; None where it keeps whole documents.
    """

    workspace: Workspace
    shards: tuple[Shard, ...]
    name: str
    selection: str
    cutter: ColorFilter | None = None

    def contains(self, shard: Shard) -> pa.BooleanArray:
        """Which documents of a shard it holds."""
        with files.open_read(self.workspace.decisions(self.selection, shard.name)) as file:
            table = files.read_table(file, columns=["kept", "step"])
        if self.name != RANDOM:
            return table["kept"].combine_chunks()
        dropped = pc.is_in(table["step"], pa.array(["empty", "block"]))
        return pc.invert(dropped).combine_chunks()

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of its texts."""
        total = 0
        for shard in self.shards:
            with files.open_read(self.workspace.documents(shard.name)) as file:
                sizes = files.read_table(file, columns=["num_bytes"])["num_bytes"]
            total += pc.sum(sizes.filter(self.contains(shard))).as_py() or 0
        return total

    def texts(self, sample: Sample, without: Sample | None = None) -> Iterator[pa.LargeStringArray]:
        """The texts of its documents that a sample holds, and another one does not, an array a batch."""
        for shard in self.shards:
            contained, decisions = (
                self.contains(shard),
                read_decisions(self.workspace, self.selection, shard.name),
            )
            start = 0
            for batch in read_batches(self.workspace, shard.name):
                wanted = pc.and_(contained.slice(start, len(batch)), is_sampled(batch, sample))
                if without is not None:
                    wanted = pc.and_not(wanted, is_sampled(batch, without))
                rows = pa.table(batch.select(["doc_id", "text"]).filter(wanted))
                if self.cutter is not None:
                    windows = decisions["windows"].slice(start, len(batch)).filter(wanted)
                    rows = cut_windows(rows, windows.combine_chunks(), self.cutter)
                start += len(batch)
                yield rows["text"].combine_chunks()

    @cached_property
    def identity(self) -> str:
        """Hash of which documents and windows it holds."""
        state = blake2b(repr([asdict(shard) for shard in self.shards]).encode(), digest_size=16)
        if self.name == RANDOM:
            for shard in self.shards:
                state.update(np.packbits(self.contains(shard).to_numpy(zero_copy_only=False)).tobytes())
        else:
            manifest = self.workspace.read_json("decisions", self.selection, "manifest.json")
            state.update(repr((manifest["kept"], self.cutter and self.cutter.fingerprint())).encode())
        return state.hexdigest()


def sample_of(pool: Pool, num_bytes: float, seed: int, low: float = 0.0) -> Sample:
    """A sample of a pool's documents with at least so many bytes of text; all where only their windows are kept.

    Args:
        pool: Whose documents.
        num_bytes: How much text; of a pool with less, all.
        seed: Of the sample.
        low: Where the range of its keys begins; documents below are left to others.
    """
    share = SURPLUS * num_bytes / max(pool.num_bytes, 1) if pool.cutter is None else 1.0
    return Sample(KEY_SEED + seed, low, min(low + share, 1.0))


def read_stream(pool: Pool, sample: Sample, tokenizer: Tokenizer, folder: Path) -> npt.NDArray[np.uint32]:
    """The tokens of a sample of a pool, made once.

    Args:
        pool: Whose documents.
        sample: Which of them.
        tokenizer: Makes the tokens.
        folder: Where the stream lies, beside those of other samples of the same ablation.

    Returns:
        The stream, memory-mapped, uint32[t].
    """
    folder.mkdir(parents=True, exist_ok=True)
    return write_stream(
        folder / f"{pool.name}-{sample.seed - KEY_SEED}.tokens", pool.texts(sample), tokenizer
    )


def count_sequences(stream: npt.NDArray[np.uint32], context: int) -> int:
    """Sequences of a context that a stream fills, as a training cuts it."""
    return max((len(stream) - 1) // context, 0)
