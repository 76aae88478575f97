from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from captum_astro import viz
from captum_astro.viz.overlay import Place
from captum_astro.viz.reducing import reduce_photographs


def test_hottest_pixel_matches_the_attribution() -> None:
    attribution = torch.zeros(3, 16, 16)
    attribution[:, 2, 12] = 1
    ax = viz.overlay(attribution, torch.zeros(3, 16, 16))
    heat = np.asarray(ax.images[-1].get_array())
    assert heat.shape == (16, 16)
    assert np.unravel_index(heat.argmax(), heat.shape) == (2, 12)


def test_plotting_does_not_modify_inputs() -> None:
    images, maps = torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    kept = images.clone(), maps.clone()
    figure = viz.compare(images, {"signed": maps, "plain": maps.abs().sum(1), "zero": maps * 0}, ["a", "b"])
    assert torch.equal(images, kept[0])
    assert torch.equal(maps, kept[1])
    assert len(figure.axes) == 8
    assert figure.axes[3].get_title() == "zero (all zero)"
    figure.canvas.draw()
    assert np.asarray(figure.canvas.buffer_rgba()).std() > 10


def test_many_methods_take_several_rows() -> None:
    maps = {str(i): torch.rand(2, 8, 8) for i in range(6)}
    figure = viz.compare(torch.rand(2, 3, 8, 8), maps, columns=3)
    assert len(figure.axes) == 18
    assert [ax.get_title() for ax in figure.axes[:9]] == ["", "0", "1", "2", "3", "4", "5", "", ""]


def test_sizes_and_helpers() -> None:
    with pytest.raises(ValueError, match="attribute_to='pixels'"):
        viz.overlay(torch.rand(4, 4), torch.rand(3, 8, 8))
    assert torch.equal(viz.pixel_map(torch.ones(2, 3, 4, 4)), torch.full((2, 4, 4), 3.0))
    x = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(viz.displayable((x - 0.5) / 0.2, (0.5,) * 3, (0.2,) * 3), x)
    viz.overlay(torch.rand(1, 8, 8), torch.rand(1, 8, 8))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        *((torch.rand(bands, 8, 8), rf"not \({bands}, 8, 8\): choose the bands") for bands in (2, 4, 6, 13)),
        (torch.rand(8, 8), r"not \(8, 8\)"),
        (torch.full((3, 8, 8), torch.nan), "values from nan"),
        (torch.full((3, 8, 8), torch.inf), "from inf to inf, which are not in"),
        (torch.full((3, 8, 8), 200, dtype=torch.uint8), "from 200 to 200, which are not in .* divide bytes by 255"),
        (torch.full((1, 8, 8), -1.0), "values from -1 to -1.* undo a model's normalisation"),
    ],
)
@pytest.mark.parametrize("zero", [True, False])
def test_images_that_cannot_be_shown(image: torch.Tensor, message: str, zero: bool) -> None:
    attribution = torch.zeros(8, 8) if zero else torch.rand(8, 8)
    with pytest.raises(ValueError, match=message):
        viz.overlay(attribution, image)
    with pytest.raises(ValueError, match=message):
        viz.compare(image[None], {"map": attribution[None]})


def test_attributions_that_are_not_finite() -> None:
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="The attribution has values that are NaN or infinite"):
            viz.overlay(torch.tensor([[0.0, value]]), torch.rand(3, 1, 2))


def test_greys_keep_their_brightness() -> None:
    grey = torch.tensor([[[0.25, 0.5]]])
    ax = viz.compare(grey[None], {"map": torch.ones(1, 1, 2)}).axes[0]
    assert np.asarray(ax.images[0].get_array()).tolist() == [[[0.25] * 3, [0.5] * 3]]


def test_text_record_for_captum() -> None:
    values = torch.tensor([0.5, -2.0, 0.0, 7.0])
    record = viz.text_record(["so", "dull"], values, predicted="bad", probability=0.8, explained="good", label="bad")
    torch.testing.assert_close(record.word_attributions, torch.tensor([0.25, -1.0]))
    assert torch.equal(values, torch.tensor([0.5, -2.0, 0.0, 7.0]))
    assert not viz.text_record(["a"], torch.zeros(1), predicted="", probability=0, explained="").word_attributions.any()
    with pytest.raises(ValueError, match="3 words and 1 attributions"):
        viz.text_record(["a", "b", "c"], torch.ones(1), predicted="", probability=0, explained="")


def test_a_text_as_a_page() -> None:
    from captum.attr import visualization

    record = viz.text_record(["so", "dull"], torch.ones(2), predicted="bad", probability=0.8, explained="good")
    page = visualization.visualize_text([record]).data
    assert "dull" in page
    assert "good" in page


def _axes(map_: torch.Tensor, image: torch.Tensor, **options: object) -> tuple[Axes, NDArray[np.uint8]]:
    """The axes of a map over an image of as many pixels as the figure has, and the drawn pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = image.shape[-2:]
    figure = Figure(figsize=(width, height), dpi=1)
    FigureCanvasAgg(figure)
    ax = viz.overlay(map_, image, figure.add_axes((0, 0, 1, 1)), **options)
    figure.canvas.draw()
    return ax, np.asarray(figure.canvas.buffer_rgba())[..., :3]


def test_opacity_is_in_proportion_to_the_relevance() -> None:
    photograph = torch.full((3, 1, 5), 0.6)
    _, pixels = _axes(torch.tensor([[-2.0, -1, 0, 1, 2]]), photograph, patch=1, limits=2, alpha=1.0)
    half = round(0.3 * 255)  # of the photograph's 0.6
    full = round(0.3 * 255 + 127.5)
    expected = [[0, 0, 255], [half, half, full], [153] * 3, [full, half, half], [255, 0, 0]]
    assert np.abs(pixels[0].astype(int) - expected).max() <= 2
    strongest = (np.array(viz.colours(signed=False)(1.0))[:3] * 0.5 + 0.3) * 255
    _, pixels = _axes(torch.tensor([[0.0, 1.0]]), photograph[..., :2], alpha=0.5, limits=1)
    assert pixels[0, 0].tolist() == [153] * 3
    assert np.abs(pixels[0, 1] - strongest).max() <= 2


@pytest.mark.parametrize(
    ("values", "limits", "span", "label"),
    [
        (torch.arange(101.0), None, (0, 99), "limit: 99th percentile"),
        (torch.arange(101.0) * torch.tensor([1.0, -1.0]).repeat(51)[:101], None, (-95, 95), "limit: 95th percentile"),
        (torch.cat([torch.zeros(100), torch.ones(1)]) * 7, None, (0, 7), "limit: largest value"),
        (torch.cat([torch.zeros(50), torch.ones(50), torch.tensor([-1e-9])]), None, (0, 1), "limit: 99th percentile"),
        (torch.arange(101.0), 3, (0, 3), "limit: as chosen"),
        (torch.arange(101.0), (-3, 3), (-3, 3), "limit: as chosen"),
        (-torch.arange(101.0), 3, (-3, 3), "limit: as chosen"),
    ],
)
def test_limits_are_stated(values: torch.Tensor, limits: object, span: tuple[float, float], label: str) -> None:
    ax = viz.overlay(values[None], torch.rand(1, 1, 101), limits=limits, colorbar=True, patch=1)
    assert ax.images[-1].get_clim() == pytest.approx(span)
    bar = ax.child_axes[0]
    assert bar.get_ylabel() == label
    assert [float(tick.get_text()) for tick in bar.get_yticklabels()] == sorted({*span, 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": 0}, "limits must be a positive number"),
        ({"limits": (-1, 2)}, r"limits must be a positive number, \(0, high\) or \(-high, high\), not \(-1, 2\)"),
        ({"limits": torch.inf}, "limits must be"),
        ({"limits": (0, 2)}, r"negative values, which limits=\(0, 2\) would hide: give 2 alone"),
        ({"alpha": 1.5}, "alpha must be a number from 0 to 1, not 1.5"),
        ({"cmap": "viridos"}, "no colour map 'viridos': see matplotlib.colormaps"),
        ({"patch": 0}, "at least one pixel on each side, not 0"),
        ({"place": Place(bands=(0, 3, 1))}, r"bands must be one or three numbers from 0 to 2, not \(0, 3, 1\)"),
        ({"place": Place(bands=(0, 1))}, "bands must be one or three numbers"),
    ],
)
def test_options_that_are_wrong(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        viz.overlay(torch.tensor([[-1.0, 1.0]]), torch.rand(3, 1, 2), **options)


def test_signed_maps_are_pooled_to_patches() -> None:
    assert torch.equal(viz.pooled(torch.arange(12.0).reshape(1, 1, 2, 6), 4), torch.tensor([[[36.0, 30.0]]]))
    checked = torch.ones(28, 28)
    checked[::2, ::2] = -2.0  # in each square of 2 x 2 pixels the sum is 1
    for patch, drawn in ((None, 1.0), (2, 1.0), (1, -2.0)):
        ax = viz.overlay(checked, torch.rand(3, 28, 28), patch=patch)
        assert np.asarray(ax.images[-1].get_array()).min() == drawn
    assert np.asarray(viz.overlay(checked + 2, torch.rand(3, 28, 28)).images[-1].get_array()).min() == 0


def test_a_map_of_a_part_of_an_image() -> None:
    ax = viz.overlay(torch.rand(2, 2), torch.rand(3, 40, 60), place=Place(box=(10, 0, 50, 40)))
    assert [image.get_extent() for image in ax.images] == [[0, 60, 40, 0], [10, 50, 40, 0]]
    assert [line.get_xydata().max(0).tolist() for line in ax.lines] == [[50, 40]] * 2
    assert [ax.get_xlim(), ax.get_ylim()] == [(0, 60), (40, 0)]
    for box in ((0, 0, 60, 40), (0, -10, 60, 50)):  # all of it, also between borders
        assert not viz.overlay(torch.rand(2, 2), torch.rand(3, 40, 60), place=Place(box=box)).lines


def test_bands_are_chosen() -> None:
    image = torch.rand(13, 4, 4)
    ax = viz.compare(image[None], {"map": torch.rand(1, 4, 4)}, bands=(3, 2, 1)).axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array(), image[[3, 2, 1]].permute(1, 2, 0))
    ax = viz.overlay(torch.rand(4, 4), image, place=Place(bands=[7]))
    np.testing.assert_array_equal(ax.images[0].get_array(), image[[7, 7, 7]].permute(1, 2, 0))


def test_titles_are_no_mathematics() -> None:
    ax = viz.overlay(torch.rand(2, 2), torch.rand(3, 2, 2), title="costs $5 to $10")
    assert ax.title.get_parse_math() is False


@pytest.mark.parametrize("patch", [None, 4], ids=["pixels", "patches"])
@pytest.mark.parametrize("sign", [1, -1], ids=["positive", "signed"])
def test_a_layer_has_the_colours_of_the_overlay(patch: int | None, sign: int) -> None:
    attribution = torch.rand(3, 28, 28)
    attribution[:, :14] *= sign
    picture, scale = viz.layer(attribution, patch=patch)
    drawn = viz.overlay(attribution, torch.zeros(3, 28, 28), patch=patch, alpha=1.0).images[-1]
    expected = drawn.to_rgba(drawn.get_array(), bytes=True)
    assert np.array_equal(np.asarray(picture), expected)
    assert (scale.low, scale.high) == drawn.get_clim()


def test_photographs_are_reduced_to_the_pixels_that_are_shown() -> None:
    figure = viz.compare(torch.zeros(1, 3, 400, 400), {"map": torch.rand(1, 400, 400)}, size=2.0)
    photograph = figure.axes[0].imshow(np.full((400, 400, 3), 7, np.uint8), extent=(0, 400, 400, 0))
    reduce_photographs(figure, dpi=400)
    assert photograph.get_array().shape == (400, 400, 3)  # there is room for all of it
    reduce_photographs(figure, dpi=100)
    assert photograph.get_array().shape == (200, 200, 3)
    assert (photograph.get_array() == 7).all()
    assert list(photograph.get_extent()) == [0, 400, 400, 0]
    assert figure.axes[1].images[-1].get_array().shape == (400, 400)
