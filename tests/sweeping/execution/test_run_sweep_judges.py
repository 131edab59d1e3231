"""A sweep whose audit asks an endpoint that stops answering: training goes on, the audit says so, and the key is nowhere."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from chat_server import chat_server, yes
from small_sweeps import SWEEP

from vlm_rm_sweeps.metrics import AUDIT_PROXY, FRAMES_SCORED
from vlm_rm_sweeps.training.audit import gold_metric

KEY = "sk-never-to-be-seen-9876543210"
JUDGED = SWEEP | {
    "name": "judged",
    "true_reward": False,
    "videos": False,
    "score_every": 4,
    "audit": {"models": ["openai/small-vlm"], "every": 128, "frames": 10},
}


@pytest.mark.sweeps
def test_training_goes_on_without_a_judge_whose_endpoint_breaks(tmp_path: Path) -> None:
    file = tmp_path / "judged.yaml"
    file.write_text(yaml.safe_dump(JUDGED))
    # Ray's sockets need short paths.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray-") as logs:
        environment = os.environ | {"OPENAI_API_KEY": KEY, "VLM_RM_CACHE": str(tmp_path / "cache"), "RAY_TMPDIR": logs}
        environment |= {"VLM_RM_OPENAI_PER_MINUTE": "100000"}
        with chat_server(lambda body, number: yes(0.25) if number < 10 else (401, f"no longer valid: {KEY}")) as server:
            command = [str(Path(sys.executable).parent / "vlm-rm"), "sweep", str(file), "--results", str(tmp_path / "results")]
            ran = subprocess.run(
                command, env=environment | {"OPENAI_BASE_URL": server.url}, capture_output=True, text=True, timeout=280
            )
            assert len(server.asked) == 11
        assert ran.returncode == 0, ran.stderr[-2_000:]
        (journal,) = (tmp_path / "results").glob("judged-*/journal.jsonl")
        entries = [json.loads(line) for line in journal.read_text().splitlines()]
        gold = gold_metric("openai/small-vlm")
        metrics = [each["metrics"] for each in entries if each["kind"] == "result"]
        assert [AUDIT_PROXY in each for each in metrics] == [True, True]
        assert [each.get(gold) for each in metrics] == [pytest.approx(0.25), None]
        assert sum(each[FRAMES_SCORED] for each in metrics) == 256 / 4
        assert "the audit goes on without openai/small-vlm" in ran.stdout + ran.stderr
        assert "no longer valid: ***" in ran.stdout + ran.stderr
        found = [file for place in (tmp_path, Path(logs)) for file in place.rglob("*") if file.is_file()]
        assert any(file.name == "mlflow.db" for file in found)
        assert [file for file in found if KEY.encode() in file.read_bytes()] == []
        assert KEY not in ran.stdout + ran.stderr
