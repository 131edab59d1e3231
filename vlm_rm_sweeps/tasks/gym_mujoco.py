"""Frames of Gymnasium's MuJoCo environments, drawn as fast as the humanoid's."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

from vlm_rm_sweeps.tasks.mujoco_scene import SceneRenderer, shared_renderer
from vlm_rm_sweeps.tasks.rendering import Profile

_models: dict[str, mujoco.MjModel] = {}


class MujocoFrames(gym.Wrapper):
    """Shows what Gymnasium's `render` shows, at once as a square frame of the size that a reward model wants.

    Gymnasium draws 480 x 480 pixels with multisampling, shadows and reflections, which takes software OpenGL 0.1 s or more.
    Environments with the same `key` are built alike and share one OpenGL context.
    """

    def __init__(self, env: gym.Env, key: str, size: int, profile: Profile) -> None:
        super().__init__(env)
        assert isinstance(env.unwrapped, MujocoEnv)
        self._native = env.unwrapped
        self._model = _models.setdefault(key, self._native.model)
        self._size, self._profile = size, profile
        self._camera = _camera_of(self._native)
        self._renderer: SceneRenderer | None = None

    def render(self) -> Any:
        """The current state, uint8 (size, size, 3)."""
        if self._renderer is None:
            self._renderer = shared_renderer(self._model, self._size, self._profile)
        return self._renderer.frame(self._native.data, self._camera)

    def close(self) -> None:
        self._renderer = None
        super().close()


def place_camera(env: MujocoEnv, changed: Mapping[str, Any] | None) -> None:
    """Fix what `env` is seen from, before anything is drawn: `changed` settings of a free camera, all others the environment's own.

    Without `changed` the camera stays the environment's. Gymnasium looks at where the robot happens to be when the first frame
    is drawn, which after a resume is in the middle of an episode; here a free camera looks at the model's initial state.
    """
    chosen = env.mujoco_renderer
    data = mujoco.MjData(env.model)
    mujoco.mj_kinematics(env.model, data)
    initial = {"lookat": np.median(data.geom_xpos, axis=0), "distance": env.model.stat.extent}
    chosen.default_cam_config = initial | (chosen.default_cam_config or {}) | dict(changed or {})
    if changed:
        chosen.camera_id = -1


def _camera_of(env: MujocoEnv) -> mujoco.MjvCamera:
    """The camera that Gymnasium uses: one of the model's own, or a free one as the environment's configuration says."""
    chosen = env.mujoco_renderer
    camera = mujoco.MjvCamera()
    if chosen.camera_id >= 0:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, chosen.camera_id
        return camera
    for name, value in (chosen.default_cam_config or {}).items():
        if name != "type":  # Gymnasium's cameras are free ones, whatever the configuration says
            setattr(camera, name, value)
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    return camera
