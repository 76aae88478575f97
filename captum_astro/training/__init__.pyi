"""The public names, each imported when it is first used."""

from .callback import ExplainCallback as ExplainCallback
