"""A sweep whose audit asks an endpoint that stops judging: training goes on, journal and MLflow say why, and the key is nowhere."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import Answer, chat_server, says, yes
from mlflow.tracking import MlflowClient
from small_sweeps import SWEEP, parent_and_children

from vlm_rm_sweeps.metrics import AUDIT_PROXY, FRAMES_SCORED
from vlm_rm_sweeps.training.audit import gold_metric

KEY = "sk-never-to-be-seen-9876543210"
JUDGED = SWEEP | {
    "name": "judged",
    "true_reward": False,
    "videos": False,
    "score_every": 4,
    "alphas": [],
    "rewards": [{"kind": "softmax", "negatives": ["pole hanging down"], "name": "softmax"}],
    "steps": 320,
    "steps_per_result": 64,
    "audit": {"models": ["openai/small-vlm"], "every": 64, "frames": 10},
}
"""Five audit points, and a reward that the judge cannot compute."""


@pytest.mark.sweeps
def test_training_goes_on_without_a_judge_whose_endpoint_breaks(tmp_path: Path) -> None:
    ended = threading.Event()

    def answer(body: dict[str, Any], number: int) -> Answer:
        if number < 10:
            return yes(0.25)
        if number == 10:
            return 401, f"no longer valid: {KEY}"
        if number == 11:
            return says("No.")
        if number == 12:
            return says("It is a cat.")
        ended.wait(60)
        return yes(0.25)

    file = tmp_path / "judged.yaml"
    file.write_text(yaml.safe_dump(JUDGED))
    # Ray's sockets need short paths.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray-") as logs:
        environment = os.environ | {"OPENAI_API_KEY": KEY, "VLM_RM_CACHE": str(tmp_path / "cache"), "RAY_TMPDIR": logs}
        environment |= {"VLM_RM_OPENAI_PER_MINUTE": "100000", "VLM_RM_OPENAI_REQUESTS": "16", "VLM_RM_OPENAI_TIMEOUT": "2"}
        with chat_server(answer) as server:
            command = [str(Path(sys.executable).parent / "vlm-rm"), "sweep", str(file), "--results", str(tmp_path / "results")]
            ran = subprocess.run(
                command, env=environment | {"OPENAI_BASE_URL": server.url}, capture_output=True, text=True, timeout=280
            )
            ended.set()
            assert len(server.asked) == 16
        assert ran.returncode == 0, ran.stderr[-2_000:]
        (journal,) = (tmp_path / "results").glob("judged-*/journal.jsonl")
        entries = [json.loads(line) for line in journal.read_text().splitlines()]
        gold = gold_metric("openai/small-vlm")
        metrics = [each["metrics"] for each in entries if each["kind"] == "result"]
        assert [AUDIT_PROXY in each for each in metrics] == [True] * 5
        assert [each.get(gold) for each in metrics] == [pytest.approx(0.25), None, None, None, None]
        assert sum(each[FRAMES_SCORED] for each in metrics) == 320 / 4
        remarks = [remark for each in entries if each["kind"] == "result" for remark in each["remarks"]]
        expected = (
            "cannot compute the reward softmax",
            "no longer valid: ***",
            "It is a cat.",
            "in 3 tries",
            "budget of 16 requests",
        )
        assert [part in remark for part, remark in zip(expected, remarks, strict=True)] == [True] * 5, remarks
        assert all(remark in " ".join((ran.stdout + ran.stderr).split()) for remark in remarks)
        _, (run,) = parent_and_children(MlflowClient(f"sqlite:///{tmp_path}/results/mlflow.db"), "judged")
        assert run.data.tags["audit_remarks"] == "; ".join(remarks)
        found = [file for place in (tmp_path, Path(logs)) for file in place.rglob("*") if file.is_file()]
        assert any(file.name == "mlflow.db" for file in found)
        assert [file for file in found if KEY.encode() in file.read_bytes()] == []
        assert KEY not in ran.stdout + ran.stderr
