"""Learned rewards in sweep files: found beside the file, for their own model alone, and part of the trial's id."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_heads import a_head

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.registry import describe_reward, make_reward
from vlm_rm_sweeps.rewards.heads import write_head
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.screening import load_plan
from vlm_rm_sweeps.sweeping.execution.run_sweep import resumed_plan
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder

KEYS: dict[str, Any] = {"name": "a", "task": "cartpole-upright", "models": ["embedded/tiny"], "steps": 100, "seeds": [0]}
LEARNED = {"kind": "learned", "head": "heads/upright.safetensors", "name": "labels"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "heads").mkdir()
    write_head(tmp_path / "heads" / "upright.safetensors", a_head(2))
    return tmp_path


def plan_of_file(folder: Path, **changed: Any) -> Plan:
    (folder / "sweep.yaml").write_text(yaml.safe_dump(KEYS | {"rewards": [LEARNED]} | changed))
    plan = load_plan(folder / "sweep.yaml")
    assert isinstance(plan, Plan)
    return plan


def test_a_head_is_found_beside_the_sweep_file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    plan = plan_of_file(folder)
    (reward,) = plan.rewards
    assert reward.label == "labels"
    (folder / "heads" / "upright.safetensors").unlink()  # from here on nobody reads it
    (spec,) = plan.served_specs("embedded/tiny")
    assert spec.function == reward.function == make_reward(describe_reward(reward.function), from_data=True)


def test_a_trials_id_covers_the_head_and_not_its_place(folder: Path) -> None:
    plan = plan_of_file(folder)
    ids = [trial.trial_id for trial in plan.trials]
    (folder / "elsewhere.safetensors").write_bytes((folder / "heads" / "upright.safetensors").read_bytes())
    moved = plan_of_file(folder, rewards=[LEARNED | {"head": "elsewhere.safetensors"}])
    assert [trial.trial_id for trial in moved.trials] == ids
    steep = {"kind": "threshold", "above": 0, "of": {"kind": "learned", "head": "heads/upright.safetensors"}}
    other = steep | {"of": {"kind": "learned", "head": "elsewhere.safetensors"}}
    first, second = (plan_of_file(folder, rewards=[each]).trials for each in (steep, other))
    assert [trial.trial_id for trial in first] == [trial.trial_id for trial in second] != ids


def test_a_sweep_whose_head_has_changed_is_not_resumed(folder: Path) -> None:
    plan, results = plan_of_file(folder), SweepFolder(folder / "results")
    results.create(plan.sweep)
    results.trial(plan.trials[-1].trial_id).mkdir(parents=True)
    resumed_plan(plan_of_file(folder), results)
    write_head(folder / "heads" / "upright.safetensors", a_head(3))
    with pytest.raises(UserError, match=r"a file that its sweep file names has changed since, such as the head"):
        resumed_plan(plan_of_file(folder), results)


def test_a_head_of_another_model_is_refused(folder: Path) -> None:
    for nested in (LEARNED, {"kind": "threshold", "above": 0, "of": {"kind": "learned", "head": LEARNED["head"]}}):
        with pytest.raises(
            UserError, match="trained on embeddings of embedded/tiny with 32 numbers, and embedded/small has 64"
        ):
            plan_of_file(folder, models=["embedded/small"], rewards=[nested])


def test_each_model_may_have_its_own_head(folder: Path) -> None:
    rewards = [LEARNED, {"kind": "goal_baseline", "name": "words"}]
    cells = [("embedded/tiny", "labels"), ("embedded/tiny", "words"), ("embedded/small", "words")]
    only = [{"model": model, "reward": reward, "prompt": "task"} for model, reward in cells]
    plan = plan_of_file(folder, models=["embedded/tiny", "embedded/small"], rewards=rewards, only=only)
    assert [len(plan.served_specs(model)) for model in plan.models] == [2, 1]


def test_a_head_that_is_none_is_one_message(folder: Path) -> None:
    (folder / "notes.safetensors").write_text("my notes")
    with pytest.raises(UserError, match=r"rewards\.0: learned: .*notes\.safetensors is no safetensors file"):
        plan_of_file(folder, rewards=[LEARNED | {"head": "notes.safetensors"}])
    with pytest.raises(UserError, match=r"rewards\.0: learned: .*none\.safetensors cannot be read"):
        plan_of_file(folder, rewards=[LEARNED | {"head": "none.safetensors"}])


def test_a_gold_model_that_the_head_does_not_fit_judges_by_goal_and_baseline(folder: Path) -> None:
    softmax = {"kind": "softmax", "negatives": ["pole hanging down"], "name": "softmax"}
    plan = plan_of_file(folder, rewards=[LEARNED, softmax], audit={"models": "embedded/small"})
    judged = {trial.reward_key: plan.gold_specs(trial)["embedded/small"] for trial in plan.trials if trial.reward}
    assert judged["labels"] == plan.prompts[0].spec(0.0)
    assert judged["softmax"] == plan.rewards[1].spec(plan.prompts[0])  # it can compute this one itself
    assert set(plan.served_specs("embedded/small")) == set(judged.values())
    said = "embedded/small cannot compute the reward labels: it judges by goal and baseline alone (goal_baseline at alpha 0)"
    assert f"audit.models: {said}" in plan.describe().splitlines()


def test_a_head_that_does_not_fit_the_trials_own_model_is_still_refused(folder: Path) -> None:
    both = {"models": ["embedded/tiny", "embedded/small"], "audit": {"models": "largest"}}
    with pytest.raises(UserError, match="embedded/small"):
        plan_of_file(folder, **both)
    own = [{"model": "embedded/tiny", "reward": "labels", "prompt": "task"}]
    plan = plan_of_file(folder, **both, only=own)
    assert [list(plan.gold_specs(trial)) for trial in plan.trials if trial.reward] == [["embedded/small"]]
