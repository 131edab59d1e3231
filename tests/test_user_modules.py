"""The user's own Python files: which are imported, and which travel to other processes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from vlm_rm_sweeps import user_modules
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.registry import import_module
from vlm_rm_sweeps.user_modules import import_file, imported_user_modules, make_importable


@pytest.fixture(autouse=True)
def own_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What these tests import is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(user_modules, "_folders", [])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_an_imported_file_travels(tmp_path: Path) -> None:
    file = tmp_path / "module_that_travels.py"
    file.write_text("A = 1")
    import_file(file)
    assert imported_user_modules() == (file,)


def test_a_file_with_the_name_of_another_module_is_refused(tmp_path: Path) -> None:
    for name in ("json", "sys"):
        file = tmp_path / f"{name}.py"
        file.write_text("A = 1")
        with pytest.raises(UserError, match=f"'{name}' is already the name of .*: rename the file"):
            import_file(file)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    files = [tmp_path / folder / "twice_named.py" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text("A = 1")
    import_file(files[0])
    with pytest.raises(UserError, match=r"'twice_named' is already the name of .*a/twice_named\.py: rename the file"):
        import_file(files[1])


def test_an_environment_that_is_linked_into_the_folder_does_not_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = tmp_path / "elsewhere"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "vlm-rm").touch()
    work = tmp_path / "work"
    work.mkdir()
    (work / ".venv").symlink_to(environment)
    monkeypatch.setattr(sys, "prefix", str(environment))
    script = ModuleType("a_script")  # as `__main__`, when the program is run as `.venv/bin/vlm-rm`
    script.__file__ = str(work / ".venv" / "bin" / "vlm-rm")
    monkeypatch.setitem(sys.modules, "a_script", script)
    make_importable(work)
    assert imported_user_modules() == ()


def test_what_is_installed_below_the_folder_does_not_travel(tmp_path: Path) -> None:
    installed = tmp_path / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "installed_by_the_user.py").write_text("A = 1")
    make_importable(tmp_path)
    sys.path.append(str(installed))
    import_module("installed_by_the_user")
    assert imported_user_modules() == ()


@pytest.mark.parametrize("error", ["SystemExit(3)", "GeneratorExit()"])
def test_a_module_that_exits_is_one_message(error: str, tmp_path: Path) -> None:
    file = tmp_path / "module_that_exits.py"
    file.write_text(f"raise {error}")
    with pytest.raises(UserError, match="module 'module_that_exits' cannot be imported: "):
        import_file(file)
