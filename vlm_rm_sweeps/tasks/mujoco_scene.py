"""Frames of MuJoCo states, drawn directly at the size that a reward model needs."""

import copy
import threading
import weakref
from typing import Any

import numpy as np

from vlm_rm_sweeps.tasks.mujoco_import import mujoco
from vlm_rm_sweeps.tasks.opengl import make_gl_context
from vlm_rm_sweeps.tasks.rendering import Profile

_MAX_GEOMS = 1_000
"""Gymnasium's limit. MuJoCo silently leaves out the geoms beyond it."""


class SceneRenderer:
    """Draws states of one model as square frames, from any thread.

    All environments of a process that draw the same model in the same way share one renderer (`shared_renderer`): a separate
    renderer for each would take about 80 MB, and switching between them would cost most of the speed.

    Args:
        model: The model, which must not change.
        size: Edge of the frames in pixels.
        profile: How much OpenGL draws, see `Rendering`.

    Raises:
        UserError: This machine has no OpenGL.
    """

    def __init__(self, model: mujoco.MjModel, size: int, profile: Profile) -> None:
        # Set first, so that `__del__` frees only what was created.
        self._gl: Any = None
        self._context: mujoco.MjrContext | None = None
        # Kept alive, so that no other model gets the id by which the renderer is shared.
        self._shared_model = model
        self.model = copy.copy(model)
        self.model.vis.global_.offwidth = self.model.vis.global_.offheight = size
        if profile == "fast":
            quality = self.model.vis.quality
            quality.offsamples = 0
            quality.numslices, quality.numstacks, quality.numquads = 12, 6, 1
        self._scene = mujoco.MjvScene(self.model, _MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = profile == "full"
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = profile == "full"
        self._options = mujoco.MjvOption()
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._one_at_a_time = threading.Lock()
        self._gl = make_gl_context(size)
        with self._gl.as_current():
            self._context = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def frame(self, data: mujoco.MjData, camera: mujoco.MjvCamera) -> np.ndarray:
        """Draw a state.

        Args:
            data: The state, whose kinematics must be up to date.
            camera: The camera.

        Returns:
            The frame, uint8 (size, size, 3).
        """
        pixels = np.empty((self._viewport.height, self._viewport.width, 3), dtype=np.uint8)
        # A context that stays current in one thread can be neither used nor freed by another.
        with self._one_at_a_time, self._gl.as_current():
            mujoco.mjv_updateScene(self.model, data, self._options, None, camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene)
            mujoco.mjr_render(self._viewport, self._scene, self._context)
            mujoco.mjr_readPixels(pixels, None, self._viewport, self._context)
        # OpenGL's first row is the lowest.
        return np.ascontiguousarray(pixels[::-1])

    def __del__(self) -> None:
        if self._context is not None:
            with self._gl.as_current():
                self._context.free()
        if self._gl is not None:
            self._gl.free()


_making = threading.Lock()
_renderers: weakref.WeakValueDictionary[tuple[int, int, Profile], SceneRenderer] = weakref.WeakValueDictionary()


def shared_renderer(model: mujoco.MjModel, size: int, profile: Profile) -> SceneRenderer:
    """Return this process's renderer for a model.

    It is freed when nothing refers to it any more.

    Args:
        model: The model, which must not change.
        size: Edge of the frames in pixels.
        profile: How much OpenGL draws, see `Rendering`.

    Returns:
        The renderer that all callers with the same arguments share.

    Raises:
        UserError: This machine has no OpenGL.
    """
    key = (id(model), size, profile)
    with _making:
        renderer = _renderers.get(key)
        if renderer is None:
            renderer = _renderers[key] = SceneRenderer(model, size, profile)
    return renderer
