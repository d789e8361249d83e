"""A pretraining run killed without warning, or out of disk: it goes on to the same losses and weights, to the bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import json, os, resource, signal, sys
from pathlib import Path
import torch
from fmcore.data.corpus import Corpus
from fmcore.nouns import FMError
from fmcore.training import pretrain
torch.set_num_threads(1)
folder, out, die_at, full_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
class Report:
    def progress(self, *_): pass
    def device(self, _): pass
    def metric(self, step, **values):
        if "loss" not in values:
            return
        print(json.dumps([step, values["loss"]]), flush=True)
        if step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == full_at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
asked = pretrain.Pretraining(vocab=150, steps=9, batch=8, max_tokens=32, checkpoints=3, device="cpu", report_s=0, checkpoint_s=0)
try:
    pretrain.train(Corpus.of([str(folder / "texts.txt")]), asked, out, Report(), checkpoint=out.parent / (out.name + "-checkpoint"))
except FMError as error:
    print(json.dumps([type(error).__name__, str(error)]), flush=True)
"""
WEIGHTS = ("encoder/model.safetensors", "head.safetensors", "curve.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("pretrain")
    (made / "texts.txt").write_text("\n".join(f"Company {i} reported that profit rose {i * 7} percent in the quarter" for i in range(120)))
    return made


@pytest.fixture(scope="module")
def whole(folder):
    """(losses by step, folder) of a run that nothing stopped; read only."""
    return run(folder, folder / "whole")[0], folder / "whole"


def run(folder, out, *, die_at=-1, full_at=-1):
    """(losses by step, what it said when it was refused, how it ended)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, folder, out, str(die_at), str(full_at)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert told, done.stderr
    return {step: loss for step, loss in told if isinstance(step, int)}, [t for t in told if isinstance(t[0], str)], done.returncode


@pytest.mark.slow
def test_killed_again_and_again_a_run_comes_to_the_same_losses_and_weights_to_the_bit(folder, whole):
    seen = {}
    for die_at in (1, 8):  # before the first checkpoint, and behind the second
        losses, _, ended = run(folder, folder / "killed", die_at=die_at)
        assert ended == -signal.SIGKILL and max(losses) == die_at
        seen |= losses
    losses, _, ended = run(folder, folder / "killed")
    assert ended == 0 and min(losses) > 1, "it began anew"
    assert seen | losses == whole[0]
    for name in WEIGHTS:
        assert (folder / "killed" / name).read_bytes() == (whole[1] / name).read_bytes(), name


@pytest.mark.slow
def test_a_full_disk_is_said_and_with_room_again_the_run_goes_on_to_the_same_end(folder, whole):
    out = folder / "full"
    _, refused, ended = run(folder, out, full_at=4)
    assert ended == 0 and refused[0][0] == "CheckpointNotSaved" and "Free some disk space" in refused[0][1]
    assert not (out / "MANIFEST.json").exists()
    losses, refused, _ = run(folder, out)
    assert not refused and min(losses) >= 3
    for name in WEIGHTS:
        assert (out / name).read_bytes() == (whole[1] / name).read_bytes(), name
