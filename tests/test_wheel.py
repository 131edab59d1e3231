"""The wheel: it has every file that the package reads, and runs a sweep and the demonstration where there is no checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

REPOSITORY = Path(__file__).parent.parent
PACKAGE = "vlm_rm_sweeps"
UV = Path(sys.executable).parent / "uv"
SWEEP = {
    "name": "installed",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0.5],
    "true_reward": False,
    "steps": 400,
    "steps_per_result": 200,
    "settings": {"learning_starts": 100, "hidden": [16]},
    "evaluation_episodes": 1,
}


def files_in_tree() -> set[str]:
    """All files of the package, relative to the repository."""
    in_tree = (file.relative_to(REPOSITORY) for file in (REPOSITORY / PACKAGE).rglob("*") if file.is_file())
    return {file.as_posix() for file in in_tree if "__pycache__" not in file.parts}


def test_the_build_would_take_all_files_of_the_package_and_only_those() -> None:
    """What hatchling lists, without building: a new kind of file that is ignored or left out is found at once."""
    builder = WheelBuilder(str(REPOSITORY))
    listed = {file.distribution_path for file in builder.recurse_included_files()}
    assert {path for path in listed if "__pycache__" not in path} == files_in_tree()
    version = re.search(r'^version = "(.+)"$', (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    assert (builder.metadata.core.name, builder.metadata.version) == ("vlm-rm-sweeps", version[1])
    changes = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changes, re.MULTILINE)[1] == version[1], "the newest changes are this version's"  # type: ignore[index]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `uv build` makes of this tree, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--wheel", "--offline", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder)]
    subprocess.run([UV, "build", *options], cwd=REPOSITORY, capture_output=True, check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_all_files_of_the_package_and_only_those(wheel: Path) -> None:
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert in_wheel == files_in_tree()
    read_by_the_package = {
        "py.typed",
        "rewards/embedded/v1/embedded-tiny.safetensors",
        "rewards/embedded/v2/embedded-tiny.safetensors",
        "rewards/embedded/v2/bpe.txt.gz",
        "rewards/embedded/v2/words.txt",
        "sweeping/tracking/report.html.j2",
        "demo/page.html.j2",
        "demo/policy/policy.safetensors",
        "labelling/static/label.js",
        "dashboard/prometheus/prometheus.yml",
        "dashboard/grafana/dashboards/vlm-rm-sweeps.json",
        "dashboard/grafana/provisioning/datasources/prometheus.yaml",
    }
    assert {f"{PACKAGE}/{name}" for name in read_by_the_package} <= in_wheel


@pytest.mark.slow
def test_the_wheel_runs_a_sweep_and_the_demonstration_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    environment, home = tmp_path / "environment", tmp_path / "elsewhere"
    home.mkdir()
    (home / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    python = install(wheel, environment)
    variables = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "OMP_NUM_THREADS": "1"}

    def run(*command: str | Path) -> str:
        ran = subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, timeout=400)
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
        return ran.stdout

    imported = run(python, "-c", f"import {PACKAGE}, sys; print({PACKAGE}.__file__); print(*sys.path, sep='\\n')").splitlines()
    assert Path(imported[0]).is_relative_to(environment)
    assert str(REPOSITORY) not in imported
    said = run(python.parent / "vlm-rm", "sweep", "sweep.yaml")
    (results,) = (home / "results").glob("installed-*")
    assert "finished" in (results / "trials.csv").read_text(), said
    shown = run(python.parent / "vlm-rm", "demo", "--no-open")
    assert "% of its steps in the goal" in shown
    assert "data:video/mp4;base64," in (home / "results" / "demo.html").read_text(encoding="utf-8")


def install(wheel: Path, environment: Path) -> Path:
    """The Python of a new virtual environment with this wheel alone, which finds its dependencies where these tests find theirs.

    A path in a `.pth` file is searched for packages, but not for further `.pth` files, such as that of this project's editable
    installation.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    options = ["--offline", "--no-deps", "--python", str(python), str(wheel)]
    subprocess.run([UV, "pip", "install", *options], capture_output=True, check=True)
    paths = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python
