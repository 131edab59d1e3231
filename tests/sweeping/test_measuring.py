"""EPIC distances before training: through the pool, they are those that measuring by itself gives."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collecting import sampled_states
from vlm_rm_sweeps.evaluation.epic import epic_distance
from vlm_rm_sweeps.evaluation.scoring import score_frames
from vlm_rm_sweeps.rewards.catalog import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolError, RewardPool, await_pool, start_pool
from vlm_rm_sweeps.sweeping import measuring
from vlm_rm_sweeps.sweeping.jobs import pool_configs
from vlm_rm_sweeps.sweeping.measuring import known_measures, measure_sweep, metrics_of
from vlm_rm_sweeps.sweeping.spec import Sweep
from vlm_rm_sweeps.tasks.task import get_task

SWEEP = Sweep.model_validate(
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


def test_each_trial_gets_the_distance_of_its_own_reward(ray_cluster: None, tmp_path: Path) -> None:
    pools = pool_configs(SWEEP, "test-measuring")
    handles = start_pool(pools["embedded/tiny"])
    await_pool(pools["embedded/tiny"], handles, SWEEP.served_specs())
    table = measure_sweep(SWEEP, pools)
    for handle in handles:
        ray.kill(handle)
    assert len(table) == 4
    table.to_csv(tmp_path / "epic.csv", index=False)
    read = known_measures(tmp_path / "epic.csv")
    assert read is not None
    assert read["prompt"].tolist() == ["1", "NA", "1", "NA"]

    states = list(sampled_states(get_task("cartpole-upright"), 70, seed=0, rendering=SWEEP.renderings()[0]))
    closeness = -np.abs([float(np.asarray(state.variables["theta"])) for state in states])
    model = load_reward_model("embedded/tiny")
    reference, *trials = SWEEP.trials()
    assert metrics_of(read, reference) == {}
    for trial in trials:
        spec = trial.spec()
        assert spec is not None
        rewards = score_frames(model, [state.frame for state in states], [spec])[:, 0]
        metrics = metrics_of(read, trial)
        assert metrics["epic_distance"] == pytest.approx(epic_distance(rewards, closeness), abs=1e-5)
        assert metrics["epic_low"] < metrics["epic_distance"] < metrics["epic_high"]


def test_rewards_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        def submit(self, frames: np.ndarray, specs: list[RewardSpec]) -> "Pool":
            return self

        def result(self) -> None:
            raise PoolError("embedded/tiny gave 1 of 280 rewards that are not finite")

    monkeypatch.setattr(RewardPool, "connect", lambda config: Pool())
    with pytest.raises(UserError, match="epic_states: embedded/tiny gave 1 of 280 rewards that are not finite"):
        measure_sweep(SWEEP, pool_configs(SWEEP, "unused"))


def test_states_that_are_all_alike_in_truth_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten random states of the humanoid might all be outside of the goal."""
    same = next(sampled_states(get_task("cartpole-upright"), 1, seed=0))
    monkeypatch.setattr(measuring, "sampled_states", lambda *_: iter([same] * 10))
    with pytest.raises(UserError, match="is the same for all of these states of cartpole-upright: ask for more"):
        measure_sweep(SWEEP.model_copy(update={"epic_states": 10}), {})


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
