"""The report of a sweep: one HTML file with all of its results, which opens offline and can be sent to others.

It reads only the results of the sweep: neither its models nor its environment need to be installed.
"""

import base64
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import imageio.v3 as iio
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from vlm_rm_sweeps.errors import DamagedFileError, UserError, reason_of
from vlm_rm_sweeps.files import file_inside, new_output, read_whole
from vlm_rm_sweeps.metrics import ALARM, DONE, SUCCESS, TrialStatus
from vlm_rm_sweeps.palette import REFERENCE_COLOURS, model_colours
from vlm_rm_sweeps.rewards.known_states import AUDIT_DRIFT, REMARKABLE, TRAINING_REMEDY
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.sweeping.config.sections import Prompt
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.config.trial import REFERENCE_PROMPT, TRUE_REWARD, UNTRAINED
from vlm_rm_sweeps.sweeping.tracking.findings import described, estimate_text, findings, within_model
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import ResultLogged, read_entries
from vlm_rm_sweeps.sweeping.tracking.progress import duration
from vlm_rm_sweeps.sweeping.tracking.provenance import provenance
from vlm_rm_sweeps.sweeping.tracking.results import MERITS, TEXT_COLUMNS, cells_of, read_results
from vlm_rm_sweeps.tasks.registry import find_task, task_names
from vlm_rm_sweeps.videos import RECORDED_VIDEO, VIDEO_FOLDER, EpisodeContent, film_strip, read_episode, read_video

REPORT = "report.html"
_TEMPLATE = "report.html.j2"
_STRIP = 5
"""Frames of a video that are shown where it cannot play: on paper."""
_MOST_REMARKS = 20
_LANDSCAPE, _AUDIT = "reward_landscape", "overoptimisation"
CAPTIONS = {
    "episode": "An episode of the best trial's policy and one of random actions: frames, and the reward by step.",
    "learning_curves": "Learning curves of training episodes, and of the greedy policy where it was evaluated; means over seeds.",
    "model_scaling": "Success, and EPIC distance if it was measured, by the size of the model; bars are 95 % intervals.",
    "alpha": "Success, and EPIC distance if it was measured, by alpha; bars are 95 % intervals.",
    "performance_profiles": "The share of each model's runs better than a score, with 95 % bands where there are several seeds.",
    "improvement": "How likely a run of one model is better than a run of another, with 95 % intervals where there are several.",
    "search": "How good the samples of the search are, by each value that was drawn; a ring is a sample, a point one of its trials.",
    "prompts": "How well each prompt's reward agrees with the truth.",
    "predictive": "How well each measure of a reward predicts what is learned from it: rank correlations over the combinations.",
    "score_every": "Success against the frames that were encoded for it; bars are 95 % intervals.",
    _LANDSCAPE: "The reward over a line of states, which are drawn above it. Its peak should be at the goal.",
    _AUDIT: "Each trial's own reward, the gold models' and the truth at its audit points, each rescaled to [0, 1]. Shaded: alarms.",
}
"""What is shown by each figure of `analysis/`, in the order of the report."""
_BY_MODEL = "overoptimisation_by_model.csv"
_REMEDY = "draw the figures again"
_ABBREVIATIONS = re.compile(r"\b(clip|epic|starc|roc auc)\b")
Part = TypeVar("Part")


def write_report(place: Path | RemoteFolder, output: Path | None = None, tracking_uri: str | None = None) -> Path:
    """Write the report of a sweep.

    All text from the sweep file and the trials is escaped, and the page's content security policy allows neither scripts nor
    requests to other addresses. A damaged file without which there is still a report is left out, and the report says so.

    Args:
        place: The sweep's folder, or its address, from which it is fetched and where the report is put, too.
        output: A new file; by default report.html in the folder, which is replaced, since it can be generated again.
        tracking_uri: The MLflow server or database with the sweep's run; by default the database in the results folder.

    Returns:
        Path of the report.

    Raises:
        UserError: The folder is not a sweep's, no execution of the sweep has ended, its sweep file or table is damaged, a file
            in it is a link that leads out of it, or `output` exists or cannot be written.
        StoreError: The address does not answer.
    """
    folder = SweepFolder.at(place)
    if not folder.fetch():
        raise UserError(
            f"{place} is not the folder of a sweep (it has no {folder.sweep_file.name}): expected one such as results/quickstart-..."
        )
    if not folder.table.is_file():
        raise UserError(
            f"{place} has no {folder.table.name} yet: it is written when the sweep ends: finish it with `vlm-rm sweep FILE --resume`"
        )
    if output is not None and output.exists():
        raise UserError(f"{output} exists already: choose another name")
    page = _render(folder, tracking_uri)
    target = output or folder.path / REPORT
    with new_output(target, replaces=output is None) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    if folder.remote is not None and output is None:
        folder.remote.put_file(REPORT)
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
    figures = _figures(folder, parts)
    origin = provenance(folder, tracking_uri)
    colours = _colours(sweep, table)
    environment = Environment(
        loader=PackageLoader("vlm_rm_sweeps.sweeping.tracking", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    counts = table["status"].value_counts()
    stopped = f", {counts[TrialStatus.STOPPED]} stopped early" if TrialStatus.STOPPED in counts else ""
    return environment.get_template(_TEMPLATE).render(
        sweep=sweep,
        task=sweep.task_name,
        findings=findings(sweep.task_name, table),
        prompts=sweep.prompts or _prompts_of_the_task(sweep.task_name),
        outcome=f"{counts.get(TrialStatus.FINISHED, 0)} of {len(table)} trials finished{stopped}",
        took=duration(origin.seconds) if origin.seconds else "",
        seeds=", ".join(map(str, sweep.seeds)),
        colours=colours,
        groups=_groups(cells_of(table), colours),
        trials=_trials(table),
        videos=_videos(folder, table, sweep, parts),
        measures=parts.read(_measures, folder.epic),
        audit=_audit(sweep, table),
        audit_remarks=parts.read(_remarks, folder.journal) or [],
        by_model=parts.read(_table, file_inside(folder.path, f"figures/{_BY_MODEL}")),
        landscape=figures.pop(_LANDSCAPE, None),
        audit_figure=figures.pop(_AUDIT, None),
        figures=list(figures.values()),
        folder=folder.path,
        sweep_file=folder.sweep_file.read_text(encoding="utf-8"),
        origin=origin,
        left_out=parts.left_out,
    )


def _figures(folder: SweepFolder, parts: _Parts) -> "dict[str, _Inlined]":
    """Read the figures that have been drawn, known ones first, with their captions."""
    order = {name: place for place, name in enumerate(CAPTIONS)}
    files = sorted(_files(folder, folder.path / "figures", "*.png"), key=lambda file: order.get(file.stem, len(order)))
    read = {file.stem: parts.read(_figure, file) for file in files}
    return {name: figure for name, figure in read.items() if figure}


def _figure(file: Path) -> "_Inlined":
    return _Inlined.of(file, "image/png", CAPTIONS.get(file.stem, file.stem.replace("_", " ")))


def _colours(sweep: Sweep, table: pd.DataFrame) -> dict[str, str]:
    """Choose the colours of all models and references, as `analysis/` does."""
    references = dict(zip((TRUE_REWARD, UNTRAINED), REFERENCE_COLOURS, strict=True))
    return model_colours([*sweep.all_models, *(each for each in table["model"] if each not in references)]) | references


def _groups(cells: pd.DataFrame, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Group the combinations by model, each with its merits as text, and the first known merit as a bar."""
    merits = [name for name in MERITS if cells[f"{name}_iqm"].notna().any()]
    ends = _scale(cells, merits[0]) if merits else (0.0, 1.0)
    groups = []
    for model, own in cells.groupby("model", sort=False):
        rows = [
            {
                "name": ", ".join(within_model(cell)),
                "seeds": cell["seeds"],
                "merits": [estimate_text(cell, name) for name in MERITS],
                "bar": _bar(cell, merits[0], ends) if merits else None,
            }
            for cell in own.to_dict("records")
        ]
        groups.append({"model": model, "colour": colours[str(model)], "rows": rows})
    return groups


def _scale(cells: pd.DataFrame, merit: str) -> tuple[float, float]:
    """Return the ends of the bars' scale."""
    if merit == SUCCESS:
        return 0.0, 1.0
    values = cells[[f"{merit}_{part}" for part in ("iqm", "low", "high")]].to_numpy(dtype=float)
    return float(np.nanmin(values)), float(np.nanmax(values))


def _bar(cell: Mapping[Any, Any], merit: str, ends: tuple[float, float]) -> dict[str, float] | None:
    """Place a merit and its interval on the scale, in percent of its width."""
    value, low, high = (cell[f"{merit}_{part}"] for part in ("iqm", "low", "high"))
    if not math.isfinite(value) or ends[0] == ends[1]:
        return None
    low, high = (value, value) if math.isnan(low) else (low, high)
    at = [100 * (each - ends[0]) / (ends[1] - ends[0]) for each in (value, low, high)]
    return {"value": at[0], "low": at[1], "width": at[2] - at[1]}


def _audit(sweep: Sweep, table: pd.DataFrame) -> str:
    """Say what the audit found: over-optimisation, and states that distilled models do not know."""
    if sweep.audit is None:
        return ""
    return " ".join([_alarms(table), *_drift(table)])


def _remarks(journal: Path) -> list[str]:
    """List what audits had to do without, or judges by something else, and how often."""
    heard: dict[str, list[str]] = {}
    for entry in read_entries(journal):
        if isinstance(entry, ResultLogged):
            for remark in dict.fromkeys(entry.remarks):
                heard.setdefault(remark, []).append(entry.trial)
    lines = [f"{remark} ({_counted(trials)})" for remark, trials in heard.items()]
    more = len(lines) - _MOST_REMARKS
    return [*lines[:_MOST_REMARKS], f"{more} more, see {journal.name}"] if more > 0 else lines


def _counted(trials: Sequence[str]) -> str:
    """Say at how many audit points of how many trials something was, from the trial of each point."""
    several = len(set(trials))
    points = f"{len(trials)} audit point{'s' if len(trials) > 1 else ''}"
    return f"{points} of {several} trial{'s' if several > 1 else ''}"


def _alarms(table: pd.DataFrame) -> str:
    known = table[ALARM].dropna() if ALARM in table else pd.Series(dtype=float)
    if known.empty:
        return "No trial has reached the number of audit points that decide the alarm."
    raised = int((known == 1).sum())
    return f"In {raised} of {len(known)} audited trials, the learned reward rose while the truth and all gold models fell."


def _drift(table: pd.DataFrame) -> list[str]:
    """Say in how many trials of distilled models policies went where the models do not know the states; nothing without any."""
    known = table[AUDIT_DRIFT].dropna() if AUDIT_DRIFT in table else pd.Series(dtype=float)
    if known.empty:
        return []
    far = int((known > REMARKABLE).sum())
    return [
        f"In {far} of {len(known)} audited trials of distilled models, more than {100 * REMARKABLE:g} % of the last frames were unlike "
        f"those that the model was trained on (drift; the most: {100 * known.max():.0f} %): its rewards there are arbitrary"
        f"{f'; {TRAINING_REMEDY}' if far else ''}."
    ]


def _shown(values: Sequence[Any]) -> list[str]:
    """Write the values of a column: four digits of a number, and as many decimals in all rows; nothing for what is missing."""
    texts = ["" if pd.isna(value) else f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    if not all(isinstance(value, float) for value in values) or any("e" in text for text in texts):
        return texts
    decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
    return [f"{value:.{decimals}f}" if text else "" for value, text in zip(values, texts, strict=True)]


@dataclass(frozen=True)
class _Inlined:
    """A file as a data URI, so that the page needs no other file."""

    name: str
    data: str
    is_broad: bool = False
    """Whether it is a picture that would be too small on a phone."""

    @classmethod
    def of(cls, file: Path, media_type: str, name: str) -> "_Inlined":
        content = read_whole(file, _REMEDY)
        return cls(name, _data(content, media_type), _is_broad(content))


def _is_broad(content: bytes) -> bool:
    """Whether the content of a file is a PNG that is twice as wide as high."""
    if not content.startswith(b"\x89PNG"):
        return False
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    return width > 2 * height


def _data(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _prompts_of_the_task(name: str) -> tuple[Prompt, ...]:
    """Return the task's own prompts, which a sweep without `prompts` used; none if the task is not installed here."""
    if name not in task_names():
        return ()
    task = find_task(name)
    return (Prompt(id="task", goal=(task.goal_prompt,), baseline=(task.baseline_prompt,)),)


def recorded_episodes(
    folder: SweepFolder, table: pd.DataFrame, read: Callable[[Path], EpisodeContent | None] = read_episode
) -> list[tuple[dict[Any, Any], Path, EpisodeContent]]:
    """List the videos of trials that are done, the best episode first.

    References are left out, but for a sweep that has nothing else. What a video shows decides, not what the trial reached: the last
    policy, which gives a trial its merits, may be another.

    Args:
        folder: The folder of the sweep.
        table: Its final table. Of equal episodes, that of the earlier row comes first.
        read: Reads the description of the episode that a video shows. Without one, a video is left out.

    Returns:
        For each video the trial's row, its path and the episode.

    Raises:
        UserError: A file is a link that leads out of the folder.
    """
    learned = table["prompt"] != REFERENCE_PROMPT
    done = table[table["status"].isin(DONE) & (learned | (not learned.any()))]
    shown = []
    for row in done.to_dict("records"):
        recorded = _files(folder, folder.trial(row["trial_id"]) / VIDEO_FOLDER, RECORDED_VIDEO)
        if recorded and recorded[0].is_file() and (episode := read(recorded[0])):
            shown.append((row, recorded[0], episode))
    return sorted(shown, key=lambda each: (each[2]["goal_fraction"] or 0.0, each[2]["true_return"] or 0.0), reverse=True)


def _videos(folder: SweepFolder, table: pd.DataFrame, sweep: Sweep, parts: _Parts) -> list[dict[str, str]]:
    """Return the best and the worst of the videos of `recorded_episodes`."""
    shown = recorded_episodes(folder, table, lambda video: parts.read(read_episode, video))
    chosen = "with exploration" if sweep.trial.evaluation_interval is None else "by greedy episodes"
    titled = zip(("best episode", "worst episode"), shown[:1] + shown[1:][-1:], strict=False)
    return [
        {"title": title, "label": _described(row, episode, chosen)} | video
        for title, (row, file, episode) in titled
        if (video := parts.read(_playable, file))
    ]


def _playable(file: Path) -> dict[str, str]:
    """Read a video, a picture of it to show before it plays, and one of several frames for paper."""
    frames = read_video(file)
    poster, strip = (_data(_jpeg(film_strip(frames, count)), "image/jpeg") for count in (1, _STRIP))
    return {"data": _Inlined.of(file, "video/mp4", file.stem).data, "poster": poster, "strip": strip}


def _jpeg(picture: np.ndarray) -> bytes:
    return iio.imwrite("<bytes>", picture, extension=".jpg", plugin="pillow", quality=82)


def _files(folder: SweepFolder, part: Path, pattern: str) -> list[Path]:
    """List files of a part of the sweep's folder. Refuses links that lead out of it: their content would be in the page."""
    return [file_inside(folder.path, file.relative_to(folder.path)) for file in sorted(part.glob(pattern))]


def _described(row: Mapping[Any, Any], episode: EpisodeContent, chosen: str) -> str:
    """Describe the trial and the episode of a video, then how the trial's last policy, which may be another, performed."""
    in_goal, clip_return, true_return = episode["goal_fraction"], episode["clip_return"], episode["true_return"]
    parts = [
        f"{described(row)}, seed {row['seed']}: its best policy, chosen {chosen}, of step {episode['env_steps']:,}",
        f"in the episode with seed {episode['seed']}",
        "" if in_goal is None else f"{100 * in_goal:.0f} % of its steps in the goal",
        "" if true_return is None else f"true return {true_return:.3g}",
        "" if clip_return is None else f"CLIP return {clip_return:.3g}",
    ]
    merits = [f"{name.replace('_', ' ')} {row[name]:.3g}" for name in MERITS if not math.isnan(row[name])]
    ended = f". After training, its last policy: {', '.join(merits)}" if merits else ""
    return ", ".join(part for part in parts if part) + ended


def _trials(table: pd.DataFrame) -> dict[str, Any]:
    """Write the final table as text, without the columns in which no trial has a value."""
    said = table.loc[:, [name for name in table if (table[name].notna() & (table[name] != "")).any()]]
    return _tabulated(said, {name: name not in TEXT_COLUMNS for name in said.columns.map(str)})


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
    return _tabulated(table, numbers)


def _tabulated(table: pd.DataFrame, numbers: Mapping[str, bool]) -> dict[str, Any]:
    """Write a table as text.

    Args:
        table: Any table.
        numbers: For each column whether it has numbers.

    Returns:
        Columns and rows for the page.
    """
    texts = {str(name): _shown(column.tolist()) for name, column in table.items()}
    return {
        "columns": [{"name": _heading(name), "number": number} for name, number in numbers.items()],
        "rows": list(map(list, zip(*texts.values(), strict=True))),
    }


def _heading(column: str) -> str:
    return _ABBREVIATIONS.sub(lambda found: found[1].upper(), column.replace("_", " "))
