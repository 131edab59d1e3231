"""What is known of a trial from earlier attempts, whatever became of its journal; and how it ends."""

import pickle
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_content import resumable
from ray.core.generated.common_pb2 import ActorDiedErrorContext  # type: ignore[attr-defined]
from ray.exceptions import ActorDiedError

from vlm_rm_sweeps.metrics import FAILURE, FINISHED, REACHED, REMARKS, RunStatus, TrialStatus
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.config.searching import Drawn
from vlm_rm_sweeps.sweeping.tracking.journal import Journal, ResultLogged, RewardMeasured, TakenOver, TrialEnded, TrialStopped
from vlm_rm_sweeps.sweeping.tracking.progress import Progress
from vlm_rm_sweeps.sweeping.tracking.tune_callback import JournalCallback
from vlm_rm_sweeps.training.checkpoints import TrialFolder

PLAN = plan_of({"name": "recalled", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.5], "steps": 300})


def damage(journal: Path, line: int) -> None:
    lines = journal.read_bytes().splitlines()
    lines[line] = lines[line][:-4]
    journal.write_bytes(b"\n".join(lines) + b"\n")


def test_a_result_that_was_damaged_is_taken_from_the_checkpoint(tmp_path: Path) -> None:
    """Also one in the middle, and also of a trial that has finished; it does not pass for the newest."""
    trial = PLAN.trials[-1]
    results = [{"env_steps": step, "time_ms": step, "evaluation_true_return": float(step)} for step in (100, 200, 300)]
    checkpoints = TrialFolder(tmp_path / "trial")
    network = torch.nn.Linear(2, 2)
    checkpoints.save(network, {}, resumable(300, results))  # type: ignore[arg-type]
    journal = Journal(tmp_path / "journal.jsonl")
    measures = {"epic_distance": 0.5}
    journal.append(RewardMeasured(time=50, trial=trial.trial_id, metrics=measures))
    for result in results:
        metrics = {"evaluation_true_return": result["evaluation_true_return"]}
        journal.append(ResultLogged(time=0, trial=trial.trial_id, step=result["env_steps"], metrics=metrics))
    for line in (0, 2):
        damage(tmp_path / "journal.jsonl", line)

    journal = Journal(tmp_path / "journal.jsonl")
    callback = JournalCallback(journal, Progress({trial.trial_id: 300}, print), print)
    callback.measured({trial.trial_id: measures})
    callback.recall(trial, checkpoints, finished=True)
    assert sorted(entry.step for entry in journal.entries if isinstance(entry, ResultLogged)) == [100, 200, 300]
    assert [entry.metrics for entry in journal.entries if isinstance(entry, RewardMeasured)] == [measures]
    assert callback.outcome(trial).metrics == {"evaluation_true_return": 300.0, "epic_distance": 0.5}

    again = JournalCallback(Journal(tmp_path / "journal.jsonl"), Progress({trial.trial_id: 300}, print), print)
    again.recall(trial, checkpoints, finished=False)
    assert len(Journal(tmp_path / "journal.jsonl").entries) == 4, "nothing is written twice"


def test_results_of_other_processes_share_the_names_of_their_metrics(tmp_path: Path) -> None:
    """Else a journal would hold each name as often as it has results."""
    trial, journal, said = PLAN.trials[-1], Journal(tmp_path / "journal.jsonl"), list[str]()
    callback = JournalCallback(journal, Progress({trial.trial_id: 300}, said.append), said.append)
    tune_trial: Any = OfTune(trial)
    for step in (100, 200):
        result = pickle.loads(pickle.dumps({"true_return_of_others": 1.0, "env_steps": step, "time_ms": step}))
        callback.on_trial_result(0, [], tune_trial, result)
    first, second = (next(iter(each.metrics)) for each in journal.entries if isinstance(each, ResultLogged))
    assert first == "true_return_of_others"
    assert first is second


class OfTune:
    """The part of Tune's trial that is read."""

    def __init__(self, trial: Any) -> None:
        self.config = {"run": {"trial": trial.to_dict()}}


@pytest.mark.parametrize(
    ("last", "status", "run_status", "reason"),
    [
        pytest.param({FINISHED: True}, TrialStatus.FINISHED, RunStatus.FINISHED, "", id="without an evaluation"),
        pytest.param({"evaluation_true_return": 3.0}, TrialStatus.UNFINISHED, None, "interrupted", id="with one of the middle"),
        pytest.param(
            {FAILURE: "X: its reward is nan"}, TrialStatus.FAILED, RunStatus.FAILED, "X: its reward is nan", id="failed"
        ),
    ],
)
def test_a_trial_has_finished_if_it_says_so(
    tmp_path: Path, last: dict[str, Any], status: TrialStatus, run_status: RunStatus | None, reason: str
) -> None:
    """Not if there is some metric: one that is not finite is left out, and one may come before the end."""
    trial, said = PLAN.trials[-1], list[str]()
    journal = Journal(tmp_path / "journal.jsonl")
    callback = JournalCallback(journal, Progress({trial.trial_id: 300}, said.append), said.append)
    tune_trial: Any = OfTune(trial)
    callback.on_trial_start(0, [], tune_trial)
    callback.on_trial_result(0, [], tune_trial, {"env_steps": 300, "time_ms": 1, "done": True} | last)
    callback.on_trial_complete(0, [], tune_trial)
    outcome = callback.outcome(trial)
    assert (outcome.status, outcome.reason) == (status, reason)
    ended = [entry for entry in journal.entries if isinstance(entry, TrialEnded)]
    assert [entry.status for entry in ended] == ([run_status] if run_status else [])
    assert [entry.tags.get("reason", "") for entry in ended] == ([reason] if run_status else [])
    assert status is TrialStatus.UNFINISHED or any(reason in line for line in said)


EVALUATED = {"evaluation_true_return": 3.0, "evaluation_success": 0.5}


@pytest.mark.parametrize(
    ("results", "why", "reason", "judged"),
    [
        ([EVALUATED | {FINISHED: True, REACHED: "success 0.5 reached 0.4"}], None, "success 0.5 reached 0.4", True),
        ([EVALUATED], "asha: worse", "asha: worse", True),
        ([EVALUATED, {"true_return": 9.0}], "asha: worse", "asha: worse", False),
    ],
    ids=["good enough", "given up at an evaluation", "given up after one"],
)
def test_a_trial_that_was_stopped_early_keeps_step_and_reason(
    tmp_path: Path, results: list[dict[str, Any]], why: str | None, reason: str, judged: bool
) -> None:
    """Also when the sweep is resumed. What its greedy policy was worth before its end is not what it was worth at its end."""
    trial, said = PLAN.trials[-1], list[str]()
    file = tmp_path / "journal.jsonl"
    callback = JournalCallback(Journal(file), Progress({trial.trial_id: 300}, said.append), said.append)
    recorded = list[Any]()
    callback.on_finished, callback.why_stopped = recorded.append, {trial.trial_id: why}.get
    tune_trial: Any = OfTune(trial)
    callback.on_trial_start(0, [], tune_trial)
    for number, result in enumerate(results, 1):
        callback.on_trial_result(0, [], tune_trial, {"env_steps": 100 * number, "time_ms": number} | result)
    callback.on_trial_complete(0, [], tune_trial)

    again = JournalCallback(Journal(file), Progress({trial.trial_id: 300}, said.append), said.append)
    again.recall(trial, TrialFolder(tmp_path / "none"), finished=True)
    for outcome in (callback.outcome(trial), again.outcome(trial)):
        assert (outcome.status, outcome.reason, outcome.has_ended) == (TrialStatus.STOPPED, reason, True)
        assert ("evaluation_success" in outcome.metrics) is judged
    (stopped,) = [entry for entry in Journal(file).entries if isinstance(entry, TrialStopped)]
    assert (stopped.step, stopped.reached) == (100 * len(results), why is None)
    assert recorded == ([trial] if why is None else []), "a video is recorded of what was good enough"
    assert any(f"stopped at step {stopped.step}: {reason}" in line for line in said)


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_failure_that_is_retried_is_one_line_with_its_cause_and_its_node(tmp_path: Path, elsewhere: bool) -> None:
    """The machine that runs the sweep is not named, on a laptop neither."""
    trial, said = PLAN.trials[-1], list[str]()
    file = tmp_path / "journal.jsonl"
    callback = JournalCallback(Journal(file), Progress({trial.trial_id: 300}, said.append), said.append)
    message = "The actor died because its node has died. Node Id: 1\n\tthe actor's node was terminated: drained"
    error = ActorDiedError(cause=ActorDiedErrorContext(error_message=message, actor_id=b"1" * 16))
    tune_trial: Any = OfTune(trial)
    tune_trial.pickled_error_file = str(tmp_path / "error.pkl")
    (tmp_path / "error.pkl").write_bytes(pickle.dumps(error))
    callback.on_trial_start(0, [], tune_trial)
    host = "node-7" if elsewhere else platform.node()
    callback.on_trial_result(0, [], tune_trial, {"env_steps": 100, "time_ms": 1, "hostname": host})
    said.clear()
    callback.on_trial_recover(0, [], tune_trial)
    place = " on node-7" if elsewhere else ""
    assert said == [f"{trial.label}: failed{place} (its node died (terminated: drained)), retrying"]
    logged = [entry for entry in Journal(file).entries if isinstance(entry, ResultLogged)]
    assert [entry.host for entry in logged] == ["node-7" if elsewhere else None]


def test_what_the_audit_says_is_in_the_journal_each_time_and_on_the_terminal_once(tmp_path: Path) -> None:
    trial, said = PLAN.trials[-1], list[str]()
    journal, tune_trial = Journal(tmp_path / "journal.jsonl"), OfTune(trial)
    down, slow = "the audit goes on without openai/vlm: it is down", "the audit goes on without openai/vlm: it is slow"
    for step, remarks in ((100, [down]), (200, [down, slow])):
        # Each in an execution of its own.
        callback = JournalCallback(journal, Progress({trial.trial_id: 300}, said.append), said.append)
        callback.recall(trial, TrialFolder(tmp_path / "trial"), finished=False)
        result = {"env_steps": step, "time_ms": 1, REMARKS: remarks}
        callback.on_trial_result(0, [], tune_trial, result)  # type: ignore[arg-type]
    callback.on_trial_result(0, [], tune_trial, {"env_steps": 300, "time_ms": 1, REMARKS: [slow], FINISHED: True})  # type: ignore[arg-type]
    callback.on_trial_complete(0, [], tune_trial)  # type: ignore[arg-type]
    logged = [entry.remarks for entry in Journal(tmp_path / "journal.jsonl").entries if isinstance(entry, ResultLogged)]
    assert logged == [(down,), (down, slow), (slow,)]
    assert [line for line in said if "goes on" in line] == [f"{trial.label}: {each}" for each in (down, down, slow)]
    (ended,) = (entry for entry in journal.entries if isinstance(entry, TrialEnded))
    assert ended.tags["audit_remarks"] == f"{down}; {slow}"


def test_drift_beyond_five_percent_is_told_once_with_what_to_do(tmp_path: Path) -> None:
    """Also when the sweep is resumed. A trial whose model has no such column is not spoken of."""
    trial, said = PLAN.trials[-1], list[str]()
    tune_trial: Any = OfTune(trial)

    def callback() -> JournalCallback:
        made = JournalCallback(Journal(tmp_path / "journal.jsonl"), Progress({trial.trial_id: 500}, said.append), said.append)
        made.recall(trial, TrialFolder(tmp_path / "trial"), finished=False)
        return made

    executions = [callback()]
    for step, drift in ((100, None), (200, 0.05), (300, 0.31), (400, 0.5), (500, 0.6)):
        audit = {"audit_proxy_reward": 0.5} | ({} if drift is None else {"audit_column/drift": drift})
        if step == 500:
            executions.append(callback())
        executions[-1].on_trial_result(0, [], tune_trial, {"env_steps": step, "time_ms": step} | audit)
    (told,) = [line for line in said if "drift" in line]
    assert told.startswith(
        f"{trial.label}: drift at step 300: 31 % of its latest frames are unlike those that it was trained on"
    )
    assert "vlm-rm distill --states" in told


def test_takeovers_are_written_and_told_and_known_to_a_later_execution(tmp_path: Path) -> None:
    trial, said = PLAN.trials[-1], list[str]()
    journal = Journal(tmp_path / "journal.jsonl")
    callback = JournalCallback(journal, Progress({trial.trial_id: 300}, said.append), said.append)
    values: dict[str, Drawn] = {"settings.learning_rate": 0.00123456, "settings.double_q": False}
    takeover = TakenOver(trial=trial.trial_id, step=100, source="other", source_step=100, values=values)
    callback.take_over([(trial, takeover)])
    assert said == [
        f"{trial.label}: takes over the training of trial other at step 100, with learning_rate 0.001235, double_q False"
    ]
    assert callback.outcome(trial).takeovers == (takeover,)
    again = JournalCallback(Journal(tmp_path / "journal.jsonl"), Progress({trial.trial_id: 300}, print), print)
    assert again.outcome(trial).values == values
