"""Replay: every row of a batch is one transition of one episode, also where RLlib cut the episode and old ones were replaced."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

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


def rows(buffer: TransitionReplayBuffer, batches: int = 5, size: int = 100) -> list[tuple[int, int, bool]]:
    """Episode, step and terminal flag of drawn rows, all of which were found to belong together."""
    transitions = buffer.gather(buffer.draw(batches, size))
    assert (len(transitions), transitions.batch) == (batches * size, size)
    columns = transitions.columns
    assert columns["obs"].shape == columns["new_obs"].shape == (batches * size, 2)
    number, step = columns["obs"].T
    np.testing.assert_array_equal(columns["new_obs"], np.stack([number, step + 1], axis=1))
    np.testing.assert_array_equal(columns["actions"][:, 0], step)
    np.testing.assert_array_equal(columns["rewards"], 100 * number + step)
    return [(int(a), int(b), bool(c)) for a, b, c in zip(number, step, columns["terminateds"], strict=True)]


def order(buffer: TransitionReplayBuffer) -> list[tuple[int, int]]:
    """Episode and step of all transitions, the oldest first."""
    return [(int(number), int(step)) for number, step in buffer.transitions()["obs"]]


def test_every_transition_is_drawn_and_only_a_real_end_is_terminal() -> None:
    buffer = TransitionReplayBuffer(1000, seed=0)
    buffer.add([counting(1, 5, terminated=True), counting(2, 7, terminated=False).to_numpy()])
    drawn = set(rows(buffer))
    assert drawn == {(1, step, step == 4) for step in range(5)} | {(2, step, False) for step in range(7)}


def test_the_newest_transitions_replace_the_oldest() -> None:
    """Of episodes that RLlib cut into chunks, of which the second begins with a step of the first."""
    buffer = TransitionReplayBuffer(20, seed=0)
    for number in range(4):
        whole = counting(number, 9, terminated=False)
        buffer.add([whole.slice(slice(0, 4), len_lookback_buffer=0).to_numpy()])
        buffer.add([whole.slice(slice(4, 9), len_lookback_buffer=1).to_numpy()])
    expected = [(number, step) for number in range(4) for step in range(9)][-20:]
    assert len(buffer) == 20
    assert order(buffer) == expected
    assert {row[:2] for row in rows(buffer)} == set(expected)


def test_an_episode_longer_than_the_buffer_leaves_its_end() -> None:
    buffer = TransitionReplayBuffer(4, seed=0)
    buffer.add([counting(1, 11, terminated=True)])
    assert order(buffer) == [(1, 7), (1, 8), (1, 9), (1, 10)]
    assert buffer.transitions()["terminateds"].tolist() == [False, False, False, True]


def test_the_same_seed_draws_the_same_rows_in_whatever_calls() -> None:
    buffers = [TransitionReplayBuffer(100, seed=0) for _ in range(3)]
    for buffer in buffers:
        buffer.add([counting(1, 50, terminated=False)])
    together, again = rows(buffers[0], batches=3, size=7), rows(buffers[1], batches=3, size=7)
    assert together == again == [row for _ in range(3) for row in rows(buffers[2], batches=1, size=7)]


@pytest.mark.parametrize("steps", [5, 30])
def test_a_restored_buffer_draws_and_replaces_as_the_first_one(steps: int) -> None:
    buffer, restored = TransitionReplayBuffer(20, seed=0), TransitionReplayBuffer(20, seed=1)
    buffer.add([counting(1, steps, terminated=False)])
    rows(buffer)
    restored.set_state(pickle.loads(pickle.dumps(buffer.get_state())))
    for each in (buffer, restored):
        each.add([counting(2, 7, terminated=True)])
    assert order(buffer) == order(restored)
    assert rows(buffer) == rows(restored)


def test_an_empty_buffer_is_restored() -> None:
    restored = TransitionReplayBuffer(20, seed=1)
    restored.set_state(TransitionReplayBuffer(20, seed=0).get_state())
    assert len(restored) == 0


def test_the_state_of_rllibs_buffer_is_restored_in_its_order() -> None:
    """As checkpoints of version 0.1 hold it: of chunks of episodes in turn, after an episode was evicted."""
    rllibs = EpisodeReplayBuffer(capacity=20)
    rllibs.rng = np.random.default_rng(5)
    for number in (0, 1, 2):
        whole = counting(number, 9, terminated=number == 2)
        rllibs.add([whole.slice(slice(0, 4), len_lookback_buffer=0).to_numpy()])
    for number in (1, 2):
        rest = counting(number, 9, terminated=number == 2).slice(slice(4, 9), len_lookback_buffer=1)
        rest.id_ = rllibs.episodes[number - (3 - len(rllibs.episodes))].id_
        rllibs.add([rest.to_numpy()])
    assert len(rllibs.episodes) == 2
    restored = TransitionReplayBuffer(20, seed=0)
    restored.set_rllib_state(pickle.loads(pickle.dumps(rllibs.get_state())), rllibs.rng.bit_generator.state)
    chunks = [(1, range(4)), (2, range(4)), (1, range(4, 9)), (2, range(4, 9))]
    assert order(restored) == [(number, step) for number, steps in chunks for step in steps]
    assert restored.transitions()["terminateds"].tolist() == [False] * 17 + [True]
    drawn = [rllibs._indices[row] for row in rllibs.rng.integers(len(rllibs._indices), size=500)]
    assert [row[:2] for row in rows(restored)] == drawn


def test_an_empty_buffer_of_rllib_is_restored() -> None:
    """That of an untrained trial."""
    rllibs = EpisodeReplayBuffer(capacity=20)
    restored = TransitionReplayBuffer(20, seed=0)
    restored.set_rllib_state(rllibs.get_state(), rllibs.rng.bit_generator.state)
    assert len(restored) == 0


def test_numbers_are_as_wide_as_the_networks() -> None:
    episode = SingleAgentEpisode(observation_space=gym.spaces.Box(-1, 1, (2,), np.float64), action_space=gym.spaces.Discrete(3))
    episode.add_env_reset(np.zeros(2))
    episode.add_env_step(np.full(2, 0.1), 2, 0.1)
    buffer = TransitionReplayBuffer(5, seed=0)
    buffer.add([episode.to_numpy()])
    dtypes = {name: column.dtype for name, column in buffer.transitions().items()}
    assert dtypes["obs"] == dtypes["new_obs"] == dtypes["rewards"] == np.float32
    assert dtypes["actions"] == np.int64
