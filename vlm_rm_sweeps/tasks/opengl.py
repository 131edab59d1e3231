"""Which OpenGL MuJoCo draws with: a GPU's or a software one, found without setting anything."""

import ctypes
import ctypes.util
import importlib
import os
from collections.abc import Callable, MutableMapping
from typing import Any

from vlm_rm_sweeps.errors import UserError

VARIABLE = "MUJOCO_GL"
BACKENDS = ("egl", "osmesa", "glfw")
"""The values of MUJOCO_GL that can draw frames on Linux; `glfw` needs a display."""

_AUTOMATIC = ("egl", "osmesa")
_EGL_EXTENSIONS = 0x3055
_EGL_NO_DISPLAY = None


def choose_backend(environment: MutableMapping[str, str] = os.environ, works: Callable[[str], bool] | None = None) -> str:
    """The backend to draw with: that of MUJOCO_GL if it is set, else EGL (GPU or Mesa's software), else OSMesa.

    The choice is written into `environment`, so that whatever else draws with MuJoCo in this process makes the same one.
    `works` tells whether a backend can be used here. UserError if none can, or MUJOCO_GL names none.
    """
    works = works or backend_works
    wanted = environment.get(VARIABLE, "").strip().lower()
    if wanted:
        if wanted not in BACKENDS:
            raise UserError(f"{VARIABLE}={wanted!r}: expected one of {', '.join(BACKENDS)}; unset it to have one chosen")
        return wanted
    chosen = next((backend for backend in _AUTOMATIC if works(backend)), None)
    if chosen is None:
        raise UserError(
            "MuJoCo finds no OpenGL to draw frames with: expected EGL or OSMesa; install one of them, on Debian and Ubuntu by "
            "`apt install libegl1 libegl-mesa0` (with or without a GPU) or `apt install libosmesa6`"
        )
    environment[VARIABLE] = chosen
    return chosen


def make_gl_context(size: int) -> Any:
    """A MuJoCo GLContext for frames of `size` x `size` pixels, of the chosen backend. UserError if there is no such OpenGL."""
    backend = choose_backend()
    try:
        # From the backend's own module: `mujoco.GLContext` is fixed when mujoco is first imported, perhaps before the choice.
        return importlib.import_module(f"mujoco.{backend}").GLContext(size, size)
    # MuJoCo, PyOpenGL and GLFW each raise something else for a library, driver or display that is not there.
    except Exception as error:
        raise UserError(f"MuJoCo cannot draw with {VARIABLE}={backend!r}: {error}; unset it to have one chosen") from error


def backend_works(backend: str) -> bool:
    """Whether this machine has the library, and for EGL also a driver: importing MuJoCo's backend to see would fix the choice."""
    name = ctypes.util.find_library({"egl": "EGL", "osmesa": "OSMesa"}[backend])
    if name is None:
        return False
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return False
    return backend != "egl" or _egl_devices(library) > 0


def _egl_devices(egl: ctypes.CDLL) -> int:
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    if not address:
        return 0
    query_devices = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))(address)
    count = ctypes.c_int(0)
    return count.value if query_devices(0, None, ctypes.byref(count)) else 0
