"""Two processes on this machine against one: the same weights after the same steps."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from headstart.errors import ConfigError
from headstart.job.together import main
from headstart.runs import load_run
from headstart.training.distributed import Place, SharedBatchNorm, share, together
from train_together import build, train

SCRIPT = Path(__file__).with_name("train_together.py")


def start(world: int, *arguments: str, program: Sequence[str] = (str(SCRIPT),)) -> None:
    """What torchrun does: a process for each rank, told by variables who it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, *program, *arguments],
            env=os.environ | given | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        while any(process.poll() is None for process in processes):
            failed = [process for process in processes if process.poll()]
            assert not failed, failed[0].communicate(timeout=10)[1]  # the others would wait for it
            time.sleep(0.05)
        for process in processes:
            assert process.returncode == 0, process.communicate(timeout=10)[1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_two_processes_train_to_the_weights_of_one_with_uneven_slices_and_batch_norm(tmp_path):
    """23 photos by 8 and 2: slices of 4 and 4, the last of 4 and 3; by 11: 6 and 5, and a last batch of 1 and 0."""
    start(2, str(tmp_path))
    for kind in ("plain", "normed"):
        for batch_size in (8, 11):
            alone = build(kind)
            history = train(alone, Place(), batch_size)
            shared = load_file(tmp_path / f"{kind}{batch_size}.safetensors")
            begun = build(kind).state_dict()
            assert shared.keys() == alone.state_dict().keys()
            for name, value in alone.state_dict().items():
                torch.testing.assert_close(shared[name], value, rtol=1e-4, atol=1e-6, msg=f"{kind} {batch_size} {name}")
            assert any(not torch.equal(begun[name], value) for name, value in shared.items())
            rows = [float(line) for line in (tmp_path / f"{kind}{batch_size}.txt").read_text().split()]
            expected = [row[key] for row in history.rows for key in ("loss", "accuracy", "val_loss", "val_accuracy")]
            assert rows == pytest.approx(expected, rel=1e-4)
    assert {path.suffix for path in tmp_path.iterdir()} == {".rank0", ".safetensors", ".txt"}, "one process writes"


def test_alone_a_net_stays_as_it_is():
    net = build("normed")
    with together() as place:
        assert place == Place(0, 1)
        assert share(net, place) is net
    assert not any(isinstance(module, SharedBatchNorm) for module in net.modules())


def test_a_process_without_all_of_torchruns_variables_is_told_so(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(ConfigError, match=r"not .*MASTER_PORT.*; start with torchrun"), together():
        pass


def test_a_shared_batch_norm_has_the_parameters_and_buffers_of_the_one_it_replaces():
    norm = nn.BatchNorm2d(3, eps=1e-3, momentum=None).eval()
    shared = SharedBatchNorm.of(norm)
    assert shared.weight is norm.weight
    assert shared.running_var is norm.running_var
    assert (shared.eps, shared.momentum, shared.training) == (1e-3, None, False)
    assert shared.state_dict().keys() == norm.state_dict().keys()


def write_photos(folder: Path) -> None:
    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(level - 50, level + 50, (28, 28), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def test_two_processes_end_in_the_run_of_one(tmp_path: Path) -> None:
    """The same weights up to rounding, the same answers, every file of a run, and no state left beside it."""
    write_photos(tmp_path / "photos")
    words = [str(tmp_path / "photos"), "--net", "lenet", "--epochs", "3", "--batch-size", "7", "--threads", "1"]
    start(2, *words, "--out", str(tmp_path / "two"), program=("-m", "headstart.job.together"))
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    two, one = load_run(tmp_path / "two"), load_run(tmp_path / "one")
    expected = one.classifier.backbone.tensors()
    for name, value in two.classifier.backbone.tensors().items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-5, err_msg=name)
    assert two.metrics["test"]["accuracy"] == one.metrics["test"]["accuracy"] == 1.0
    assert "2 processes trained it together." in two.plan["why"]
    photos = sorted((tmp_path / "photos").rglob("*.png"))
    for mine, alone in zip(two.predict(photos), one.predict(photos), strict=True):
        assert mine.probabilities == pytest.approx(alone.probabilities, abs=1e-3)
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "one", "two"}


def test_the_command_refuses_what_it_cannot_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(tmp_path / "photos")
    words = [str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--epochs", "1", "--batch-size", "8"]
    assert main(words) == 1
    assert "no network to train: give --net" in capsys.readouterr().err
    assert main([*words, "--net", "lenet"]) == 0
    assert main([*words, "--net", "lenet"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--net", "lenet", "--overwrite"]) == 0
