"""The colours of models in figures and reports: a model has the same one everywhere that a sweep is shown."""

from collections.abc import Iterable

# Colours that people with any colour vision tell apart (Okabe and Ito), and two more; each is visible on white and on black.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a6bd1", "#a0522d")
REFERENCE_COLOURS = ("#6b6b6b", "#a3a3a3")
"""Of the references, which have no model: the true reward and the untrained policy."""


def model_colours(models: Iterable[str]) -> dict[str, str]:
    """Choose a colour for each model.

    Args:
        models: Ids in the order of the sweep file, perhaps followed by models of other origin; repeats are ignored.

    Returns:
        Colours as `#rrggbb` by model id. They repeat after eight models. The colour of a model depends only on the models before it.
    """
    return {model_id: _COLOURS[place % len(_COLOURS)] for place, model_id in enumerate(dict.fromkeys(models))}
