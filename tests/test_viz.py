from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_astro import viz


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
