"""One small real sweep with every kind of reward: its tables, MLflow runs, checkpoints and videos, and its resumption."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from small_heads import a_head
from small_sweeps import SWEEP, parent_and_children

from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.rollouts import evaluate, find_checkpoint, spec_of
from vlm_rm_sweeps.evaluation.states import load_states, write_states
from vlm_rm_sweeps.rewards.functions.threshold import Threshold
from vlm_rm_sweeps.rewards.heads import write_head
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.execution.thresholds import stored_thresholds
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome, read_results
from vlm_rm_sweeps.tasks.registry import find_task

pytestmark = pytest.mark.sweeps

TASK = find_task("cartpole-upright")
LABELS = ["half", "softmax", "surely", "last", "labels", "sum", "own"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None, mlflow_database: Path) -> tuple[SweepOutcome, Path]:
    """The sweep, and the data set of its threshold."""
    folder = tmp_path_factory.mktemp("rewards")
    states = folder / "states"
    write_states(states, TASK, sampled_states(TASK, 60, seed=0, rendering=TASK.rendering(profile="fast")))
    head = folder / "head.safetensors"
    write_head(head, a_head())
    negatives = ["pole hanging down"]
    rewards = [
        {"kind": "goal_baseline", "alpha": 0.5, "name": "half"},
        {"kind": "softmax", "negatives": negatives, "name": "softmax"},
        {"kind": "threshold", "quantile": 0.9, "states": str(states), "name": "surely"},
        {"kind": "history", "frames": 3, "name": "last"},
        {"kind": "learned", "head": str(head), "name": "labels"},
        {"kind": "mixed", "of": [{"weight": 2, "reward": "history"}], "true_reward": 0.5, "name": "sum"},
        {"kind": "own_functions:Closeness", "name": "own"},
    ]
    keys = SWEEP | {
        "name": "rewards",
        "alphas": [],
        "rewards": rewards,
        "true_reward": False,
        "epic_states": 20,
        "profile": "fast",
        "steps": 128,
        "evaluation_episodes": 1,
        "videos": False,
    }
    keys |= {"audit": {"alphas": [0.25], "every": 128, "models": ["embedded/small"], "frames": 20}}
    return run_sweep(plan_of(keys), folder / "results", f"sqlite:///{mlflow_database}", lambda line: None), states


def test_every_kind_trains_and_is_told_by_its_label(ran: tuple[SweepOutcome, Path]) -> None:
    outcome, _ = ran
    assert outcome.all_finished, outcome.table
    table = read_results(SweepFolder(outcome.folder).table)
    assert table["reward"].tolist() == LABELS
    assert table["alpha"].tolist()[0] == 0.5
    assert table["alpha"].isna().tolist() == [False] + [True] * 6
    assert np.isfinite(table["clip_return"]).all()
    by_alpha = plan_of(SWEEP | {"true_reward": False, "profile": "fast"}).trials
    assert table["trial_id"][0] == by_alpha[0].trial_id
    measured = pd.read_csv(SweepFolder(outcome.folder).epic)
    assert measured["reward"].tolist() == LABELS
    assert table["epic_distance"].tolist() == pytest.approx(measured["epic_distance"].tolist(), nan_ok=True)


def test_runs_in_mlflow_carry_label_and_function(ran: tuple[SweepOutcome, Path], mlflow_database: Path) -> None:
    _, children = parent_and_children(MlflowClient(f"sqlite:///{mlflow_database}"), "rewards")
    runs = {run.data.tags["reward"]: run for run in children}
    assert set(runs) == set(LABELS)
    assert runs["half"].data.params["alpha"] == runs["half"].data.tags["alpha"] == "0.5"
    assert "alpha" not in runs["last"].data.params
    assert json.loads(runs["last"].data.params["reward_function"]) == {"kind": "history", "frames": 3, "weight": 1.0}
    assert runs["own"].data.params["reward"] == "own"
    assert all(math.isfinite(run.data.metrics["audit_spec/alpha_0.25_task"]) for run in children)
    assert all(math.isfinite(run.data.metrics["audit_gold/embedded_small"]) for run in children)
    # The proxy is what is learned from: half of the environment's reward is in it, too.
    assert runs["sum"].data.metrics["audit_proxy_reward"] > runs["sum"].data.metrics["audit_true_reward"] / 2


def test_a_quantile_is_measured_once_and_kept(ran: tuple[SweepOutcome, Path], mlflow_database: Path) -> None:
    outcome, states = ran
    dataset = load_states(states)
    frames = np.stack([dataset.frame(index) for index in range(len(dataset))])
    spec = spec_of(find_checkpoint(outcome.folder / "trials" / outcome.table["trial_id"][0]))
    assert spec is not None
    model = load_reward_model("embedded/tiny")
    cosines = model.score(frames, [type(spec)(spec.goal_prompts, spec.baseline_prompts)])[:, 0].astype(np.float64)
    fails = dataset.table["success"].to_numpy() == False  # noqa: E712 - a column of objects
    expected = float(np.quantile(cosines[fails], 0.9))
    trial_id = outcome.table["trial_id"][2]
    assert stored_thresholds(SweepFolder(outcome.folder)) == {trial_id: pytest.approx(expected, abs=1e-6)}
    learned = spec_of(find_checkpoint(outcome.folder / "trials" / trial_id))
    assert learned is not None
    assert learned.function == Threshold(above=stored_thresholds(SweepFolder(outcome.folder))[trial_id])


def test_best_policies_are_evaluated_and_judged(ran: tuple[SweepOutcome, Path]) -> None:
    outcome, _ = ran
    (episode,) = evaluate(
        find_checkpoint(outcome.folder / "trials" / outcome.table["trial_id"][LABELS.index("sum")]),
        episodes=1,
        seed=0,
        pictures=False,
        judges=["embedded/small"],
    )
    assert episode.clip_rewards is not None
    assert len(episode.clip_rewards) == TASK.episode_steps
    assert math.isfinite(episode.judged["embedded/small"])


def test_a_finished_sweep_resumes_to_the_same_table(ran: tuple[SweepOutcome, Path], mlflow_database: Path) -> None:
    outcome, _ = ran
    folder = SweepFolder(outcome.folder)
    again = run_sweep(
        folder.stored_sweep(), outcome.folder.parent, f"sqlite:///{mlflow_database}", lambda line: None, resumed=folder
    )
    pd.testing.assert_frame_equal(again.table, outcome.table)
