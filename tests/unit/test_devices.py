"""Processes take turns on few devices, spread over many, and give back what they held when they die."""

import select
import signal
import subprocess
import sys

import pytest

from gristmill.models.devices import lease, lease_device

HOLD = """
import sys, time
from pathlib import Path
from gristmill.models.devices import lease
with lease(int(sys.argv[1]), Path(sys.argv[2])) as number:
    print(number, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def hold(tmp_path):
    """A function: number of devices -> a process that asks for one and holds it until it is told."""
    processes = []

    def start(num_devices):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(num_devices), str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_one_device_without_a_gpu():
    with lease_device() as device:
        assert device.type in ("cpu", "cuda")


def test_processes_spread_over_devices_and_give_back(hold, tmp_path):
    first, second = hold(2), hold(2)
    assert {first.stdout.readline(), second.stdout.readline()} == {"0\n", "1\n"}
    second.communicate("\n")
    with lease(2, tmp_path), lease(3, tmp_path) as number:
        assert number == 2


def test_they_take_turns_and_the_dead_give_back(hold, tmp_path):
    first = hold(1)
    assert first.stdout.readline() == "0\n"
    second = hold(1)
    readable, _, _ = select.select([second.stdout], [], [], 0.5)
    assert not readable, "the device is taken"
    first.send_signal(signal.SIGKILL)
    assert second.stdout.readline() == "0\n"
    second.communicate("\n")
    with lease(1, tmp_path) as number:
        assert number == 0


def test_an_error_gives_back(tmp_path):
    with pytest.raises(RuntimeError), lease(1, tmp_path):
        raise RuntimeError
    with lease(1, tmp_path) as number:
        assert number == 0
