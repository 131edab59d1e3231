"""The page of `vlm-rm demo`: written without Ray, whole in itself, and of a policy that succeeds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import sys
from vlm_rm_sweeps.cli import main
sys.argv = ["vlm-rm", "demo", "--no-open", "-o", sys.argv[1]]
try:
    main()
finally:
    ray = sys.modules.get("ray")
    print("started:", ray is not None and ray.is_initialized(), "mlflow" in sys.modules)
"""


@pytest.mark.sweeps
def test_the_page_needs_nothing_else_and_the_policy_succeeds(tmp_path: Path) -> None:
    page = tmp_path / "new" / "demo.html"
    shown = subprocess.run([sys.executable, "-c", RUN, str(page)], capture_output=True, text=True, timeout=300)
    assert shown.returncode == 0, shown.stderr
    assert "started: False False" in shown.stdout
    assert f"written to {page}" in shown.stdout
    text = page.read_text()
    assert not re.search(r"https?://|<script", text), "nothing from outside, and no scripts"
    assert text.count("data:video/mp4;base64,") == text.count("data:image/png;base64,") == 1
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td><td>(.*?) %</td></tr>", text)
    (policy, clip, true, goal), (random, random_clip, random_true, random_goal) = rows
    assert (policy, random) == ("the policy", "random actions")
    assert float(clip) > float(random_clip)
    assert float(true) > float(random_true)
    assert float(goal) > 90 > float(random_goal)
