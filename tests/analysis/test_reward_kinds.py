"""The table of rewards: its measures are those of the rewards on the task's states, and success is that of the runs."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from mlflow_sweeps import sweep_of
from scipy.stats import mannwhitneyu

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.compare import load_for_measuring
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.tasks.registry import find_task

STATES = 80
SCREENING = Path(__file__).parents[2] / "sweeps" / "screen_cartpole.yaml"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, mlflow_database: Path) -> ModuleType:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_database}")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "analysis"))
    import reward_kinds

    return reward_kinds


def test_rewards_of_a_sweep_file_are_measured_without_success(script: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "kinds.yaml"
    rewards = [{"kind": "goal_baseline", "name": "cosine"}, {"kind": "softmax", "negatives": ["pole hanging down"]}]
    keys = {"name": "kinds", "task": "cartpole-upright", "models": ["embedded/tiny"], "rewards": rewards, "steps": 10}
    file.write_text(yaml.safe_dump(keys))
    table = script.rows_of(file, STATES, {})
    assert list(table["states"]) == ["random"] * 2
    assert "success" not in table
    cosine = table.set_index("reward").loc["cosine"]
    assert cosine["roc_auc"] == pytest.approx(area_of_the_cosine())
    assert cosine["roc_auc_low"] < cosine["roc_auc"] < cosine["roc_auc_high"]
    shown = script.readable(table)
    assert shown["ROC-AUC"][0] == "{roc_auc:.2f} ({roc_auc_low:.2f} to {roc_auc_high:.2f})".format(**table.iloc[0])
    assert shown["VOC"].tolist() == ["", ""]  # random states have no order


def area_of_the_cosine() -> float:
    task = find_task("cartpole-upright")
    model = load_for_measuring("embedded/tiny")
    states = list(sampled_states(task, STATES, 0))
    success = np.array([bool(state.success) for state in states])
    spec = RewardSpec((task.goal_prompt,), (task.baseline_prompt,), 0.0)
    rewards = model.score(np.stack([state.frame for state in states]), [spec])[:, 0]
    wins = mannwhitneyu(rewards[success], rewards[~success]).statistic
    return float(wins) / (success.sum() * (~success).sum())


def test_success_of_the_runs_stands_beside_the_measures(script: ModuleType, tmp_path: Path, mlflow_database: Path) -> None:
    trials = [
        {"model": model, "alpha": 0.0, "prompt": "task", "seed": seed, "metrics": {"evaluation_success": 0.2 + 0.4 * seed}}
        for model in ("embedded/tiny", "embedded/small")
        for seed in (0, 1)
    ]
    folder = sweep_of(tmp_path / "kinds", f"sqlite:///{mlflow_database}", trials)
    table = script.rows_of(folder, STATES, {})
    assert table["success"].tolist() == pytest.approx([0.4, 0.4])
    assert table["seeds"].tolist() == [2, 2]
    assert script.readable(table)["success"].tolist() == ["0.40 (0.20 to 0.60)"] * 2


def test_a_screening_is_refused(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SCREENING.parents[1])
    with pytest.raises(UserError, match=r"screen_cartpole\.yaml is a screening"):
        script.plan_of(SCREENING)


def test_success_is_found_by_the_label_of_a_reward_that_has_one(
    script: ModuleType, tmp_path: Path, mlflow_database: Path
) -> None:
    trials = [
        {
            "model": "embedded/tiny",
            "alpha": "-",
            "reward": label,
            "prompt": "task",
            "seed": 0,
            "metrics": {"evaluation_success": rate},
        }
        for label, rate in (("cosine", 0.25), ("softmax", 0.75))
    ]
    folder = sweep_of(tmp_path / "labelled", f"sqlite:///{mlflow_database}", trials)
    found = script.success_of(script.SweepRuns(folder)).set_index("reward")["success"]
    assert found.to_dict() == {"cosine": 0.25, "softmax": 0.75}
