"""The humanoid for reward models: Gymnasium's Humanoid-v5 that never falls out of its episode."""

import mujoco
import numpy as np
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks.humanoid_scene import humanoid_model
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

    `render` draws the state at once as a square frame of the size that a reward model wants (`frame_format`; 480 without one,
    the paper's). `set_state` puts it into any state, a pose of `humanoid_poses` for example.
    """

    def __init__(self, rendering: Rendering, frame_format: FrameFormat | None = None) -> None:
        self.rendering = rendering
        self._size = frame_format.size if frame_format else PAPER_FRAME_SIZE
        self._camera = CAMERAS[rendering.camera]()
        self._renderer: SceneRenderer | None = None
        super().__init__(terminate_when_unhealthy=False, render_mode="rgb_array", width=self._size, height=self._size)

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model = humanoid_model(self.rendering.textures)
        return model, mujoco.MjData(model)

    def render(self) -> np.ndarray:  # type: ignore[override]  # Gymnasium types it for all render modes
        """The current state, uint8 (size, size, 3)."""
        if self._renderer is None:
            self._renderer = shared_renderer(self.model, self._size, self.rendering.profile)
        return self._renderer.frame(self.data, self._camera)

    def close(self) -> None:
        self._renderer = None
        super().close()
