"""Replay: every row of a batch is one transition of one episode, also where RLlib cut the episode or threw others away."""

import gymnasium as gym
import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from vlm_rm_sweeps.training.replay_buffer import TransitionReplayBuffer


def counting(number: int, steps: int, terminated: bool) -> SingleAgentEpisode:
    """An episode whose observations, actions and rewards say which episode and step they are of."""
    episode = SingleAgentEpisode(
        observation_space=gym.spaces.Box(-1, 1e6, (2,), np.float32), action_space=gym.spaces.Box(0, 1e6, (1,), np.float32)
    )
    episode.add_env_reset(np.array([number, 0], np.float32))
    for step in range(steps):
        last = step == steps - 1
        episode.add_env_step(
            np.array([number, step + 1], np.float32),
            np.array([step], np.float32),
            100.0 * number + step,
            terminated=terminated and last,
            truncated=not terminated and last,
        )
    return episode


def rows(buffer: TransitionReplayBuffer, count: int = 500) -> list[tuple[int, int, bool]]:
    """Episode, step and terminal flag of rows of a batch that were found to belong together."""
    (transitions,) = buffer.sample(num_items=count)
    assert len(transitions) == count
    columns = transitions.columns
    assert columns["obs"].shape == columns["new_obs"].shape == (count, 2)
    number, step = columns["obs"].T
    np.testing.assert_array_equal(columns["new_obs"], np.stack([number, step + 1], axis=1))
    np.testing.assert_array_equal(columns["actions"][:, 0], step)
    np.testing.assert_array_equal(columns["rewards"], 100 * number + step)
    return [(int(a), int(b), bool(c)) for a, b, c in zip(number, step, columns["terminateds"], strict=True)]


def seeded(capacity: int) -> TransitionReplayBuffer:
    buffer = TransitionReplayBuffer(capacity=capacity)
    buffer.rng = np.random.default_rng(0)
    return buffer


def test_every_transition_is_drawn_and_only_a_real_end_is_terminal() -> None:
    buffer = seeded(1000)
    buffer.add([counting(1, 5, terminated=True), counting(2, 7, terminated=False).to_numpy()])
    drawn = set(rows(buffer))
    assert drawn == {(1, step, step == 4) for step in range(5)} | {(2, step, False) for step in range(7)}


def test_episodes_in_pieces_and_after_others_were_evicted() -> None:
    buffer = seeded(20)
    for number in range(4):
        whole = counting(number, 9, terminated=False)
        buffer.add([whole.slice(slice(0, 4), len_lookback_buffer=0).to_numpy()])
        rest = whole.slice(slice(4, 9), len_lookback_buffer=1)
        rest.id_ = buffer.episodes[-1].id_
        buffer.add([rest.to_numpy()])
    drawn = set(rows(buffer))
    assert {(3, step, False) for step in range(9)} <= drawn
    assert not any(number == 0 for number, _, _ in drawn)


def test_the_same_seed_draws_the_same_rows() -> None:
    drawn = []
    for _ in range(2):
        buffer = seeded(100)
        buffer.add([counting(1, 50, terminated=False)])
        drawn.append(rows(buffer))
    assert drawn[0] == drawn[1]
