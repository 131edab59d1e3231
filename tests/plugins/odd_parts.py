"""Parts as users write them, each with one fault: a module that lies beside a sweep file."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from odd_envs import Plain

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.functions.base import FrameReward, RewardFunction, dots
from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.tasks.state_space import BoxStates, StateVariable
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.algorithms.base import Algorithm


class Redness(RewardModel):
    """A reward model without any fault."""

    frame_format = FrameFormat(64)

    def score(self, frames: np.ndarray, specs: Any) -> Any:
        return np.repeat(frames[..., 0].mean(axis=(1, 2))[:, None] / 255, len(specs), axis=1).astype(np.float32)


class RaisesInScore(Redness):
    def score(self, frames: np.ndarray, specs: Any) -> Any:
        raise KeyError("red")


class ExitsInScore(Redness):
    def score(self, frames: np.ndarray, specs: Any) -> Any:
        raise SystemExit("no licence")


class ScoresPerFrame(Redness):
    def score(self, frames: np.ndarray, specs: Any) -> Any:
        return np.zeros(len(frames), np.float32)


class ScoresTexts(Redness):
    def score(self, frames: np.ndarray, specs: Any) -> Any:
        return [["red"] * len(specs)] * len(frames)


class ScoresNothing(Redness):
    def score(self, frames: np.ndarray, specs: Any) -> Any:
        return None


class RaisesInCheck(Redness):
    def check_spec(self, spec: Any) -> None:
        raise TypeError("no spec today")


class LoadsOtherwise(Redness):
    def load(self) -> None:  # type: ignore[override]
        pass


class RemarksText(Redness):
    def remarks(self) -> Any:
        return "a remark"


class ParametersInWords(Redness):
    parameters: Any = "12 M"


class JudgesInNumbers(Redness):
    judges_only: Any = np.zeros(3)


class GoalCosine(FrameReward):
    """A reward function without any fault."""

    def reward(self, images: np.ndarray, texts: Any) -> Any:
        return dots(images, texts.goal)


class RaisesInReward(FrameReward):
    def reward(self, images: np.ndarray, texts: Any) -> Any:
        raise KeyError("goal")


class EmbedsNumber(FrameReward):
    def reward(self, images: np.ndarray, texts: Any) -> Any:
        return dots(images, texts.embed(3))


class Weighs(FrameReward):
    weights: list[float] = []  # noqa: RUF012 # pydantic copies it

    def reward(self, images: np.ndarray, texts: Any) -> Any:
        return dots(images, texts.goal)


class OneText(GoalCosine):
    def prompts(self) -> Any:
        return "a pole"


class OneEnd(GoalCosine):
    def range(self) -> Any:
        return 5


class RaisesWhenMade(GoalCosine):
    def model_post_init(self, _: Any) -> None:
        raise RuntimeError("the licence server is down")


class Combining(RewardFunction):
    """It combines one column."""

    def parts(self) -> Any:
        return (GoalCosine(),)

    def combine(self, columns: np.ndarray, true_rewards: np.ndarray) -> Any:
        return columns[:, 0]


class RaisesInParts(Combining):
    def parts(self) -> Any:
        raise ValueError("no parts today")


class NoParts(Combining):
    def parts(self) -> Any:
        return ()


class CombinesColumns(Combining):
    def combine(self, columns: np.ndarray, true_rewards: np.ndarray) -> Any:
        return columns


class HalfMemory(Combining):
    @property
    def memory(self) -> Any:
        return 2.5


class Angle(BoxStates):
    """A state space without any fault."""

    variables = (StateVariable("angle", "angle", "rad", -1.0, 1.0),)

    def set_values(self, env: gym.Env, values: Any) -> None:
        pass

    def read(self, env: gym.Env) -> Any:
        return {"angle": 0.5}

    def in_goal(self, env: gym.Env) -> Any:
        return False


class RaisesInSet(Angle):
    def set_values(self, env: gym.Env, values: Any) -> None:
        raise ZeroDivisionError("set")


class ReadsText(Angle):
    def read(self, env: gym.Env) -> Any:
        return {"angle": "steep"}


class ReadsNan(Angle):
    def read(self, env: gym.Env) -> Any:
        return {"angle": float("nan")}


class UnsureOfGoal(Angle):
    def in_goal(self, env: gym.Env) -> Any:
        return None


def task(**changed: Any) -> Task:
    """A task without any fault, but for what is changed."""
    given: dict[str, Any] = {
        "name": "odd",
        "goal_prompt": "a red rod",
        "baseline_prompt": "a rod",
        "episode_steps": 20,
        "make_native_env": lambda rendering, frame_format: Plain("rgb_array"),
        "states": Angle(),
    }
    return Task(**(given | changed))


def no_env() -> Task:
    return task(make_native_env=lambda rendering, frame_format: None)


def half_steps() -> Task:
    return task(episode_steps=20.5)


def no_goal() -> Task:
    return task(goal_prompt=" ")


def one_prompt() -> Task:
    return task(baseline_prompt="a red rod")


def no_name() -> Task:
    return task(name=b"odd")


def no_control() -> Task:
    return task(control=np.zeros(3))


def no_states() -> Task:
    return task(states="angle")


def raises_in_set() -> Task:
    return task(states=RaisesInSet())


def reads_text() -> Task:
    return task(states=ReadsText())


def reads_nan() -> Task:
    return task(states=ReadsNan())


def unsure_of_goal() -> Task:
    return task(states=UnsureOfGoal())


class WritesBeside(Plain):
    """Its frames take so long that another process has written the picture meanwhile, into the working folder."""

    def render(self) -> Any:
        Path("picture.png").write_text("of another process")
        return super().render()


def writes_beside() -> Task:
    return task(make_native_env=lambda rendering, frame_format: WritesBeside("rgb_array"))


class Learner(Algorithm):
    """An algorithm without any fault that a plan could see."""

    action_spaces = (gym.spaces.Discrete,)

    @property
    def update_size(self) -> Any:
        return 10

    def rllib_config(self, env_runners: int) -> Any:
        raise NotImplementedError


class NoUpdates(Learner):
    @property
    def update_size(self) -> Any:
        return 0


class OddAverage(Learner):
    @property
    def evaluates_an_average(self) -> Any:
        return np.zeros(3)


class RaisesInRemarks(Learner):
    def remarks(self, steps: int) -> Any:
        raise KeyError("steps")
