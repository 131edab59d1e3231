"""The OpenGL backend: what the user set is kept, the best that works is chosen, and none at all is explained."""

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.tasks.opengl import backend_works, choose_backend, make_gl_context


@pytest.mark.parametrize(
    ("working", "chosen"), [({"egl", "osmesa"}, "egl"), ({"egl"}, "egl"), ({"osmesa"}, "osmesa")], ids=["both", "egl", "osmesa"]
)
def test_the_best_that_works_is_chosen_and_passed_on(working: set[str], chosen: str) -> None:
    environment: dict[str, str] = {}
    assert choose_backend(environment, lambda backend: backend in working) == chosen
    assert environment == {"MUJOCO_GL": chosen}


@pytest.mark.parametrize(("wanted", "chosen"), [("osmesa", "osmesa"), ("EGL ", "egl"), ("glfw", "glfw")])
def test_what_the_user_set_is_respected_without_looking(wanted: str, chosen: str) -> None:
    def must_not_ask(backend: str) -> bool:
        raise AssertionError(backend)

    environment = {"MUJOCO_GL": wanted}
    assert choose_backend(environment, must_not_ask) == chosen
    assert environment == {"MUJOCO_GL": wanted}


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
    with pytest.raises(UserError, match=r"MUJOCO_GL='glfw': mujoco.glfw: no display; unset it"):
        make_gl_context(64)
