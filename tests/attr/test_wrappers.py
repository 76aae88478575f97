"""What may stand around a model: fine-tuned heads, moved images, several calls, heads on earlier layers."""

import contextlib

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from captum_astro import (
    LRP,
    AttentionRollout,
    TokenGradCAM,
    TransformerAttribution,
    UnsupportedModelError,
    VTranM,
    explainers,
)

METHODS = {one.name: one.method for one in explainers() if not one.name.startswith("ViTA")}
PROPAGATION = [METHODS[name] for name in ("LRP", "AttnLRP", "ConservativeLRP")]
CAMS = [METHODS[name] for name in ("TokenGradCAM", "TokenGradCAMPlusPlus")]
MASKING = [METHODS["ViTCX"]]
ATTENTION = [method for method in METHODS.values() if method not in PROPAGATION + CAMS + MASKING]


def tiny(**changes):
    torch.manual_seed(0)
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **{**settings, **changes}).double().eval()


def photo(*shape):
    return torch.rand(*(shape or (2, 3, 32, 32)), generator=torch.Generator().manual_seed(1)).double()


class Around(nn.Module):
    """A model, and a function of it and the images."""

    def __init__(self, model, call, *more):
        super().__init__()
        self.model, self.more, self.call = model, nn.ModuleList(more), call

    def forward(self, x):
        return self.call(self, x)


@pytest.mark.parametrize("method", [*ATTENTION, *CAMS, *MASKING, *PROPAGATION])
@pytest.mark.parametrize(
    "call",
    [
        lambda around, x: around.more[0](around.model.forward_features(x)[:, 0]),
        lambda around, x: around.more[0](around.model.forward_head(around.model.forward_features(x), pre_logits=True)),
        lambda around, x: around.more[0](around.model(x=x)),
        lambda around, x: around.more[0](around.model(x)),
        lambda around, x: around.more[0](around.model.forward_intermediates(x, indices=1)[0][:, 0]),
    ],
    ids=["forward_features", "forward_head", "keyword", "call", "forward_intermediates"],
)
@pytest.mark.one_in(3)
def test_head_on_a_backbone_is_the_whole_model(method, call):
    whole = tiny()
    head = Around(tiny(num_classes=0), call, whole.head).eval()
    head.model.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("head.")})
    expected = method(whole).attribute(photo(), target=[1, 3])
    torch.testing.assert_close(method(head).attribute(photo(), target=[1, 3]), expected, rtol=1e-12, atol=0)


class Answers(Around):
    """A wrapper that has every attribute of its model, as users write it to reach them."""

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)


@pytest.mark.parametrize("method", [*ATTENTION, *CAMS, *MASKING, *PROPAGATION])
def test_a_wrapper_that_answers_for_its_model_is_still_run(method):
    def darker(around, x):
        return around.model(x / 2)

    expected = method(Around(tiny(), darker).eval()).attribute(photo(), target=1)
    found = method(Answers(torch.compile(tiny(), backend="eager"), darker).eval()).attribute(photo(), target=1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", PROPAGATION)
def test_a_model_whose_blocks_do_not_run_is_named(method):
    model = tiny()
    model.forward = lambda x: model.forward_head(model.norm(model._pos_embed(model.patch_embed(x))))
    with pytest.raises(UnsupportedModelError, match="first block of VisionTransformer did not run"):
        method(model).attribute(photo(), target=1)


MOVES = {
    "centre crop": lambda x: x[..., 4:36, 4:36],
    "mirror": lambda x: x.flip(-1),
    "upside down": lambda x: x.flip(-2),
    "turned": lambda x: x.transpose(-2, -1),
    "rolled": lambda x: x.roll(8, -1),
    "zoom": lambda x: F.interpolate(x[..., 4:28, 4:28], (32, 32), mode="bilinear"),
    "padded": lambda x: F.pad(x[..., :24, :24], (4, 4, 4, 4)),
    "a quarter": lambda x: x[..., :32, :32],
}
KEEPS = {
    "normalised": lambda x: (
        (x - x.new_tensor([0.4, 0.5, 0.6])[:, None, None]) / x.new_tensor([0.2, 0.3, 0.1])[:, None, None]
    ),
    "BGR": lambda x: x.flip(1),
    "per image": lambda x: (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True),
    "grey": lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1),
    "bytes": lambda x: (x * 255).round() / 255,
    "gamma": lambda x: x.clamp(0, 1) ** 0.45,
    "without gradient": lambda x: x.detach() * 2 - 1,
    "enlarged": lambda x: F.interpolate(x, (32, 32), mode="bicubic"),
    "nearest": lambda x: F.interpolate(x, (32, 32)),
}
SIZES = {"centre crop": (40, 40), "a quarter": (64, 64), "enlarged": (24, 40), "nearest": (64, 48)}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("method", [*ATTENTION, *CAMS])
@pytest.mark.one_in(3)
def test_moved_image_is_refused(name, method):
    model = Around(tiny(), lambda around, x: around.model(MOVES[name](x))).eval()
    x = photo(1, 3, *SIZES.get(name, (32, 32)))
    for form in ("input", "pixels"):
        with pytest.raises(UnsupportedModelError, match="Around moves the image before VisionTransformer"):
            method(model).attribute(x, target=1, attribute_to=form)
    with contextlib.suppress(UnsupportedModelError) if method is TransformerAttribution else contextlib.nullcontext():
        grid = method(model).attribute(x, target=1, attribute_to="grid")  # it may have no rule for the move
        expected = method(model.model).attribute(MOVES[name](x), target=1, attribute_to="grid")
        torch.testing.assert_close(grid, expected)


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("form", ["input", "grid"])
@pytest.mark.parametrize("method", MASKING)
def test_a_moved_image_is_not_masked(method, form, name):
    model = Around(tiny(), lambda around, x: around.model(MOVES[name](x))).eval()
    with pytest.raises(UnsupportedModelError, match=r"Around moves the image, .* Apply this to the image first\."):
        method(model).attribute(photo(1, 3, *SIZES.get(name, (32, 32))), target=1, attribute_to=form)


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("method", PROPAGATION)
def test_relevance_of_pixels_follows_a_moved_image(name, method):
    model = Around(tiny(), lambda around, x: around.model(MOVES[name](x))).eval()
    x = photo(1, 3, *SIZES.get(name, (32, 32))).requires_grad_(True)
    (used,) = torch.autograd.grad(model(x)[0, 1], x)
    try:
        relevance = method(model).attribute(x.detach(), target=1)
    except UnsupportedModelError as refusal:
        if method is not LRP or "has no propagation rule here" not in str(refusal):
            raise
        return
    assert relevance.abs().sum() > 0
    assert not relevance[used == 0].any()


@pytest.mark.parametrize("name", KEEPS)
@pytest.mark.parametrize("method", [AttentionRollout, TokenGradCAM, VTranM])
def test_image_in_its_place_is_explained(name, method):
    model = Around(tiny(), lambda around, x: around.model(KEEPS[name](x))).eval()
    x = photo(2, 3, *SIZES.get(name, (32, 32)))
    found = method(model).attribute(x, target=1, attribute_to="pixels")
    expected = method(model.model).attribute(KEEPS[name](x), target=1, attribute_to="pixels")
    if name in SIZES:
        expected = F.interpolate(expected, x.shape[-2:], mode="bilinear")
    torch.testing.assert_close(found, expected)


CALLS = {
    "sum": lambda around, x: around.model(x) + around.model(x.flip(-1)),
    "mean of a batch": lambda around, x: around.model(torch.cat([x, x.flip(-1)])).unflatten(0, (2, -1)).mean(0),
    "two scales": lambda around, x: around.model(x) + around.model(F.interpolate(x[..., ::2, ::2], scale_factor=2)),
    "features": lambda around, x: around.model.forward_features(x)[:, 0, :5] + around.model(x),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("method", [*ATTENTION, *CAMS, *MASKING])
def test_several_calls_are_refused(name, method):
    model = Around(tiny(), CALLS[name]).eval()
    with pytest.raises(UnsupportedModelError, match=r"2 times|4 images for 2 outputs|4 maps for 2 images"):
        method(model).attribute(photo(), target=1)


@pytest.mark.parametrize("name", ["sum", "two scales", "features"])
@pytest.mark.parametrize("method", PROPAGATION)
def test_propagation_refuses_several_calls(name, method):
    with pytest.raises(UnsupportedModelError, match=r"was called 2 times in one pass|has no propagation rule here"):
        method(Around(tiny(), CALLS[name]).eval()).attribute(photo(), target=1)


class Earlier(nn.Module):
    """A head that reads one block's tokens, and the model's output very little."""

    def __init__(self, block, size=1e-9):
        super().__init__()
        self.model, self.size = tiny(), size
        self.model.blocks[block].register_forward_hook(lambda m, i, o: setattr(self, "seen", o))

    def forward(self, x):
        return self.size * self.model(x) + self.seen[:, 1:, :5].mean(1)


@pytest.mark.parametrize("layers", [None, [-1]], ids=["all", "last"])
@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("method", ATTENTION)
def test_head_on_an_earlier_layer_is_refused(method, block, layers):
    with pytest.raises(UnsupportedModelError, match="more than the final tokens of VisionTransformer"):
        method(Earlier(block).double().eval()).attribute(
            photo(), target=1, **({} if layers is None else {"layers": layers})
        )


@pytest.mark.parametrize("method", ATTENTION)
def test_head_on_the_image_too_is_refused(method):
    model = Around(tiny(), lambda around, x: around.model(x) + x.mean((1, 2, 3))[:, None]).eval()
    with pytest.raises(UnsupportedModelError, match="more than the final tokens of VisionTransformer"):
        method(model).attribute(photo(), target=1)


@pytest.mark.parametrize("method", ATTENTION)
def test_head_on_other_tokens_is_refused(method):
    """Also by methods without a gradient."""
    model = Around(tiny(), lambda around, x: around.model.forward_features(x)[:, :2, :5].mean(1)).eval()
    with pytest.raises(UnsupportedModelError, match="depends on final tokens"):
        method(model).attribute(photo(), target=1)


@pytest.mark.parametrize("classes", [5, 24])
def test_classifier_of_a_wrapper_is_seen(classes, recwarn):
    """A model of embeddings alone has no probabilities; with a head around it, it has."""
    head = nn.Linear(24, classes).double()
    VTranM(Around(tiny(num_classes=0), lambda around, x: around.more[0](around.model(x)), head).eval()).attribute(
        photo(), target=1
    )
    assert not [one for one in recwarn if "has no classifier" in str(one.message)]
    for model in (tiny(num_classes=0), Around(tiny(num_classes=0), lambda around, x: around.model(x)).eval()):
        with pytest.warns(UserWarning, match="has no classifier"):
            VTranM(model).attribute(photo(), target=1)


@pytest.mark.parametrize(
    ("name", "classes", "warned"),
    [
        ("vit_base_patch16_clip_224.openai", None, True),
        ("vit_base_patch16_clip_224.openai", 5, False),
        ("vit_base_patch16_clip_224.openai_ft_in1k", None, False),
        ("vit_pe_core_tiny_patch16_384.fb", None, True),
        ("vit_base_patch14_dinov2.lvd142m", None, True),
        ("vit_base_patch14_dinov2.lvd142m", 5, False),
        ("vit_base_patch16_224.augreg_in21k", None, False),
        ("vit_tiny_patch16_224", 512, False),
    ],
)
def test_features_are_not_classes(name, classes, warned, recwarn):
    given = {} if classes is None else {"num_classes": classes}
    small = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2}
    model = timm.create_model(name, **small, **given).double().eval()
    VTranM(model).attribute(photo(), target=1)
    assert any("their softmax is not a probability" in str(one.message) for one in recwarn) == warned


@pytest.mark.parametrize("name", ["AttnLRP", "ConservativeLRP", "TokenGradCAM", "TransformerMM"])
def test_the_softmax_of_features_is_said_by_every_method(name, recwarn):
    method, options = METHODS[name], {"target": 1, "output": "probability"}
    method(tiny()).attribute(photo(), **options)
    method(
        Around(tiny(num_classes=0), lambda around, x: around.more[0](around.model(x)), nn.Linear(24, 5).double()).eval()
    ).attribute(photo(), **options)
    assert not [one for one in recwarn if "their softmax" in str(one.message)]
    with pytest.warns(UserWarning, match="their softmax is not a probability"):
        method(tiny(num_classes=0)).attribute(photo(), **options)


def outside_of_autograd(around, x):
    with torch.no_grad():
        features = around.model.forward_features(x)[:, 0]
    return around.more[0](features)


def no_gradients(around, x):
    with torch.no_grad():
        return around.model(x)


@torch.inference_mode()
def inference(around, x):
    return around.model(x)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (outside_of_autograd, UnsupportedModelError, "does not depend on the image by a gradient"),
        (no_gradients, UnsupportedModelError, "does not depend on the image by a gradient"),
        (inference, UnsupportedModelError, "does not depend on the image by a gradient"),
        (lambda around, x: around.model(x).detach(), UnsupportedModelError, "its output is detached"),
        (lambda around, x: {"logits": around.model(x)}, TypeError, r"not a dict\. Wrap it .* output\['logits'\]"),
        (lambda around, x: (around.model(x),), TypeError, r"not a tuple\. Wrap it .* output\[0\]"),
        (lambda around, x: around.model(x).sum(), TypeError, "one row of outputs, for each image, not one number"),
    ],
    ids=["no_grad backbone", "no_grad", "inference", "detached", "dict", "tuple", "scalar"],
)
def test_one_message_for_an_output_of_the_wrong_kind(method, call, error, message):
    model = Around(tiny(), call, nn.Linear(24, 5).double()).eval()
    with pytest.raises(error, match=message):
        method(model).attribute(photo(), target=1)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_one_message_for_several_images(method):
    model = Around(tiny(), lambda around, x: around.model(x[:, 0])).eval()
    with pytest.raises(ValueError, match=r"Images must be floating point \(B, C, H, W\)"):
        method(model).attribute(photo(2, 2, 3, 32, 32), target=1)
    with pytest.raises(AssertionError, match="one tensor of images"):
        method(model).attribute((photo(), photo()), target=1)


@pytest.mark.parametrize("name", ["VTranM", "TransformerMM", "ATTCAT", "TokenGradCAM", "ViTCX"])
def test_probability_of_a_model_that_ends_in_a_softmax(name):
    model = tiny()
    ending = Around(model, lambda around, x: around.model(x).softmax(-1)).eval()
    options = {"relu_attributions": False} if name == "TokenGradCAM" else {}
    expected = METHODS[name](model).attribute(photo(), target=1, output="probability", **options)
    found = METHODS[name](ending).attribute(photo(), target=1, output="probability", **options)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["ConservativeLRP", "ProjectedFlow"])
def test_an_end_that_the_method_holds_constant_is_named(name):
    ending = Around(tiny(), lambda around, x: around.model(x).softmax(-1)).eval()
    with pytest.raises(UnsupportedModelError, match=rf"ends in a softmax, which .*{name}.* hold constant"):
        METHODS[name](ending).attribute(photo(), target=1)


@pytest.mark.parametrize("method", [*ATTENTION, *CAMS, *MASKING, *PROPAGATION])
@pytest.mark.parametrize("attribute_to", ["input", "tokens"])
def test_several_copies_of_an_image(method, attribute_to):
    twice = Around(tiny(), lambda around, x: around.model(torch.cat([x, x]))[:2]).eval()
    with pytest.raises(UnsupportedModelError, match=r"4 images for 2 outputs|returns 4 maps for 2 images"):
        method(twice).attribute(photo(), target=1, attribute_to=attribute_to)
