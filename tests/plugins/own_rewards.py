"""Reward models as users write them: a module that lies beside a sweep file, named there as `own_rewards:Brightness`."""

from collections.abc import Mapping, Sequence

import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.functions.model_column import ModelColumn
from vlm_rm_sweeps.rewards.reward_model import JudgeUnavailableError, Precision, RewardModel, RewardSpec


class Brightness(RewardModel):
    """The mean of the frame, minus alpha."""

    frame_format = FrameFormat(16)

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        means = frames.mean(axis=(1, 2, 3), dtype=np.float32)
        return means[:, None] - np.array([spec.alpha for spec in specs], np.float32)


class WideBrightness(Brightness):
    """It wants larger frames than others."""

    frame_format = FrameFormat(224)


class Shade(Brightness):
    """How near the frame's brightness is to a shade, which is the argument in its id: `own_rewards:Shade/200`."""

    def __init__(self, model_id: str) -> None:
        super().__init__(model_id)
        self._shade = int(model_id.partition("/")[2])

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        return -np.abs(super().score(frames, specs) - self._shade)


class Sceptical(Brightness):
    """It tells which frames are dark, and remarks on them."""

    columns = ("dark",)

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        rewards, dark = super().score(frames, specs), frames.mean(axis=(1, 2, 3)) < 100
        for place, spec in enumerate(specs):
            if isinstance(spec.function, ModelColumn):
                rewards[:, place] = dark
        return rewards

    def remarks_on_states(self, means: Mapping[str, float]) -> list[str]:
        return [f"{means['dark']:.2f} of the frames are dark"]


class Counting(RewardModel):
    """Another model, and how many frames it was asked for."""

    def __init__(self, model_id: str, other: RewardModel) -> None:
        super().__init__(model_id)
        self._other, self.frame_format, self.parameters = other, other.frame_format, other.parameters
        self.frames = 0

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        self.frames += len(frames)
        return self._other.score(frames, specs)


class ShortSighted(Brightness):
    """It reads goals of one word."""

    def check_spec(self, spec: RewardSpec) -> None:
        for goal in spec.goal_prompts:
            if " " in goal:
                raise UserError(f"prompt {goal!r}: expected one word, which is all that {self.model_id} reads")


class NotANumber(Brightness):
    """It gives NaN for dark frames."""

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        rewards = super().score(frames, specs)
        return np.where(rewards > 10, rewards, np.nan)


class AlwaysNan(Brightness):
    """It gives nothing but NaN."""

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        return super().score(frames, specs) * np.float32(np.nan)


class WithoutWeights(Brightness):
    """Its weights are missing."""

    def load(self, device: str = "cpu", precision: Precision = "fp32", micro_batch: int = 64) -> None:
        raise UserError(f"the weights of {self.model_id} are damaged")


class Unavailable(Brightness):
    """It only judges, and cannot do so now."""

    judges_only = True

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        raise JudgeUnavailableError("the endpoint is down")


class WithoutFormat(RewardModel):
    """It does not say what frames it wants."""

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        return np.zeros((len(frames), len(specs)), np.float32)


class WithoutScore(RewardModel):
    """It does not score."""

    frame_format = FrameFormat(16)


class OfTwoArguments(Brightness):
    """It cannot be made from its id alone."""

    def __init__(self, model_id: str, weights: str) -> None:
        super().__init__(model_id)
        self._weights = weights


class NoRewardModel:
    """It has all methods of a reward model, and is none."""

    frame_format = FrameFormat(16)

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        return np.zeros((len(frames), len(specs)), np.float32)
