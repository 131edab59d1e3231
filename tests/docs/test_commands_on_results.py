"""The commands of the pages that need a sweep's results run on those of a small quick start."""

import re
import shlex
import subprocess
import sys
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
"""Commands that run until they are interrupted."""
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
