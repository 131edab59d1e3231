"""What is known of a trial from earlier attempts, whatever became of its journal."""

from collections.abc import Callable
from pathlib import Path

from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.tracking.journal import Journal
from vlm_rm_sweeps.sweeping.tracking.progress import Progress
from vlm_rm_sweeps.sweeping.tracking.tune_callback import Recorder
from vlm_rm_sweeps.training.checkpoints import Checkpoint, TrialFolder

SWEEP = Sweep.model_validate(
    {"name": "recalled", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.5], "steps": 300}
)


def damage(journal: Path, line: int) -> None:
    lines = journal.read_bytes().splitlines()
    lines[line] = lines[line][:-4]
    journal.write_bytes(b"\n".join(lines) + b"\n")


def test_a_result_that_was_damaged_is_taken_from_the_checkpoint(saved_step: Callable[..., Checkpoint], tmp_path: Path) -> None:
    """Also one in the middle, and also of a trial that has finished; it does not pass for the newest."""
    trial = SWEEP.trials()[-1]
    results = [{"env_steps": step, "time_ms": step, "evaluation_true_return": float(step)} for step in (100, 200, 300)]
    checkpoints = TrialFolder(saved_step(tmp_path / "trial", 300, results).folder.parent)
    journal = Journal(tmp_path / "journal.jsonl")
    measures = {"epic_distance": 0.5}
    journal.append("measure", 50, trial=trial.trial_id, metrics=measures)
    for result in results:
        metrics = {"evaluation_true_return": result["evaluation_true_return"]}
        journal.append("result", 0, trial=trial.trial_id, step=result["env_steps"], metrics=metrics)
    for line in (0, 2):
        damage(tmp_path / "journal.jsonl", line)

    journal = Journal(tmp_path / "journal.jsonl")
    recorder = Recorder(journal, Progress({trial.trial_id: 300}, print), print)
    recorder.measured({trial.trial_id: measures})
    recorder.recall(trial, checkpoints, finished=True)
    assert sorted(entry["step"] for entry in journal.entries if entry["kind"] == "result") == [100, 200, 300]
    assert [entry["metrics"] for entry in journal.entries if entry["kind"] == "measure"] == [measures]
    assert recorder.outcome(trial).metrics == {"evaluation_true_return": 300.0, "epic_distance": 0.5}

    again = Recorder(Journal(tmp_path / "journal.jsonl"), Progress({trial.trial_id: 300}, print), print)
    again.recall(trial, checkpoints, finished=False)
    assert len(Journal(tmp_path / "journal.jsonl").entries) == 4, "nothing is written twice"
