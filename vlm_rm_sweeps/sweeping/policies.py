"""The policies that sweeps have learned, found by the folder of a sweep, a trial or a checkpoint."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.rollouts import find_checkpoint
from vlm_rm_sweeps.sweeping.folder import SweepFolder
from vlm_rm_sweeps.training.checkpoints import Checkpoint


def learned_policies(sources: Sequence[Path], last: bool, say: Callable[[str], None]) -> list[Checkpoint]:
    """One checkpoint of each trial, its best, or with `last` its newest; of a sweep those of all trials that have one.

    Raises UserError if there is none in one of the folders.
    """
    return [checkpoint for source in sources for checkpoint in _policies_in(source, last, say)]


def _policies_in(source: Path, last: bool, say: Callable[[str], None]) -> list[Checkpoint]:
    folder = SweepFolder(source)
    if not folder.sweep_file.is_file():
        return [find_checkpoint(source, last)]
    found = []
    for trial in folder.trials():
        with suppress(UserError):  # a trial may have failed before its first one
            found.append(find_checkpoint(trial, last))
    if not found:
        raise UserError(f"{source}: no trial has a checkpoint yet: wait for the first, or go on with `vlm-rm sweep --resume`")
    say(f"{source}: policies of {len(found)} of {len(folder.trials())} trials")
    return found
