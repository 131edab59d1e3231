"""The wrappers reward what the frame after a step shows, score together what can be scored together, and keep the true reward."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.gym_wrapper import ClipRewardVectorWrapper, ClipRewardWrapper
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec

SPEC = RewardSpec(("a pole",), ("a cart",), 0.5)


class Brightness(RewardModel):
    """The mean of all pixels."""

    frame_format = FrameFormat(32)

    def __init__(self, model_id: str = "brightness") -> None:
        super().__init__(model_id)
        self.calls: list[int] = []

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        self.calls.append(len(frames))
        return np.repeat(frames.mean(axis=(1, 2, 3), dtype=np.float32)[:, None] / 255, len(specs), axis=1)


class Ramp(gym.Env):
    """A frame that is 10 brighter with each step of an episode; the true reward is 1, and an episode has 3 steps."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - Gymnasium's

    def __init__(self, render_mode: str | None = "rgb_array") -> None:
        self.render_mode, self._steps = render_mode, 0

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[np.ndarray, dict[str, object]]:
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: object) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        self._steps += 1
        return np.zeros(1, np.float32), 1.0, self._steps == 3, False, {}

    def render(self) -> np.ndarray:  # type: ignore[override]
        return np.full((32, 32, 3), 10 * self._steps, np.uint8)


def bright(steps: int) -> Any:
    return pytest.approx(10 * steps / 255)


def test_a_step_is_rewarded_for_the_frame_after_it() -> None:
    env = ClipRewardWrapper(Ramp(), Brightness(), SPEC)
    env.reset(seed=0)
    rewards, infos = zip(*(env.step(0)[1::3] for _ in range(3)), strict=True)
    assert rewards == (bright(1), bright(2), bright(3))
    assert all(info["true_reward"] == 1.0 for info in infos)


def test_stable_baselines3_accepts_it() -> None:
    check_env(ClipRewardWrapper(Ramp(), Brightness(), SPEC))


@pytest.mark.parametrize("deferred", [False, True])
def test_sub_environments_are_scored_together(deferred: bool) -> None:
    model = Brightness()
    env = ClipRewardVectorWrapper(gym.vector.SyncVectorEnv([Ramp, Ramp]), model, SPEC, deferred)
    env.reset(seed=0)
    steps = [env.step([0, 0]) for _ in range(5)]
    now = np.stack([step[1] for step in steps])
    rewards = env.rollout_rewards() if deferred else now
    assert model.calls == ([10] if deferred else [2] * 5)
    assert np.isnan(now).all() == deferred
    # The fourth step only resets: nothing was done in it.
    for column in rewards.T:
        assert column.tolist() == [bright(1), bright(2), bright(3), 0.0, bright(1)]
    assert all(step[4]["true_reward"].shape == (2,) for step in steps)
    assert env.rollout_rewards().shape == (0, 2)


class Drawing(Ramp):
    """Draws what it was given."""

    def __init__(self, drawn: Any) -> None:
        super().__init__()
        self._drawn = drawn

    def render(self) -> Any:
        return self._drawn


FRAME = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("drawn", "shape"),
    [
        (np.zeros((8, 8, 3)), r"shape \(1, 8, 8, 3\) and type float64"),
        (None, r"shape \(1,\) and type object"),
        ([FRAME], r"shape \(1, 1, 8, 8, 3\)"),
        (FRAME[..., 0], r"shape \(1, 8, 8\)"),
    ],
)
def test_what_is_drawn_is_checked_before_it_is_resized(drawn: Any, shape: str) -> None:
    env = ClipRewardWrapper(Drawing(drawn), Brightness(), SPEC)
    env.reset(seed=0)
    with pytest.raises(UserError, match=rf"render\(\) returned no frames: .*{shape}.*expected RGB images"):
        env.step(0)


@pytest.mark.parametrize(
    ("drawn", "found"),
    [
        ((FRAME, FRAME[1:]), r"2 frames of shape \(7, 8, 3\) and \(8, 8, 3\)"),
        ((FRAME,), r"1 frames of shape \(8, 8, 3\)"),
        ((), "0 frames"),
        (None, "None, and no frames"),
    ],
)
def test_there_is_a_frame_of_each_sub_environment(drawn: Any, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = gym.vector.SyncVectorEnv([Ramp, Ramp])
    monkeypatch.setattr(vector, "render", lambda: drawn)
    env = ClipRewardVectorWrapper(vector, Brightness(), SPEC)
    env.reset(seed=0)
    with pytest.raises(UserError, match=rf"render\(\) returned {found}.*expected 2 of one size, uint8"):
        env.step([0, 0])


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(UserError, match="model 'embedded/tiny': expected a loaded model"):
        ClipRewardWrapper(Ramp(), "embedded/tiny", SPEC)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="spec None: expected a RewardSpec"):
        ClipRewardWrapper(Ramp(), Brightness(), None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="make it with render_mode='rgb_array'"):
        ClipRewardWrapper(Ramp(render_mode=None), Brightness(), SPEC)
    same_step = gym.vector.SyncVectorEnv([Ramp], autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    with pytest.raises(UserError, match="the last frame of an episode is lost"):
        ClipRewardVectorWrapper(same_step, Brightness(), SPEC)
    by_hand = gym.vector.SyncVectorEnv([Ramp], autoreset_mode=gym.vector.AutoresetMode.DISABLED)
    with pytest.raises(UserError, match=r"never resets sub-environments by itself.*: expected autoreset_mode="):
        ClipRewardVectorWrapper(by_hand, Brightness(), SPEC)
