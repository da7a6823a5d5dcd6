"""The reference trainer resumes to the bit, and ranks divide what one process would do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from token_folders import write_rows

from gristmill.models.language_model import SIZES, Architecture
from gristmill.pipelines import reference_trainer

STEPS = 6


@pytest.fixture
def tokens(tmp_path, monkeypatch):
    """A folder of 512 sequences of one token each, and a size that trains on them in no time."""
    monkeypatch.setitem(SIZES, "300k", Architecture(layers=1, width=16, heads=2))
    folder = Path(write_rows(tmp_path / "tokens", [300, 212], sequence_length=8))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"packing": "concatenate", "tokenizer": {"vocab_size": 512, "end_of_text": 0}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def train(tokens, output, *options):
    arguments = [
        str(tokens),
        str(output),
        "--size",
        "300k",
        "--steps",
        str(STEPS),
        "--batch-size",
        "8",
        "--every",
        "2",
    ]
    result = CliRunner().invoke(reference_trainer.main, [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_a_kill_at_any_checkpoint_changes_no_bit(tokens, tmp_path, monkeypatch):
    train(tokens, tmp_path / "whole")
    save, killed = reference_trainer.save, tmp_path / "killed"

    def save_and_die(path, *arguments):
        save(path, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(reference_trainer, "save", save_and_die)
    for _ in range(2):
        CliRunner().invoke(
            reference_trainer.main,
            [
                str(tokens),
                str(killed),
                "--size",
                "300k",
                "--steps",
                str(STEPS),
                "--batch-size",
                "8",
                "--every",
                "2",
            ],
        )
        assert not (killed / "model.safetensors").exists()
    monkeypatch.setattr(reference_trainer, "save", save)
    assert train(tokens, killed).startswith("step 6: ")
    assert weights(killed) == weights(tmp_path / "whole")


def test_another_seed_trains_another_model(tokens, tmp_path):
    train(tokens, tmp_path / "one")
    train(tokens, tmp_path / "other", "--seed", "1")
    assert weights(tmp_path / "one") != weights(tmp_path / "other")


def test_two_ranks_do_what_one_process_does(tokens, tmp_path):
    from safetensors.numpy import load_file

    script = (
        "from gristmill.models.language_model import SIZES, Architecture\n"
        "SIZES['300k'] = Architecture(layers=1, width=16, heads=2)\n"
        "from gristmill.pipelines.reference_trainer import main\n"
        "main()\n"
    )
    (tmp_path / "trainer.py").write_text(script)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29611",
    ]
    options = ["--size", "300k", "--steps", str(STEPS), "--batch-size", "8"]
    subprocess.run(
        [*launch, str(tmp_path / "trainer.py"), str(tokens), str(tmp_path / "two"), *options],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    train(tokens, tmp_path / "one")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(np.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_documents_packed_into_one_sequence_do_not_see_each_other():
    import torch

    from gristmill.models.language_model import make_model

    model = make_model(Architecture(layers=1, width=16, heads=2, context=16), 32, 0, 0)
    first, second = [3, 4, 5, 0], [6, 7, 8, 9, 0]
    together = {
        "tokens": torch.tensor([first + second]),
        "loss_mask": torch.ones(1, 9, dtype=torch.bool),
        "segment_ids": torch.tensor([[0] * 4 + [1] * 5]),
        "position_ids": torch.tensor([[*range(4), *range(5)]]),
    }
    alone = [
        reference_trainer.batch_loss(
            model,
            {"tokens": torch.tensor([tokens]), "loss_mask": torch.ones(1, len(tokens), dtype=torch.bool)},
        )
        for tokens in (first, second)
    ]
    expected = (3 * alone[0] + 4 * alone[1]) / 7
    assert torch.allclose(reference_trainer.batch_loss(model, together), expected, atol=1e-6)
