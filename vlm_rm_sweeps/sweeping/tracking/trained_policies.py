"""The policies that sweeps have trained, found by the folder of a sweep, a trial or a checkpoint."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.rollouts import find_checkpoint
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.training.checkpoints import POLICY, Checkpoint, TrialFolder, is_checkpoint

Which = Literal["best", "last", "all"]
"""Which policies of a trial to use: the best, the newest, or all that are kept (the best and the newest two)."""


def trained_policies(sources: Sequence[Path | RemoteFolder], which: Which, say: Callable[[str], None]) -> list[Checkpoint]:
    """Find the policies of checkpoints, trials or whole sweeps.

    Args:
        sources: Folders or addresses of checkpoints, of trials, or of sweeps; of a sweep, all trials that have a policy.
        which: Which policies of each trial.
        say: Prints a line about each sweep.

    Returns:
        Checkpoints with a policy, in the order of the sources; those of one trial by environment steps.

    Raises:
        UserError: One of the folders has no policy.
        StoreError: An address does not answer.
    """
    return [checkpoint for source in sources for checkpoint in _policies_in(source, which, say)]


def _policies_in(source: Path | RemoteFolder, which: Which, say: Callable[[str], None]) -> list[Checkpoint]:
    folder = SweepFolder.at(source)
    if not folder.fetch():
        return _policies_of(source, which)
    found: list[Checkpoint] = []
    trials = 0
    for trial in folder.trials():
        with suppress(UserError):  # a trial may have failed before its first checkpoint
            found += _policies_of(folder.trial_place(trial.name), which)
            trials += 1
    if not found:
        raise UserError(
            f"{source}: no trial has a checkpoint yet: wait for the first, or resume with `vlm-rm sweep FILE --resume`"
        )
    say(f"{source}: {len(found)} policies of {trials} of {len(folder.trials())} trials")
    return found


def _policies_of(trial: Path | RemoteFolder, which: Which) -> list[Checkpoint]:
    """Return the policies of a trial or of one checkpoint, by environment steps; a policy that is kept twice counts once."""
    if which != "all" or is_checkpoint(trial):
        return [find_checkpoint(trial, which == "last")]
    found: dict[str, Checkpoint] = {}
    for checkpoint in TrialFolder(trial).kept():
        found.setdefault(checkpoint.content["files"][POLICY]["sha256"], checkpoint)
    return sorted(found.values(), key=lambda checkpoint: checkpoint.env_steps) or [find_checkpoint(trial)]
