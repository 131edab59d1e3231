"""Chooses the OpenGL that MuJoCo draws with, on a GPU or in software, without any setting."""

import ctypes
import ctypes.util
import functools
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from vlm_rm_sweeps.errors import UserError

VARIABLE = "MUJOCO_GL"
BACKENDS = ("egl", "osmesa", "glfw")
"""Values of MUJOCO_GL that can draw frames on Linux; `glfw` needs a display."""

DEVICE_VARIABLE = "MUJOCO_EGL_DEVICE_ID"
"""The variable with the number of the EGL device that MuJoCo uses. If it is set, EGL is chosen."""

PLATFORM_VARIABLE = "PYOPENGL_PLATFORM"
"""The variable with the library that PyOpenGL uses, which has to be MuJoCo's."""

_AUTOMATIC = ("egl", "osmesa")
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
_INSTALL = (
    "install one of them, on Debian and Ubuntu by `apt install libegl1 libegl-mesa0` (with or without a GPU) or "
    "`apt install libosmesa6`"
)

_EGL_EXTENSIONS = 0x3055
_EGL_PLATFORM_DEVICE = 0x313F
_EGL_OPENGL_API = 0x30A2
_SOFTWARE = b"EGL_MESA_device_software"


def choose_backend(environment: MutableMapping[str, str] = os.environ, works: Callable[[str], bool] | None = None) -> str:
    """Choose the backend: MUJOCO_GL if it is set, else EGL (on a GPU or Mesa's software renderer) if it works, else OSMesa.

    Args:
        environment: The process's environment. The choice is written into it, so that everything that draws with MuJoCo in this
            process uses the same backend.
        works: Decides whether a backend can be used here; by default `backend_works`.

    Returns:
        One of `BACKENDS`.

    Raises:
        UserError: No backend can be used, or MUJOCO_GL names one that is unknown or does not work.
    """
    _load_triton_first()
    works = works or backend_works
    device = environment.get(DEVICE_VARIABLE, "")
    if device and not device.isdecimal():
        raise UserError(
            f"{DEVICE_VARIABLE}={device!r}: expected the number of an EGL device, such as 0; unset it to have one chosen"
        )
    wanted = environment.get(VARIABLE, "").strip().lower()
    if wanted:
        if wanted not in BACKENDS:
            raise UserError(f"{VARIABLE}={wanted!r}: expected one of {', '.join(BACKENDS)}; unset it to have one chosen")
        if wanted in _AUTOMATIC and not environment.get(DEVICE_VARIABLE) and not works(wanted):
            raise UserError(
                f"{VARIABLE}={wanted!r}: it is not installed, or does not start: unset it to have one chosen, or {_INSTALL}"
            )
        return wanted
    usable = ("egl",) if environment.get(DEVICE_VARIABLE) else filter(works, _AUTOMATIC)
    chosen = next(iter(usable), None)
    if chosen is None:
        raise UserError(f"MuJoCo finds no OpenGL to draw frames with: expected EGL or OSMesa; {_INSTALL}")
    environment[VARIABLE] = chosen
    return chosen


def make_gl_context(size: int) -> Any:
    """Make a MuJoCo GLContext of the chosen backend.

    Args:
        size: Edge of the square frames in pixels.

    Returns:
        The context, a `GLContext` of the backend's module in MuJoCo.

    Raises:
        UserError: The backend does not work on this machine.
    """
    backend = choose_backend()
    platform = os.environ.get(PLATFORM_VARIABLE, "").lower()
    if platform not in ("", backend) and backend in _AUTOMATIC:
        raise UserError(
            f"{PLATFORM_VARIABLE}={platform!r}, but MuJoCo is to draw with {backend!r}: unset it, or set {VARIABLE}, too"
        )
    try:
        # From the backend's own module: `mujoco.GLContext` is fixed when mujoco is first imported, perhaps before the choice.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GLFW's, of each step that fails
            return importlib.import_module(f"mujoco.{backend}").GLContext(size, size)
    # MuJoCo, PyOpenGL and GLFW each raise another exception for a missing library, driver or display.
    except Exception as error:
        raise UserError(
            f"MuJoCo cannot draw with {backend!r}: {error}; if {VARIABLE} or {DEVICE_VARIABLE} is set, unset it to have one chosen. "
            f"Expected a working EGL or OSMesa; {_INSTALL}"
        ) from error


@functools.cache
def _load_triton_first() -> None:
    """Load torch's compiler, Triton, before Mesa's software OpenGL; the other order crashes the process.

    Both contain LLVM, and Mesa exposes the symbols of its copy to all libraries that are loaded later. torch's optimizers
    import Triton, so a process that draws before it learns would end with a segmentation fault. Loading the library takes 0.1
    s, importing Triton 1 s.
    """
    package = importlib.util.find_spec("triton")
    for folder in (package.submodule_search_locations or []) if package else []:
        for library in Path(folder).glob("_C/libtriton*.so"):
            ctypes.CDLL(str(library))


def backend_works(backend: str) -> bool:
    """Whether this machine has the backend's library, and for EGL also a device that starts.

    MuJoCo's own backend is not imported, because that would fix the choice.

    Args:
        backend: `egl` or `osmesa`.

    Returns:
        Whether MuJoCo can draw with it.
    """
    library = _library(backend)
    return library is not None and (backend != "egl" or any(_starts(library, device) for device in _egl_devices(library)))


def draws_on_gpu() -> bool:
    """Whether MuJoCo draws on a GPU.

    CUDA does not imply it, as many containers have no OpenGL for their GPU.

    Returns:
        False also if MUJOCO_GL names another backend than EGL, as only EGL can be asked for its device.
    """
    return os.environ.get(VARIABLE, "").strip().lower() in ("", "egl") and _egl_has_gpu()


@functools.cache
def _egl_has_gpu() -> bool:
    _load_triton_first()
    egl = _library("egl")
    return egl is not None and any(not _is_software(egl, device) and _starts(egl, device) for device in _egl_devices(egl))


def _library(backend: str) -> ctypes.CDLL | None:
    name = ctypes.util.find_library(_LIBRARIES[backend])
    try:
        return ctypes.CDLL(name) if name else None
    except OSError:
        return None


def _egl_devices(egl: ctypes.CDLL) -> list[int]:
    query = _egl_function(egl, "eglQueryDevicesEXT", ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    devices, count = (ctypes.c_void_p * 32)(), ctypes.c_int(0)
    found = query is not None and query(len(devices), devices, ctypes.byref(count))
    return [device for device in devices[: count.value] if device] if found else []


def _is_software(egl: ctypes.CDLL, device: int) -> bool:
    query = _egl_function(egl, "eglQueryDeviceStringEXT", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)
    return query is not None and _SOFTWARE in (query(device, _EGL_EXTENSIONS) or b"")


def _starts(egl: ctypes.CDLL, device: int) -> bool:
    """Whether the device's driver loads and supports OpenGL. The device stays initialized, as others may be using it."""
    pointer = ctypes.c_void_p
    get_display = _egl_function(egl, "eglGetPlatformDisplayEXT", pointer, ctypes.c_uint, pointer, pointer)
    display = get_display(_EGL_PLATFORM_DEVICE, device, None) if get_display else None
    initialize = _egl_function(egl, "eglInitialize", ctypes.c_uint, pointer, pointer, pointer)
    bind = _egl_function(egl, "eglBindAPI", ctypes.c_uint, ctypes.c_uint)
    return bool(display and initialize and initialize(display, None, None) and bind and bind(_EGL_OPENGL_API))


def _egl_function(egl: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any] | None:
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    address = egl.eglGetProcAddress(name.encode())
    return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None
