"""The error of models and their weights."""


class ModelError(ValueError):
    """A model that cannot be created, or weights that cannot be loaded into it."""
