"""Gymnasium wrappers that replace the reward by a reward model's.

They are for Stable-Baselines3, CleanRL or a training loop of your own, and do not need Ray. Score many frames together: a
vector environment needs one scoring call for each step of all sub-environments or, with `deferred=True`, one for a rollout.
"""

from collections.abc import Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from vlm_rm_sweeps.errors import UserError, shown
from vlm_rm_sweeps.frames import check_frames, resize_frames
from vlm_rm_sweeps.metrics import INFO_TRUE_REWARD
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec, check_is_spec

_OTHER_MODES = {
    AutoresetMode.SAME_STEP: "resets sub-environments in the step that ends them, so the last frame of an episode is lost",
    AutoresetMode.DISABLED: "never resets sub-environments by itself, so steps after an episode's end would be rewarded, too",
}


class ClipRewardWrapper(gym.Wrapper):
    """Replaces the reward of each step of one environment by the reward model's score of the frame after it.

    The environment's own reward is kept as `info["true_reward"]`.

    Args:
        env: An environment with `render_mode="rgb_array"`.
        model: A loaded reward model, or a reward pool.
        spec: Prompts and function of the reward, which is one of single frames.

    Raises:
        UserError: The environment renders no arrays, the model is none, or it cannot score the spec.
    """

    def __init__(self, env: gym.Env, model: RewardModel, spec: RewardSpec) -> None:
        super().__init__(env)
        _check(env.render_mode, env, model, spec)
        self._model, self._spec = model, spec

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment and score the frame after the step."""
        observation, true_reward, terminated, truncated, info = self.env.step(action)
        frames = _resized([self.env.render()], 1, self._model)
        reward = float(self._model.score(frames, [self._spec])[0, 0])
        return observation, reward, terminated, truncated, info | {INFO_TRUE_REWARD: float(true_reward)}


class ClipRewardVectorWrapper(VectorWrapper):
    """Replaces the rewards of a vector environment, scoring the frames of all sub-environments together.

    The environments' own rewards are kept as `info["true_reward"]`, float64 (sub-environments,). In a step that only resets a
    sub-environment (Gymnasium's next-step autoreset) its reward is 0, as in Gymnasium.

    Args:
        env: A vector environment with `render_mode="rgb_array"` and next-step autoreset.
        model: A loaded reward model, or a reward pool.
        spec: Prompts and function of the reward, which is one of single frames.
        deferred: Whether scoring is left to `rollout_rewards`. The rewards that `step` returns are then NaN.

    Raises:
        UserError: The environment renders no arrays or has another autoreset mode, the model is none, or it cannot score the spec.
    """

    def __init__(self, env: VectorEnv, model: RewardModel, spec: RewardSpec, deferred: bool = False) -> None:
        super().__init__(env)
        _check(env.render_mode, env, model, spec)
        mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode != AutoresetMode.NEXT_STEP:
            why = _OTHER_MODES.get(mode, "does not reset sub-environments in the step after the one that ends them")
            raise UserError(f"{env} {why}: expected autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP, got {mode}")
        self._model, self._spec, self._deferred = model, spec, deferred
        self._ended = np.zeros(env.num_envs, bool)
        self._frames: list[np.ndarray] = []
        self._resets: list[np.ndarray] = []

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset all sub-environments, and discard deferred steps that were not scored."""
        self._ended[:] = False
        self._frames, self._resets = [], []
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> Any:
        """Step all sub-environments and, unless deferred, score their frames in one call."""
        observations, true_rewards, terminated, truncated, info = self.env.step(actions)
        frames, resets = _resized(self.env.render(), self.num_envs, self._model), self._ended
        self._ended = np.logical_or(terminated, truncated)
        info = info | {INFO_TRUE_REWARD: np.asarray(true_rewards, np.float64)}
        if self._deferred:
            self._frames.append(frames)
            self._resets.append(resets)
            return observations, np.full(len(frames), np.nan), terminated, truncated, info
        return observations, self._score(frames, resets), terminated, truncated, info

    def rollout_rewards(self) -> np.ndarray:
        """Score the frames of all deferred steps since the last call, in one scoring call.

        Returns:
            Rewards, float32 (steps, sub-environments).
        """
        if not self._frames:
            return np.zeros((0, self.num_envs), np.float32)
        frames, resets = np.concatenate(self._frames), np.concatenate(self._resets)
        rewards = self._score(frames, resets).reshape(-1, self.num_envs)
        self._frames, self._resets = [], []  # only now: an error of the model loses no frame
        return rewards

    def _score(self, frames: np.ndarray, resets: np.ndarray) -> np.ndarray:
        rewards = self._model.score(frames, [self._spec])[:, 0]
        return np.where(resets, np.float32(0), rewards)


def _check(render_mode: str | None, env: Any, model: RewardModel, spec: RewardSpec) -> None:
    if render_mode != "rgb_array":
        raise UserError(f"{env} has the render mode {render_mode!r}: make it with render_mode='rgb_array'")
    if not isinstance(model, RewardModel):
        raise UserError(
            f"model {shown(model)}: expected a loaded model, such as load_reward_model('embedded/small'), or a pool"
        )
    check_is_spec(spec)
    if spec.parts() != (spec,):
        raise UserError(
            f"reward {spec.label} needs the earlier steps of an episode, and this wrapper scores frames alone: expected another reward"
        )
    model.check(spec)


def _resized(drawn: Any, count: int, model: RewardModel) -> np.ndarray:
    """Resize what environments have drawn, uint8 (count, H, W, 3), once it is known to be that."""
    expected = f"expected {count} of one size, uint8 (height, width, 3)"
    if not isinstance(drawn, Sequence | np.ndarray):
        raise UserError(f"render() returned {shown(drawn)}, and no frames: {expected}")
    frames = [np.asarray(frame) for frame in drawn]
    shapes = {frame.shape for frame in frames}
    if len(frames) != count or len(shapes) > 1:
        raise UserError(f"render() returned {len(frames)} frames of shape {' and '.join(map(str, sorted(shapes)))}: {expected}")
    stacked = np.stack(frames)
    try:
        check_frames(stacked)
    except UserError as error:
        raise UserError(f"render() returned no frames: {error}") from error
    return resize_frames(stacked, model.frame_format)
