"""Random wrappers around a small model: a map is refused, or lies where the model looks."""

import random

import pytest
import torch
import torch.nn.functional as F

from captum_astro import LRP, AttnLRP, BeyondIntuition, ConservativeLRP, TransformerAttribution, UnsupportedModelError
from tests.attr.test_wrappers import ATTENTION, CAMS, PROPAGATION, Around, photo, tiny

COMPOSITIONS = 170  # of each method
# maps of the model's patches, enlarged to the image; BeyondIntuition darkens what the wrapper receives
LAID_OVER = [*(method for method in ATTENTION if method is not BeyondIntuition), *CAMS]
PLACES = {
    "crop": lambda x, r: F.pad(x, [-min(r, min(x.shape[-2:]) // 4)] * 4),
    "mirror": lambda x, r: x.flip(-1),
    "upside down": lambda x, r: x.flip(-2),
    "shift": lambda x, r: x.roll(r, -1),
    "pad": lambda x, r: F.pad(x, (r, r, r, r)),
    "resize": lambda x, r: F.interpolate(x, (32 + 4 * r, 64 - 2 * r), mode="bilinear", antialias=True),
    "tile": lambda x, r: x[..., : (x.shape[-2] + 1) // 2, : (x.shape[-1] + 1) // 2],
}
VALUES = {
    "normalise": lambda x: (x - 0.4) / 0.2,
    "BGR": lambda x: x.flip(1),
    "per image": lambda x: (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1e-6),
    "curve": lambda x: x.sigmoid() ** 2,
}
HEADS = {
    "model": lambda around, x: around.model(x),
    "features": lambda around, x: around.model.head(around.model.forward_features(x)[:, 0]),
    "half": lambda around, x: around.model(x) / 2 + 1,
}
REFUSED_HEADS = {
    "sum": lambda around, x: around.model(x) + around.model(x.flip(-1)),
    "cat": lambda around, x: around.model(torch.cat([x, x.flip(-2)])).unflatten(0, (2, -1)).mean(0),
    "patches": lambda around, x: around.model.forward_features(x)[:, 2:, :5].mean(1),
    "image": lambda around, x: around.model(x) + 1e-6 * x.mean((1, 2, 3))[:, None],
}


def composition(draw):
    """The places' and the values' changes in a random order, and a head."""
    places = [(name, draw.randint(3, 6)) for name in draw.choices(list(PLACES), k=draw.choice([0, 0, 1, 1, 2, 3]))]
    steps = places + draw.sample(list(VALUES), k=draw.randint(0, 2))
    draw.shuffle(steps)
    heads = HEADS if draw.random() < 0.7 else REFUSED_HEADS
    return steps, draw.choice(list(heads))


def moved(x, steps, values=True):
    for step in steps:
        if isinstance(step, tuple):
            x = PLACES[step[0]](x, step[1])
        elif values:
            x = VALUES[step](x)
    return x if x.shape[-2:] == (32, 32) else F.interpolate(x, (32, 32), mode="bilinear", antialias=True)


def displacement(steps, size):
    """How far, in pixels of the model's image, places lie from where a resize of the whole image would put them."""
    ramps = torch.stack(torch.meshgrid(*(torch.arange(1.0, n + 1) for n in size), indexing="ij"))[None].double()
    there = moved(ramps, steps, values=False)
    expected = F.interpolate(ramps, (32, 32), mode="bilinear", antialias=True)
    scale = 32 / torch.tensor(size, dtype=torch.float64)
    return float(((there - expected) * scale[:, None, None]).abs()[..., 2:-2, 2:-2].mean())


@pytest.mark.parametrize("method", LAID_OVER)
def test_wrappers(method):
    seed = 20 + LAID_OVER.index(method)
    draw, model, outcomes = random.Random(seed), tiny(), {"map": 0, "refused": 0}
    for number in range(COMPOSITIONS):
        (steps, head), size = composition(draw), draw.choice([(32, 32), (48, 40), (64, 64)])
        around = Around(model, lambda a, x, s=steps, h=head: {**HEADS, **REFUSED_HEADS}[h](a, moved(x, s))).eval()
        case = f"seed {seed}, number {number}: {steps}, {head}, {size}"
        x, off = photo(1, 3, *size), displacement(steps, size)
        layer_reads_all = method in CAMS and head in ("patches", "image")  # Grad-CAM follows any head after its layer
        try:
            found = method(around).attribute(x, target=1, attribute_to="pixels")
        except UnsupportedModelError:
            outcomes["refused"] += 1
            blanked = {"crop", "pad"} <= {step[0] for step in steps}  # a margin may lie where pixels were
            no_rule = method is TransformerAttribution
            assert off > 0.1 or blanked or no_rule or (head in REFUSED_HEADS and not layer_reads_all), case
            continue
        outcomes["map"] += 1
        assert off < 1.5, case
        assert head in HEADS or layer_reads_all, case
        if head in HEADS:
            alone = Around(model, HEADS[head]).eval()
            inside = method(alone).attribute(moved(x, steps), target=1, attribute_to="pixels")
            expected = F.interpolate(inside, size, mode="bilinear")
            torch.testing.assert_close(found, expected, msg=lambda text, case=case: f"{case}: {text}")
    assert min(outcomes.values()) > (3 if method is TransformerAttribution else 25)  # it has no rules for moves


@pytest.mark.parametrize("method", [AttnLRP, ConservativeLRP])
def test_pixels_that_reach_the_model(method):
    """Relevance goes back through the wrapper: to the pixels that the model sees, and to no others."""
    seed = 40 + PROPAGATION.index(method)
    draw, model, outcomes = random.Random(seed), tiny(), {"map": 0, "refused": 0}
    corner = torch.zeros(32, 32).double()
    corner[:8, 8:24] = 1
    for number in range(COMPOSITIONS):
        (steps, head), size = composition(draw), draw.choice([(32, 32), (48, 40), (64, 64)])
        steps = [step for step in steps if step != "per image"]  # it makes each pixel depend on all
        if head in REFUSED_HEADS:
            head = draw.choice(["sum", "cat"])
        around = Around(
            model, lambda a, x, s=steps, h=head: {**HEADS, **REFUSED_HEADS}[h](a, moved(x, s) * corner)
        ).eval()
        case = f"seed {seed}, number {number}: {steps}, {head}, {size}"
        x = photo(1, 3, *size).requires_grad_()
        try:
            found = method(around).attribute(x.detach(), target=1)
        except UnsupportedModelError:
            outcomes["refused"] += 1
            continue
        outcomes["map"] += 1
        assert head in HEADS, case
        (seen,) = torch.autograd.grad((moved(x, steps) * corner).sum(), x)
        assert found.isfinite().all(), case
        assert found[seen != 0].any(), case
        assert not found[seen == 0].any(), case
    assert min(outcomes.values()) > 15


def test_lrp_follows_what_moves_the_image():
    """Its map is that of the model's own image, carried back to where the pixels came from."""
    draw, model, maps = random.Random(60), tiny(), 0
    while maps < 60:
        (steps, head), size = composition(draw), draw.choice([(32, 32), (48, 40), (64, 64)])
        steps = [step for step in steps if isinstance(step, tuple)]
        if head not in HEADS:
            continue
        around = Around(model, lambda a, x, s=steps, h=head: HEADS[h](a, moved(x, s))).eval()
        x, case = photo(1, 3, *size).requires_grad_(), f"seed 60, number {maps}: {steps}, {head}, {size}"
        found, there = LRP(around).attribute(x.detach(), target=1), moved(x, steps)
        inside = LRP(Around(model, HEADS[head]).eval()).attribute(there.detach(), target=1)
        (expected,) = torch.autograd.grad(there, x, inside)
        torch.testing.assert_close(found, expected, msg=lambda text, case=case: f"{case}: {text}")
        maps += 1


def test_lrp_refuses_a_curve():
    model = tiny()
    around = Around(model, lambda a, x: a.model(VALUES["curve"](x))).eval()
    with pytest.raises(UnsupportedModelError, match="anything but a factor, sigmoid has no propagation rule"):
        LRP(around).attribute(photo(1, 3, 32, 32), target=1)
