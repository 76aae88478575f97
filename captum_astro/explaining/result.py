"""What `captum_astro.explain` returns: maps with all that belongs to them, which draw and save themselves."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import torch
from PIL import Image

from captum_astro.data.view import Crop
from captum_astro.explaining.classes import Class
from captum_astro.viz.colours import Style
from captum_astro.viz.overlay import Place, overlay
from captum_astro.viz.panels import Panel, drawn
from captum_astro.viz.reducing import reduce_photographs
from captum_astro.viz.saving import dots_per_inch, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from typing_extensions import Unpack

_SIZE = 3.0  # of a panel, in inches
_SCREEN = 100.0  # dots per inch in a notebook


class Drawn:
    """What draws itself: in a notebook, and into files."""

    def plot(self, **style: Unpack[Style]) -> Figure:
        """Draw it."""
        raise NotImplementedError

    @property
    def record(self) -> dict[str, Any]:
        """What it was made with."""
        raise NotImplementedError

    def _widest(self) -> int:
        """The longer side of the largest image, in pixels."""
        raise NotImplementedError

    def save(self, file: str | Path, **style: Any) -> None:
        """Save the picture, and beside it its record as JSON.

        The record says the model, its weights, the method and its options, the class, the crop, and all versions. It is
        in the picture's own metadata too. A PNG has up to 16 million pixels, to which large photographs are reduced:
        the record then says how many pixels are left of the longest side. A PDF and an SVG keep all of them.

        Args:
            file: Ends in ``.png``, ``.pdf`` or ``.svg``. The record's name is the same, followed by ``.json``.
            style: The options of `plot`.

        Raises:
            ValueError: If the name has another ending, or is that of the image itself.
            OSError: If a file cannot be written.
        """
        record = self.record
        if any(one["image"]["file"] and _same(Path(one["image"]["file"]), Path(file)) for one in record["maps"]):
            raise ValueError(f"{file} is the image itself: choose another name.")
        figure = self.plot(**style)
        record["style"] = {name: getattr(value, "name", value) for name, value in style.items()}
        dpi = dots_per_inch(figure, self._widest() / _SIZE)
        if Path(file).suffix.lower() == ".png" and dpi * _SIZE < self._widest():
            record["longest_side_reduced_to"] = round(dpi * _SIZE)
            reduce_photographs(figure, dpi)
        save(figure, Path(file), record, dpi)

    def _repr_png_(self) -> bytes:
        """The picture in a notebook."""
        held, figure = io.BytesIO(), self.plot()
        reduce_photographs(figure, _SCREEN)
        figure.savefig(held, format="png", dpi=_SCREEN)
        return held.getvalue()


@dataclass(frozen=True, eq=False, repr=False)
class Result(Drawn):
    """One image, explained for one class by one method.

    Attributes:
        attributions: What the method's ``attribute`` returns: in the shape of the model's input, ``(1, C, H, W)``.
        grid: One value per patch, ``(rows, columns)``; for `LRP`, `ConservativeLRP` and `AttnLRP` the sum over its
            pixels.
        classes: The five most probable classes, each with ``index``, ``name`` and ``probability``.
        target: The explained class.
        image: The whole image, in RGB.
        crop: The part of the image that the model saw; ``crop.box`` in pixels, ``crop.share`` from 0 to 1.
        patch: Height and width in pixels of the patches that are drawn; 1 for a map that is smooth.
        made: The model and the versions.
        options: The method's name and its options.
        file: The image's file.
    """

    attributions: torch.Tensor
    grid: torch.Tensor
    classes: list[Class]
    target: Class
    image: Image.Image
    crop: Crop
    patch: tuple[int, int]
    made: dict[str, Any]
    options: dict[str, Any]
    file: str | None = None

    @property
    def title(self) -> str:
        """The method, with ViTA's astrocytes if there are any, and the class."""
        return f"{self.options['method']}{' under ViTA' if self.made['vita'] else ''}: {self.target}"

    @property
    def record(self) -> dict[str, Any]:
        """What the map was made with, as JSON can hold it: model, image, crop, method, options, class, versions."""
        image = {"file": self.file, "width": self.image.width, "height": self.image.height}
        image |= {"bands": self.image.info["bands"]} if "bands" in self.image.info else {}
        crop = {"fit": self.crop.fit, "box": list(self.crop.box)}
        one = {"image": image, "crop": crop, **self.options, "target": asdict(self.target)}
        return {**self.made, "maps": [one]}

    def plot(self, *, ax: Axes | None = None, title: str | None = None, **style: Unpack[Style]) -> Figure:
        """Draw the whole image, with what the model saw outlined, and the map over it.

        Args:
            ax: Draw the map alone, on these axes.
            title: The map's title; by default the method, the class and its probability.
            style: ``cmap``, ``alpha``, ``colorbar`` and ``limits``, as in `captum_astro.viz.Style`.

        Returns:
            The figure.
        """
        style = {"colorbar": True, **style}
        panel = self._panel(self.title if title is None else title)
        if ax is None:
            return drawn([[_photograph(self), panel]], _SIZE, **style)
        assert panel.attribution is not None
        drawn_on = overlay(
            panel.attribution, panel.image, ax, panel.title, patch=panel.patch, place=panel.place, **style
        )
        whole: Figure = cast(Any, drawn_on.figure).figure  # of a subfigure too; ``root=`` is of Matplotlib 3.10
        return whole

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.grid.shape))
        source = f"{Path(self.file).name if self.file else 'image'}, {self.image.width} x {self.image.height}"
        return f"<{self.title} (class {self.target.index}); {shape} patches; {source}; {self.crop}>"

    def _panel(self, title: str) -> Panel:
        return Panel(self.image, self.attributions[0], title, Place(box=self.crop.box), self.patch)

    def _widest(self) -> int:
        return max(self.image.size)


class Results(Drawn, Sequence[Result]):
    """Several results: for each image in turn those of every class and method. A sequence, with its own picture.

    Args:
        results: The results.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self._results = list(results)

    @property
    def record(self) -> dict[str, Any]:
        """As that of a `Result`, for all maps."""
        made = self._results[0].made if self._results else {}
        return {**made, "maps": [one for result in self._results for one in result.record["maps"]]}

    def plot(self, *, columns: int | None = None, **style: Unpack[Style]) -> Figure:
        """Draw each image, followed by its maps.

        Args:
            columns: The number of panels per row; by default all panels of an image are in one row.
            style: As in `Result.plot`.

        Returns:
            The figure.
        """
        style = {"colorbar": True, **style}
        images: dict[int, list[Result]] = {}
        for result in self._results:
            images.setdefault(id(result.image), []).append(result)
        rows = [[_photograph(of[0]), *(result._panel(result.title) for result in of)] for of in images.values()]
        return drawn(rows, _SIZE, columns, **style)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> Result | Results:
        found = self._results[index]
        return Results(found) if isinstance(found, list) else found

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    def __repr__(self) -> str:
        return "\n".join(["[", *(f"  {result!r}," for result in self._results), "]"])

    def _widest(self) -> int:
        return max((result._widest() for result in self._results), default=0)


def _photograph(result: Result) -> Panel:
    title = str(result.classes[0])
    if bands := result.image.info.get("bands"):
        title += f"\n{bands}"
    if not result.crop.whole:
        title += "\noutlined: the model's view"
    return Panel(result.image, None, title, Place(box=result.crop.box))


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
