"""States that learned policies reach: what they show, where they come from, and which policies go together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states, states_of_policies, task_of_all
from vlm_rm_sweeps.evaluation.rollouts import load_policy, run_episode
from vlm_rm_sweeps.evaluation.states import write_states
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.checkpoints import Checkpoint

SavePolicy = Callable[..., Checkpoint]
CARTPOLE = find_task("cartpole-upright")


def nobody_listens(line: str) -> None:
    pass


@pytest.fixture
def policies(saved_policy: SavePolicy, tmp_path: Path) -> list[Checkpoint]:
    return [saved_policy(tmp_path / "a-sweep" / "trials" / name) for name in ("first", "second")]


def test_states_are_those_of_the_policys_episodes(policies: list[Checkpoint], tmp_path: Path) -> None:
    said: list[str] = []
    states = list(states_of_policies(policies[:1], episodes=2, every=60, seed=7, say=said.append))
    assert [(state.provenance.seed, state.provenance.step) for state in states] == [
        *((7, 60), (7, 120), (7, 180)),
        *((8, 60), (8, 120), (8, 180)),
    ]
    episode = run_episode(CARTPOLE, load_policy(policies[0]), seed=7, pictures=True)
    for state in states[:3]:
        step = state.provenance.step
        assert step is not None
        np.testing.assert_array_equal(state.frame, episode.pictures[step - 1])
        np.testing.assert_allclose(list(state.variables.values()), episode.observations[step], rtol=1e-6)
        assert state.success == episode.in_goal[step - 1]
    assert not np.array_equal(states[0].frame, states[1].frame)
    assert said == [f"{policies[0].folder}: 2 episodes"]


def test_the_data_set_says_where_each_state_comes_from(policies: list[Checkpoint], tmp_path: Path) -> None:
    states = states_of_policies(policies, episodes=1, every=100, seed=3, say=nobody_listens)
    table = write_states(tmp_path / "data", task_of_all(policies), states).table
    assert table["trial"].tolist() == ["first", "first", "second", "second"]
    assert set(table["origin"]) == {"a-sweep"}
    assert set(table["checkpoint"]) == {"best-000000500"}
    assert set(table["source"]) == {"rollout"}
    assert table["step"].tolist() == [100, 200, 100, 200]
    assert set(table["seed"]) == {3}
    assert table["id"].is_unique
    drawn = CARTPOLE.rendering()
    assert set(zip(table["textures"], table["camera"], table["profile"], strict=True)) == {
        (drawn.textures, drawn.camera, drawn.profile)
    }
    assert {"x", "theta"} <= set(table.columns)


def test_states_of_one_episode_are_known_as_such(policies: list[Checkpoint], tmp_path: Path) -> None:
    """The bootstrap draws them together, see `measure`; random states are drawn one by one."""
    states = states_of_policies(policies, episodes=2, every=100, seed=3, say=nobody_listens)
    reached = write_states(tmp_path / "reached", CARTPOLE, states).episodes
    assert np.unique(reached, return_inverse=True)[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    drawn = write_states(tmp_path / "drawn", CARTPOLE, sampled_states(CARTPOLE, 5, seed=3)).episodes
    assert len(set(drawn)) == 5


def test_states_are_those_that_a_policy_reaches_as_it_acts(saved_policy: SavePolicy, tmp_path: Path) -> None:
    repeating = saved_policy(tmp_path / "a", control={"action_repeat": 4})
    steps = [
        state.provenance.step for state in states_of_policies([repeating], episodes=1, every=25, seed=7, say=nobody_listens)
    ]
    assert steps == [25, 50]
    with pytest.raises(UserError, match="every 51 steps: expected at most 50, the length of an episode of cartpole-upright"):
        next(states_of_policies([repeating], episodes=1, every=51, seed=7, say=nobody_listens))


def test_a_policy_outside_of_a_sweep_has_no_trial(saved_policy: SavePolicy, tmp_path: Path) -> None:
    (state,) = states_of_policies([saved_policy(tmp_path / "copied")], episodes=1, every=200, seed=0, say=nobody_listens)
    assert (state.provenance.origin, state.provenance.trial) == (None, None)
    assert state.provenance.checkpoint == "best-000000500"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": "mountaincar-summit"}, "is a policy for mountaincar-summit, and .*first.* one for cartpole-upright"),
        ({"task": "Acrobot-v1", "env": {"id": "Acrobot-v1"}}, "is a policy for Acrobot-v1, and"),
    ],
)
def test_policies_for_different_tasks_are_refused(
    saved_policy: SavePolicy, policies: list[Checkpoint], tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    other = saved_policy(tmp_path / "other", **changed)
    with pytest.raises(UserError, match=message):
        next(states_of_policies([*policies, other], episodes=1, every=1, seed=0, say=nobody_listens))


def test_what_has_no_states_to_keep_is_refused(saved_policy: SavePolicy, policies: list[Checkpoint], tmp_path: Path) -> None:
    acrobot = saved_policy(tmp_path / "acrobot", task="Acrobot-v1", env={"id": "Acrobot-v1"})
    with pytest.raises(UserError, match="data sets of states are kept for the tasks of `vlm-rm tasks`"):
        task_of_all([acrobot])
    with pytest.raises(UserError, match="every 201 steps: expected at most 200, the length of an episode of cartpole-upright"):
        next(states_of_policies(policies, episodes=1, every=201, seed=0, say=nobody_listens))
    mislabelled = saved_policy(tmp_path / "mislabelled", task="mountaincar-summit")
    with pytest.raises(UserError, match="holds the policy of another task: dqn cannot choose from Box"):
        next(states_of_policies([mislabelled], episodes=1, every=1, seed=0, say=nobody_listens))
