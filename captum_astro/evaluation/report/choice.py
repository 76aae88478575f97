"""The reference method of the comparisons."""

from __future__ import annotations

import pandas as pd

from captum_astro.evaluation.analysis.paired import REFERENCE


def reference(rows: pd.DataFrame, against: str | None = None) -> str:
    """The requested method, otherwise VTranM, or the first one if that was not run.

    Args:
        rows: As `captum_astro.evaluation.run.rows.Row`, of one model.
        against: The requested method.

    Raises:
        ValueError: If it was not run.

    Example:
        >>> reference(pd.DataFrame({"method": ["-", "LRP", "VTranM"]}))
        'VTranM'
    """
    methods = [str(name) for name in pd.unique(rows["method"]) if name != "-"]
    if against is not None and against not in methods:
        raise ValueError(f"There is no method {against!r} to compare with. Methods: {', '.join(methods)}.")
    return against or (REFERENCE if REFERENCE in methods else next(iter(methods), ""))
