"""The audit of a training: what its steps are worth to others than the reward that is learned from.

The trial's frames are scored for other specs from the same encoding, and a sample of them by other models, the gold models. Nothing of
it reaches the learner: the rewards that are learned from are the same to the bit with and without an audit.
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_rm_sweeps.metrics import AUDIT_GOAL_FRACTION, AUDIT_GOLD, AUDIT_PROXY, AUDIT_SECONDS, AUDIT_SPEC, AUDIT_TRUE_REWARD
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool


@dataclass(frozen=True)
class StepTruth:
    """What the environment says of one step. `in_goal` None: nothing tells success."""

    reward: float
    in_goal: bool | None


@dataclass(frozen=True)
class AuditPlan:
    """What one trial is audited by, as plain data.

    `specs`, by name, are asked of the trial's own model for every step. The models of `gold` score, for the trial's own spec,
    `frames` frames drawn uniformly from the steps since the audit point before. There is an audit point at the first
    result that is at least `every` environment steps after the one before, and at the end.
    """

    specs: Mapping[str, RewardSpec]
    gold: tuple[PoolConfig, ...]
    every: int
    frames: int


def gold_metric(model_id: str) -> str:
    """The metric of a gold model: MLflow takes a model id only without what is special in paths.

    Ids of files, which may differ in nothing else, are told apart by a checksum.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", model_id)
    plain = re.fullmatch(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+", model_id)
    return AUDIT_GOLD + (name if plain else f"{name}-{hashlib.sha256(model_id.encode()).hexdigest()[:6]}")


class Audit:
    """Adds up the steps of one trial and says at each audit point what they were worth.

    A sample over the whole interval (reservoir sampling) instead of its last rollout: sub-environments run in step, so that one
    rollout shows one part of an episode, and another part at every audit point.
    """

    def __init__(self, plan: AuditPlan, spec: RewardSpec, seed: int) -> None:
        self._plan, self._spec = plan, spec
        # A generator of its own: those of the training must go on as without an audit.
        self._rng = np.random.default_rng(seed)
        self._pools: list[RewardPool] | None = None
        self._last_point = 0
        self._begin_interval()

    def _begin_interval(self) -> None:
        self._steps = self._goal_steps = 0
        self._rewards = np.zeros(1 + len(self._plan.specs))
        self._true_reward = 0.0
        self._success_known = True
        self._sample: list[np.ndarray] = []

    @property
    def specs(self) -> list[RewardSpec]:
        """What the trial's model is asked for beside the trial's own spec."""
        return list(self._plan.specs.values())

    def record(self, frames: np.ndarray, rewards: np.ndarray, truths: Sequence[StepTruth]) -> None:
        """Add N steps: frames uint8 (N, H, W, 3), rewards (N, 1 + specs), of which the first is learned from."""
        for frame, truth in zip(frames, truths, strict=True):
            self._steps += 1
            self._true_reward += truth.reward
            self._success_known &= truth.in_goal is not None
            self._goal_steps += int(truth.in_goal or False)
            if self._plan.gold:
                self._draw(frame)
        self._rewards += rewards.sum(axis=0, dtype=np.float64)

    def _draw(self, frame: np.ndarray) -> None:
        if len(self._sample) < self._plan.frames:
            self._sample.append(frame.copy())
            return
        place = int(self._rng.integers(self._steps))
        if place < self._plan.frames:
            self._sample[place] = frame.copy()

    def due(self, env_steps: int) -> bool:
        return env_steps - self._last_point >= self._plan.every

    def point(self, env_steps: int) -> dict[str, float]:
        """The metrics of all steps since the audit point before; waits for the gold models. Empty if there were no steps."""
        if not self._steps:
            return {}
        started = time.perf_counter()
        gold = self._gold_rewards()
        waited = time.perf_counter() - started
        proxy, *others = (self._rewards / self._steps).tolist()
        metrics = {AUDIT_PROXY: proxy, AUDIT_TRUE_REWARD: self._true_reward / self._steps, AUDIT_SECONDS: waited} | gold
        metrics |= {AUDIT_SPEC + name: reward for name, reward in zip(self._plan.specs, others, strict=True)}
        if self._success_known:
            metrics[AUDIT_GOAL_FRACTION] = self._goal_steps / self._steps
        self._last_point = env_steps
        self._begin_interval()
        return metrics

    def _gold_rewards(self) -> dict[str, float]:
        if self._pools is None:
            self._pools = [RewardPool.connect(config) for config in self._plan.gold]
        if not self._pools:
            return {}
        frames = np.stack(self._sample)
        asked = [(pool.config.model_id, pool.submit(frames, [self._spec])) for pool in self._pools]
        return {gold_metric(model_id): float(pending.result().rewards.mean(dtype=np.float64)) for model_id, pending in asked}

    def get_state(self) -> dict[str, Any]:
        """What a trial that goes on needs to end an interval that it had begun."""
        kept = ("_last_point", "_steps", "_goal_steps", "_rewards", "_true_reward", "_success_known", "_sample")
        return {name: getattr(self, name) for name in kept} | {"rng": self._rng.bit_generator.state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._rng.bit_generator.state = state["rng"]
        for name, value in state.items():
            if name != "rng":
                setattr(self, name, value)
