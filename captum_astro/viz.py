"""Plots of attributions. Attributions are never modified, only displayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

OPACITY = 0.55  # of a map over its image
_ROUNDING = 1e-3  # of an image's values beyond [0, 1]
OUTLIERS = 1  # percentage of the strongest pixels that are clipped for display


def colours(signed: bool) -> Colormap:
    """The colour map: red over white to green, centred at zero, as in Captum, or turbo from zero.

    Args:
        signed: Whether the map has negative values.

    Example:
        >>> from matplotlib.colors import to_hex
        >>> to_hex(colours(signed=True)(1.0))  # evidence for the class is green
        '#008000'
    """
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if signed:
        return LinearSegmentedColormap.from_list("RdWhGn", ["red", "white", "green"])
    return colormaps["turbo"]


def pixel_map(attributions: torch.Tensor) -> torch.Tensor:
    """The attribution per pixel: the sum over the channels.

    Args:
        attributions: ``(B, C, H, W)``, or ``(B, H, W)``, which is returned unchanged.

    Returns:
        ``(B, H, W)``.
    """
    return attributions.sum(1) if attributions.ndim == 4 else attributions


def displayable(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Undo a model's normalisation: ``(B, C, H, W)`` in [0, 1]."""
    shape = (1, -1, 1, 1)
    return (images * images.new_tensor(std).reshape(shape) + images.new_tensor(mean).reshape(shape)).clamp(0, 1)


def overlay(attribution: torch.Tensor, image: torch.Tensor, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Plot one attribution over its image, with Captum's ``visualize_image_attr``.

    Args:
        attribution: ``(C, H, W)`` or ``(H, W)``. A map with negative values is shown in two colours, red for negative
            and green for positive; any other as a heat map.
        image: ``(3, H, W)`` or ``(1, H, W)`` in [0, 1].
        ax: The axes to plot on; a new figure by default.
        title: Title of the panel.

    Returns:
        The axes.

    Raises:
        ValueError: If the attribution and the image differ in size, the image is not in that form, or a value is not
            finite.

    Example:
        >>> ax = overlay(torch.rand(3, 8, 8), torch.rand(3, 8, 8), title="noise")
    """
    from captum.attr import visualization

    if attribution.shape[-2:] != image.shape[-2:]:
        raise ValueError(
            f"The attribution is {tuple(attribution.shape[-2:])}, the image {tuple(image.shape[-2:])}: use "
            f"attribute_to='pixels' or 'input'."
        )
    picture = _picture(image)
    values = pixel_map(attribution[None])[0].detach().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError("The attribution has values that are NaN or infinite, which no colour shows.")
    ax = ax if ax is not None else _figure(1, 1, 3.0)[1][0][0]
    if not np.any(values):
        ax.imshow(picture)
        ax.set_title(f"{title or ''} (all zero)".strip())
    else:
        signed = bool((values < 0).any())
        values = values / np.abs(values).max()  # Captum warns about small numbers
        visualization.visualize_image_attr(
            values,
            picture,
            method="blended_heat_map",
            sign="all" if signed else "positive",
            plt_fig_axis=(ax.get_figure(), ax),
            cmap=colours(signed),
            outlier_perc=OUTLIERS,
            alpha_overlay=OPACITY,
            title=title,
            use_pyplot=False,
        )
    ax.set_axis_off()
    return ax


def compare(
    images: torch.Tensor,
    attributions: Mapping[str, torch.Tensor],
    titles: Sequence[str] | None = None,
    size: float = 2.2,
    columns: int | None = None,
) -> Figure:
    """A grid with one row per image: the image, followed by each method's map over it.

    Args:
        images: ``(B, 3, H, W)`` or ``(B, 1, H, W)`` in [0, 1].
        attributions: For each method its name and ``(B, C, H, W)``, ``(B, 1, H, W)`` or ``(B, H, W)``.
        titles: Title of each image.
        size: Width of a panel in inches.
        columns: The number of panels per row; by default all panels of an image are in one row.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: As `overlay`.

    Example:
        >>> figure = compare(torch.rand(2, 3, 8, 8), {"noise": torch.rand(2, 3, 8, 8)}, ["a", "b"])
    """
    panels = 1 + len(attributions)
    columns = min(columns or panels, panels)
    rows = -(-panels // columns)
    figure, axes = _figure(len(images) * rows, columns, size)
    for ax in axes.flat:
        ax.set_axis_off()
    for index, image in enumerate(images):
        own = axes[index * rows : (index + 1) * rows].flatten()
        own[0].imshow(_picture(image))
        if titles is not None:
            own[0].set_title(titles[index])
        for ax, (name, values) in zip(own[1:], attributions.items(), strict=False):
            overlay(values[index], image, ax, name if index == 0 or rows > 1 else None)
    return figure


def text_record(
    words: Sequence[str],
    attributions: torch.Tensor,
    *,
    predicted: str,
    probability: float,
    explained: str,
    label: str = "",
) -> Any:
    """A text record for Captum's ``visualize_text``: words coloured by their attribution.

    Args:
        words: The tokens, as readable text.
        attributions: One value per token, ``(n,)``; padding after the last word is left out. They are scaled so that
            the largest absolute value is 1.
        predicted: The predicted class.
        probability: Its probability.
        explained: The class that the attributions explain.
        label: The true class, if known.

    Returns:
        A ``captum.attr.visualization.VisualizationDataRecord``.

    Raises:
        ValueError: If there are more words than values.

    Example:
        >>> record = text_record(["a", "fine", "film"], torch.tensor([0.1, 2.0, 0.5]), predicted="positive",
        ...                      probability=0.9, explained="positive")
        >>> record.word_attributions.tolist()
        [0.05000000074505806, 1.0, 0.25]
    """
    from captum.attr import visualization

    if len(words) > len(attributions):
        raise ValueError(f"There are {len(words)} words and {len(attributions)} attributions.")
    values = attributions[: len(words)].detach().float().cpu()
    largest = values.abs().max() if len(values) else values.new_zeros(())
    return visualization.VisualizationDataRecord(
        word_attributions=values / largest if largest > 0 else values,
        pred_prob=probability,
        pred_class=predicted,
        true_class=label,
        attr_class=explained,
        attr_score=float(attributions.detach().float().sum()),
        raw_input_ids=list(words),
        convergence_score=0.0,
    )


def _picture(image: torch.Tensor) -> NDArray[np.float32]:
    """An image as ``(H, W, 3)`` in [0, 1]; of two, four or more bands nobody knows which are red, green and blue."""
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        raise ValueError(
            f"The image must be (3, H, W) or (1, H, W), not {tuple(image.shape)}: choose the bands to be shown, as in "
            f"image[:3]."
        )
    values = image.detach().float().cpu().numpy()
    low, high = float(values.min()), float(values.max())
    if not -_ROUNDING <= low <= high <= 1 + _ROUNDING:  # NaN fails too
        raise ValueError(
            f"The image has values from {low:g} to {high:g}, which are not in [0, 1]: divide bytes by 255, and undo a "
            f"model's normalisation with displayable."
        )
    return np.broadcast_to(values.clip(0, 1).transpose(1, 2, 0), (*values.shape[1:], 3))


def _figure(rows: int, columns: int, size: float) -> tuple[Figure, Any]:
    """A figure with its own canvas, so that pyplot neither displays nor keeps it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * size, rows * (size + 0.25)), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)
