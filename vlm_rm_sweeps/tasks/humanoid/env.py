"""The humanoid for reward models: Gymnasium's Humanoid-v5 that never falls out of its episode."""

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv
from gymnasium.utils import EzPickle

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks.humanoid.scene import humanoid_model
from vlm_rm_sweeps.tasks.humanoid.success import standing
from vlm_rm_sweeps.tasks.mujoco_scene import SceneRenderer, shared_renderer
from vlm_rm_sweeps.tasks.rendering import Rendering

PAPER_FRAME_SIZE = 480


def paper_camera() -> mujoco.MjvCamera:
    """The camera of the paper's code: in front of the robot, fixed, looking at (0, 0, 1) m."""
    # The paper's settings also name a body to track; a free camera does not, and theirs is a free one.
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.distance = 3.5
    camera.lookat = [0.0, 0.0, 1.0]
    camera.elevation = -10.0
    camera.azimuth = 180.0
    return camera


def default_camera() -> mujoco.MjvCamera:
    """What Gymnasium shows of Humanoid-v5: the model's `track` camera, at the robot's side and moving with it."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    camera.fixedcamid = humanoid_model("original").camera("track").id
    return camera


CAMERAS = {"paper": paper_camera, "default": default_camera}


class Humanoid(HumanoidEnv):
    """Gymnasium's Humanoid-v5, dynamics and observations unchanged, without its early termination.

    The true reward, and `info["success"]`, is whether the state fulfils `is_success`: one of `humanoid_success`, by default
    standing. `render` draws the state at once as a square frame of the size that a reward model wants (`frame_format`; 480
    without one, the paper's). `set_state` puts the robot into any state, a pose of `humanoid_poses` for example.
    """

    def __init__(
        self,
        rendering: Rendering,
        frame_format: FrameFormat | None = None,
        is_success: Callable[[mujoco.MjData], bool] = standing,
    ) -> None:
        self.rendering = rendering
        self._size = frame_format.size if frame_format else PAPER_FRAME_SIZE
        self._camera = CAMERAS[rendering.camera]()
        self._is_success = is_success
        self._renderer: SceneRenderer | None = None
        super().__init__(terminate_when_unhealthy=False, render_mode="rgb_array", width=self._size, height=self._size)
        # Gymnasium's class has noted its own arguments for copies.
        EzPickle.__init__(self, rendering, frame_format, is_success)

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model = humanoid_model(self.rendering.textures)
        return model, mujoco.MjData(model)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.float64, bool, bool, dict[str, Any]]:
        observation = super().step(action)[0]
        # MuJoCo leaves the positions of bodies, geoms and cameras one substep behind qpos. Frame and success are of qpos, so that
        # a state that is stored and set again looks the same. The next step computes all of them anew.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        success = self._is_success(self.data)
        return observation, np.float64(success), False, False, {"success": success}

    def render(self) -> np.ndarray:  # type: ignore[override]  # Gymnasium types it for all render modes
        """The current state, uint8 (size, size, 3). UserError if this machine has no OpenGL."""
        if self._renderer is None:
            self._renderer = shared_renderer(self.model, self._size, self.rendering.profile)
        return self._renderer.frame(self.data, self._camera)

    def close(self) -> None:
        """Free the renderer, if no other environment of this process uses it."""
        self._renderer = None
        super().close()
