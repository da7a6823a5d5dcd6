"""Peers of benchmarks: each in a virtual environment of its own, made on first use in the user's cache folder."""

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path


def peer_python(name: str, packages: Sequence[str]) -> Path:
    """The Python of a virtual environment that holds a peer.

    Args:
        name: Of the environment, with the peer's version.
        packages: What pip installs.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "gristmill-bench" / name
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"installing {name} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-I", "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "complete").touch()
    return python
