"""The one error of this room."""


class WeightsError(ValueError):
    """The weights cannot be used: says what is wrong, in which file, and what to do."""
