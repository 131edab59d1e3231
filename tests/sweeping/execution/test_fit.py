"""What `vlm-rm fit` concludes from measurements, and that it measures the real parts."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.sweeping.config.plan import Plan, plan_of
from vlm_rm_sweeps.sweeping.execution import fit_measure
from vlm_rm_sweeps.sweeping.execution.fit import (
    MLFLOW_BYTES,
    OTHERS_CORES,
    SERVER_BYTES,
    START_S,
    TRIAL_S,
    VIDEO_S,
    Machine,
    Measured,
    estimate,
)
from vlm_rm_sweeps.sweeping.execution.fit_schedule import Work

KEYS: dict[str, Any] = {
    "name": "fit",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0.0, 0.5],
    "true_reward": False,
    "steps": 10_240,
    "steps_per_result": 1_024,
    "evaluation_episodes": 10,
    "videos": False,
    "settings": {"learning_starts": 1_000},
}
MODEL = "embedded/tiny"
MEASURED = Measured(
    training=Work(2e-3, 2e-3),
    acting=Work(1e-3, 1e-3),
    drawing={MODEL: Work(1e-3, 1e-3)},
    encoding={MODEL: Work(0.5e-3, 0.5e-3)},
    model_bytes={MODEL: 1e6},
    trial_bytes=1e9,
    transition_bytes=50.0,
    policy_bytes=1e5,
    state_bytes=4e5,
    other_cores=0.0,
    crowded=0.8,
)
LARGE = Machine(cores=64, gpus=0, memory=1e12, disk=1e12)


def plan_with(changes: Mapping[str, Any]) -> Plan:
    return plan_of(KEYS | dict(changes))


def test_on_a_large_machine_a_trial_takes_its_own_time() -> None:
    found = estimate(plan_with({}), MEASURED, LARGE)
    assert (found.trials_at_once, found.bound_by, found.problems) == (2, "trials", ())
    # Both trials train 9 240 steps of 3 ms. 1 000 steps before and an evaluation of 10 episodes of 200 steps take 2 ms each.
    training = TRIAL_S + 9_240 * 3e-3 + 3_000 * 2e-3
    assert found.steps_per_second == pytest.approx(2 * 10_240 / training)
    assert found.hours * 3600 == pytest.approx(START_S + training)
    assert found.gpu_hours == 0
    filmed = estimate(plan_with({"videos": True}), MEASURED, LARGE)
    assert filmed.steps_per_second == found.steps_per_second
    assert (filmed.hours - found.hours) * 3600 == pytest.approx(VIDEO_S), "two recorders on so many cores"


def test_two_cores_bound_two_trials_and_their_server() -> None:
    found = estimate(plan_with({}), MEASURED, replace(LARGE, cores=2))
    assert (found.trials_at_once, found.bound_by) == (2, "cores")
    two, three = (0.8 * 2 * processes / (processes + OTHERS_CORES) for processes in (2, 3))
    training = 2 * TRIAL_S / two + 2 * (9_240 * 3.5e-3 + 3_000 * 2.5e-3) / three
    assert found.steps_per_second == pytest.approx(2 * 10_240 / training)
    assert found.hours * 3600 == pytest.approx(START_S + training)
    for slower in (replace(MEASURED, other_cores=1.0), replace(MEASURED, crowded=0.6)):
        assert estimate(plan_with({}), slower, replace(LARGE, cores=2)).steps_per_second < found.steps_per_second


def test_one_trial_at_once_if_the_sweep_says_so() -> None:
    found = [estimate(plan_with({"max_concurrent": count}), MEASURED, LARGE) for count in (1, 2)]
    assert [each.trials_at_once for each in found] == [1, 2]
    assert found[1].steps_per_second == pytest.approx(2 * found[0].steps_per_second)


def test_a_large_model_bounds_by_its_servers_and_more_of_them_help() -> None:
    slow = replace(MEASURED, encoding={MODEL: Work(0.1, 0.1)})
    found = [estimate(plan_with({"pool": {"servers": servers}}), slow, LARGE) for servers in (1, 2)]
    assert [each.bound_by for each in found] == ["servers", "servers"]
    # But for the starts of the trials, which no server shortens.
    assert found[1].steps_per_second == pytest.approx(2 * found[0].steps_per_second, rel=0.01)


def test_frames_that_go_unscored_take_no_server() -> None:
    slow = replace(MEASURED, encoding={MODEL: Work(0.01, 0.01)})
    found = [estimate(plan_with({"score_every": every}), slow, LARGE) for every in (1, 2, 8)]
    assert [each.bound_by for each in found] == ["servers", "servers", "trials"]
    assert found[1].steps_per_second == pytest.approx(2 * found[0].steps_per_second, rel=0.01)


def test_a_judge_reserves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    judged = {"audit": {"models": ["openai/small-vlm"], "every": 1_024}, "pool": {"cpus": 1, "servers": 2}}
    found = estimate(plan_with(judged), MEASURED, replace(LARGE, cores=4))
    alone = estimate(plan_with({"pool": {"cpus": 1, "servers": 2}}), MEASURED, replace(LARGE, cores=4))
    assert found.trials_at_once == alone.trials_at_once == 2
    assert sum(found.memory.values()) - sum(alone.memory.values()) == SERVER_BYTES


def test_what_does_not_fit_is_said_with_both_numbers() -> None:
    small = Machine(cores=64, gpus=0, memory=3e9, disk=1e5)
    found = estimate(plan_with({"pool": {"gpus": 1}}), MEASURED, small)
    assert found.problems == (
        "GPUs: the servers reserve 1, this machine has 0",
        "memory: 4.1 GB are needed, 3.0 GB are free",
        "disk: 0.0 GB are needed, 0.0 GB are free",
    )
    assert found.gpu_hours == pytest.approx(found.hours)


def test_replay_buffers_count_as_far_as_they_are_filled() -> None:
    short, long = (estimate(plan_with({"steps": steps}), MEASURED, LARGE) for steps in (10_240, 1_024_000))
    assert short.memory["their replay buffers"] == 2 * 10_240 * 50
    assert long.memory["their replay buffers"] == 2 * 100_000 * 50, "no more than the buffer holds"
    assert long.disk > short.disk


def test_checkpoints_count_as_often_as_they_are_written() -> None:
    # A result is of 1 024 steps, so checkpoints are written at 5 120 steps, as often again, and at the end. The last two are kept, with
    # what the replay buffer held by then; each of the two trials also has its best policy.
    for steps, checkpoints in (
        (5_120, [5_120]),
        (6_144, [5_120, 6_144]),
        (12_288, [10_240, 12_288]),
        (102_400, [97_280, 102_400]),
    ):
        found = estimate(plan_with({"steps": steps}), MEASURED, LARGE)
        kept = sum(min(at, 100_000) * 50 + 4e5 + 1e5 for at in checkpoints)
        assert found.disk == pytest.approx(MLFLOW_BYTES + 2 * (kept + 1e5))


def test_the_real_parts_are_measured(ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_measure, "_LEAST_S", 0.0)
    # A judge may cost money, so it is not asked: this one's address would not answer.
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    audit = {"models": ["openai/small-vlm"], "every": 64}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(KEYS | {"evaluation_episodes": 1, "steps_per_result": 64, "audit": audit}))
    shown = CliRunner().invoke(app, ["fit", str(file), "--results", str(tmp_path / "none"), "--json"])
    found = json.loads(shown.output)
    assert shown.exit_code == (0 if found["fits"] else 1), shown.output
    measured = found["measured"]
    assert measured["acting"]["seconds"] > 0
    assert measured["training"]["cpu_seconds"] > 0
    assert list(measured["encoding"]) == list(measured["drawing"]) == [MODEL]
    assert 0 < measured["encoding"][MODEL]["seconds"] < 1
    assert measured["encoding"][MODEL]["cpu_seconds"] > 0
    # Two observations of four numbers, an action, the reward and two flags.
    assert measured["transition_bytes"] == 2 * 4 * 4 + 8 + 4 + 2
    # The network, its target and the optimiser's two moments of each weight.
    assert measured["state_bytes"] > 4 * measured["policy_bytes"]
    assert 0.1 < measured["crowded"] <= 1
    assert not (tmp_path / "none").exists()
