"""Where the reward enters RLlib (new API stack): the last piece of the env-to-module pipeline.

`FrameInInfo` puts each step's frame and true reward into `info`. This piece pops them again, so that frames never reach the
replay buffer, sends the frames to the reward pool without waiting, and writes the rewards into the episodes at
`on_sample_end`, RLlib's last hook before they leave the env runner. So each transition is scored exactly once, and stepping
goes on while the servers score.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import (
    ENCODE_SECONDS,
    FRAMES_SCORED,
    GOAL_FRACTION,
    INFO_FRAME,
    INFO_RENDER_SECONDS,
    INFO_SUCCESS,
    INFO_TRUE_REWARD,
    MICRO_BATCH,
    RENDER_SECONDS,
    SUCCESS,
    TRUE_RETURN,
    WAIT_SECONDS,
    is_success,
)
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PendingRewards, PoolConfig, RewardPool
from vlm_rm_sweeps.serving.telemetry import ConnectorMetrics
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.training.audit import Audit, StepTruth


@dataclass(frozen=True)
class RewardSource:
    """Where a trial's rewards come from, as plain data: which pool, what is asked of it, and what frames it is shown.

    `rendering` None: the task's default one.
    """

    pool: PoolConfig
    spec: RewardSpec
    frame_format: FrameFormat
    rendering: Rendering | None = None


class TrueReturnConnector(ConnectorV2):
    """Takes the true reward and, where it is known, success out of each step's `info` and logs them for each finished episode."""

    def __call__(
        self,
        *,
        rl_module: Any,
        batch: dict[str, Any],
        episodes: Any,
        explore: bool | None = None,
        shared_data: dict[str, Any] | None = None,
        metrics: MetricsLogger | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        for episode in episodes:
            info = episode.get_infos(-1)
            if INFO_TRUE_REWARD not in info:
                continue  # just reset: no step was taken
            # `custom_data` is carried over when RLlib cuts an episode into chunks.
            totals = episode.custom_data
            totals["true_return"] = totals.get("true_return", 0.0) + info.pop(INFO_TRUE_REWARD)
            if INFO_SUCCESS in info:
                totals["goal_steps"] = totals.get("goal_steps", 0) + int(info.pop(INFO_SUCCESS))
            if episode.is_done and metrics is not None:
                metrics.log_value(TRUE_RETURN, totals["true_return"], reduce="mean")
            if episode.is_done and metrics is not None and "goal_steps" in totals:
                goal_fraction = totals["goal_steps"] / episode.t
                metrics.log_value(GOAL_FRACTION, goal_fraction, reduce="mean")
                metrics.log_value(SUCCESS, float(is_success(goal_fraction)), reduce="mean")
        return batch


@dataclass(frozen=True)
class _Request:
    """Frames whose rewards were asked for: the step of an episode that each belongs to and, for the audit, the frames themselves."""

    pending: PendingRewards
    steps: list[tuple[SingleAgentEpisode, int]]
    truths: list[StepTruth]
    frames: np.ndarray | None


class RewardConnector(TrueReturnConnector):
    """Replaces the reward of every step by the reward model's.

    Keep it last in the pipeline: RLlib merges the states of the pieces by their index.
    """

    def __init__(self, *args: Any, source: RewardSource, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._source = source
        self._ray_metrics = ConnectorMetrics(source.pool.model_id)
        self._pool: RewardPool | None = None
        self._render_seconds = 0.0
        self._frames: list[np.ndarray] = []
        self._steps: list[tuple[SingleAgentEpisode, int]] = []
        self._truths: list[StepTruth] = []
        self._requests: list[_Request] = []
        self.audit: Audit | None = None
        """Hears of every step, if the trial is audited. The env runner for evaluations has none."""

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], episodes: Any, **kwargs: Any) -> dict[str, Any]:
        for episode in episodes:
            info = episode.get_infos(-1)
            if INFO_FRAME in info:
                self._frames.append(info.pop(INFO_FRAME))
                self._render_seconds += info.pop(INFO_RENDER_SECONDS)
                self._steps.append((episode, len(episode) - 1))
                self._truths.append(StepTruth(info[INFO_TRUE_REWARD], info.get(INFO_SUCCESS)))
        if len(self._frames) >= self._source.pool.micro_batch:
            self._submit()
        return super().__call__(rl_module=rl_module, batch=batch, episodes=episodes, **kwargs)

    def _submit(self) -> None:
        if self._pool is None:
            self._pool = RewardPool.connect(self._source.pool)
        frames = np.stack(self._frames)
        specs = [self._source.spec, *(self.audit.specs if self.audit else [])]
        pending = self._pool.submit(frames, specs)
        self._requests.append(_Request(pending, self._steps, self._truths, frames if self.audit else None))
        self._frames, self._steps, self._truths = [], [], []

    def fill_in_rewards(self, samples: Sequence[SingleAgentEpisode], metrics: MetricsLogger) -> None:
        """Wait for all rewards asked for and write them into `samples`, the episodes that leave the env runner.

        Raises RuntimeError if a transition has not got exactly one finite reward.
        """
        if self._frames:
            self._submit()
        scored: dict[int, dict[int, float]] = {}
        started, encode_seconds, frames = time.perf_counter(), 0.0, 0
        for request in self._requests:
            answer = request.pending.result()
            metrics.log_value(MICRO_BATCH, answer.micro_batch, reduce="min")
            encode_seconds += answer.seconds
            frames += len(request.steps)
            if self.audit and request.frames is not None:
                self.audit.record(request.frames, answer.rewards, request.truths)
            for (episode, index), reward in zip(request.steps, answer.rewards[:, 0], strict=True):
                scored.setdefault(id(episode), {})[index] = float(reward)
        self._requests = []
        for episode in samples:
            rewards = scored.get(id(episode), {})
            if sorted(rewards) != list(range(len(episode))):
                raise RuntimeError(
                    f"{len(rewards)} of the {len(episode)} transitions of an episode were scored: the environment must be wrapped in "
                    "FrameInInfo, and this connector must be the last in the env-to-module pipeline"
                )
            ordered = np.array([rewards[index] for index in range(len(episode))], np.float32)
            episode.set_rewards(new_data=ordered if episode.is_numpy else ordered.tolist(), at_indices=slice(0, len(episode)))
        wait_seconds = time.perf_counter() - started
        self._ray_metrics.sampled(frames, self._render_seconds, wait_seconds)
        metrics.log_value(RENDER_SECONDS, self._render_seconds, reduce="sum")
        self._render_seconds = 0.0
        metrics.log_value(WAIT_SECONDS, wait_seconds, reduce="sum")
        metrics.log_value(ENCODE_SECONDS, encode_seconds, reduce="sum")
        metrics.log_value(FRAMES_SCORED, frames, reduce="sum")


def attach_audit(env_runner: Any, audit: Audit) -> None:
    """Let an audit hear of every step that this env runner samples."""
    for piece in env_runner._env_to_module.connectors:
        if isinstance(piece, RewardConnector):
            piece.audit = audit


def on_sample_end(*, env_runner: Any, metrics_logger: MetricsLogger, samples: list[SingleAgentEpisode], **kwargs: Any) -> None:
    """RLlib callback: bring the rewards home before the episodes leave the env runner."""
    for piece in env_runner._env_to_module.connectors:
        if isinstance(piece, RewardConnector):
            piece.fill_in_rewards(samples, metrics_logger)
