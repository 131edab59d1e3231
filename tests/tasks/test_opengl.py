"""The OpenGL backend: what the user set is kept, the best that works is chosen, and none at all is explained."""

import importlib.util
import os
import subprocess
import sys

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.tasks import opengl
from vlm_rm_sweeps.tasks.opengl import backend_works, choose_backend, draws_on_gpu, make_gl_context
from vlm_rm_sweeps.tasks.rendering import machine_profile


@pytest.mark.parametrize(
    ("working", "chosen"), [({"egl", "osmesa"}, "egl"), ({"egl"}, "egl"), ({"osmesa"}, "osmesa")], ids=["both", "egl", "osmesa"]
)
def test_the_best_that_works_is_chosen_and_passed_on(working: set[str], chosen: str) -> None:
    environment: dict[str, str] = {}
    assert choose_backend(environment, lambda backend: backend in working) == chosen
    assert environment == {"MUJOCO_GL": chosen}


@pytest.mark.parametrize(("wanted", "chosen"), [("osmesa", "osmesa"), ("EGL ", "egl"), ("glfw", "glfw")])
def test_what_the_user_set_is_respected_if_it_works(wanted: str, chosen: str) -> None:
    environment = {"MUJOCO_GL": wanted}
    assert choose_backend(environment, lambda backend: True) == chosen
    assert environment == {"MUJOCO_GL": wanted}
    if chosen != "glfw":  # whether there is a display is seen when it draws
        with pytest.raises(UserError, match=f"MUJOCO_GL='{chosen}': it is not installed.*: unset it to have one chosen"):
            choose_backend(environment, lambda backend: False)


@pytest.mark.parametrize("wanted", ["bogus", "osmesa", "glfw"])
def test_what_draws_nothing_does_not_care_for_the_backend(wanted: str) -> None:
    # A process of its own: MuJoCo loads its backend when it is imported. No library of OSMesa can be loaded in it.
    code = (
        "import ctypes.util; ctypes.util.find_library = lambda name: None; from vlm_rm_sweeps.tasks.registry import find_task; "
        "import os; print(find_task('humanoid-standing').name, os.environ['MUJOCO_GL'])"
    )
    environment = os.environ | {"MUJOCO_GL": wanted}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.stdout == f"humanoid-standing {wanted}\n", ran.stderr[-2000:]


def test_the_variable_that_stands_in_the_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="MUJOCO_EGL_DEVICE_ID='first': expected the number of an EGL device"):
        choose_backend({"MUJOCO_EGL_DEVICE_ID": "first"}, lambda backend: True)
    monkeypatch.setattr(opengl, "choose_backend", lambda: "egl")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "glx")
    with pytest.raises(UserError, match="PYOPENGL_PLATFORM='glx', but MuJoCo is to draw with 'egl': unset it"):
        opengl.make_gl_context(64)


def test_an_empty_setting_is_none() -> None:
    environment = {"MUJOCO_GL": ""}
    assert choose_backend(environment, lambda backend: True) == "egl"
    assert environment == {"MUJOCO_GL": "egl"}


def test_no_opengl_names_the_packages() -> None:
    environment: dict[str, str] = {}
    with pytest.raises(UserError, match=r"libegl1 libegl-mesa0.*libosmesa6"):
        choose_backend(environment, lambda backend: False)
    assert environment == {}


def test_an_unknown_backend_is_named_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"MUJOCO_GL='glx': expected one of egl, osmesa, glfw"):
        choose_backend({"MUJOCO_GL": "glx"}, lambda backend: True)


def test_a_missing_library_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    assert not backend_works("egl")
    assert not backend_works("osmesa")


def test_a_library_that_cannot_be_loaded_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}-that-is-not-there.so.1")
    assert not backend_works("egl")
    assert not backend_works("osmesa")


def test_a_backend_that_the_user_set_and_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_display(name: str) -> None:
        raise RuntimeError(f"{name}: no display")

    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.setattr("importlib.import_module", no_display)
    with pytest.raises(UserError, match=r"'glfw': mujoco.glfw: no display; if MUJOCO_GL or .* unset it.*libosmesa6"):
        make_gl_context(64)


def test_a_chosen_device_means_egl_and_the_message_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_device(name: str) -> None:
        raise RuntimeError("MUJOCO_EGL_DEVICE_ID must be between 0 and 0, got 99")

    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "99")
    monkeypatch.setattr("importlib.import_module", no_device)
    with pytest.raises(UserError, match=r"'egl': .*got 99; if MUJOCO_GL or MUJOCO_EGL_DEVICE_ID is set, unset it"):
        make_gl_context(64)


@pytest.mark.usefixtures("opengl")
def test_egl_without_a_device_that_starts_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opengl, "_starts", lambda egl, device: False)
    assert not backend_works("egl")
    monkeypatch.setattr(opengl, "_library", lambda backend: backend)
    monkeypatch.setattr(opengl, "_egl_devices", lambda egl: [1])
    environment: dict[str, str] = {}
    assert choose_backend(environment) == "osmesa"


@pytest.mark.parametrize(
    ("software", "starts", "profile"), [(False, True, "full"), (True, True, "fast"), (False, False, "fast")]
)
def test_only_a_gpu_that_draws_is_worth_the_full_profile(
    software: bool, starts: bool, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # says nothing of OpenGL
    monkeypatch.setattr(opengl, "_library", lambda backend: backend)
    monkeypatch.setattr(opengl, "_egl_devices", lambda egl: [1])
    monkeypatch.setattr(opengl, "_is_software", lambda egl, device: software)
    monkeypatch.setattr(opengl, "_starts", lambda egl, device: starts)
    monkeypatch.setattr(opengl, "_egl_has_gpu", opengl._egl_has_gpu.__wrapped__)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert machine_profile() == profile
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert not draws_on_gpu()


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="torch is installed without Triton")
@pytest.mark.usefixtures("opengl")
def test_triton_can_be_imported_after_drawing() -> None:
    program = (
        "import mujoco; from vlm_rm_sweeps.tasks.opengl import make_gl_context; gl = make_gl_context(64); gl.make_current(); "
        "mujoco.MjrContext(mujoco.MjModel.from_xml_string('<mujoco/>'), 100); import triton; print('alive', flush=True)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.stdout == "alive\n", ended.stderr
