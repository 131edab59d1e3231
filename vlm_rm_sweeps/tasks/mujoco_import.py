"""Imports MuJoCo, whatever MUJOCO_GL names. Import it from here, or after this module.

MuJoCo loads a backend when it is imported, and fails if MUJOCO_GL names one that is unknown or not installed, also where nothing
is drawn. What is drawn here takes its backend from `opengl.py`, which explains what is wrong with it.

MuJoCo also prints its warnings on standard error and writes them into a file in the working folder, MUJOCO_LOG.TXT, for each model
that is made: here each is logged once, and that an attribute of a model's file is deprecated, which Gymnasium's files are full
of, at a level that is not shown.
"""

import logging
import os
from functools import cache

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

_logger = logging.getLogger(__name__)


@cache
def _log_once(message: str) -> None:
    deprecated = "is deprecated" in message
    _logger.log(logging.DEBUG if deprecated else logging.WARNING, "MuJoCo: %s", message)


def _quiet_warnings() -> None:
    """Log MuJoCo's warnings, unless the program that uses this package handles them itself."""
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(lambda message: _log_once(_text(message)))


def _text(message: str | bytes) -> str:
    return (message.decode(errors="replace") if isinstance(message, bytes) else message).strip()


_quiet_warnings()

__all__ = ["MujocoEnv", "mujoco"]
