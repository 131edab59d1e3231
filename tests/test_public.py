"""The public face: a stable list of names, each of which can be imported from the package itself."""

import ast
import subprocess
import sys
from pathlib import Path

import vlm_rm_sweeps

PUBLIC = [
    "Algorithm",
    "BoxStates",
    "ClipRewardVectorWrapper",
    "ClipRewardWrapper",
    "FrameFormat",
    "FrameReward",
    "Plan",
    "Rendering",
    "RewardFunction",
    "RewardModel",
    "RewardPool",
    "RewardSpec",
    "StateSpace",
    "StateVariable",
    "Sweep",
    "SweepOutcome",
    "Task",
    "Texts",
    "UserError",
    "dots",
    "find_algorithm",
    "find_reward",
    "find_reward_model",
    "find_task",
    "load_reward_model",
    "load_sweep",
    "local_path",
    "make_plan",
    "make_reward",
    "register_algorithm",
    "register_reward",
    "register_reward_model",
    "register_task",
    "reward_pool",
    "run_sweep",
    "use_rewards",
]
"""What other people's code imports: a name may be added, and none is taken away without a word in the release notes."""


def test_the_public_names_are_these_and_all_are_there() -> None:
    assert sorted(vlm_rm_sweeps.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(vlm_rm_sweeps, name).__name__ == name
    assert set(PUBLIC) <= set(dir(vlm_rm_sweeps))
    assert not hasattr(vlm_rm_sweeps, "no_such_name")


def test_type_checkers_see_what_is_imported() -> None:
    tree = ast.parse(Path(vlm_rm_sweeps.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {name.name: each.module for each in block.body if isinstance(each, ast.ImportFrom) for name in each.names}
    assert imported == {name: f"vlm_rm_sweeps.{module}" for name, module in vlm_rm_sweeps._HOMES.items()}


def test_importing_the_package_imports_nothing_else_of_weight() -> None:
    code = "import sys, vlm_rm_sweeps; print([name for name in ('numpy', 'torch', 'ray', 'mlflow') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
