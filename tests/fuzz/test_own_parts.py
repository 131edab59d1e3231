"""Parts as users write them, with one odd member each: the commands that use them do their work, or one message says what is wrong."""

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import odd_parts
import pytest
from command_line import vlm_rm
from hypothesis import strategies as st

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.base import FrameReward, RewardFunction
from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.tasks.state_space import BoxStates
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.algorithms.base import Algorithm

MODULE = "fuzzed_parts"
ODD = [
    "None", "True", "-1", "0", "2.5", "float('nan')", "float('inf')", "10**30", "''", "'x'", "()", "('x',)", "[]", "[[]]", "{}",
    "{'angle': None}", "object()", "b'x'", "np.zeros(3)", "np.zeros((3, 2))", "np.float32(1)", "np.array(['x'])", "GoalCosine()",
    "iter(())", "len", "{}['odd']", "1 / 0", "exit(3)",
]  # fmt: skip
FORMS = ["{name} = {odd}", "def {name}(self, *given, **named): return {odd}", "def {name}(self): return {odd}"]
FORMS += ["@property\ndef {name}(self): return {odd}"]
WHOLE: dict[str, type] = {
    "Redness": RewardModel,
    "GoalCosine": FrameReward,
    "Combining": RewardFunction,
    "Angle": BoxStates,
    "Learner": Algorithm,
    "task": Task,
}
"""Parts without a fault, by the class that has their contract."""
LEFT_OUT = {"model_config", "load", "training_state", "restore_training_state", "after_build", "build_policy", "greedy_action"}
"""What only training or a GPU needs."""
_numbers = itertools.count()


@dataclass(frozen=True)
class OwnPart:
    """A part of which one member is odd."""

    part: str
    member: str
    odd: str
    form: str

    def name(self) -> str:
        """Define it in a module, as a user would; a name is found only once."""
        defined = f"part{next(_numbers)}"
        try:
            return f"{MODULE}:{self._define(defined, sys.modules[MODULE].__dict__)}"
        except (Exception, SystemExit) as error:
            raise UserError("the module cannot be imported") from error  # as `import_module` says of a file

    def _define(self, defined: str, within: dict[str, Any]) -> str:
        if self.part == "task":
            exec(f"def {defined}():\n    return task({self.member}={self.odd})", within)
            return defined
        member = self.form.format(name=self.member, odd=self.odd).replace("\n", "\n    ")
        exec(f"class {defined}({self.part}):\n    {member}", within)
        if self.part == "Angle":
            exec(f"def {defined}_task():\n    return task(states={defined}())", within)
            return f"{defined}_task"
        return defined


def members(part: str) -> list[str]:
    contract = [each for each in WHOLE[part].__mro__ if each.__module__.startswith("vlm_rm_sweeps.")]
    named = {name for each in contract for name in (*vars(each), *getattr(each, "__annotations__", ()))}
    return sorted(name for name in named if not name.startswith("_") and name not in LEFT_OUT)


def all_own_parts() -> list[OwnPart]:
    """Each member of each part, odd in each way; a task's are arguments, which have one form."""
    return [
        OwnPart(part, member, odd, form)
        for part in sorted(WHOLE)
        for member in members(part)
        for odd in ODD
        for form in (FORMS[:1] if part == "task" else FORMS)
    ]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ModuleType(MODULE)
    made.__dict__.update(vars(odd_parts) | {"__name__": MODULE})
    monkeypatch.setitem(sys.modules, MODULE, made)


ALL = all_own_parts()


@pytest.mark.parametrize(("cases", "short"), [(20, True), pytest.param(len(ALL), False, marks=pytest.mark.fuzz)])
def test_parts_with_an_odd_member_are_used_or_refused(
    fuzzed: Any, module: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cases: int, short: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text("{name: odd, task: cartpole-upright, models: [embedded/tiny], alphas: [0], steps: 100}")
    vlm_rm("states", "sample", "cartpole-upright", "--count", "40", "--output", "states")

    def use(case: OwnPart) -> None:
        named = case.name()
        plan = ("sweep", "sweep.yaml", "--dry-run", "--set")
        match case.part:
            case "Redness":
                vlm_rm(*plan, f"models=[{named}]")
                vlm_rm("epic", "states", "--model", named)
            case "GoalCosine" | "Combining":
                vlm_rm(*plan, "alphas=[]", "--set", f"rewards=[{named}]")
                vlm_rm("epic", "states", "--model", "embedded/tiny", "--reward", named)
            case "Learner":
                vlm_rm(*plan, f"algorithm={named}")
            case _:
                vlm_rm(*plan, f"task={named}")
                vlm_rm("states", "sample", named, "--count", "2", "--output", named.partition(":")[2])

    fuzzed("own parts", cases, st.sampled_from(ALL), use, short)
