"""Running mean and variance: those of all values so far, from those of each part."""

from typing import Any, NamedTuple


class Moments(NamedTuple):
    """Number, mean and variance of values: plain numbers, or arrays or tensors with one entry for each feature.

    Args:
        count: Number of values.
        mean: Their mean.
        variance: Their variance, divided by `count`.
    """

    count: Any
    mean: Any
    variance: Any

    def with_part(self, part: "Moments") -> "Moments":
        """Return the moments of these values and of further ones.

        Args:
            part: Moments of the further values, at least one.

        Returns:
            The moments of all (Chan, Golub and LeVeque, 1979).
        """
        total = self.count + part.count
        difference = part.mean - self.mean
        squares = self.variance * self.count + part.variance * part.count + difference**2 * (self.count * part.count / total)
        return Moments(total, self.mean + difference * (part.count / total), squares / total)
