"""Standard output that is closed, full, gone or ASCII never ends a command, and nothing printed lands in another file."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_sweeps import SWEEP

from vlm_rm_sweeps.sweeping.tracking.journal import SweepEnded, read_entries

# Stands for a command: it prints more than a pipe holds, opens a file in between, and writes it whole.
COMMAND = """
import sys
from vlm_rm_sweeps.cli.terminal import keep_streams, say
keep_streams()
with open(sys.argv[1], "w", encoding="utf-8") as file:
    for number in range(20_000):
        say(f"line {number} \\u00fc")
        file.write("row\\n")
print("done", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("redirection", "shown"),
    [
        (">&-", ""),
        ("<&- >&- 2>&-", ""),
        (">/dev/full", ""),
        ("| head -n 1", "line 0 \\xfc\n"),
        ("2>/dev/full | tail -n 1", "line 19999 \\xfc\n"),
    ],
)
def test_the_command_goes_on_and_its_files_are_whole(redirection: str, shown: str, tmp_path: Path) -> None:
    file, script = tmp_path / "table.csv", tmp_path / "command.py"
    script.write_text(COMMAND)
    command = f"set -o pipefail; PYTHONIOENCODING=ascii '{sys.executable}' '{script}' '{file}' {redirection}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == shown
    assert ran.stderr in ("", "done\n")
    assert file.read_text() == "row\n" * 20_000


@pytest.mark.parametrize("name", ["x" * 300, "loop"])
@pytest.mark.parametrize("command", ["sweep", "report", "evaluate", "states show", "label", "epic --model embedded/tiny"])
def test_a_name_that_no_file_has_is_one_message(command: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    code = "import sys; from vlm_rm_sweeps.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, *command.split(), str(tmp_path / name)], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("vlm-rm: ")
    assert ran.stderr.count("\n") == 1, ran.stderr


@pytest.mark.sweeps
@pytest.mark.parametrize("redirection", ["| head -n 1", ">&-", ">/dev/full"])
def test_a_whole_sweep_goes_on_without_its_output(redirection: str, tmp_path: Path) -> None:
    keys = SWEEP | {"name": "unheard", "true_reward": False, "videos": False, "trial": {"cpus": 1}}
    (tmp_path / "unheard.yaml").write_text(yaml.safe_dump(keys))
    code = "from vlm_rm_sweeps.cli import main; main()"
    command = f"set -o pipefail; '{sys.executable}' -c '{code}' sweep unheard.yaml {redirection}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=400, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("\n") == (1 if "head" in redirection else 0)
    (table,) = tmp_path.glob("results/unheard-*/trials.csv")
    assert pd.read_csv(table)["status"].tolist() == ["finished"]
    assert isinstance(read_entries(table.parent / "journal.jsonl")[-1], SweepEnded)
