"""A whole sweep whose results are in a store: killed, and gone on with by a machine that has nothing of it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from command_line import vlm_rm
from small_sweeps import SWEEP

from vlm_rm_sweeps.storage import RemoteFolder

pytestmark = pytest.mark.slow

KEYS: dict[str, Any] = SWEEP | {
    "name": "remote",
    "true_reward": False,
    "steps": 2560,
    "checkpoint_every": 128,
}
_COMMAND = [sys.executable, "-c", "from vlm_rm_sweeps.cli import main; main()"]


def start(file: Path, results: str, cache: Path, log: Path) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "RAY_ADDRESS": ""}
    with log.open("ab") as output:
        return subprocess.Popen(
            [*_COMMAND, "sweep", str(file), "--results", results, "--resume"],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv").drop(columns="steps_per_second")


def test_killed_and_resumed_elsewhere_it_ends_as_an_undisturbed_one(s3: RemoteFolder, tmp_path: Path) -> None:
    file, log, here = tmp_path / "remote.yaml", tmp_path / "log", tmp_path / "local"
    file.write_text(yaml.safe_dump(KEYS))
    assert start(file, str(here), tmp_path / "unused", log).wait(timeout=280) == 0, log.read_text()[-3000:]

    killed = start(file, str(s3), tmp_path / "caches" / "killed", log)
    while not any(re.search(r"trials/.*/step-.*/checkpoint.json", name) for name in s3.files()):
        assert killed.poll() is None, log.read_text()[-3000:]
        try:
            killed.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            continue
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert "1 trials: " in vlm_rm("status", "--results", str(s3))

    assert start(file, str(s3), tmp_path / "caches" / "resumed", log).wait(timeout=280) == 0, log.read_text()[-3000:]
    said = log.read_text()
    assert re.search("resumed from step [1-9]", said)
    assert f"results, with each trial's final checkpoint: {s3}/remote-" in said

    # A third machine sees it all.
    (name,) = s3.names()
    sweep = s3 / name
    assert "ended" in vlm_rm("status", "--results", str(s3))
    assert vlm_rm("report", str(sweep)).strip() == str(sweep.copy / "report.html")
    pd.testing.assert_frame_equal(table_of(sweep.copy), table_of(next(here.glob("remote-*"))))
    (trial,) = (sweep / "trials").names()
    assert "2 greedy episodes" in vlm_rm("evaluate", str(sweep / "trials" / trial), "--episodes", "2")
    there = set(sweep.files())
    assert {"sweep.yaml", "journal.jsonl", "trials.csv", "cells.csv", "report.html"} <= there
    for part in (r"video/episode\.mp4", r"step-0+2560/state\.pkl", r"evaluations/best-.*/evaluation\.csv"):
        assert any(re.fullmatch(rf"trials/{trial}/{part}", name) for name in there), part
    assert not any(part in name for part in ("in-use", "tune/", "lock", "mlflow") for name in there)

    # No credentials are written anywhere, here or there.
    everything = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert not any(b"only-of-the-tests" in each.read_bytes() for each in everything)
