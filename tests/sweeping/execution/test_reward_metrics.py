"""EPIC distances before training: through the pool, they are those that measuring by itself gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.compare import compare_models
from vlm_rm_sweeps.evaluation.epic import epic_distance
from vlm_rm_sweeps.evaluation.ground_truth import read_truth
from vlm_rm_sweeps.evaluation.score import score_frames
from vlm_rm_sweeps.evaluation.states import write_states
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.serving.pool import PoolConfig, start_pool
from vlm_rm_sweeps.sweeping.config.plan import Plan, plan_of
from vlm_rm_sweeps.sweeping.execution import reward_metrics as measuring
from vlm_rm_sweeps.sweeping.execution.pools import pool_configs
from vlm_rm_sweeps.sweeping.execution.reward_metrics import known_measures, measure_sweep, metrics_of
from vlm_rm_sweeps.tasks.registry import find_task

PLAN = plan_of(
    {
        "name": "measured",
        "task": "cartpole-upright",
        "models": ["embedded/tiny"],
        "alphas": [0.0, 0.5],
        "prompts": [
            {"id": "1", "goal": "pole vertically upright on top of the cart", "baseline": "pole and cart"},
            {"id": "NA", "goal": "a cart at the left edge", "baseline": "pole and cart"},
        ],
        "steps": 10,
        "epic_states": 70,
    }
)


def changed(**keys: Any) -> Plan:
    return plan_of(PLAN.sweep.model_dump(mode="json") | keys)


@contextmanager
def served(plan: Plan, name: str) -> Iterator[dict[str, PoolConfig]]:
    """Pools of the sweep's models."""
    configs = pool_configs(plan, name)
    handles = [handle for model_id, config in configs.items() for handle in start_pool(config, plan.models[model_id])]
    ray.get([handle.ready.remote() for handle in handles])
    yield configs
    for handle in handles:
        ray.kill(handle)


@pytest.fixture(scope="module")
def pools(ray_cluster: None) -> Iterator[dict[str, PoolConfig]]:
    with served(PLAN, "test-measuring") as configs:
        yield configs


def test_each_trial_gets_the_distance_of_its_own_reward(pools: dict[str, PoolConfig], tmp_path: Path) -> None:
    table = measure_sweep(PLAN, pools)
    assert len(table) == 4
    table.to_csv(tmp_path / "epic.csv", index=False)
    read = known_measures(tmp_path / "epic.csv")
    assert read is not None
    assert read["prompt"].tolist() == ["1", "NA", "1", "NA"]

    states = list(sampled_states(find_task("cartpole-upright"), 70, seed=0, rendering=PLAN.renderings[0]))
    closeness = -np.abs([float(np.asarray(state.variables["theta"])) for state in states])
    model = load_reward_model("embedded/tiny")
    reference, *trials = PLAN.trials
    assert metrics_of(read, reference) == {}
    for trial in trials:
        spec = trial.spec()
        assert spec is not None
        rewards = score_frames(model, [state.frame for state in states], [spec])[:, 0]
        metrics = metrics_of(read, trial)
        assert metrics["epic_distance"] == pytest.approx(epic_distance(rewards, closeness), abs=1e-5)
        assert metrics["epic_low"] < metrics["epic_distance"] < metrics["epic_high"]


def test_measures_are_told_by_the_sweep_files_name_of_a_model(ray_cluster: None) -> None:
    earlier = changed(embedded_version="v1")
    assert earlier.models["embedded/tiny"].model_id == "embedded/v1/tiny"
    with served(earlier, "test-earlier") as pools:
        table = measure_sweep(earlier, pools)
    assert all(metrics_of(table, trial) for trial in earlier.trials[1:])


def test_on_labels_of_people_it_is_what_measuring_without_training_gives(pools: dict[str, PoolConfig], tmp_path: Path) -> None:
    drawn = sampled_states(find_task("cartpole-upright"), 80, seed=3, rendering=PLAN.renderings[0])
    dataset = write_states(tmp_path / "states", find_task("cartpole-upright"), drawn)
    store = LabelStore(dataset.labels_file, YES_NO)
    for state, theta in zip(dataset.ids[:60], dataset.table["theta"], strict=False):
        store.add("anna", state, float(abs(theta) < 1))
    labelled = changed(epic_states={"states": str(dataset.folder), "truth": "rater:anna"})
    table = measure_sweep(labelled, pools)
    truth = read_truth(dataset, "rater:anna")
    (expected,) = compare_models(dataset, truth, ["embedded/tiny"], PLAN.specs_of("embedded/tiny"))
    assert (table["truth"] == "rater:anna").all()
    assert (table["states"] == 60).all()
    for name in ("epic_distance", "epic_low", "epic_high", "spearman", "roc_auc"):
        np.testing.assert_allclose(table[name], expected.table[name], atol=1e-5, err_msg=name)
    assert all(metrics_of(table, trial) for trial in labelled.trials[1:])


def test_a_reward_model_of_ones_own_is_measured(ray_cluster: None) -> None:
    plan = changed(models=["own_rewards:Shade/0"])
    with served(plan, "test-own") as pools:
        table = measure_sweep(plan, pools)
    assert (table["model"] == "own_rewards:Shade/0").all()
    assert np.ptp(table["epic_distance"]) < 1e-5  # the darker the better, whatever alpha and prompt
    assert 0 < table["epic_distance"][0] < 1


def test_rewards_that_are_not_finite_are_refused(ray_cluster: None) -> None:
    plan = changed(models=["own_rewards:AlwaysNan"])
    with (
        served(plan, "test-nan") as pools,
        pytest.raises(UserError, match="epic_states: own_rewards:AlwaysNan gave 256 of 256 rewards that are not finite"),
    ):
        measure_sweep(plan, pools)


def test_states_that_are_all_alike_in_truth_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten random states of the humanoid might all be outside of the goal."""
    same = next(sampled_states(find_task("cartpole-upright"), 1, seed=0))
    monkeypatch.setattr(measuring, "sampled_states", lambda *_: iter([same] * 10))
    with pytest.raises(UserError, match="is the same for all of these states of cartpole-upright: ask for more"):
        measure_sweep(changed(epic_states=10), pool_configs(PLAN, "unused"))


@pytest.mark.parametrize("content", [b"", b"model,alpha\n", b"half"], ids=["empty", "headings", "cut"])
def test_a_damaged_table_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    """It is measured again."""
    file = tmp_path / "epic.csv"
    assert known_measures(file) is None
    row = {"model": "m", "alpha": 0.5, "prompt": "p", "textures": "t", "camera": "c"}
    whole = (
        pd.DataFrame([row | {"epic_distance": 0.25, "epic_low": 0.125, "epic_high": 0.375}] * 3).to_csv(index=False).encode()
    )
    file.write_bytes(whole)
    assert known_measures(file) is not None
    file.write_bytes(whole[:-7] if content == b"half" else content)
    assert known_measures(file) is None
