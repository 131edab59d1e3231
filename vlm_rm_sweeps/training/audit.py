"""Reward audit: scores a trial's transitions by other rewards than the one it learns from, to detect over-optimisation.

All frames are scored for other specs, from the same encoding, and a sample of them by other models, the gold models. Nothing of
this reaches the learner: its rewards are bit-identical with and without an audit.

Each env runner tallies its own steps; at an audit point the trial collects the tallies.
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlm_rm_sweeps.metrics import (
    AUDIT_COLUMN,
    AUDIT_GOAL_FRACTION,
    AUDIT_GOLD,
    AUDIT_PROXY,
    AUDIT_SECONDS,
    AUDIT_SPEC,
    AUDIT_TRUE_REWARD,
)
from vlm_rm_sweeps.rewards.columns import Columns
from vlm_rm_sweeps.rewards.reward_model import JudgeUnavailableError, RewardSpec, judges_by_prompts
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool


@dataclass(frozen=True)
class StepTruth:
    """Ground truth of one step.

    Args:
        reward: The environment's own reward.
        in_goal: Whether the state after the step is in the goal; None if the task has no success test.
    """

    reward: float
    in_goal: bool | None


@dataclass(frozen=True)
class AuditPlan:
    """Configuration of a trial's audit, as plain data.

    Audit points are the last result, and each result that is at least `every` environment steps after the previous audit point.

    Args:
        specs: Further specs by name, for which the trial's own model scores every frame.
        gold: Pools of the gold models, which score a sample of frames for the trial's own spec, or for the one in `judged_by`.
        every: Least number of environment steps between two audit points.
        frames: Number of frames that the gold models score at each audit point, drawn uniformly from the steps since the
            previous one.
        columns: Specs of the own columns of the trial's model by name, see `RewardModel.columns`; every frame gets them.
        judged_by: What gold models score that cannot compute the trial's own reward, by model id.
    """

    specs: Mapping[str, RewardSpec]
    gold: tuple[PoolConfig, ...]
    every: int
    frames: int
    columns: Mapping[str, RewardSpec] = field(default_factory=dict)
    judged_by: Mapping[str, RewardSpec] = field(default_factory=dict)

    @property
    def scored(self) -> dict[str, RewardSpec]:
        """All that the trial's own model computes for every frame besides the trial's own reward, by the name of its metric."""
        specs = {AUDIT_SPEC + name: spec for name, spec in self.specs.items()}
        return specs | {AUDIT_COLUMN + name: spec for name, spec in self.columns.items()}


def gold_metric(model_id: str) -> str:
    """Return the name of a gold model's metric.

    MLflow's metric names allow only some of the characters of model ids; the others are replaced. Ids of files, which may
    differ in nothing else, get a checksum.

    Args:
        model_id: Id of the gold model.

    Returns:
        A metric name that MLflow accepts.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", model_id)
    plain = re.fullmatch(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+", model_id)
    return AUDIT_GOLD + (name if plain else f"{name}-{hashlib.sha256(model_id.encode()).hexdigest()[:6]}")


@dataclass
class Interval:
    """Sums over the steps between two audit points.

    Args:
        rewards: Sum of each spec's rewards, float64 (1 + scored,), the trial's own spec first.
        steps: Number of steps.
        goal_steps: Number of steps whose state is in the goal.
        true_reward: Sum of the environment's own rewards.
        success_known: Whether success was known at every step.
        sample: Frames uint8 (H, W, 3), drawn uniformly from all steps.
    """

    rewards: np.ndarray
    steps: int = 0
    goal_steps: int = 0
    true_reward: float = 0.0
    success_known: bool = True
    sample: list[np.ndarray] = field(default_factory=list)


class AuditTally:
    """Adds up the steps of one env runner.

    Frames are sampled from the whole interval (reservoir sampling) instead of its last rollout: sub-environments run in
    lockstep, so a single rollout shows only one part of an episode, and a different part at every audit point.

    Args:
        plan: Configuration of the audit.
        seed: Seed of the sample.
    """

    def __init__(self, plan: AuditPlan, seed: int) -> None:
        self._plan = plan
        # A generator of its own: the audit must not change what the training's generators draw.
        self._rng = np.random.default_rng(seed)
        self._interval = self._begin()

    def _begin(self) -> Interval:
        return Interval(np.zeros(1 + len(self._plan.scored)))

    @property
    def specs(self) -> list[RewardSpec]:
        """The audit's specs, for which frames are scored beside the trial's own spec."""
        return list(self._plan.scored.values())

    def record(self, frames: Sequence[np.ndarray], rewards: np.ndarray, truths: Sequence[StepTruth]) -> None:
        """Add N steps to the interval.

        Args:
            frames: N of them, uint8 (H, W, 3).
            rewards: float32 (N, 1 + specs and columns); the policy learns from the first column.
            truths: Ground truth of the N steps.
        """
        interval = self._interval
        for frame, truth in zip(frames, truths, strict=True):
            interval.steps += 1
            interval.true_reward += truth.reward
            interval.success_known &= truth.in_goal is not None
            interval.goal_steps += int(truth.in_goal or False)
            if self._plan.gold:
                self._draw(frame)
        interval.rewards += rewards.sum(axis=0, dtype=np.float64)

    def _draw(self, frame: np.ndarray) -> None:
        sample = self._interval.sample
        if len(sample) < self._plan.frames:
            sample.append(frame.copy())
            return
        place = int(self._rng.integers(self._interval.steps))
        if place < self._plan.frames:
            sample[place] = frame.copy()

    def take(self) -> Interval:
        """End the interval, begin the next one, and return the one that ended."""
        ended, self._interval = self._interval, self._begin()
        return ended

    def get_state(self) -> dict[str, Any]:
        """Return the state of the current interval, for a checkpoint."""
        # Keys as in version 0.1, whose checkpoints can still be resumed.
        kept = {f"_{name}": value for name, value in vars(self._interval).items()}
        return kept | {"rng": self._rng.bit_generator.state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self._rng.bit_generator.state = state["rng"]
        self._interval = Interval(**{name: state[f"_{name}"] for name in vars(self._interval)})


class Audit:
    """Computes the metrics of each audit point from the tallies of a trial's env runners.

    Args:
        plan: Configuration of the audit.
        spec: The trial's own spec, from which it learns.
        seed: Seed of the sample that the gold models score.
    """

    def __init__(self, plan: AuditPlan, spec: RewardSpec, seed: int) -> None:
        self._plan, self._spec, self._seed = plan, spec, seed
        self._pools: list[RewardPool] | None = None
        self._remarks = [judges_by_prompts(model_id, [spec.label]) for model_id in plan.judged_by]
        self.last_point = 0

    def due(self, env_steps: int) -> bool:
        """Return whether the trial has reached an audit point."""
        return env_steps - self.last_point >= self._plan.every

    def point(self, env_steps: int, intervals: Sequence[Interval]) -> dict[str, float]:
        """Compute the metrics of all steps since the previous audit point, and wait for the gold models.

        Args:
            env_steps: Environment steps of the trial so far.
            intervals: The sums of each env runner.

        Returns:
            Values by metric name; empty if there were no steps.
        """
        steps = sum(interval.steps for interval in intervals)
        if not steps:
            return {}
        started = time.perf_counter()
        gold = self._gold_rewards(_merged_sample(intervals, self._plan.frames, np.random.default_rng((self._seed, env_steps))))
        waited = time.perf_counter() - started
        proxy, *others = (np.sum([interval.rewards for interval in intervals], axis=0) / steps).tolist()
        true_reward = sum(interval.true_reward for interval in intervals) / steps
        metrics = {AUDIT_PROXY: proxy, AUDIT_TRUE_REWARD: true_reward, AUDIT_SECONDS: waited} | gold
        metrics |= dict(zip(self._plan.scored, others, strict=True))
        if all(interval.success_known for interval in intervals):
            metrics[AUDIT_GOAL_FRACTION] = sum(interval.goal_steps for interval in intervals) / steps
        self.last_point = env_steps
        return metrics

    def _gold_rewards(self, sample: Sequence[np.ndarray]) -> dict[str, float]:
        if self._pools is None:
            self._pools = [RewardPool.connect(config) for config in self._plan.gold]
        if not self._pools:
            return {}
        frames = np.stack(sample)
        # A sample has no order, so each frame stands alone.
        ids = [pool.config.model_id for pool in self._pools]
        columns = [Columns([self._plan.judged_by.get(model_id, self._spec)]) for model_id in ids]
        asked = [pool.submit(frames, each.asked) for pool, each in zip(self._pools, columns, strict=True)]
        means: dict[str, float] = {}
        for model_id, each, pending in zip(ids, columns, asked, strict=True):
            try:
                answered = pending.result().rewards
            except JudgeUnavailableError as error:
                self._remarks.append(f"the audit goes on without {model_id}: {error}")
                continue
            means[gold_metric(model_id)] = float(each.alone(answered).mean(dtype=np.float64))
        return means

    def take_remarks(self) -> list[str]:
        """Return, once, what the last audit point had to do without; at the first one, which judges compute another reward."""
        remarks, self._remarks = self._remarks, []
        return remarks


def _merged_sample(intervals: Sequence[Interval], frames: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Merge the uniform samples of several intervals into a uniform sample of all their steps."""
    if len(intervals) == 1 or not any(interval.sample for interval in intervals):
        return intervals[0].sample
    steps = [interval.steps for interval in intervals]
    # The number from each interval is distributed as in a draw without replacement from all steps.
    counts = rng.multivariate_hypergeometric(steps, min(frames, sum(steps)))
    return [
        interval.sample[index]
        for interval, count in zip(intervals, counts, strict=True)
        for index in sorted(rng.choice(len(interval.sample), size=count, replace=False))
    ]
