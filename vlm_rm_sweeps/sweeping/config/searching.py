"""What a search draws: values of alpha and of the algorithm's settings, in the place of fixed ones."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vlm_rm_sweeps.errors import UserError, shown
from vlm_rm_sweeps.sweeping.config.sections import Section, check_alphas
from vlm_rm_sweeps.sweeping.config.validation import check_keys

ALPHA = "alpha"
"""Key of a space: goal-baseline regularisation."""
SETTING = "settings."
"""What the keys of a space begin with that are settings of the algorithm; also columns of tables and parameters in MLflow."""
Drawn = int | float | str | bool
"""A value that was drawn."""


class Range(Section):
    """Numbers from which values are drawn: whole ones, for a setting that takes no others."""

    low: int | float = Field(description="Least value.")
    high: int | float = Field(description="Largest value.")
    log: bool = Field(False, description="Draw uniformly on a logarithmic scale, such as a learning rate.")

    @model_validator(mode="after")
    def _has_values(self) -> "Range":
        if self.low >= self.high:
            raise UserError(f"low = {self.low:g} and high = {self.high:g}: expected low to be less than high")
        if self.log and self.low <= 0:
            raise UserError(f"low = {self.low:g}: a logarithmic scale has only positive numbers")
        return self

    @property
    def ends(self) -> tuple[Drawn, ...]:
        """Values that show whether all of them are allowed."""
        return (self.low, self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (logarithmic)' if self.log else ''}"


class SearchSettings(Section):
    """Draw settings one after another, each in the light of those before, in the place of a grid of them.

    A sample is one drawing. It is trained with each of the sweep's seeds, and judged by the mean over them.
    """

    space: dict[str, Range | tuple[Drawn, ...]] = Field(
        description="What is drawn: `alpha`, and settings of the algorithm as `settings.NAME`, each as a list of values or as a range, "
        "`{low: 0, high: 1}`, with `log: true` on a logarithmic scale."
    )
    samples: int = Field(20, gt=0, le=10_000, description="How many samples are drawn.")
    sampler: Literal["tpe", "random"] = Field(
        "tpe", description="Optuna's sampler: `tpe` prefers what was good (random for the first ten), `random` never looks."
    )
    by: Literal["success", "true_return"] = Field("success", description="What of the greedy policy is to be large.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the drawings.")

    @field_validator("space", mode="before")
    @classmethod
    def _values_or_range(cls, space: Any) -> Any:
        """Say what a value may be, where pydantic would say it once for each type."""
        if not isinstance(space, dict):
            return space
        for key, values in space.items():
            if isinstance(values, list | tuple):
                wrong = [value for value in values if not isinstance(value, int | float | str | bool)]
                if wrong:
                    raise UserError(f"{key}: {shown(wrong[0])} cannot be drawn: expected numbers, texts, or true and false")
            elif not isinstance(values, dict | Range):
                raise UserError(f"{key} = {shown(values)}: expected a list of values, or a range: {{low: 0, high: 1}}")
        return {
            key: check_keys(Range, values, f"{key}.") if isinstance(values, dict) else values for key, values in space.items()
        }

    @field_validator("space")
    @classmethod
    def _can_be_drawn(cls, space: dict[str, Range | tuple[Drawn, ...]]) -> dict[str, Range | tuple[Drawn, ...]]:
        if not space:
            raise UserError("expected at least one of `alpha` and `settings.NAME`")
        for key, values in space.items():
            if key != ALPHA and not (key.startswith(SETTING) and key != SETTING):
                raise UserError(f"{key}: expected `alpha`, or a setting of the algorithm, such as `settings.learning_rate`")
            if isinstance(values, tuple) and (len(values) < 2 or len(set(map(repr, values))) < len(values)):
                raise UserError(f"{key} = {list(values)}: expected at least two values, each once")
        if ALPHA in space:
            ends = ends_of(space[ALPHA])
            if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in ends):
                raise UserError(f"alpha = {shown(list(ends))}: expected numbers from 0 to 1")
            check_alphas(tuple(float(value) for value in ends))
        return space

    @property
    def draws_alpha(self) -> bool:
        """Whether alpha is drawn."""
        return ALPHA in self.space

    @property
    def of_settings(self) -> dict[str, Range | tuple[Drawn, ...]]:
        """What is drawn for the algorithm, by the names of its settings."""
        return {key.removeprefix(SETTING): values for key, values in self.space.items() if key.startswith(SETTING)}

    def in_words(self) -> str:
        """Describe the search in words."""
        drawn = "; ".join(
            f"{key}: {values if isinstance(values, Range) else ', '.join(map(str, values))}"
            for key, values in self.space.items()
        )
        return f"{self.samples} samples, drawn by {self.sampler} for {self.by}: {drawn}"


def ends_of(values: Range | tuple[Drawn, ...]) -> tuple[Drawn, ...]:
    """Return values of an axis of a space that show whether all of them are allowed."""
    return values.ends if isinstance(values, Range) else values


def setting_values(drawn: Mapping[str, Drawn]) -> dict[str, Drawn]:
    """Return what was drawn for the algorithm, by the names of its settings."""
    return {key.removeprefix(SETTING): value for key, value in drawn.items() if key.startswith(SETTING)}


def check_searched(
    search: SearchSettings, axes: Mapping[str, int], settings: Mapping[str, Any], has_cells: bool, measures_before: bool
) -> None:
    """Check that a sweep leaves one combination, of which the search draws the rest.

    Args:
        search: The sweep's search.
        axes: How many values each axis of the grid has.
        settings: The settings that the sweep file fixes.
        has_cells: Whether the sweep names cells of its grid (`only`).
        measures_before: Whether it measures rewards before training (`epic_states`).

    Raises:
        UserError: It does not.
    """
    found = [f"{count} {axis}" for axis, count in axes.items() if count > 1] + ["`only`"] * has_cells
    if found:
        raise UserError(
            f"search: found {' and '.join(found)}: a search is of one combination, so expected at most one of each; for several, "
            "start a sweep for each"
        )
    if axes["models"] == 0:
        raise UserError("search: found no models: expected one, whose reward trials learn from")
    if search.draws_alpha and axes["alphas"] + axes["rewards"]:
        raise UserError("search: `alpha` is drawn and given: leave out `alphas` and `rewards`, or `alpha` in `search.space`")
    if search.draws_alpha and measures_before:
        raise UserError("search: `epic_states` measures rewards before alpha is drawn: leave out one of them")
    for name in search.of_settings:
        if name in settings:
            raise UserError(f"search: {SETTING}{name} is drawn and given: leave out one of them")
