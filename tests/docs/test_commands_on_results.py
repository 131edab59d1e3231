"""The commands of the pages that need a sweep's results run on those of a small quick start."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from command_line import vlm_rm
from pages import PAGES, REPOSITORY, blocks_of
from small_sweeps import SWEEP

from vlm_rm_sweeps.sweeping.config.trial import REFERENCE_PROMPT
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.results import read_results

pytestmark = pytest.mark.sweeps

_SERVERS = ("make mlflow",)
"""Commands that run until they are interrupted, which `test_make_mlflow_serves_the_results` does."""
_SWEEP = re.compile(r"results/(?:<sweep>|\w+-(?:<time>|[\d-]+))")
SMALL = {
    key: SWEEP[key] for key in ("models", "alphas", "steps", "steps_per_result", "evaluation_episodes", "settings", "trial")
}


def commands_on_results(folder: Path, trial: str) -> list[str]:
    """All commands in blocks that need results and nothing else, of this folder, each once, in the order of the pages."""
    blocks = [block for page in PAGES for block in blocks_of(page, "console") if block.needs == "results"]
    commands = [command for block in blocks for line in block.text.splitlines() for command in line.split(" && ")]
    named = (_SWEEP.sub(str(folder), command).replace("<id>", trial).removeprefix(".venv/bin/") for command in commands)
    return [command for command in dict.fromkeys(named) if command not in _SERVERS]


@pytest.fixture
def finished(ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """The results of a quick start of few steps, in a folder like the repository's."""
    (tmp_path / "analysis").symlink_to(REPOSITORY / "analysis")
    (tmp_path / "sweeps").mkdir()
    small = {"base": str(REPOSITORY / "sweeps" / "quickstart.yaml")} | SMALL
    (tmp_path / "sweeps" / "quickstart.yaml").write_text(yaml.safe_dump(small))
    monkeypatch.chdir(tmp_path)
    vlm_rm("sweep", "sweeps/quickstart.yaml")
    (folder,) = Path("results").glob("quickstart-*")
    return SweepFolder(folder)


def test_commands_on_results_run(finished: SweepFolder) -> None:
    trials = read_results(finished.table)
    trial = trials[trials["prompt"] != REFERENCE_PROMPT]["trial_id"].iloc[0]
    ran = [run(command) for command in commands_on_results(finished.path, trial)]
    assert {"report", "evaluate", "status", "states", "epic", "sweep", "analysis/figures.py"} <= set(ran)
    assert (finished.path / "report.html").is_file()
    assert list((finished.path / "figures").glob("*.png"))


def test_make_mlflow_serves_the_results(mlflow_database: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    shutil.copyfile(mlflow_database, tmp_path / "results" / "mlflow.db")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = os.environ | {"MLFLOW_PORT": str(port)}
    server = subprocess.Popen(make_in(tmp_path, "mlflow"), cwd=tmp_path, env=environment, start_new_session=True)
    try:
        assert _answer(f"http://127.0.0.1:{port}/health", server) == "OK"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def test_make_dashboard_asks_for_a_sweep_that_runs(tmp_path: Path) -> None:
    environment = os.environ | {"RAY_TMPDIR": str(tmp_path)}
    ended = subprocess.run(make_in(tmp_path, "dashboard"), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, "start a sweep first" in ended.stderr) == (2, True)


def make_in(folder: Path, target: str) -> list[str]:
    """Return the command that makes a target in another folder with what is installed here."""
    (folder / ".venv").mkdir()
    (folder / ".venv" / ".installed").touch()
    return ["make", "-f", str(REPOSITORY / "Makefile"), "-o", ".venv/.installed", f"BIN={Path(sys.executable).parent}", target]


def _answer(url: str, server: subprocess.Popen[bytes]) -> str:
    """Ask a server that is starting until it answers, for as long as it runs."""
    while server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
        time.sleep(0.5)
    raise AssertionError(f"it ended with status {server.returncode}")


def run(command: str) -> str:
    """Run a command as a shell in the repository would, and return what it runs."""
    program, *words = shlex.split(command)
    if program == "make":
        given = dict(word.split("=", 1) for word in words[1:])
        assert words[0] in ("analysis", "sweep"), command
        if words[0] == "sweep":  # of a sweep of its own, which takes hours
            return "sweep"
        program, words = "python", ["analysis/figures.py", given["SWEEP_RUN"]]
    if program == "python":
        ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=200)
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
    else:
        assert program == "vlm-rm", command
        fewer = ["--episodes", "2"] if words[0] == "evaluate" else []
        assert vlm_rm(*words, *fewer), command
    return words[0]
