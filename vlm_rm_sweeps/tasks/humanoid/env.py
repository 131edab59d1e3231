"""The humanoid for reward models: Gymnasium's Humanoid-v5, whose episodes do not end when the robot falls."""

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv
from gymnasium.utils import EzPickle

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import INFO_SUCCESS
from vlm_rm_sweeps.tasks.humanoid.scene import humanoid_model
from vlm_rm_sweeps.tasks.humanoid.success import SUCCESS_TESTS
from vlm_rm_sweeps.tasks.mujoco_scene import SceneRenderer, shared_renderer
from vlm_rm_sweeps.tasks.rendering import Rendering

PAPER_FRAME_SIZE = 480
"""Edge of a frame in pixels if no reward model needs another size."""


def paper_camera() -> mujoco.MjvCamera:
    """Make the camera of the paper's code: in front of the robot, fixed, looking at (0, 0, 1) m."""
    # The paper's settings also name a body to track, which a free camera ignores.
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.distance = 3.5
    camera.lookat = [0.0, 0.0, 1.0]
    camera.elevation = -10.0
    camera.azimuth = 180.0
    return camera


def default_camera() -> mujoco.MjvCamera:
    """Make Gymnasium's camera for Humanoid-v5: the model's `track` camera, at the robot's side and moving with it."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    camera.fixedcamid = humanoid_model("original").camera("track").id
    return camera


CAMERAS = {"paper": paper_camera, "default": default_camera}
"""Functions that make the cameras of the humanoid's tasks, by name."""


class Humanoid(HumanoidEnv):
    """Gymnasium's Humanoid-v5, dynamics and observations unchanged, without its early termination.

    The true reward, and `info["success"]`, is whether the state passes a success test. `set_state` puts the robot into any
    state, such as the `qpos` of a reference pose.

    Args:
        rendering: Scene, camera and profile.
        frame_format: The reward model's frame format, at whose size frames are drawn; None draws 480 x 480 pixels.
        is_success: The success test, such as those of `vlm_rm_sweeps.tasks.humanoid.success`.
    """

    def __init__(
        self,
        rendering: Rendering,
        frame_format: FrameFormat | None = None,
        is_success: Callable[[mujoco.MjData], bool] = SUCCESS_TESTS["humanoid-standing"],
    ) -> None:
        self.rendering = rendering
        self._size = frame_format.size if frame_format else PAPER_FRAME_SIZE
        self._camera = CAMERAS[rendering.camera]()
        self._is_success = is_success
        self._renderer: SceneRenderer | None = None
        super().__init__(terminate_when_unhealthy=False, render_mode="rgb_array", width=self._size, height=self._size)
        # For copies, because Gymnasium's class has recorded its own arguments.
        EzPickle.__init__(self, rendering, frame_format, is_success)

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model = humanoid_model(self.rendering.textures, self.rendering.camera)
        return model, mujoco.MjData(model)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.float64, bool, bool, dict[str, Any]]:
        """Take a step of 0.015 s."""
        observation = super().step(action)[0]
        # MuJoCo leaves the positions of bodies, geoms and cameras one substep behind qpos. Frame and success must belong to
        # qpos, so that a state that is stored and set again looks the same. The next step computes all of them anew.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        success = self._is_success(self.data)
        return observation, np.float64(success), False, False, {INFO_SUCCESS: success}

    def render(self) -> np.ndarray:  # type: ignore[override]  # Gymnasium types it for all render modes
        """Draw the current state.

        Returns:
            The frame, uint8 (size, size, 3).

        Raises:
            UserError: This machine has no OpenGL.
        """
        if self._renderer is None:
            self._renderer = shared_renderer(self.model, self._size, self.rendering.profile)
        return self._renderer.frame(self.data, self._camera)

    def close(self) -> None:
        """Release the renderer, which is freed when no other environment of this process uses it."""
        self._renderer = None
        super().close()
