"""The content of checkpoints, for tests that save some."""

from collections.abc import Sequence
from typing import Any

from vlm_rm_sweeps.training.checkpoints import ResumableContent


def resumable(env_steps: int, results: Sequence[Any] = ()) -> ResumableContent:
    """Return what a checkpoint.json says of a trial that learns CartPole from the true reward."""
    return {
        "task": "cartpole-upright",
        "env": None,
        "rendering": {"textures": "original", "camera": "default", "profile": "fast"},
        "algorithm": "dqn",
        "settings": {},
        "seed": 0,
        "reward": None,
        "env_steps": env_steps,
        "model_config": {},
        "results": list(results),
        "done": False,
    }
