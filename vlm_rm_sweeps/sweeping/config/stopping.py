"""What may end or change trials before their last step: a scheduler that compares them, and goals that are good enough."""

import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import EPIC_DISTANCE
from vlm_rm_sweeps.sweeping.config.sections import Section

SchedulerKind = Literal["asha", "median", "pbt"]
RankBy = Literal["success", "true_return", "epic_distance"]
_DEFAULT_REDUCTION = 3.0
_DEFAULT_LEAST_TRIALS = 3
_DEFAULT_QUANTILE = 0.25
_DEFAULT_RESAMPLE = 0.25
_GRACE_SHARE = 10
_PARAMETERS: dict[SchedulerKind, tuple[str, ...]] = {
    "asha": ("grace_steps", "reduction"),
    "median": ("grace_steps", "least_trials"),
    "pbt": ("interval_steps", "quantile", "resample"),
}
"""Which parameters each kind has, besides `by`."""
_CLIP_RETURN = (
    "each model, prompt and reward has a scale of its own, so ranking by CLIP return would rank the scales: expected 'success', "
    "'true_return' or 'epic_distance'"
)


class SchedulerSettings(Section):
    """Which trials are stopped early or go on from others, and by what they are compared. References run to their end."""

    kind: SchedulerKind = Field(
        description="`asha` stops a trial that is not among the best at one of a few steps, `median` one that is below the median. "
        "`pbt` lets the worst samples of a search go on from the best ones, with other values."
    )
    by: RankBy = Field(
        "success",
        description="What trials are compared by: success or true return of the greedy policy at `trial.evaluation_interval`, or the "
        "EPIC distance from before training.",
    )
    grace_steps: int | None = Field(
        None,
        gt=0,
        description="Of `asha` and `median`: environment steps before which no trial is stopped; by default a tenth of `steps`.",
    )
    reduction: float | None = Field(
        None,
        ge=1.1,  # Ray keeps a record of each rung: nearer to 1 there are millions
        description="Of `asha`: one trial in this many goes on at each rung, and each rung is this many times as far; by default 3.",
    )
    least_trials: int | None = Field(
        None, gt=0, description="Of `median`: trials without which there is no median; by default 3."
    )

    interval_steps: int | None = Field(
        None,
        gt=0,
        description="Of `pbt`: environment steps between two comparisons, a multiple of `trial.evaluation_interval`; by default about "
        "a tenth of `steps`.",
    )
    quantile: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Of `pbt`: this share of the samples, the worst ones, go on from as many of the best ones; by default 0.25.",
    )
    resample: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Of `pbt`: probability that a value is drawn anew, where it would be changed a little; by default 0.25.",
    )

    @field_validator("by", mode="before")
    @classmethod
    def _one_scale(cls, by: Any) -> Any:
        if by == "clip_return":
            raise UserError(_CLIP_RETURN)
        return by

    @model_validator(mode="after")
    def _of_its_kind(self) -> "SchedulerSettings":
        for name, value in self.model_dump(exclude={"kind", "by", *_PARAMETERS[self.kind]}, exclude_none=True).items():
            raise UserError(f"{name} = {value:g} is no parameter of {self.kind}: leave it out")
        if self.kind == "pbt" and not self.is_greedy:
            raise UserError(
                f"by = {self.by!r} of pbt: it is known before training, and no training changes it: expected 'success' or 'true_return'"
            )
        return self

    @property
    def of_asha(self) -> float:
        """The `reduction`, or its default."""
        return self.reduction or _DEFAULT_REDUCTION

    @property
    def of_median(self) -> int:
        """The `least_trials`, or their default."""
        return self.least_trials or _DEFAULT_LEAST_TRIALS

    @property
    def of_pbt(self) -> tuple[float, float]:
        """The `quantile` and the `resample`, or their defaults."""
        quantile, resample = self.quantile, self.resample
        return (_DEFAULT_QUANTILE if quantile is None else quantile, _DEFAULT_RESAMPLE if resample is None else resample)

    def interval(self, steps: int, evaluation_interval: int) -> int:
        """Return the environment steps between two comparisons of a population.

        Args:
            steps: Environment steps of each trial.
            evaluation_interval: Environment steps between two evaluations of the greedy policy.

        Returns:
            The `interval_steps`, or the first multiple of the other interval from a tenth of the steps on.
        """
        return self.interval_steps or math.ceil(steps / _GRACE_SHARE / evaluation_interval) * evaluation_interval

    def grace(self, steps: int) -> int:
        """Return the environment steps before which no trial of `steps` steps is stopped."""
        return self.grace_steps or max(1, steps // _GRACE_SHARE)

    @property
    def is_greedy(self) -> bool:
        """Whether trials are compared by their greedy policies."""
        return self.by != EPIC_DISTANCE

    def in_words(self, steps: int) -> str:
        """Describe `asha` or `median` of trials of `steps` steps in words."""
        if self.kind == "asha":
            rule = f"asha: about one trial in {self.of_asha:g} goes on at each rung"
        else:
            rule = f"median: trials below the median of at least {self.of_median} others are stopped"
        return f"{rule}, by {self.by}, from step {self.grace(steps):,}"


class StopSettings(Section):
    """What is good enough: a trial ends when its greedy policy reaches one of these when it is evaluated. References go on."""

    success: float | None = Field(None, gt=0, le=1, description="Share of the greedy episodes that succeed.")
    true_return: float | None = Field(None, description="Mean true return of the greedy episodes.")

    @model_validator(mode="after")
    def _some_goal(self) -> "StopSettings":
        if not self.goals:
            raise UserError("expected `success`, `true_return`, or both")
        return self

    @property
    def goals(self) -> dict[str, float]:
        """The least value of each metric that is given."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


def check_stopping(
    scheduler: SchedulerSettings | None,
    stop: StopSettings | None,
    steps: int,
    steps_per_result: int,
    evaluation_interval: int | None,
    is_measured: bool,
) -> None:
    """Check that there is something to compare trials by before they end.

    Args:
        scheduler: The sweep's scheduler, if it has one.
        stop: The sweep's goals, if it has any.
        steps: Environment steps of each trial.
        steps_per_result: Environment steps between two results.
        evaluation_interval: Environment steps between two evaluations of the greedy policy.
        is_measured: Whether the sweep measures EPIC distances before training.

    Raises:
        UserError: It could never decide anything; the message says what is missing.
    """
    greedy = [("stop", "reaches its goals")] if stop else []
    if scheduler is not None and scheduler.is_greedy:
        greedy.append(("scheduler", f"is compared by {scheduler.by}"))
    for key, use in greedy:
        if evaluation_interval is None:
            raise UserError(
                f"{key}: the greedy policy {use}, and is evaluated only at the end: set `trial.evaluation_interval`, such as "
                f"{max(1, steps // _GRACE_SHARE)}"
            )
        if max(evaluation_interval, steps_per_result) >= steps:
            raise UserError(
                f"{key}: the greedy policy is evaluated every {evaluation_interval:,} steps, in results of {steps_per_result:,}, so "
                f"only at the end of {steps:,}: lower `trial.evaluation_interval` or `steps_per_result`"
            )
    if scheduler is None:
        return
    if not scheduler.is_greedy and not is_measured:
        raise UserError("scheduler: by = 'epic_distance' needs `epic_states`, such as 500, which is measured before training")
    if scheduler.kind != "pbt" and scheduler.grace(steps) >= steps:
        raise UserError(f"scheduler.grace_steps = {scheduler.grace_steps}: expected less than steps = {steps}")
