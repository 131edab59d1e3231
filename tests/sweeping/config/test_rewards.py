"""`rewards:`, the axis beside `alphas:`: labels, trial ids, and one message for every mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.history import History
from vlm_rm_sweeps.rewards.functions.softmax import Softmax
from vlm_rm_sweeps.sweeping.config.plan import Plan, plan_of
from vlm_rm_sweeps.sweeping.config.screening import load_plan
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.config.trial import Trial

SOFTMAX = {"kind": "softmax", "negatives": ["pole hanging down"]}
GOOD: dict[str, Any] = {
    "name": "good",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "rewards": ["goal_baseline", {"kind": "goal_baseline", "alpha": 0.5}, SOFTMAX, {"kind": "history", "name": "last-frames"}],
    "steps": 1_000,
    "true_reward": False,
}


def made(**changes: Any) -> Plan:
    return plan_of({key: value for key, value in (GOOD | changes).items() if value is not None})


def test_each_reward_is_a_trial_with_a_label() -> None:
    plan = made()
    labels = [reward.label for reward in plan.rewards]
    assert labels == ["goal_baseline", "goal_baseline-alpha-0.5", labels[2], "last-frames"]
    assert [trial.cell for trial in plan.trials] == [f"embedded/tiny, reward {label}, prompt task" for label in labels]
    assert [trial.known_alpha for trial in plan.trials] == [0.0, 0.5, None, None]
    specs = [trial.spec() for trial in plan.trials]
    assert [spec and spec.function for spec in specs] == [None, None, Softmax(negatives=("pole hanging down",)), History()]


def test_goal_baseline_has_the_same_trials_by_either_name() -> None:
    by_alpha = made(rewards=None, alphas=[0, 0.5]).trials
    by_reward = made(rewards=["goal_baseline", {"kind": "goal_baseline", "alpha": 0.5, "name": "half"}]).trials
    assert [trial.trial_id for trial in by_reward] == [trial.trial_id for trial in by_alpha]
    assert [trial.spec() for trial in by_reward] == [trial.spec() for trial in by_alpha]


def test_trial_ids_do_not_depend_on_names_but_on_parameters() -> None:
    (one,) = made(rewards=[SOFTMAX]).trials
    (named,) = made(rewards=[SOFTMAX | {"name": "mine"}]).trials
    (other,) = made(rewards=[SOFTMAX | {"temperature": 0.1}]).trials
    assert one.trial_id == named.trial_id != other.trial_id


def test_trial_ids_stay_the_same_from_release_to_release() -> None:
    # Recorded when the axis came; see the test of this name in test_plan.py.
    ids = [trial.trial_id for trial in made(profile="fast").trials]
    assert ids == IDS


IDS = ["28033c3b28", "1ccd3ca5af", "a02b5218c7", "ab6ca1df2a"]


def test_trials_survive_the_way_through_plain_data() -> None:
    for trial in made().trials:
        assert Trial.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial


def test_only_names_cells_by_label() -> None:
    plan = made(only=[{"model": "embedded/tiny", "reward": "last-frames", "prompt": "task"}])
    assert [trial.reward and trial.reward.label for trial in plan.trials] == ["last-frames"]


def test_a_dry_run_describes_rewards() -> None:
    described = made().describe()
    assert "  last-frames: history (frames 4, weight 1.0)" in described
    assert "negatives ['pole hanging down']" in described


def test_frames_that_stand_alone_are_remarked() -> None:
    assert any("last-frames" in remark and "see frames alone" in remark for remark in made(epic_states=20).remarks())
    assert not any("see frames alone" in remark for remark in made().remarks())


def test_a_file_is_read_without_importing_what_it_names() -> None:
    sweep = Sweep.model_validate(GOOD | {"rewards": ["no_such_module:Mine"]})
    assert sweep.rewards[0].kind == "no_such_module:Mine"
    assert Sweep.model_validate(sweep.model_dump(mode="json")) == sweep


def test_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "states").mkdir()
    nested = {"kind": "threshold", "quantile": 0.9, "states": "states"}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(GOOD | {"rewards": [nested]}))
    plan = load_plan(tmp_path / "sweep.yaml")
    assert isinstance(plan, Plan)
    assert plan.sweep.rewards[0].described()["states"] == str(tmp_path / "states")


def test_an_audit_scores_the_trials_own_reward_for_other_prompts() -> None:
    prompts = [{"id": name, "goal": name, "baseline": "pole and cart"} for name in ("up", "upright")]
    plan = made(rewards=[SOFTMAX | {"name": "mine"}], prompts=prompts, audit={"prompts": ["up", "upright"], "alphas": []})
    first, second = plan.trials
    assert plan.audit_specs(first) == {"mine_upright": second.spec()}
    plan = made(rewards=[SOFTMAX], audit={"alphas": [0.5]})
    assert list(plan.audit_specs(plan.trials[0])) == ["alpha_0.5_task"]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"alphas": [0.5]}, ["expected either `alphas` or `rewards`, found both", "{kind: goal_baseline, alpha: 0.5}"]),
        ({"rewards": None}, ["models = ['embedded/tiny']", "0 rewards", "either alphas or rewards"]),
        ({"rewards": ["sofmax"]}, ["rewards.0: ", "unknown reward 'sofmax'", "did you mean 'softmax'?"]),
        ({"rewards": [{"kind": "softmax", "negative": ["x"]}]}, ["rewards.0: softmax: ", "did you mean 'negatives'?"]),
        ({"rewards": [3]}, ["rewards.0"]),
        ({"rewards": [{"alpha": 0.5}]}, ["'rewards.0.kind' is missing"]),
        ({"rewards": [{"kind": "goal_baseline", "alpha": True}]}, ["alpha = True", "no true or false"]),
        ({"rewards": [SOFTMAX | {"name": "a b"}]}, ["rewards.0.name = 'a b'", "pattern"]),
        ({"rewards": ["history", "history"]}, ["history and history are the same", "each reward once"]),
        (
            {"rewards": [SOFTMAX | {"name": "x"}, {"kind": "history", "name": "x"}]},
            ["two are called 'x'", "a `name` of its own"],
        ),
        (
            {
                "rewards": [SOFTMAX | {"negatives": ["an upright pole"]}],
                "prompts": [{"id": "a", "goal": "an upright pole", "baseline": "x"}],
            },
            ["prompts, a: ", "'an upright pole' is the goal, too"],
        ),
        ({"rewards": [SOFTMAX | {"negatives": ["pole " * 40]}]}, ["32 tokens", "embedded/tiny", "shorten it"]),
        (
            {"models": ["own_rewards:Brightness"], "rewards": [SOFTMAX]},
            ["own_rewards:Brightness has no embeddings", "cannot compute the reward softmax-"],
        ),
        ({"rewards": [{"kind": "threshold", "above": 3}]}, ["goal_baseline is between -1 and 1"]),
        ({"rewards": [{"kind": "mixed", "of": []}]}, ["rewards.0: mixed: of = []", "expected at least 1 of them"]),
        (
            {"only": [{"model": "embedded/tiny", "reward": "last", "prompt": "task"}]},
            ["reward 'last'", "is not in the grid", "last-frames"],
        ),
        (
            {"only": [{"model": "embedded/tiny", "alpha": 0.5, "reward": "last", "prompt": "task"}]},
            ["expected either `alpha`", "or `reward`"],
        ),
        ({"rewards": ["own_functions:Unfinished"]}, ["is not complete", "combine"]),
    ],
)
def test_bad_rewards_get_one_message(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        made(**changes)
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message
    assert "\n" not in message


def test_a_reward_that_needs_each_frame_refuses_to_leave_any_out() -> None:
    """`score_every`, in one message."""
    with pytest.raises(UserError, match=r"score_every = 4: last-frames looks at the frames of 4 steps in turn.*expected 1"):
        made(score_every=4)
    nested = {"kind": "mixed", "of": [{"weight": 1, "reward": "history"}], "name": "both"}
    with pytest.raises(UserError, match="score_every = 2: both looks at the frames of 4 steps in turn"):
        made(rewards=[nested], score_every=2)
    assert "of 4 steps of an episode the frame of one is encoded; between, rewards are interpolated" in (
        made(rewards=[SOFTMAX], score_every=4, score_between="interpolate").describe()
    )


def test_an_episode_has_more_than_one_scored_frame() -> None:
    with pytest.raises(UserError, match=r"score_every = 200: an episode of cartpole-upright has 200 steps.*expected less"):
        made(rewards=[SOFTMAX], score_every=200)
