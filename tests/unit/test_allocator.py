"""Workers keep the memory that batches share."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from gristmill.pipelines.allocator import keep_freed_memory

def num_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(1 << 20) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
print([num_faults() for _ in range(4)][-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_arrays_of_the_next_batch_touch_no_new_pages():
    output = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True).stdout
    # The arrays have 16,384 pages.
    assert int(output) < 1000
