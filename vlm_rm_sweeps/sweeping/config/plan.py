"""Resolves a sweep once: everything that its file names is looked up here, and the resulting plan is passed on.

Reading a sweep file needs only its text. Making a plan needs the machine: the task's environment, the models' architectures and
the renderer.
"""

import importlib.util
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar

from pydantic import ValidationError

from vlm_rm_sweeps.errors import UserError, shown, unknown_name
from vlm_rm_sweeps.metrics import SUCCESS
from vlm_rm_sweeps.registry import check_sentences
from vlm_rm_sweeps.rewards.functions.base import seen_alone
from vlm_rm_sweeps.rewards.functions.goal_baseline import GoalBaseline
from vlm_rm_sweeps.rewards.functions.registry import KIND, identity_of, make_reward, readable_reward
from vlm_rm_sweeps.rewards.registry import NEWEST_EMBEDDED, EmbeddedVersion, find_reward_model, with_version
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec, judges_by_prompts
from vlm_rm_sweeps.sweeping.config.named_files import stored_name
from vlm_rm_sweeps.sweeping.config.population import check_changes, in_words
from vlm_rm_sweeps.sweeping.config.prompts import prompt_of_task
from vlm_rm_sweeps.sweeping.config.searching import SETTING, Drawn, ends_of, setting_values
from vlm_rm_sweeps.sweeping.config.sections import LARGEST, AuditSettings, Combination, LabelledStates, PoolSettings, Prompt
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.config.trial import TRUE_REWARD, UNTRAINED, Reward, Sample, Trial
from vlm_rm_sweeps.sweeping.config.validation import check_keys, problems_of
from vlm_rm_sweeps.tasks.control import Control
from vlm_rm_sweeps.tasks.gym_task import make_task
from vlm_rm_sweeps.tasks.registry import BUILT_IN_TASKS, check_task, find_task
from vlm_rm_sweeps.tasks.rendering import Rendering, machine_profile
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.algorithms.base import Algorithm
from vlm_rm_sweeps.training.algorithms.registry import choose_algorithm, find_algorithm

_AUDIT_POINTS = 10
"""Default number of audit points in a trial."""
_MOST_TIMES_AS_LONG = 10
"""A trial may be so many times longer than asked for, to end with a whole result."""
Found = TypeVar("Found")
P = ParamSpec("P")


@dataclass(frozen=True)
class Plan:
    """A sweep with everything that it names.

    Attributes:
        sweep: The resolved keys, as the results folder stores them: algorithm, settings, profile and audit are filled in.
        task: The task to learn.
        algorithm: The algorithm with its settings.
        models: Every model that is served, by id, without weights: those that trials learn from, then the audit's gold models.
        prompts: The prompts to compare: those of the file, else the task's own.
        renderings: The renderings to compare, the task's default if the file names none.
        rewards: The rewards to compare, those of `alphas` or of `rewards`.
        thresholds: Measured thresholds, by model, key of the reward and prompt: see `with_thresholds`.
        trials: All trials in a fixed order, the references (true reward, untrained) first. Those of a search have the same ids
            before and after their samples are drawn: see `with_samples`.
        machine_drawn: Whether the profile is this machine's, because the file names none.
    """

    sweep: Sweep
    task: Task
    algorithm: Algorithm
    models: Mapping[str, RewardModel]
    prompts: tuple[Prompt, ...]
    renderings: tuple[Rendering, ...]
    trials: tuple[Trial, ...]
    rewards: tuple[Reward, ...]
    machine_drawn: bool = False
    thresholds: Mapping[tuple[str, float | str, str], float] = field(default_factory=dict)

    @property
    def combinations(self) -> list[tuple[str, Reward, Prompt]]:
        """Model, reward and prompt of each cell of the grid, or of the cells that `only` names."""
        cells = _combinations(self.sweep, self.rewards, self.prompts)
        return [
            (model, reward.measured(self.thresholds.get((model, reward.key, prompt.id))), prompt)
            for model, reward, prompt in cells
        ]

    @property
    def trained_models(self) -> tuple[str, ...]:
        """Ids of the models that trials learn from: with `only`, it may be some of the file's."""
        return tuple(dict.fromkeys(model for model, _, _ in self.combinations))

    def steps_of(self, trial: Trial) -> int:
        """Return the number of environment steps that a trial learns from; 0 for the untrained baseline."""
        return 0 if trial.model_id == UNTRAINED else self.sweep.steps

    def going_on_with(self, stored: Sweep) -> "Plan":
        """Return the plan as it goes on with a stored sweep: with its version of the embedded family, unless the file names one."""
        version = stored.embedded_version
        if version == self.sweep.embedded_version or "embedded_version" in self.sweep.model_fields_set:
            return self
        sweep = self.sweep.model_copy(update={"embedded_version": version})
        named = {model_id: with_version(model_id, version) for model_id in self.models}
        models = {
            model_id: model if named[model_id] == model_id else find_reward_model(named[model_id])
            for model_id, model in self.models.items()
        }
        return replace(self, sweep=sweep, models=models)

    def drawn_as(self, stored: Sweep) -> "Plan":
        """Return the plan with the profile of a stored sweep, unless the file names one: another machine may have begun it."""
        if not self.machine_drawn or stored.profile is None:
            return self
        sweep = self.sweep.model_copy(update={"profile": stored.profile})
        renderings = tuple(replace(each, profile=stored.profile) for each in self.renderings)
        return replace(self, sweep=sweep, renderings=renderings, trials=_trials(sweep, self.rewards, self.prompts, renderings))

    def with_ids_of(self, stored: Sweep) -> "Plan":
        """Return the plan with the trial ids of a stored sweep, which are derived from the names of its files as stored."""
        names = {model_id: stored_name(model_id, stored.models) for model_id in self.trained_models}
        return replace(self, trials=tuple(trial.named(names.get(trial.model_id, trial.model_id)) for trial in self.trials))

    def with_thresholds(self, values: Mapping[str, float]) -> "Plan":
        """Return the plan with measured thresholds in its rewards.

        Args:
            values: The value of each trial whose reward has to be measured, by trial id.

        Returns:
            A plan whose trials have the same ids.
        """
        trials = [replace(each, reward=each.reward and each.reward.measured(values.get(each.trial_id))) for each in self.trials]
        of_cells = {
            (each.model_id, each.reward_key, each.prompt_id): values[each.trial_id]
            for each in trials
            if each.trial_id in values
        }
        return replace(self, trials=tuple(trials), thresholds=of_cells)

    def with_samples(self, drawn: Mapping[int, Mapping[str, Drawn]]) -> "Plan":
        """Return the plan with drawn samples in the trials of its search.

        Args:
            drawn: What was drawn, by the sample's number.

        Returns:
            A plan whose trials have the same ids.
        """
        trials = [
            each.drawn(drawn[each.sample.number]) if each.sample is not None and each.sample.number in drawn else each
            for each in self.trials
        ]
        return replace(self, trials=tuple(trials))

    def algorithm_of(self, trial: Trial) -> Algorithm:
        """Return the algorithm of a trial: of a search, with the settings that were drawn."""
        return self.algorithm_with(trial.sample.values or {}) if trial.sample is not None else self.algorithm

    def algorithm_with(self, values: Mapping[str, Drawn]) -> Algorithm:
        """Return the algorithm with values of a search, by the keys of `search.space`."""
        settings = setting_values(values)
        return with_settings(self.algorithm, settings) if settings else self.algorithm

    def rewards_of(self, model_id: str) -> list[Reward]:
        """Return the rewards of a model's own trials."""
        own = {reward.key for model, reward, _ in self.combinations if model == model_id}
        return [reward for reward in self.rewards if reward.key in own]

    def computed_by(self, model_id: str) -> list[Reward]:
        """Return the rewards that a model computes: those of its own trials and, of a gold model, those that it judges others by."""
        judged = [self._judged_by(model_id, reward) for reward in self.judged_rewards(model_id)]
        return list(dict.fromkeys([*self.rewards_of(model_id), *judged]))

    def judged_rewards(self, model_id: str) -> list[Reward]:
        """Return the rewards of the other models' trials, if the model is a gold model."""
        gold = self.sweep.audit.models if self.sweep.audit else ()
        judged = {reward.key for model, reward, _ in self.combinations if model != model_id and model_id in gold}
        return [reward for reward in self.rewards if reward.key in judged]

    def _judged_by(self, model_id: str, reward: Reward) -> Reward:
        """Return the reward itself, or what a gold model computes in its place."""
        return reward if self.can_compute(model_id, reward) else Reward(GoalBaseline())

    def can_compute(self, model_id: str, reward: Reward) -> bool:
        """Whether a model computes a reward with each of the prompts, see `RewardModel.judged_by`."""
        specs = [reward.spec(prompt) for prompt in self.prompts]
        return all(self.models[model_id].judged_by(spec) == spec for spec in specs)

    def gold_specs(self, trial: Trial) -> dict[str, RewardSpec]:
        """Return what each gold model scores to judge a trial, by model id; a model does not judge its own trials."""
        audit, spec = self.sweep.audit, trial.spec()
        if audit is None or spec is None or trial.prompt is None:
            return {}
        reward = trial.reward
        return {
            model_id: self._judged_by(model_id, reward).spec(trial.prompt) if reward else spec
            for model_id in audit.models
            if model_id != trial.model_id
        }

    def specs_of(self, model_id: str) -> dict[tuple[float | str, str], RewardSpec]:
        """Return the specs of a model's own cells, as measurements take them: by reward (alpha or label) and prompt id."""
        return {
            (reward.key, prompt.id): reward.spec(prompt) for model, reward, prompt in self.combinations if model == model_id
        }

    def needing_episodes(self) -> list[str]:
        """List the rewards that need an episode, and are others on states that stand alone."""
        return [str(reward.key) for reward in self.rewards if reward.function.needs_episode]

    def served_specs(self, model_id: str) -> list[RewardSpec]:
        """List every reward spec that a model may be asked to score."""
        audited = self.sweep.audit.alphas if self.sweep.audit else ()
        # Before a threshold is measured, the reward that it is applied to is scored.
        specs = [reward.to_measure().spec(prompt) for prompt in self.prompts for reward in self.computed_by(model_id)]
        return list(dict.fromkeys([*specs, *(prompt.spec(alpha) for prompt in self.prompts for alpha in audited)]))

    def audit_specs(self, trial: Trial) -> dict[str, RewardSpec]:
        """Return the specs, by name, that a trial's own model scores in the audit, besides the trial's own spec."""
        audit = self.sweep.audit
        if audit is None or trial.prompt is None:
            return {}
        prompts = {prompt.id: prompt for prompt in self.prompts}
        rewards = [Reward(GoalBaseline(alpha=alpha)) for alpha in audit.alphas or (() if trial.reward else (trial.alpha,))]
        if not audit.alphas and trial.reward:
            rewards = [trial.reward]
        pairs = itertools.product(rewards, audit.prompts or (trial.prompt.id,))
        specs = {f"{_audit_name(reward)}_{prompt}": reward.spec(prompts[prompt]) for reward, prompt in pairs}
        return {name: spec for name, spec in specs.items() if spec != trial.spec()}

    @property
    def trained_steps(self) -> tuple[int, int]:
        """Environment steps that a trial trains for, `steps` rounded up to whole results, and those of one result."""
        return self.algorithm.trained_steps(self.sweep.steps, self.sweep.steps_per_result, self.sweep.trial.env_runners)

    def about_steps(self) -> str:
        """Say how `steps` is rounded up, and how the best policies are chosen at which cost, in a line."""
        sweep, (steps, result) = self.sweep, self.trained_steps
        rounded = f"{sweep.steps:,} rounded up to whole results of {result:,}" if steps != sweep.steps else "as asked for"
        every, length = sweep.trial.evaluation_interval, self.task.episode_steps
        if every is None:
            chosen = "by its training episodes, with exploration"
        else:
            # One for each multiple of `every`, or for each result if these are longer; and one at the end, if it is not among them.
            due = min(steps // result, steps // every) + (steps // every == (steps - result) // every)
            cost = f"{due * sweep.evaluation_episodes * length:,} environment steps in all"
            chosen = f"by {sweep.evaluation_episodes} greedy episodes about every {every:,} steps, {cost}"
        return f"each trial trains {steps:,} steps, {rounded}; its best policy is chosen {chosen}"

    def remarks(self) -> list[str]:
        """List remarks about valid settings that may surprise the user."""
        own = check_sentences(f"{self.sweep.algorithm}.remarks()", self.algorithm.remarks(self.sweep.steps))
        remarks = [*self.task.remarks, *own]
        remarks += [remark for model in self.models.values() for remark in model.remarks()]
        # Of one alpha: words do not depend on it.
        pairs = itertools.product(self.models.values(), self.prompts)
        for model, prompt in pairs:
            remarks += check_sentences(f"{model.model_id}.remarks_on()", model.remarks_on(prompt.spec(0.0)))
        others = (
            _few_audit_points(self.sweep),
            _slow_precision(self.sweep.pool),
            _unreserved(self.sweep.pool),
            _idle_gpus(self),
            _best_of_others(self),
            _frames_alone(self),
            *_judges_by_prompts(self),
        )
        # Each once: prompts often share words.
        return list(dict.fromkeys([*remarks, *(remark for remark in others if remark)]))

    def describe(self) -> str:
        """Describe the trials and the resources that they need, for `--dry-run`, without starting or loading anything."""
        sweep, pool = self.sweep, self.sweep.pool
        steps = sum(self.steps_of(trial) for trial in self.trials)
        lines = [f"{len(self.trials)} trials of {sweep.steps:,} environment steps, {steps:,} in all:"]
        lines += [f"  {trial.trial_id}  {trial.label}" for trial in self.trials]
        lines.append(self.about_steps())
        # As read: what a `#` made a comment is seen to be missing.
        lines.append("prompts, as they will be encoded:")
        lines += [f"  {prompt.id}: goal {_quoted(prompt.goal)}, baseline {_quoted(prompt.baseline)}" for prompt in self.prompts]
        if sweep.rewards:
            lines.append("rewards:")
            lines += [f"  {reward.label}: {_in_words(reward)}" for reward in self.rewards]
        lines.append(f"{sweep.algorithm} learns {self.task.name} in episodes of {self.task.episode_steps} steps, drawn with")
        lines += [f"  {each.textures} textures, {each.camera} camera, {each.profile} profile" for each in self.renderings]
        if changed := sweep.control.model_dump(exclude_defaults=True):
            lines.append(f"control: {', '.join(f'{key} {value}' for key, value in changed.items())}")
        runners = f", {sweep.trial.env_runners} env runners with a CPU each" if sweep.trial.env_runners else ""
        pools = "; the pools need" if self.models else ""
        learns = " and learns on them" if sweep.trial.learner == "gpu" else ""
        lines.append(f"each trial reserves {sweep.trial.cpus:g} CPUs and {sweep.trial.gpus:g} GPUs{learns}{runners}{pools}")
        for model_id, model in self.models.items():
            if model.judges_only:
                lines.append(f"  {model_id} is asked by one process, which needs the network")
                continue
            size = f"{model.parameters / 1e6:.2f} M parameters, {_weight_megabytes(model, pool.precision):.0f} MB of weights"
            way = f"{pool.precision} by {pool.backend}"
            least, most = pool.servers.min, pool.servers.max
            servers = f"{least} to {most}" if most > least else least
            lines.append(
                f"  {servers} reward server(s) of {model_id}: {size} in {way}, {pool.cpus:g} CPUs and {pool.gpus:g} GPUs each"
            )
        if self.models and sweep.score_every > 1:
            held = "held" if sweep.score_between == "hold" else "interpolated"
            lines.append(f"of {sweep.score_every} steps of an episode the frame of one is encoded; between, rewards are {held}")
        if sweep.epic_states:
            lines.append(f"before training, {sweep.described_epic_states()} are encoded once by each model, for EPIC distances")
        if sweep.search is not None:
            lines.append(f"search: {sweep.search.in_words()}")
        lines += _early_ends(sweep)
        if sweep.audit is not None:
            gold = f", {sweep.audit.frames} frames of them by {', '.join(sweep.audit.models)}" if sweep.audit.models else ""
            lines.append(f"about every {sweep.audit.every:,} steps of each trial are audited{gold}")
        return "\n".join([*lines, *self.remarks()])


def _early_ends(sweep: Sweep) -> list[str]:
    """Say what may end trials early, replace them or keep them waiting, in a line each."""
    lines = []
    if sweep.scheduler is not None and sweep.search is not None and sweep.compared_every is not None:
        lines.append(in_words(sweep.scheduler, sweep.search, sweep.compared_every))
    elif sweep.scheduler is not None:
        lines.append(f"trials are stopped early by {sweep.scheduler.in_words(sweep.steps)}; references run to their end")
    if sweep.stop is not None:
        goals = " or ".join(f"{name} {value:g}" for name, value in sweep.stop.goals.items())
        lines.append(f"a trial ends when its greedy policy reaches {goals}; references run to their end")
    if sweep.max_concurrent is not None:
        lines.append(f"at most {sweep.max_concurrent} trials run at once")
    if sweep.time_budget_s is not None:
        lines.append(f"what has not finished {sweep.time_budget_s:g} s after the first trial has started waits for --resume")
    return lines


def _quoted(sentences: Sequence[str]) -> str:
    return " | ".join(map(repr, sentences))


def _weight_megabytes(model: RewardModel, precision: str) -> float:
    return model.parameters * (4 if precision == "fp32" else 2) / 1e6


def make_plan(sweep: Sweep) -> Plan:
    """Look up, once, everything that a sweep names, and check that it fits together.

    Args:
        sweep: A valid sweep.

    Returns:
        The plan. Its sweep has the algorithm, settings, profile and audit filled in.

    Raises:
        UserError: One message for everything that does not exist or does not fit together.
    """
    problems = _Problems()
    task = problems.look_up("task" if sweep.env is None else "env", sweep.task, _task, sweep)
    models = _models("models", sweep.models, problems, sweep.embedded_version)
    problems.raise_if_any()
    assert task is not None
    task = problems.look_up("control", None, _controlled, task, sweep.control)
    problems.raise_if_any()
    assert task is not None
    sweep = sweep.model_copy(update={"audit": _resolved_audit(sweep, models)})
    gold = [model_id for model_id in (sweep.audit.models if sweep.audit else ()) if model_id not in models]
    models |= _models("audit.models", gold, problems, sweep.embedded_version)
    name = problems.look_up("algorithm", sweep.algorithm, choose_algorithm, sweep.algorithm, task)
    algorithm = problems.look_up("", None, _algorithm, sweep, name) if name else None
    renderings = problems.look_up("", None, _renderings, sweep, task)
    rewards = _rewards(sweep, problems)
    problems.raise_if_any()
    assert algorithm is not None
    assert renderings is not None
    prompts = sweep.prompts or (prompt_of_task(task),)
    machine_drawn = sweep.profile is None
    resolved = {"profile": renderings[0].profile, "algorithm": name, "settings": fixed_settings(algorithm, sweep)}
    sweep = sweep.model_copy(update=resolved)
    _check_size(sweep)
    trials = _trials(sweep, rewards, prompts, renderings)
    plan = Plan(sweep, task, algorithm, models, prompts, renderings, trials, rewards, machine_drawn)
    for check in (
        _check_rewards,
        _check_score_every,
        _check_only,
        _check_search,
        _check_changes,
        _check_stopping,
        _check_states,
        _check_audit,
        _check_models,
        _check_scenes,
        _check_prompts,
        _check_backend,
    ):
        problems.look_up("", None, check, plan)
    problems.raise_if_any()
    return plan


def plan_of(data: dict[str, Any]) -> Plan:
    """Validate the keys of a sweep file and make their plan.

    Args:
        data: The keys, as read from YAML.

    Returns:
        The plan, see `make_plan`.

    Raises:
        UserError: One message for every bad key and every name that does not exist.
    """
    try:
        sweep = Sweep.model_validate(data)
    except ValidationError as error:
        raise UserError("; ".join([*problems_of(error, Sweep), *_name_problems(data)])) from error
    return make_plan(sweep)


def _name_problems(data: Mapping[str, Any]) -> list[str]:
    """List unknown tasks and models of a sweep file that has other mistakes too, so that one message reports them all."""
    problems = _Problems()
    if isinstance(task := data.get("task"), str):
        problems.look_up("task", task, find_task, task)
    if isinstance(models := data.get("models"), list | tuple):
        _models("models", [str(model_id) for model_id in models], problems)
    return problems.messages


class _Problems:
    """Collects problems, so that one message can report all of them."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def look_up(self, key: str, value: Any, find: Callable[P, Found], *args: P.args, **kwargs: P.kwargs) -> Found | None:
        """Call `find`. If it raises a UserError, keep the message with the key and value that it is about, and return None."""
        try:
            return find(*args, **kwargs)
        except UserError as error:
            where = f"{key} = {shown(_plain(value))}: " if value is not None else f"{key}: " if key else ""
            self.messages.append(f"{where}{error}")
            return None

    def raise_if_any(self) -> None:
        """Raise one UserError for all problems, if there are any."""
        if self.messages:
            raise UserError("; ".join(dict.fromkeys(self.messages)))


def _plain(value: Any) -> Any:
    """Convert a value back to the type that it has in the file."""
    return list(value) if isinstance(value, tuple) else value


def _models(
    key: str, model_ids: Sequence[str], problems: _Problems, version: EmbeddedVersion = NEWEST_EMBEDDED
) -> dict[str, RewardModel]:
    judging = key == "audit.models"

    def find(model_id: str) -> RewardModel:
        return find_reward_model(model_id if version == NEWEST_EMBEDDED else with_version(model_id, version), judging)

    found = {model_id: problems.look_up(key, model_ids, find, model_id) for model_id in model_ids}
    return {model_id: model for model_id, model in found.items() if model is not None}


def _task(sweep: Sweep) -> Task:
    if sweep.env is not None:
        return make_task(sweep.env)
    task = find_task(sweep.task_name)
    if sweep.task_name not in BUILT_IN_TASKS:
        check_task(task)
    return task


def _controlled(task: Task, control: Control) -> Task:
    controlled = task.controlled(control)
    if control.action_repeat > 1 and controlled.episode_actions < 2:
        raise UserError(
            f"action_repeat = {control.action_repeat}: an episode of {task.name} has {task.episode_steps} steps, so it would be a "
            "single action: expected less"
        )
    if controlled is not task:
        controlled.make_env(None).close()  # so that what its environment does not allow is reported now
    return controlled


def _algorithm(sweep: Sweep, name: str) -> Algorithm:
    algorithm = check_keys(find_algorithm(name), sweep.settings, "settings.", f" (these are settings of {name})")
    if not isinstance(algorithm.update_size, int) or algorithm.update_size < 1:
        raise UserError(
            f"algorithm {name!r}: update_size is {shown(algorithm.update_size)}: expected a number of transitions, at least 1"
        )
    if not isinstance(algorithm.evaluates_an_average, bool):
        raise UserError(
            f"algorithm {name!r}: evaluates_an_average is {shown(algorithm.evaluates_an_average)}: expected True or False"
        )
    at_once = algorithm.steps_at_once(sweep.trial.env_runners)
    if not isinstance(at_once, int) or at_once < 1:
        raise UserError(f"algorithm {name!r}: steps_at_once returned {shown(at_once)}: expected a number of steps, at least 1")
    trained = algorithm.trained_steps(sweep.steps, sweep.steps_per_result, sweep.trial.env_runners)
    if not (isinstance(trained, tuple) and len(trained) == 2 and all(isinstance(each, int) and each > 0 for each in trained)):
        raise UserError(
            f"algorithm {name!r}: trained_steps returned {shown(trained)}: expected the steps of a trial and of a result"
        )
    _refuse_overlong(algorithm, sweep)
    return algorithm


def _refuse_overlong(algorithm: Algorithm, sweep: Sweep) -> None:
    """Refuse settings by which a trial would be much longer than `steps`, since it ends with a whole result."""
    trained, _ = algorithm.trained_steps(sweep.steps, sweep.steps_per_result, sweep.trial.env_runners)
    if trained > _MOST_TIMES_AS_LONG * max(sweep.steps, sweep.steps_per_result):
        at_once = algorithm.steps_at_once(sweep.trial.env_runners)
        raise UserError(
            f"settings: each trial would train {trained:,} steps, as it samples {at_once:,} at once for an update: expected at most "
            f"{_MOST_TIMES_AS_LONG} times `steps` or `steps_per_result` ({sweep.steps:,} and {sweep.steps_per_result:,}); sample less "
            "at once (`envs`, `rollout_steps`, `updates_per_step`, `trial.env_runners`), or train longer"
        )


def with_settings(algorithm: Algorithm, changed: Mapping[str, Any]) -> Algorithm:
    """Return an algorithm with changed settings.

    Args:
        algorithm: The algorithm.
        changed: Values of some of its settings, by name.

    Returns:
        The same algorithm with these.

    Raises:
        UserError: One of them does not exist, or does not allow its value.
    """
    return check_keys(type(algorithm), algorithm.model_dump() | dict(changed), SETTING)


def fixed_settings(algorithm: Algorithm, sweep: Sweep) -> dict[str, Any]:
    """Return all settings of an algorithm by name, but those that the sweep's search draws."""
    return algorithm.model_dump(exclude=set(sweep.search.of_settings) if sweep.search is not None else set())


def _renderings(sweep: Sweep, task: Task) -> tuple[Rendering, ...]:
    profile = sweep.profile or machine_profile()
    pairs = itertools.product(sweep.textures or (None,), sweep.cameras or (None,))
    return tuple(task.rendering(textures, camera, profile) for textures, camera in pairs)


def _resolved_audit(sweep: Sweep, models: Mapping[str, RewardModel]) -> AuditSettings | None:
    """Fill in the audit settings that depend on the sweep: the interval, and which model is the largest."""
    if sweep.audit is None:
        return None
    largest = max(models, key=lambda model_id: models[model_id].parameters)
    named = tuple(largest if each == LARGEST else each for each in sweep.audit.models)
    every = sweep.audit.every or max(1, sweep.steps // _AUDIT_POINTS)
    return sweep.audit.model_copy(update={"models": tuple(dict.fromkeys(named)), "every": every})


def _rewards(sweep: Sweep, problems: _Problems) -> tuple[Reward, ...]:
    """Return the rewards of `alphas`, or those that `rewards` names, without those that cannot be made."""
    rewards = [Reward(GoalBaseline(alpha=alpha)) for alpha in sweep.alphas]
    if sweep.search is not None and sweep.search.draws_alpha:
        rewards.append(Reward(GoalBaseline()))  # until alpha is drawn
    for number, each in enumerate(sweep.rewards):
        function = problems.look_up(f"rewards.{number}", None, make_reward, each.described())
        if function is not None:
            rewards.append(Reward(function, each.name or function.label))
    return tuple(rewards)


def _combinations(sweep: Sweep, rewards: Sequence[Reward], prompts: Sequence[Prompt]) -> list[tuple[str, Reward, Prompt]]:
    named = {(each.model, _key(each), each.prompt) for each in sweep.only}
    grid = itertools.product(sweep.models, rewards, prompts)
    return [(model, reward, prompt) for model, reward, prompt in grid if not named or (model, reward.key, prompt.id) in named]


def _key(cell: Combination) -> float | str | None:
    return cell.alpha if cell.reward is None else cell.reward


def _trials(
    sweep: Sweep, rewards: Sequence[Reward], prompts: Sequence[Prompt], renderings: Sequence[Rendering]
) -> tuple[Trial, ...]:
    named_references = [TRUE_REWARD] * sweep.true_reward + [UNTRAINED] * sweep.untrained
    references = [
        Trial.of(name, 0.0, None, renderings[0], seed, len(renderings) > 1)
        for name, seed in itertools.product(named_references, sweep.seeds)
    ]
    grid = itertools.product(_combinations(sweep, rewards, prompts), renderings, sweep.seeds)
    trained = [
        Trial.of(
            model,
            reward.alpha or 0.0,
            prompt,
            rendering,
            seed,
            len(renderings) > 1,
            reward if reward.label is not None else None,
        )
        for (model, reward, prompt), rendering, seed in grid
    ]
    if sweep.search is not None:
        samples = [Sample(number + 1, sweep.search.draws_alpha) for number in range(sweep.search.samples)]
        trained = [trial.as_sample(sample) for sample in samples for trial in trained]
    return (*references, *trained)


def _prompt_ids(plan: Plan) -> list[str]:
    return [prompt.id for prompt in plan.prompts]


def _check_rewards(plan: Plan) -> None:
    """Refuse rewards that tables could not tell apart, or that are the same."""
    if not plan.sweep.rewards:
        return
    labels = [reward.label for reward in plan.rewards]
    identities = [identity_of(reward.function) for reward in plan.rewards]
    for number, (label, identity) in enumerate(zip(labels, identities, strict=True)):
        if identity in identities[:number]:
            raise UserError(
                f"rewards: {labels[identities.index(identity)]} and {label} are the same: expected each reward once"
            )
        if label in labels[:number]:
            raise UserError(f"rewards: two are called {label!r}: expected a `name` of its own for each")


def _check_score_every(plan: Plan) -> None:
    """Refuse to leave out frames that a reward needs, or all but the first of an episode."""
    every, length = plan.sweep.score_every, plan.task.episode_steps
    if every > 1 and every >= length:
        raise UserError(
            f"score_every = {every}: an episode of {plan.task.name} has {length} steps, so its first frame would be the only one "
            "that is scored: expected less"
        )
    for reward in plan.rewards:
        if every > 1 and reward.function.memory:
            raise UserError(
                f"score_every = {every}: {reward.label or reward.function.label} looks at the frames of {reward.function.memory + 1} "
                "steps in turn, so none of them can be left out: expected 1"
            )


def _check_only(plan: Plan) -> None:
    sweep = plan.sweep
    for each in sweep.only:
        keys = [reward.key for reward in plan.rewards]
        if each.model not in sweep.models or _key(each) not in keys or each.prompt not in _prompt_ids(plan):
            reward = f"alpha {each.alpha:g}" if each.reward is None else f"reward {each.reward!r}"
            axis = f"rewards ({', '.join(map(str, keys))})" if sweep.rewards else "alphas"
            raise UserError(
                f"only: {each.model!r}, {reward}, prompt {each.prompt!r} is not in the grid: expected values of "
                f"models, {axis} and ids of prompts"
            )


def _check_size(sweep: Sweep) -> None:
    """Refuse too many trials before they are made."""
    count = sweep.count_trials()
    if count > sweep.max_trials:
        raise UserError(
            f"the grid has {count} trials, more than max_trials = {sweep.max_trials}: shorten an axis or raise max_trials"
        )


def _check_search(plan: Plan) -> None:
    """Refuse to draw what the algorithm does not allow, and to draw without Optuna."""
    search = plan.sweep.search
    if search is None:
        return
    for name, values in search.of_settings.items():
        for value in ends_of(values):
            try:
                _refuse_overlong(with_settings(plan.algorithm, {name: value}), plan.sweep)
            except UserError as error:
                raise UserError(f"search.space: {error} (a setting of {plan.sweep.algorithm})") from error
    if importlib.util.find_spec("optuna") is None:
        raise UserError("search needs Optuna: install it with `pip install optuna`")


def _check_changes(plan: Plan) -> None:
    """Refuse to change settings on the way that the algorithm cannot change."""
    sweep = plan.sweep
    if sweep.search is not None and sweep.compared_every is not None:
        check_changes(plan.algorithm, str(sweep.algorithm), sweep.search, sweep.compared_every, plan.trained_steps)


def _check_stopping(plan: Plan) -> None:
    """Refuse to stop or to draw trials by a success that the task does not know."""
    scheduler, stop, search = plan.sweep.scheduler, plan.sweep.stop, plan.sweep.search
    by_success = {
        "search.by": search is not None and search.by == SUCCESS,
        "scheduler.by": scheduler is not None and scheduler.by == SUCCESS,
        "stop.success": stop is not None and stop.success is not None,
    }
    for key, asked in by_success.items():
        if asked and plan.task.success_criterion is None:
            raise UserError(f"{key}: {plan.task.name} has no success test: expected 'true_return'")


def _check_states(plan: Plan) -> None:
    states = plan.sweep.epic_states
    if isinstance(states, LabelledStates) and len(plan.renderings) > 1:
        raise UserError(
            f"epic_states: the images in {states.states} are drawn in one way, and the sweep compares {len(plan.renderings)}: "
            "expected one of textures and one of cameras, or a number of random states"
        )
    for reward in plan.rewards:
        if reward.function.needs_states and len(plan.renderings) > 1:
            raise UserError(
                f"rewards: {reward.label} is measured on images that are drawn in one way, and the sweep compares "
                f"{len(plan.renderings)}: expected one of textures and one of cameras, or `above` in the place of `quantile`"
            )
    if isinstance(states, int) and states:
        plan.task.require_states()


def _check_audit(plan: Plan) -> None:
    audit = plan.sweep.audit
    if audit is None:
        return
    for prompt in audit.prompts:
        if prompt not in _prompt_ids(plan):
            raise UserError("audit.prompts: " + unknown_name("prompt id", prompt, _prompt_ids(plan)))
    for gold, trained in itertools.product(audit.models, plan.sweep.models):
        wanted, given = (plan.models[model_id].frame_format for model_id in (gold, trained))
        if wanted != given and not plan.models[gold].judges_only:
            raise UserError(
                f"audit.models: {gold} takes frames of {wanted.size} pixels ({wanted.interpolation}, {wanted.resize_mode}), and "
                f"{trained} frames of {given.size} ({given.interpolation}, {given.resize_mode}): a gold model sees the frames that "
                f"the trial's model sees, so name one with the same input, or `{LARGEST}` for the largest of the sweep's"
            )


def _check_models(plan: Plan) -> None:
    ids: dict[str, str] = {}
    for model_id, model in plan.models.items():
        first = ids.setdefault(model.identity, model_id)
        if first != model_id:
            raise UserError(f"{first!r} and {model_id!r} are the same model: expected each model once, by one id")
        model.check_weights()


def _check_scenes(plan: Plan) -> None:
    for model, rendering in itertools.product(plan.models.values(), plan.renderings):
        model.check_scene(plan.task.name, rendering.textures, rendering.camera)


def _check_prompts(plan: Plan) -> None:
    for model_id, model in plan.models.items():
        # Alpha changes nothing in what can be scored.
        rewards = plan.computed_by(model_id) if plan.sweep.rewards else [Reward(GoalBaseline())]
        for prompt, reward in itertools.product(plan.prompts, rewards):
            try:
                model.check(reward.spec(prompt))
            except UserError as error:
                raise UserError(f"prompts, {prompt.id}: {error}") from error


def _check_backend(plan: Plan) -> None:
    pool = plan.sweep.pool
    for model in plan.models.values():
        try:
            model.use_backend(pool.backend, "cuda" if pool.gpus else "cpu", pool.precision)
        except UserError as error:
            raise UserError(f"pool: {error}") from error


def _slow_precision(pool: PoolSettings) -> str | None:
    if pool.gpus or pool.precision == "fp32":
        return None
    which = "" if pool.precision == "fp16" else " that does not compute in it (AVX512_BF16, AMX)"
    return (
        f"pool: {pool.precision} on a CPU{which} is slower than fp32, on most several times: give servers a GPU, or choose fp32"
    )


def _unreserved(pool: PoolSettings) -> str | None:
    """Say where nothing bounds the number of servers but `max`."""
    if pool.servers.max == pool.servers.min or pool.cpus or pool.gpus:
        return None
    return (
        f"pool.servers: up to {pool.servers.max} servers of each model share the memory and the cores of these machines, because they "
        "reserve none: give `pool.cpus` or `pool.gpus`, so that another one is only started where there is room"
    )


def _idle_gpus(plan: Plan) -> str | None:
    """Say if trials reserve a GPU on which they neither learn nor draw."""
    trial = plan.sweep.trial
    if not trial.gpus or trial.learner == "gpu" or plan.task.draws_with_opengl:
        return None
    return (
        f"trial.gpus = {trial.gpus:g}: trials learn on CPUs, and {plan.task.name} is drawn without OpenGL, so the GPUs would be idle; "
        "`pool.gpus` puts reward servers on GPUs, `trial.learner: gpu` the updates"
    )


def _best_of_others(plan: Plan) -> str | None:
    """Say where the best policy is chosen by episodes of another one."""
    if plan.sweep.trial.evaluation_interval or not plan.algorithm.evaluates_an_average:
        return None
    return (
        "settings.policy_averaging: the best policy is chosen by training episodes, which act by the latest weights, not by the "
        "average: set `trial.evaluation_interval` to choose it by episodes of its own"
    )


def _frames_alone(plan: Plan) -> str | None:
    """Say where rewards are measured on frames without an episode."""
    if not (plan.sweep.epic_states or plan.sweep.audit):
        return None
    return seen_alone(plan.needing_episodes(), "`epic_states` and the other models of an audit see")


def _judges_by_prompts(plan: Plan) -> list[str]:
    """Say which gold models cannot compute the rewards of the trials that they judge."""
    said = []
    for model_id in plan.models:
        other = [reward for reward in plan.judged_rewards(model_id) if not plan.can_compute(model_id, reward)]
        if other:
            said.append(f"audit.models: {judges_by_prompts(model_id, (str(reward.key) for reward in other))}")
    return said


def _audit_name(reward: Reward) -> str:
    return f"alpha_{reward.alpha:g}" if reward.label is None else reward.label


def _in_words(reward: Reward) -> str:
    described = readable_reward(reward.function)
    given = ", ".join(f"{name} {shown(value)}" for name, value in described.items() if name != KIND and value is not None)
    return f"{described[KIND]}{f' ({given})' if given else ''}"


def _few_audit_points(sweep: Sweep) -> str | None:
    if sweep.audit is None or sweep.audit.every is None:
        return None
    from vlm_rm_sweeps.evaluation.overoptimisation import WINDOW  # imports SciPy's statistics

    points = math.ceil(sweep.steps / max(sweep.audit.every, sweep.steps_per_result))
    if points >= WINDOW:
        return None
    return (
        f"audit: at most {points} audit points ({sweep.steps:,} steps, a point every {sweep.audit.every:,}, a result every "
        f"{sweep.steps_per_result:,}), but the over-optimisation alarm needs {WINDOW}: it will be undecided; lower both to "
        f"{sweep.steps // WINDOW:,} or less"
    )
