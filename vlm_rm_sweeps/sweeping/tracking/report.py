"""The report of a sweep: one HTML file with all of its results, which opens offline and can be sent to others.

It reads only the results of the sweep: neither its models nor its environment need to be installed.
"""

import base64
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from vlm_rm_sweeps.errors import DamagedFileError, UserError, reason_of
from vlm_rm_sweeps.files import file_inside, new_output, read_whole
from vlm_rm_sweeps.metrics import REWARD, SUCCESS, TRUE_RETURN, TrialStatus
from vlm_rm_sweeps.sweeping.config.sections import Prompt
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.results import TEXT_COLUMNS, read_results
from vlm_rm_sweeps.tasks.registry import find_task, task_names
from vlm_rm_sweeps.videos import RECORDED_VIDEO, VIDEO_FOLDER, EpisodeContent, read_episode

REPORT = "report.html"
_TEMPLATE = "report.html.j2"
_MERITS = (SUCCESS, TRUE_RETURN)
"""Metrics that describe how a trial ended."""
_BY_MODEL = "overoptimisation_by_model.csv"
_REMEDY = "draw the figures again"
Part = TypeVar("Part")


def write_report(path: Path, output: Path | None = None, tracking_uri: str | None = None) -> Path:
    """Write the report of a sweep.

    All text from the sweep file and the trials is escaped, and the page's content security policy allows neither scripts nor
    requests to other addresses. A damaged file without which there is still a report is left out, and the report says so.

    Args:
        path: The sweep's folder.
        output: A new file; by default report.html in the folder, which is replaced, since it can be generated again.
        tracking_uri: The MLflow server or database with the sweep's run; by default the database in the results folder.

    Returns:
        Path of the report.

    Raises:
        UserError: The folder is not a sweep's, no execution of the sweep has ended, its sweep file or table is damaged, a file
            in it is a link that leads out of it, or `output` exists or cannot be written.
    """
    folder = SweepFolder(path)
    if not folder.sweep_file.is_file():
        raise UserError(
            f"{path} is not the folder of a sweep (it has no {folder.sweep_file.name}): expected one such as results/quickstart-..."
        )
    if not folder.table.is_file():
        raise UserError(
            f"{path} has no {folder.table.name} yet: it is written when the sweep ends: finish it with `vlm-rm sweep FILE --resume`"
        )
    if output is not None and output.exists():
        raise UserError(f"{output} exists already: choose another name")
    page = _render(folder, tracking_uri)
    target = output or path / REPORT
    with new_output(target) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return target


@dataclass
class _Parts:
    """Reads what a report can do without, and keeps the message of each part that is damaged."""

    left_out: list[str] = field(default_factory=list)

    def read(self, reader: Callable[[Path], Part], file: Path) -> Part | None:
        """Return the content of a file; None if it is damaged."""
        try:
            return reader(file)
        except DamagedFileError as error:
            self.left_out.append(str(error))
            return None


def _render(folder: SweepFolder, tracking_uri: str | None) -> str:
    sweep = folder.stored_sweep()
    table = read_results(folder.table)
    parts = _Parts()
    figures = [parts.read(_figure, file) for file in _files(folder, folder.path / "figures", "*.png")]
    environment = Environment(
        loader=PackageLoader("vlm_rm_sweeps.sweeping.tracking", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    finished = int((table["status"] == TrialStatus.FINISHED).sum())
    return environment.get_template(_TEMPLATE).render(
        sweep=sweep,
        task=sweep.task_name,
        prompts=sweep.prompts or _prompts_of_the_task(sweep.task_name),
        outcome=f"{finished} of {len(table)} trials finished",
        columns=[{"name": name.replace("_", " "), "number": name not in TEXT_COLUMNS} for name in table.columns.map(str)],
        rows=[[_shown(value) for value in row] for row in table.itertuples(index=False)],
        videos=_videos(folder, table, sweep, parts),
        measures=parts.read(_measures, folder.epic),
        by_model=parts.read(_table, file_inside(folder.path, f"figures/{_BY_MODEL}")),
        figures=[figure for figure in figures if figure],
        folder=folder.path,
        sweep_file=folder.sweep_file.read_text(encoding="utf-8"),
        versions=_versions(folder, tracking_uri),
        left_out=parts.left_out,
    )


def _figure(file: Path) -> "_Inlined":
    return _Inlined.of(file, "image/png", file.stem)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


@dataclass(frozen=True)
class _Inlined:
    """A file as a data URI, so that the page needs no other file."""

    name: str
    data: str

    @classmethod
    def of(cls, file: Path, media_type: str, name: str) -> "_Inlined":
        return cls(name, f"data:{media_type};base64,{base64.b64encode(read_whole(file, _REMEDY)).decode()}")


def _prompts_of_the_task(name: str) -> tuple[Prompt, ...]:
    """Return the task's own prompts, which a sweep without `prompts` used; none if the task is not installed here."""
    if name not in task_names():
        return ()
    task = find_task(name)
    return (Prompt(id="task", goal=(task.goal_prompt,), baseline=(task.baseline_prompt,)),)


def _videos(folder: SweepFolder, table: pd.DataFrame, sweep: Sweep, parts: _Parts) -> list[dict[str, str]]:
    """Return the best and the worst video of finished trials with a reward model, by the episode that the video shows."""
    finished = table[(table["prompt"] != "-") & (table["status"] == TrialStatus.FINISHED)]
    shown = []
    for row in finished.to_dict("records"):
        recorded = _files(folder, folder.trial(row["trial_id"]) / VIDEO_FOLDER, RECORDED_VIDEO)
        if recorded and recorded[0].is_file() and (episode := parts.read(read_episode, recorded[0])):
            shown.append((row, recorded[0], episode))
    shown.sort(key=lambda each: (each[2]["goal_fraction"] or 0.0, each[2]["true_return"] or 0.0), reverse=True)
    chosen = "with exploration" if sweep.trial.evaluation_interval is None else "by greedy episodes"
    titled = zip(("best episode", "worst episode"), shown[:1] + shown[1:][-1:], strict=False)
    return [
        {"title": title, "label": _described(row, episode, chosen), "data": _Inlined.of(file, "video/mp4", title).data}
        for title, (row, file, episode) in titled
    ]


def _files(folder: SweepFolder, part: Path, pattern: str) -> list[Path]:
    """List files of a part of the sweep's folder. Refuses links that lead out of it: their content would be in the page."""
    return [file_inside(folder.path, file.relative_to(folder.path)) for file in sorted(part.glob(pattern))]


def _described(row: Mapping[Any, Any], episode: EpisodeContent, chosen: str) -> str:
    """Describe the trial and the episode of a video, then how the trial's last policy, which may be another, performed."""
    in_goal, clip_return, true_return = episode["goal_fraction"], episode["clip_return"], episode["true_return"]
    parts = [
        f"{_label(row)}: its best policy, chosen {chosen}, of step {episode['env_steps']:,}",
        f"in the episode with seed {episode['seed']}",
        "" if in_goal is None else f"{100 * in_goal:.0f} % of its steps in the goal",
        "" if true_return is None else f"true return {true_return:.3g}",
        "" if clip_return is None else f"CLIP return {clip_return:.3g}",
    ]
    merits = [f"{name.replace('_', ' ')} {row[name]:.3g}" for name in _MERITS if not math.isnan(row[name])]
    ended = f". After training, its last policy: {', '.join(merits)}" if merits else ""
    return ", ".join(part for part in parts if part) + ended


def _label(row: Mapping[Any, Any]) -> str:
    """Describe a trial as `Trial.label` does."""
    drawn = f"{row['textures']} textures, {row['camera']} camera, " if "textures" in row else ""
    reward = f"reward {row[REWARD]}" if REWARD in row else f"alpha {row['alpha']:g}"
    return f"{row['model']}, {reward}, prompt {row['prompt']}, {drawn}seed {row['seed']}"


def _measures(file: Path) -> dict[str, Any] | None:
    return _table(file, "restore it")


def _table(file: Path, remedy: str = _REMEDY) -> dict[str, Any] | None:
    """Read a table that was written beside the trials; None if there is none."""
    if not file.exists():
        return None
    try:
        # A prompt's id may look like a missing value to pandas.
        table = pd.read_csv(io.BytesIO(read_whole(file, remedy)), keep_default_na=False, na_values=[""])
    except UserError:
        raise
    except ValueError as error:  # pandas' own errors, and what is not UTF-8
        raise DamagedFileError(f"{file} is damaged ({reason_of(error)}): {remedy}") from error
    numbers = {name: pd.api.types.is_numeric_dtype(table[name]) for name in table.columns.map(str)}
    return {
        "columns": [{"name": name.replace("_", " "), "number": number} for name, number in numbers.items()],
        "rows": [[_shown(value) for value in row] for row in table.itertuples(index=False)],
    }


def _versions(folder: SweepFolder, tracking_uri: str | None) -> dict[str, str]:
    """Return the versions of the packages and the commit that the sweep ran with, from its MLflow run."""
    from vlm_rm_sweeps.sweeping.tracking.mlflow_runs import find_runs  # imports MLflow, which takes seconds

    try:
        runs = find_runs(folder.path, tracking_uri)
        params = runs.client.get_run(runs.run_id).data.params
    except UserError as error:
        return {"unknown": str(error)}
    except Exception as error:  # a missing database, server or file: the rest of the report does not need it
        return {"unknown": f"the sweep's MLflow run cannot be read: {reason_of(error)}"}
    prefix = "version_"
    versions = {name.removeprefix(prefix): value for name, value in sorted(params.items()) if name.startswith(prefix)}
    return {"commit": params.get("git_commit", "unknown")} | versions
