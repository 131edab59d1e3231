"""Imports MuJoCo, whatever MUJOCO_GL names. Import it from here, or after this module.

MuJoCo loads a backend when it is imported, and fails if MUJOCO_GL names one that is unknown or not installed, also where nothing
is drawn. What is drawn here takes its backend from `opengl.py`, which explains what is wrong with it.
"""

import os

from vlm_rm_sweeps.tasks.opengl import VARIABLE

try:
    import mujoco
except Exception:  # each backend fails in its own way
    _wanted = os.environ.get(VARIABLE)
    if _wanted is None:
        raise
    os.environ[VARIABLE] = "disable"
    try:
        import mujoco
    finally:
        os.environ[VARIABLE] = _wanted

from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

__all__ = ["MujocoEnv", "mujoco"]
