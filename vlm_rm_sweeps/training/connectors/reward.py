"""The connector that brings rewards into RLlib (new API stack): the last one of the env-to-module pipeline.

`FrameInInfo` puts each step's frame and true reward into `info`. The connector pops them, so that frames never reach the replay
buffer, and sends the frames to the reward pool without waiting. The rewards are written into the episodes at `on_sample_end`,
RLlib's last hook before they leave the env runner. So each transition is scored exactly once, and environments step while the
servers score.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import (
    ENCODE_SECONDS,
    FRAMES_SCORED,
    INFO_FRAME,
    INFO_RENDER_SECONDS,
    INFO_SUCCESS,
    INFO_TRUE_REWARD,
    MICRO_BATCH,
    RENDER_SECONDS,
    WAIT_SECONDS,
)
from vlm_rm_sweeps.rewards.between import Between, fill_between, is_scored
from vlm_rm_sweeps.rewards.columns import Columns
from vlm_rm_sweeps.rewards.functions.base import RewardFunction, combined
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PendingRewards, PoolConfig, RewardPool
from vlm_rm_sweeps.serving.telemetry import ConnectorMetrics
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.training.audit import AuditTally, StepTruth
from vlm_rm_sweeps.training.connectors.true_return import TrueReturnConnector
from vlm_rm_sweeps.training.rllib_internals import env_to_module_pieces

Scored = dict[int, dict[int, float]]
"""Rewards by `id` of their episode's object, then by step in the episode."""
_EARLIER, _LAST_SCORED = "earlier", "last_scored"


@dataclass(frozen=True)
class RewardSource:
    """Source of a trial's rewards, as plain data.

    Args:
        pool: Configuration of the reward model's pool.
        spec: Prompts and function of the reward.
        frame_format: Size and resizing of the reward model's frames.
        rendering: How states are rendered; None for the task's default.
        label: What the sweep calls the reward; None if it has no name.
        score_every: Of how many steps of an episode one is scored; the reward must then need no earlier frames.
        score_between: What the steps between get.
    """

    pool: PoolConfig
    spec: RewardSpec
    frame_format: FrameFormat
    rendering: Rendering | None = None
    label: str | None = None
    score_every: int = 1
    score_between: Between = "hold"


@dataclass(frozen=True)
class _Request:
    """A request for the rewards of some steps: the columns, their episodes and steps, ground truth and, for an audit, the frames.

    Nothing is pending if none of the steps is scored.
    """

    pending: PendingRewards | None
    columns: Columns
    steps: list[tuple[SingleAgentEpisode, int]]
    truths: list[StepTruth]
    frames: list[np.ndarray]


class _EpisodeRewards:
    """Makes rewards of columns, episode by episode, for a reward that is not a model's column as it is.

    Episodes arrive in chunks. Those that go on leave behind the steps that the next chunk's rewards depend on.

    Args:
        function: The reward.
    """

    def __init__(self, function: RewardFunction) -> None:
        self._function = function
        self.earlier: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        """Columns (m, p) and true rewards (m,) of the last steps of running episodes, by the episode's id."""

    def combine(self, chunks: Iterable[tuple[SingleAgentEpisode, np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yield the rewards float32 (t,) of each chunk: an episode with its columns (t, p) and true rewards (t,)."""
        still_running: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for episode, columns, true_rewards in chunks:
            steps = len(columns)
            if episode.id_ in self.earlier:
                before, true_before = self.earlier[episode.id_]
                columns, true_rewards = np.concatenate([before, columns]), np.concatenate([true_before, true_rewards])
            if self._function.memory and not episode.is_done:
                kept = slice(-self._function.memory, None)
                still_running[episode.id_] = columns[kept].copy(), true_rewards[kept].copy()
            yield combined(self._function, columns, true_rewards)[-steps:]
        self.earlier = still_running


class _Gaps:
    """Fills in the columns of the steps between those that are scored, episode by episode.

    Args:
        every: Of how many steps of an episode one is scored.
        between: What the others get.
    """

    def __init__(self, every: int, between: Between) -> None:
        self._every, self._between = every, between
        self.last_scored: dict[str, tuple[int, np.ndarray]] = {}
        """The last scored step of running episodes, and its columns (p,), by the episode's id."""

    def fill(self, steps: Sequence[tuple[SingleAgentEpisode, int]], answered: np.ndarray) -> np.ndarray:
        """Return the columns of all steps of a sample.

        Args:
            steps: Episode and step of each, those of an episode in their order.
            answered: Columns of the steps that are scored, in the same order, float32 (m, p).

        Returns:
            float32 (n, p).
        """
        numbers = np.array([episode.t_started + index for episode, index in steps])
        scored = np.array([is_scored(number, self._every) for number in numbers])
        filled = np.empty((len(steps), answered.shape[1]), np.float32)
        filled[scored] = answered
        still_running: dict[str, tuple[int, np.ndarray]] = {}
        for episode, places in _places(steps):
            own = places[scored[places]]
            known, values = numbers[own], filled[own]
            if episode.id_ in self.last_scored:
                step, row = self.last_scored[episode.id_]
                known, values = np.concatenate([[step], known]), np.concatenate([row[None], values])
            filled[places] = fill_between(numbers[places], known, values, self._between)
            if not episode.is_done:
                still_running[episode.id_] = int(known[-1]), values[-1].copy()
        self.last_scored = still_running
        return filled


def _places(steps: Sequence[tuple[SingleAgentEpisode, int]]) -> Iterator[tuple[SingleAgentEpisode, np.ndarray]]:
    """Yield each episode with the places of its steps, int (t,)."""
    found: dict[int, tuple[SingleAgentEpisode, list[int]]] = {}
    for place, (episode, _) in enumerate(steps):
        found.setdefault(id(episode), (episode, []))[1].append(place)
    return ((episode, np.array(places)) for episode, places in found.values())


class RewardConnector(TrueReturnConnector):
    """Env-to-module connector that replaces the reward of every step by the reward model's.

    Keep it last in the pipeline: RLlib merges the states of connectors by their position.

    Args:
        *args: Positional arguments of `ConnectorV2`.
        source: Source of the rewards. The connector connects to the pool when it sends the first frames.
        **kwargs: Keyword arguments of `ConnectorV2`.

    Attributes:
        tally: Records every step, if the trial is audited. In the env runner for evaluations it is None.
        deferred: Whether `on_sample_end` leaves it to the trainer to wait for the rewards, by a call of `fill_in_rewards`.
    """

    def __init__(self, *args: Any, source: RewardSource, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._source = source
        function = source.spec.function
        self._of_episodes = None if function is None or function.is_of_one_frame else _EpisodeRewards(function)
        self._gaps = _Gaps(source.score_every, source.score_between) if source.score_every > 1 else None
        self._ray_metrics = ConnectorMetrics(source.pool.model_id)
        self._pool: RewardPool | None = None
        self._render_seconds = 0.0
        self._frames: list[np.ndarray] = []
        self._audited_frames: list[np.ndarray] = []
        self._steps: list[tuple[SingleAgentEpisode, int]] = []
        self._truths: list[StepTruth] = []
        self._requests: list[_Request] = []
        self.tally: AuditTally | None = None
        self.deferred = False

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], episodes: Any, **kwargs: Any) -> dict[str, Any]:
        """Take the last frame of each running episode, send a full micro-batch, and return `batch` as it is."""
        for episode in episodes:
            info = episode.get_infos(-1)
            if INFO_FRAME in info:
                frame = info.pop(INFO_FRAME)
                if is_scored(episode.t - 1, self._source.score_every):
                    self._frames.append(frame)
                if self.tally:
                    self._audited_frames.append(frame)
                self._render_seconds += info.pop(INFO_RENDER_SECONDS)
                self._steps.append((episode, len(episode) - 1))
                self._truths.append(StepTruth(info[INFO_TRUE_REWARD], info.get(INFO_SUCCESS)))
        if len(self._frames) >= self._source.pool.micro_batch:
            self._submit()
        return super().__call__(rl_module=rl_module, batch=batch, episodes=episodes, **kwargs)

    def _submit(self) -> None:
        if self._pool is None:
            self._pool = RewardPool.connect(self._source.pool)
        columns = Columns([self._source.spec, *(self.tally.specs if self.tally else [])])
        pending = self._pool.submit(np.stack(self._frames), columns.asked) if self._frames else None
        self._requests.append(_Request(pending, columns, self._steps, self._truths, self._audited_frames))
        self._frames, self._steps, self._truths, self._audited_frames = [], [], [], []

    def request_rewards(self) -> None:
        """Send the frames that wait for a full micro-batch."""
        if self._steps:
            self._submit()

    def fill_in_rewards(self, samples: Sequence[SingleAgentEpisode], metrics: MetricsLogger) -> None:
        """Wait for all requested rewards and write them into the episodes.

        Args:
            samples: The episodes, or chunks of episodes, that leave the env runner.
            metrics: Logger for the times of this sample and its number of scored frames.

        Raises:
            RuntimeError: A transition does not have exactly one reward.
            PoolError: The pool could not return one finite reward for each frame.
        """
        self.request_rewards()
        started = time.perf_counter()
        scored, frames = self._await_rewards(metrics)
        for episode in samples:
            _write_rewards(episode, scored.get(id(episode), {}))
        wait_seconds = time.perf_counter() - started
        self._ray_metrics.sampled(frames, self._render_seconds, wait_seconds)
        metrics.log_value(RENDER_SECONDS, self._render_seconds, reduce="sum")
        metrics.log_value(WAIT_SECONDS, wait_seconds, reduce="sum")
        metrics.log_value(FRAMES_SCORED, frames, reduce="sum")
        self._render_seconds = 0.0

    def _await_rewards(self, metrics: MetricsLogger) -> tuple[Scored, int]:
        """Wait for all requested rewards, and return those of all steps with the number of frames that were scored."""
        answers = []
        encode_seconds, frames = 0.0, 0
        for request in self._requests:
            rewards = np.empty((0, len(request.columns.asked)), np.float32)
            if request.pending is not None:
                answer = request.pending.result()
                metrics.log_value(MICRO_BATCH, answer.micro_batch, reduce="min")
                encode_seconds += answer.seconds
                rewards = answer.rewards
            frames += len(rewards)
            answers.append((request, rewards))
        self._requests = []
        if self._gaps is not None and answers:
            answers = _without_gaps(self._gaps, answers)
        scored = self._scored(answers)
        for request, answered in answers:
            if self.tally:
                self.tally.record(request.frames, self._audited(request, answered, scored), request.truths)
        metrics.log_value(ENCODE_SECONDS, encode_seconds, reduce="sum")
        return scored, frames

    def _scored(self, answers: Sequence[tuple[_Request, np.ndarray]]) -> Scored:
        """Return the rewards of all steps that were asked for."""
        scored: Scored = {}
        if self._of_episodes is None:
            for request, answered in answers:
                for (episode, index), reward in zip(request.steps, answered[:, 0], strict=True):
                    scored.setdefault(id(episode), {})[index] = float(reward)
            return scored
        chunks = _by_episode(answers)
        rewards = self._of_episodes.combine((episode, columns, truths) for episode, _, columns, truths in chunks)
        for (episode, indices, _, _), of_chunk in zip(chunks, rewards, strict=True):
            scored[id(episode)] = dict(zip(indices, map(float, of_chunk), strict=True))
        return scored

    def _audited(self, request: _Request, answered: np.ndarray, scored: Scored) -> np.ndarray:
        """Return the rewards that the tally records: those that are learned from, then those of the audit's specs."""
        rewards = request.columns.alone(answered)
        if self._of_episodes is not None:
            rewards[:, 0] = [scored[id(episode)][index] for episode, index in request.steps]
        return rewards

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Return the steps of running episodes that rewards of later ones depend on, for a checkpoint."""
        state: dict[str, Any] = super().get_state(components, not_components=not_components, **kwargs)
        earlier = {_EARLIER: self._of_episodes.earlier} if self._of_episodes else {}
        return state | earlier | ({_LAST_SCORED: self._gaps.last_scored} if self._gaps else {})

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        super().set_state(state)
        if self._of_episodes:
            self._of_episodes.earlier = dict(state.get(_EARLIER, {}))
        if self._gaps:
            self._gaps.last_scored = dict(state.get(_LAST_SCORED, {}))


def _without_gaps(gaps: _Gaps, answers: Sequence[tuple[_Request, np.ndarray]]) -> list[tuple[_Request, np.ndarray]]:
    """Give each request the columns of all its steps, not only of the scored ones."""
    requests, answered = zip(*answers, strict=True)
    filled = gaps.fill([step for request in requests for step in request.steps], np.concatenate(answered))
    ends = np.cumsum([len(request.steps) for request in requests])
    return list(zip(requests, np.split(filled, ends[:-1]), strict=True))


def _by_episode(
    answers: Sequence[tuple[_Request, np.ndarray]],
) -> list[tuple[SingleAgentEpisode, list[int], np.ndarray, np.ndarray]]:
    """Sort the answers by episode and step: the episode, the numbers of its steps, their own columns, their true rewards."""
    found: dict[int, tuple[SingleAgentEpisode, dict[int, tuple[np.ndarray, float]]]] = {}
    for request, answered in answers:
        rows = request.columns.of(0, answered)
        for (episode, index), row, truth in zip(request.steps, rows, request.truths, strict=True):
            found.setdefault(id(episode), (episode, {}))[1][index] = row, truth.reward
    chunks = []
    for episode, steps in found.values():
        indices = sorted(steps)
        columns = np.stack([steps[index][0] for index in indices])
        chunks.append((episode, indices, columns, np.array([steps[index][1] for index in indices], np.float32)))
    return chunks


def _write_rewards(episode: SingleAgentEpisode, rewards: dict[int, float]) -> None:
    if sorted(rewards) != list(range(len(episode))):
        raise RuntimeError(
            f"{len(rewards)} of the {len(episode)} transitions of an episode were scored: the environment must be wrapped in "
            "FrameInInfo, and this connector must be the last in the env-to-module pipeline"
        )
    ordered = np.array([rewards[index] for index in range(len(episode))], np.float32)
    episode.set_rewards(new_data=ordered if episode.is_numpy else ordered.tolist(), at_indices=slice(0, len(episode)))


class FillInRewards(RLlibCallback):
    """Writes the rewards into the episodes before they leave the env runner.

    It comes first in an algorithm's callbacks, so that all others see the reward model's rewards. If the env runner has no
    RewardConnector, it raises a RuntimeError.
    """

    def on_sample_end(self, *, env_runner: Any = None, metrics_logger: Any = None, samples: Any, **kwargs: Any) -> None:
        """Fill in the rewards, in RLlib's last hook before the episodes leave the env runner."""
        connectors = list(reward_connectors(env_runner))
        if not connectors:
            raise RuntimeError(
                "the env-to-module pipeline has no RewardConnector, so its transitions have no rewards: set connectors of your "
                "own before `use_rewards`, which keeps them"
            )
        for connector in connectors:
            if connector.deferred:
                connector.request_rewards()
            else:
                connector.fill_in_rewards(samples, metrics_logger)


def reward_connectors(env_runner: Any) -> Iterator[RewardConnector]:
    """Iterate over the reward connectors of an env runner: one, or none if the policy learns from the true reward."""
    return (piece for piece in env_to_module_pieces(env_runner) if isinstance(piece, RewardConnector))
