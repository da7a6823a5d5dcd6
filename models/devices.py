"""Which device a process may use: one model copy at a time on each GPU, all cores of the CPU where there is none."""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

POLL_S = 0.05


@contextmanager
def lease_device() -> "Iterator[torch.device]":
    """A GPU that no other process of this machine and user leases, or the CPU where there is none.

    Worker processes take turns where there are fewer GPUs than workers, and spread over several GPUs by themselves. A
    process that dies gives its lease back.
    """
    import torch

    if not torch.cuda.is_available():
        yield torch.device("cpu")
        return
    with lease(torch.cuda.device_count(), Path(tempfile.gettempdir())) as number:
        yield torch.device("cuda", number)


@contextmanager
def batch_threads(device: "torch.device") -> Iterator[ThreadPoolExecutor]:
    """One thread a core, each of which computes whole batches alone; one for a GPU."""
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # The number holds for the thread that sets it.
        with ThreadPoolExecutor(
            num_threads if device.type == "cpu" else 1, initializer=torch.set_num_threads, initargs=(1,)
        ) as threads:
            yield threads
    finally:
        torch.set_num_threads(num_threads)


@contextmanager
def lease(num_devices: int, folder: Path) -> Iterator[int]:
    """The number of a device that no other process leases; waits until one is free.

    Args:
        num_devices: Devices there are.
        folder: Where lock files lie.
    """
    handles = [
        os.open(folder / f"gristmill-{os.getuid()}-device-{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        for number in range(num_devices)
    ]
    try:
        while (number := _take(handles)) is None:
            time.sleep(POLL_S)
        yield number
    finally:
        for handle in handles:
            os.close(handle)


def _take(handles: list[int]) -> int | None:
    for number, handle in enumerate(handles):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return number
    return None
