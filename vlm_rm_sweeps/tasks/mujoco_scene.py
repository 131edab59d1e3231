"""Frames of MuJoCo states, drawn directly at the size that is asked for."""

import copy
import weakref

import mujoco
import numpy as np

from vlm_rm_sweeps.tasks.opengl import make_gl_context
from vlm_rm_sweeps.tasks.rendering import Profile

_MAX_GEOMS = 200


class SceneRenderer:
    """Draws states of one model as square frames.

    One renderer serves all environments of a process that draw the same model alike (`shared_renderer`): an OpenGL context, its
    buffers and its copy of the textures cost more than everything else in an environment.
    """

    def __init__(self, model: mujoco.MjModel, size: int, profile: Profile) -> None:
        self.model = model
        drawn = copy.copy(model)
        drawn.vis.global_.offwidth = drawn.vis.global_.offheight = size
        if profile == "fast":
            drawn.vis.quality.offsamples = 0
            drawn.vis.quality.numslices, drawn.vis.quality.numstacks, drawn.vis.quality.numquads = 12, 6, 1
        self._scene = mujoco.MjvScene(drawn, _MAX_GEOMS)
        full = profile == "full"
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = full
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = full
        self._options = mujoco.MjvOption()
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._gl = make_gl_context(size)
        self._gl.make_current()
        self._context = mujoco.MjrContext(drawn, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def frame(self, data: mujoco.MjData, camera: mujoco.MjvCamera) -> np.ndarray:
        """The state in `data`, whose positions are up to date, as `uint8 (size, size, 3)`."""
        self._gl.make_current()
        mujoco.mjv_updateScene(self.model, data, self._options, None, camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        pixels = np.empty((self._viewport.height, self._viewport.width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._viewport, self._context)
        # OpenGL's first row is the lowest.
        return np.ascontiguousarray(pixels[::-1])

    def __del__(self) -> None:
        if hasattr(self, "_context"):
            self._gl.make_current()
            self._context.free()
        if hasattr(self, "_gl"):
            self._gl.free()


_renderers: weakref.WeakValueDictionary[tuple[int, int, Profile], SceneRenderer] = weakref.WeakValueDictionary()


def shared_renderer(model: mujoco.MjModel, size: int, profile: Profile) -> SceneRenderer:
    """This process's renderer for the model; freed when nobody holds it any more."""
    key = (id(model), size, profile)
    renderer = _renderers.get(key)
    if renderer is None:
        renderer = _renderers[key] = SceneRenderer(model, size, profile)
    return renderer
