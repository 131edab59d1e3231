"""Checkpoints on disk: one folder each, which is complete or does not exist.

A trial's folder contains `step-000004096/`, from which training resumes (the two newest are kept, in case the newest is
damaged, and those of the last two steps at which a population was compared), and `best-000002048/`, the policy with the highest
metric so far. Each of them has

- `checkpoint.json`: everything needed to use it (`CheckpointContent`), with size and SHA-256 of each other file, so that
  truncated files are detected;
- `policy.safetensors`: the policy's weights;
- `state.pkl`, only in `step-...`: the rest of the training state, replay buffer included. It is a pickle: only resume sweeps
  from folders that you trust. Loading a policy does not read it.

`failure.json`, beside them, records the last error that the trial raised, and its step.

A checkpoint is written to a temporary folder, flushed to disk, and renamed. If results are at an address, it is then put there,
`checkpoint.json` last, and fetched from there by a trial that resumes on another machine.
"""

import json
import pickle
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, cast

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, WrapValidator
from safetensors.torch import load_file, save_file
from typing_extensions import TypedDict

from vlm_rm_sweeps.errors import DamagedFileError, UserError, reason_of
from vlm_rm_sweeps.files import UNFINISHED, file_inside, flush, read_json, refuse_no_file, sha256_of, write_whole, written_whole
from vlm_rm_sweeps.metrics import ENV_STEPS, TIME_MS
from vlm_rm_sweeps.rewards.reward_model import Precision
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.tasks.rendering import Profile

if TYPE_CHECKING:
    from ray.rllib.core.rl_module.rl_module import RLModule

CHECKPOINT = "checkpoint.json"
POLICY = "policy.safetensors"
STATE = "state.pkl"
TRIALS = "trials"
"""Name of the folder of trials in a sweep's folder. Each trial has a folder in it, named by its id."""
_FAILURE = "failure.json"
_BEST = "best-"
_STEP = "step-"
KEPT = 2
"""Number of a trial's newest checkpoints that stay on disk."""
KEPT_FOR_OTHERS = 2
"""Number of those at which a population was compared that stay, too, until nobody can go on from them."""
_FORMAT = 1
_REMEDY = "restore it, use another checkpoint, or resume the sweep"


TrialResult = dict[str, float]
"""One result of a trial: values by metric name (see `metrics`), with its environment step and its time."""


def _dated(result: TrialResult) -> TrialResult:
    for name in (ENV_STEPS, TIME_MS):
        if not float(result.get(name, "nan")).is_integer():
            raise UserError(f"expected a whole number as {name}")
    return result


def _of_this_format(found: int) -> int:
    if found != _FORMAT:
        raise UserError(f"written by another version of vlm-rm, expected format {_FORMAT}")
    return found


def _with_weights(files: dict[str, "FileContent"]) -> dict[str, "FileContent"]:
    if POLICY not in files:
        raise UserError(f"expected {POLICY} among the files")
    return files


_Count = Annotated[int, Field(ge=0)]
_StoredResults = Annotated[
    list[Annotated[TrialResult, AfterValidator(_dated)]],
    WrapValidator(lambda results, check: results if check(results) is not None else None),  # unchanged: whole numbers stay such
]


class RenderingContent(TypedDict):
    """How states were rendered (see `Rendering`).

    Args:
        textures: Name of the scene's textures.
        camera: Name of the camera.
        profile: Level of detail of OpenGL's rendering.
    """

    textures: str
    camera: str
    profile: Profile


class RewardContent(TypedDict):
    """The reward that a policy was trained by.

    Args:
        model: Id of the reward model.
        precision: Floating-point precision of its weights.
        micro_batch: Frames in one forward pass.
        goal: The goal prompts.
        baseline: The baseline prompts.
        alpha: The alpha of goal-baseline regularisation, from 0 to 1; 0 beside another function.
        function: The reward function, as `describe_reward` describes it; missing for goal-baseline regularisation.
        label: What the sweep called the reward, if its file names rewards.
    """

    model: str
    precision: Precision
    micro_batch: Annotated[int, Field(gt=0)]
    goal: Annotated[list[str], Field(min_length=1)]
    baseline: list[str]
    alpha: Annotated[float, Field(ge=0, le=1)]
    function: NotRequired[dict[str, Any]]
    label: NotRequired[str]


class JobContent(TypedDict):
    """The task that a policy was trained for, and how.

    Args:
        task: Name of the task.
        env: The sweep file's `env:` section, from which the task was made; None for a registered task.
        rendering: How states were rendered.
        control: How the policy acts, and what it observes (see `Control`); missing where an earlier version wrote it.
        algorithm: Name or reference under which any process finds the algorithm.
        settings: The algorithm's settings.
        seed: The trial's seed.
        reward: The reward; None for the environment's own.
    """

    task: str
    env: dict[str, Any] | None
    rendering: RenderingContent
    control: NotRequired[dict[str, Any]]
    algorithm: str
    settings: dict[str, Any]
    seed: _Count
    reward: RewardContent | None


class PolicyContent(JobContent):
    """The job together with the trained policy's network.

    Args:
        env_steps: Environment steps that the policy was trained for.
        model_config: RLlib's model configuration of its network.
    """

    env_steps: _Count
    model_config: dict[str, Any]


class BestContent(PolicyContent):
    """A trial's best policy.

    Args:
        metrics: Values of the metrics by which it was chosen.
        greedy: Whether they are of greedy episodes; else of training episodes, with exploration.
    """

    metrics: dict[str, float]
    greedy: NotRequired[bool]


class ResumableContent(PolicyContent):
    """A checkpoint to resume from.

    Args:
        results: All results of the trial so far.
        done: Whether the trial was finished.
    """

    results: list[TrialResult]
    done: bool


class FileContent(TypedDict):
    """Size and checksum of a file.

    Args:
        bytes: Size in bytes.
        sha256: SHA-256 in hexadecimal digits.
    """

    bytes: _Count
    sha256: str


class CheckpointContent(PolicyContent):
    """Content of `checkpoint.json`, of a best policy or of a checkpoint to resume from.

    Args:
        format: Version of the file's format.
        files: The other files of the checkpoint, by name.
        metrics: See `BestContent`.
        greedy: See `BestContent`; missing in checkpoints of version 0.1, which were chosen with exploration.
        results: See `ResumableContent`.
        done: See `ResumableContent`.
    """

    # What this version does not know is kept.
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    format: Annotated[int, AfterValidator(_of_this_format)]
    files: Annotated[dict[str, FileContent], AfterValidator(_with_weights)]
    metrics: NotRequired[dict[str, float]]
    greedy: NotRequired[bool]
    results: NotRequired[_StoredResults]
    done: NotRequired[bool]


_CONTENT = TypeAdapter(CheckpointContent)


@dataclass(frozen=True)
class Checkpoint:
    """A complete and undamaged checkpoint.

    Args:
        folder: Its folder.
        content: Content of its `checkpoint.json`.
    """

    folder: Path
    content: CheckpointContent

    @property
    def env_steps(self) -> int:
        """Number of environment steps that its policy was trained for."""
        return self.content["env_steps"]

    @property
    def chosen(self) -> str:
        """How a best policy was chosen, in words; empty for a checkpoint to resume from."""
        if "metrics" not in self.content:
            return ""
        return "chosen by greedy episodes" if self.content.get("greedy", False) else "chosen with exploration"

    def training_state(self) -> dict[str, Any]:
        """Unpickle the training state. Only call this for folders that the user named.

        Returns:
            The mapping that was given to `TrialFolder.save`.

        Raises:
            UserError: The file is a link that leads out of the checkpoint's folder.
        """
        with file_inside(self.folder, STATE).open("rb") as file:
            state: dict[str, Any] = pickle.load(file)
        return state

    def load_policy(self, module: "RLModule") -> None:
        """Load the policy's weights into a network.

        Args:
            module: A network of the same architecture; its weights are replaced.

        Raises:
            UserError: Names or shapes of the weights differ, so they belong to another task or network; or the file cannot be
                read.
        """
        try:
            refuse_no_file(file := file_inside(self.folder, POLICY))
            weights = load_file(file)
        except Exception as error:  # safetensors has errors of its own; and a trial that trains replaces its best policy
            raise DamagedFileError(
                f"{self.folder / POLICY} cannot be read ({reason_of(error)}): if the trial is being trained, try again; else restore it"
            ) from error
        network: Any = module
        expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in weights.items()}
        if expected != found:
            differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            name = differing[0]
            raise UserError(
                f"{self.folder} holds the policy of another task or network: its {name} has the shape {found.get(name)}, expected "
                f"{expected.get(name)}"
            )
        network.load_state_dict(weights)


class TrialFolder:
    """The folder with the checkpoints of one trial.

    Args:
        place: The folder, or the address of one, of which there is a copy on this machine. It need not exist yet.

    Attributes:
        folder: The folder on this machine.
    """

    def __init__(self, place: Path | RemoteFolder) -> None:
        self._remote = place if isinstance(place, RemoteFolder) else None
        self.folder = place.copy if isinstance(place, RemoteFolder) else place

    def save(
        self, module: "RLModule", state: Mapping[str, Any], content: ResumableContent, also_kept: Collection[int] = ()
    ) -> Checkpoint:
        """Write a checkpoint to resume from, then remove all but the two newest and those that others may need.

        Args:
            module: The policy's network.
            state: The training state, which is pickled.
            content: Content of its `checkpoint.json`, without format and files.
            also_kept: Environment steps whose checkpoints stay, too.

        Returns:
            The checkpoint.

        Raises:
            OSError: It cannot be written, or not be put where results are. All earlier checkpoints are still in place.
        """
        kept = {_step_name(step) for step in also_kept}
        checkpoint = _write(self.folder / _step_name(content["env_steps"]), module, content, state)
        for old in self._here(_STEP)[KEPT:]:
            if old not in kept:
                shutil.rmtree(self.folder / old)
        self._put(checkpoint.folder.name)
        for old in self._there(_STEP)[KEPT:]:
            if old not in kept:
                self._remove_there(old)
        best = self._here(_BEST)[:1]
        if best > self._there(_BEST)[:1]:  # the store did not answer when it was written
            self._put(best[0])
        return checkpoint

    def save_best(self, module: "RLModule", content: BestContent) -> Checkpoint:
        """Replace the best policy.

        Args:
            module: The policy's network.
            content: Content of its `checkpoint.json`, without format and files.

        Returns:
            The checkpoint.

        Raises:
            OSError: It cannot be written, or not be put where results are. The previous best policy is still in place there.
        """
        best = _write(self.folder / f"{_BEST}{content['env_steps']:09d}", module, content, None)
        for other in self._here(_BEST):
            if other != best.folder.name:
                shutil.rmtree(self.folder / other)
        self._put(best.folder.name)
        for other in self._there(_BEST):
            if other != best.folder.name:
                self._remove_there(other)
        return best

    def last(self) -> tuple[Checkpoint | None, list[str]]:
        """Find the newest undamaged checkpoint to resume from.

        Returns:
            The checkpoint, or None if there is none, and the error message of each newer one.

        Raises:
            StoreError: It may be at an address that does not answer.
        """
        problems: list[str] = []
        for name in self._names(_STEP):
            try:
                return _resumable(read_checkpoint(self._at_hand(name))), problems
            except UserError as error:
                problems.append(str(error))
        return None, problems

    def of_step(self, env_steps: int) -> Checkpoint:
        """Find the checkpoint of a step to resume from.

        Args:
            env_steps: Environment steps of its policy.

        Returns:
            The checkpoint.

        Raises:
            UserError: There is none, or it is damaged.
            StoreError: It may be at an address that does not answer.
        """
        return _resumable(read_checkpoint(self._at_hand(_step_name(env_steps))))

    def best(self) -> Checkpoint | None:
        """Find the policy with the highest metric so far.

        Returns:
            Its checkpoint, or None if there is no undamaged one.

        Raises:
            StoreError: It may be at an address that does not answer.
        """
        return next(self._undamaged(_BEST), None)

    def kept(self) -> list[Checkpoint]:
        """Find the best policy and the newest checkpoints to resume from.

        Returns:
            Those that are undamaged, by name.

        Raises:
            StoreError: They may be at an address that does not answer.
        """
        found = [*islice(self._undamaged(_BEST), 1), *islice(self._undamaged(_STEP), KEPT)]
        return sorted(found, key=lambda checkpoint: checkpoint.folder.name)

    def _undamaged(self, prefix: str) -> Iterator[Checkpoint]:
        """Read checkpoints, newest first."""
        for name in self._names(prefix):
            with suppress(UserError):
                yield read_checkpoint(self._at_hand(name))

    def fails_again(self, env_steps: int, error: str) -> bool:
        """Record an error, and compare it with the previous one.

        Args:
            env_steps: Environment steps of the trial so far.
            error: The error message.

        Returns:
            Whether the trial's previous error was the same, at the same step.
        """
        file = self.folder / _FAILURE
        now = json.dumps({"env_steps": env_steps, "error": error}) + "\n"
        before = b""
        with suppress(OSError):  # there was none; or it is damaged, or the disk full, which costs one more try
            refuse_no_file(file)
            before = file.read_bytes()
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(file, now)
            if self._remote is not None:
                self._remote.put_file(_FAILURE)
        return now.encode() == before

    def _names(self, prefix: str) -> list[str]:
        """Return the names of the checkpoints here and where results are, newest first."""
        return sorted({*self._here(prefix), *self._there(prefix)}, reverse=True)

    def _here(self, prefix: str) -> list[str]:
        """Return the names of the checkpoints on this machine, newest first."""
        return sorted((folder.name for folder in self.folder.glob(f"{prefix}*")), reverse=True)

    def _there(self, prefix: str) -> list[str]:
        """Return the names of the whole checkpoints at the address, newest first; none if there is no address."""
        if self._remote is None:
            return []
        described = [PurePosixPath(file).parent for file in self._remote.files() if PurePosixPath(file).name == CHECKPOINT]
        return sorted((str(folder) for folder in described if str(folder).startswith(prefix)), reverse=True)

    def _at_hand(self, name: str) -> Path:
        """Return the folder of a checkpoint on this machine, to which it is fetched if it is elsewhere."""
        folder = file_inside(self.folder, name)
        if self._remote is not None and not (folder / CHECKPOINT).exists():
            self._remote.fetch_folder(name)
        return folder

    def _put(self, name: str) -> None:
        if self._remote is not None:
            self._remote.put_folder(name, last=CHECKPOINT)

    def _remove_there(self, name: str) -> None:
        if self._remote is not None:
            with suppress(OSError):  # the next checkpoint tries again
                self._remote.remove_folder(name, first=CHECKPOINT)


def _step_name(env_steps: int) -> str:
    return f"{_STEP}{env_steps:09d}"


def in_checkpoint(file: PurePosixPath) -> bool:
    """Tell the files of checkpoints from others.

    Args:
        file: Its path relative to the folder of its sweep.

    Returns:
        Whether it is in the folder of a checkpoint.
    """
    return file.parts[0] == TRIALS and len(file.parts) > 3 and file.parts[2].startswith((_BEST, _STEP))


def is_checkpoint(place: Path | RemoteFolder) -> bool:
    """Tell a checkpoint's own folder from others, such as a trial's.

    Args:
        place: The folder, or the address of one.

    Returns:
        Whether it is a checkpoint's.

    Raises:
        StoreError: It is an address that does not answer.
    """
    return CHECKPOINT in place.names() if isinstance(place, RemoteFolder) else (place / CHECKPOINT).exists()


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the checkpoint in a folder, and verify the checksums of its files.

    Args:
        folder: The checkpoint's own folder.

    Returns:
        The checkpoint.

    Raises:
        UserError: There is no checkpoint, or it is damaged.
    """
    if not (folder / CHECKPOINT).exists():
        raise UserError(
            f"{folder} is not a checkpoint (it has no {CHECKPOINT}): expected a folder such as "
            "results/quickstart-.../trials/<trial id>/best-000008192"
        )
    content = read_json(file_inside(folder, CHECKPOINT), _CONTENT, _REMEDY)
    for name, expected in content["files"].items():
        file = file_inside(folder, name)
        try:
            size, sha256 = file.stat().st_size, sha256_of(file)
        except OSError as error:
            raise DamagedFileError(f"{file} cannot be read ({error.strerror}): {_REMEDY}") from error
        if size != expected["bytes"]:
            raise DamagedFileError(f"{file} was cut short: it has {size:,} bytes, expected {expected['bytes']:,}: {_REMEDY}")
        if sha256 != expected["sha256"]:
            raise DamagedFileError(f"{file} is damaged: its SHA-256 is not the one in {CHECKPOINT}: {_REMEDY}")
    return Checkpoint(folder, content)


def _resumable(checkpoint: Checkpoint) -> Checkpoint:
    missing = [name for name in ("results", "done") if name not in checkpoint.content]
    missing += [STATE] * (STATE not in checkpoint.content["files"])
    if missing:
        raise DamagedFileError(f"{checkpoint.folder / CHECKPOINT} is damaged: it lacks {', '.join(missing)}: {_REMEDY}")
    return checkpoint


def _write(folder: Path, module: "RLModule", content: PolicyContent, state: Mapping[str, Any] | None) -> Checkpoint:
    folder.parent.mkdir(parents=True, exist_ok=True)
    for half in folder.parent.glob(f"{UNFINISHED}*"):  # of a process that was killed: one process writes a trial's checkpoints
        _remove(half)
    try:
        with written_whole(folder) as unfinished:
            unfinished.mkdir()
            whole = _write_files(unfinished, module, content, state)
            # A folder cannot be replaced atomically: a reader in between finds no checkpoint here, and takes the previous one.
            _remove(folder)
        flush(folder.parent)
    except OSError:
        raise
    except Exception as error:  # safetensors raises an exception of its own if the disk is full
        raise OSError(f"{folder} could not be written: {error}") from error
    return Checkpoint(folder, whole)


def _write_files(
    folder: Path, module: "RLModule", content: PolicyContent, state: Mapping[str, Any] | None
) -> CheckpointContent:
    """Write all files of a checkpoint and flush them to disk."""
    network: Any = module
    save_file({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, folder / POLICY)
    files = [POLICY]
    if state is not None:
        with (folder / STATE).open("wb") as file:
            pickle.dump(state, file, protocol=pickle.HIGHEST_PROTOCOL)
        files.append(STATE)
    described = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in files}
    whole = {"format": _FORMAT} | dict(content) | {"files": described}
    (folder / CHECKPOINT).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    for name in (*files, CHECKPOINT):
        flush(folder / name)
    return cast(CheckpointContent, whole)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
