"""Frames of Gymnasium's MuJoCo environments, drawn as fast as those of the humanoid."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.tasks.mujoco_import import MujocoEnv, mujoco
from vlm_rm_sweeps.tasks.mujoco_scene import SceneRenderer, shared_renderer
from vlm_rm_sweeps.tasks.rendering import Profile

_models: dict[str, mujoco.MjModel] = {}


class MujocoFrames(gym.Wrapper):
    """Draws what Gymnasium's `render` shows, directly as a square frame of the size that the reward model needs.

    Gymnasium draws 480 x 480 pixels with multisampling, shadows and reflections, which takes 0.1 s or more in software.

    Args:
        env: One of Gymnasium's MuJoCo environments.
        key: Identifies how `env` was made. Environments with the same key share one model and one OpenGL context.
        size: Edge of the frames in pixels.
        profile: How much OpenGL draws.
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
        """Draw the current state.

        Returns:
            The frame, uint8 (size, size, 3).

        Raises:
            UserError: This machine has no OpenGL.
        """
        if self._renderer is None:
            self._renderer = shared_renderer(self._model, self._size, self._profile)
        return self._renderer.frame(self._native.data, self._camera)

    def close(self) -> None:
        """Release the renderer, which is freed when no other environment of this process uses it."""
        self._renderer = None
        super().close()


def check_camera(env: gym.Env, name: str | None) -> None:
    """Refuse a camera that the model does not have: MuJoCo would show another picture, or end the process.

    Args:
        env: Any environment; one that does not draw with Gymnasium's `MujocoRenderer` is not checked.
        name: The `camera_name` that it was made with.

    Raises:
        UserError: There is no such camera. The message lists those that there are.
    """
    native: Any = env.unwrapped
    renderer, model = getattr(native, "mujoco_renderer", None), getattr(native, "model", None)
    if renderer is None or not isinstance(model, mujoco.MjModel):
        return
    cameras = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_CAMERA, number) for number in range(model.ncam)]
    listed = ", ".join(f"{number} ({each})" if each else str(number) for number, each in enumerate(cameras)) or "none"
    if name is not None and name not in cameras:
        raise UserError(f"camera_name = {name!r}: there is no such camera: expected one of {listed}")
    if not -1 <= (renderer.camera_id or 0) < max(model.ncam, 1):
        raise UserError(
            f"camera_id = {renderer.camera_id}: there is no such camera: expected one of {listed}, or -1 for a free one"
        )


def place_camera(env: MujocoEnv, changed: Mapping[str, Any] | None) -> None:
    """Fix the camera before anything is drawn.

    Gymnasium points a free camera at the robot's position when the first frame is drawn, which after a resume is in the middle
    of an episode. Here a free camera looks at the model's initial state.

    Args:
        env: One of Gymnasium's MuJoCo environments.
        changed: Settings of a free camera (`distance`, `lookat`, `elevation`, `azimuth`); all others stay the environment's
            own. None keeps the environment's camera.
    """
    chosen = env.mujoco_renderer
    data = mujoco.MjData(env.model)
    mujoco.mj_kinematics(env.model, data)
    initial = {"lookat": np.median(data.geom_xpos, axis=0), "distance": env.model.stat.extent}
    chosen.default_cam_config = initial | (chosen.default_cam_config or {}) | dict(changed or {})
    if changed:
        chosen.camera_id = -1


def _camera_of(env: MujocoEnv) -> mujoco.MjvCamera:
    """Return the camera that Gymnasium uses: one of the model's own, or a free one as the environment's configuration says."""
    chosen = env.mujoco_renderer
    camera = mujoco.MjvCamera()
    if chosen.camera_id >= 0:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, chosen.camera_id
        return camera
    for name, value in (chosen.default_cam_config or {}).items():
        if name != "type":  # Gymnasium's cameras are free, whatever their configuration says
            setattr(camera, name, value)
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    return camera
