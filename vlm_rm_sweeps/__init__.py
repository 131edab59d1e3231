"""Vision-language models as reward models for reinforcement learning: sweeps over prompts, model sizes and alpha.

Each public name is imported on first use, so that `import vlm_rm_sweeps` is cheap and changes nothing in the process.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_rm_sweeps.errors import UserError
    from vlm_rm_sweeps.frames import FrameFormat
    from vlm_rm_sweeps.rewards.functions.base import FrameReward, RewardFunction, Texts, dots
    from vlm_rm_sweeps.rewards.functions.registry import find_reward, make_reward, register_reward
    from vlm_rm_sweeps.rewards.gym_wrapper import ClipRewardVectorWrapper, ClipRewardWrapper
    from vlm_rm_sweeps.rewards.local_files import local_path
    from vlm_rm_sweeps.rewards.registry import find_reward_model, load_reward_model, register_reward_model
    from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
    from vlm_rm_sweeps.serving.pool import RewardPool
    from vlm_rm_sweeps.serving.reward_pool import reward_pool
    from vlm_rm_sweeps.sweeping.config.plan import Plan, make_plan
    from vlm_rm_sweeps.sweeping.config.sweep import Sweep, load_sweep
    from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
    from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome
    from vlm_rm_sweeps.tasks.registry import find_task, register_task
    from vlm_rm_sweeps.tasks.rendering import Rendering
    from vlm_rm_sweeps.tasks.state_space import BoxStates, StateSpace, StateVariable
    from vlm_rm_sweeps.tasks.task import Task
    from vlm_rm_sweeps.training.algorithms.base import Algorithm
    from vlm_rm_sweeps.training.algorithms.registry import find_algorithm, register_algorithm
    from vlm_rm_sweeps.training.rllib_config import use_rewards

_HOMES = {
    "Algorithm": "training.algorithms.base",
    "BoxStates": "tasks.state_space",
    "ClipRewardVectorWrapper": "rewards.gym_wrapper",
    "ClipRewardWrapper": "rewards.gym_wrapper",
    "FrameFormat": "frames",
    "FrameReward": "rewards.functions.base",
    "Plan": "sweeping.config.plan",
    "Rendering": "tasks.rendering",
    "RewardFunction": "rewards.functions.base",
    "RewardModel": "rewards.reward_model",
    "RewardPool": "serving.pool",
    "RewardSpec": "rewards.reward_model",
    "StateSpace": "tasks.state_space",
    "StateVariable": "tasks.state_space",
    "Sweep": "sweeping.config.sweep",
    "SweepOutcome": "sweeping.tracking.results",
    "Task": "tasks.task",
    "Texts": "rewards.functions.base",
    "UserError": "errors",
    "dots": "rewards.functions.base",
    "find_algorithm": "training.algorithms.registry",
    "find_reward": "rewards.functions.registry",
    "find_reward_model": "rewards.registry",
    "find_task": "tasks.registry",
    "load_reward_model": "rewards.registry",
    "load_sweep": "sweeping.config.sweep",
    "local_path": "rewards.local_files",
    "make_plan": "sweeping.config.plan",
    "make_reward": "rewards.functions.registry",
    "register_algorithm": "training.algorithms.registry",
    "register_reward": "rewards.functions.registry",
    "register_reward_model": "rewards.registry",
    "register_task": "tasks.registry",
    "reward_pool": "serving.reward_pool",
    "run_sweep": "sweeping.execution.run_sweep",
    "use_rewards": "training.rllib_config",
}
"""The module of every public name."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: its public names are {', '.join(_HOMES)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
