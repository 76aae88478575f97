"""The figures that the papers print, to stand beside those of a run of the same preset."""

from __future__ import annotations

Table = dict[tuple[str, str], dict[str, float]]
"""For a metric and the class explained, each method's figure as printed."""

_CLASSES = [
    ("negative AUC", "predicted"), ("positive AUC", "predicted"), ("negative AUC", "true"), ("positive AUC", "true"),
]  # fmt: skip
_SEGMENTED = [("pixel accuracy", "predicted"), ("mAP", "predicted"), ("mIoU", "predicted")]


def _table(columns: list[tuple[str, str]], text: str) -> Table:
    """A table as the paper prints it: a method a line."""
    lines = [line.split() for line in text.strip().splitlines()]
    return {column: {name: float(cells[i]) for name, *cells in lines} for i, column in enumerate(columns)}


_TABLE1_CIFAR10 = _table(
    _CLASSES,
    """
    AttentionGradCAM       61.24 47.32 61.26 47.34
    LRP                    72.62 72.14 72.54 72.13
    ConservativeLRP        44.92 49.15 45.76 47.87
    TransformerAttribution 67.65 43.64 65.82 43.17
    RawAttention           58.46 47.17 58.46 47.17
    AttentionRollout       64.88 42.89 64.88 42.89
    ATTCAT                 41.78 42.66 41.91 42.52
    TransformerMM          71.67 37.77 71.81 37.70
    VTranM                 74.90 37.14 75.05 36.48
    """,
)
_TABLE1_CIFAR100 = _table(
    _CLASSES,
    """
    AttentionGradCAM       47.18 41.91 47.28 41.78
    LRP                    46.76 46.31 46.80 46.29
    ConservativeLRP        27.11 27.99 26.84 27.42
    TransformerAttribution 44.65 24.99 44.19 23.90
    RawAttention           37.23 28.62 37.23 28.62
    AttentionRollout       41.34 24.96 41.34 24.96
    ATTCAT                 23.52 22.15 23.90 21.73
    TransformerMM          52.14 17.52 52.65 17.32
    VTranM                 54.78 16.07 55.30 15.89
    """,
)
_TABLE2 = _table(
    [*_SEGMENTED, *_CLASSES],
    """
    AttentionGradCAM       67.37 79.20 46.13 43.84 26.11 44.06 25.87
    LRP                    50.96 55.87 32.82 42.55 41.29 42.56 41.29
    ConservativeLRP        64.06 68.01 36.23 33.24 34.35 34.33 34.03
    TransformerAttribution 79.70 86.03 61.95 57.48 19.00 58.26 18.38
    RawAttention           67.87 80.24 46.37 48.70 25.44 48.70 25.44
    AttentionRollout       59.01 73.76 39.43 43.23 32.34 43.23 32.34
    ATTCAT                 43.88 48.38 27.90 32.34 31.71 33.59 30.68
    TransformerMM          79.05 85.71 61.56 57.53 15.88 58.85 15.20
    VTranM                 80.53 86.33 63.45 58.12 15.75 59.36 15.09
    """,
)
_TABLE3 = {
    "deit_": (".297 -4.514", ".296 -4.504", ".282 -4.163"),
    "vit_base_": (".725 -5.676", ".719 -5.567", ".721 -5.622"),
    "vit_large_": (".725 -5.725", ".719 -5.623", ".716 -5.541"),
}
_TABLE4 = _table(
    [*_SEGMENTED, ("negative AUC", "predicted"), ("positive AUC", "predicted")],
    """
    VTranM:aggregation=false 52.94 67.78 33.42 44.92 31.95
    VTranM:components=       76.30 85.28 58.34 55.25 16.98
    VTranM:components=length 77.50 85.39 59.59 55.03 16.28
    VTranM                   77.89 85.69 60.29 55.42 16.18
    """,
)
_COMPARED = ("VTranM", "TransformerMM", "TransformerAttribution")
PUBLISHED: dict[tuple[str, str], dict[str, Table]] = {
    ("vtranm-table1", "cifar10"): {"": _TABLE1_CIFAR10},
    ("vtranm-table1", "cifar100"): {"": _TABLE1_CIFAR100},
    ("vtranm-table2", "segmentation"): {"": _TABLE2},
    ("vtranm-table2", "perturbation"): {"": _TABLE2},
    ("vtranm-table3", "perturbation"): {
        model: _table(
            [("AOPC", "predicted"), ("LOdds", "predicted")],
            "\n".join(f"{name} {cells}" for name, cells in zip(_COMPARED, lines, strict=True)),
        )
        for model, lines in _TABLE3.items()
    },
    ("vtranm-table4", "segmentation"): {"": _TABLE4},
    ("vtranm-table4", "perturbation"): {"": _TABLE4},
}
"""For a preset and its part, the table of the models whose names begin so."""


def published(preset: tuple[str, str], model: str) -> Table:
    """The paper's table that stands beside a model's results; empty if there is none.

    Args:
        preset: The name of the preset and of its part.
        model: The model that was run.

    Example:
        >>> published(("vtranm-table3", "perturbation"), "deit_tiny_patch16_224")[("AOPC", "predicted")]["VTranM"]
        0.297
    """
    tables = PUBLISHED.get(preset, {})
    return next((table for begin, table in tables.items() if model.startswith(begin)), {})
