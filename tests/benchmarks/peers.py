"""How each other package explains a ViT-S/16 at 224: functions that build a model and a call, as their manuals say.

Each returns the model and ``explain(x, targets)``. A package that is not installed raises an `ImportError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from torch import nn

from captum_astro import explainers

Explain = Callable[[torch.Tensor, Sequence[int]], Any]
Built = tuple[nn.Module, Explain]
NAME = "deit_small_patch16_224"


def timm_model() -> nn.Module:
    """The model that everything is measured on, if a package accepts it."""
    torch.manual_seed(0)
    return timm.create_model(NAME).eval()


def torchvision_model() -> nn.Module:
    """The same size in torchvision's class."""
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(224, 16, 12, 6, 384, 1536).eval()
    nn.init.normal_(model.heads.head.weight, std=0.02)  # zero otherwise, and so would be every gradient
    return model


def passes() -> Built:
    """Forward and backward to the input."""
    model = timm_model().requires_grad_(False)

    def explain(x: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        image = x.clone().requires_grad_(True)
        score = model(image)[range(len(x)), targets].sum()
        return torch.autograd.grad(score, image)[0]

    return model, explain


def ours(name: str) -> Callable[[], Built]:
    """A method of this package."""

    def build() -> Built:
        model = timm_model()
        method = next(explainer.method for explainer in explainers() if explainer.name == name)(model)
        return model, lambda x, targets: method.attribute(x, target=list(targets))

    return build


def captum_gradients() -> Built:
    """Captum's IntegratedGradients, with 32 steps."""
    from captum.attr import IntegratedGradients

    model = timm_model()
    method = IntegratedGradients(model)
    return model, lambda x, targets: method.attribute(x, target=list(targets), n_steps=32)


def captum_lrp() -> Built:
    """Captum's LRP."""
    from captum.attr import LRP

    model = timm_model()
    return model, lambda x, targets: LRP(model).attribute(x, target=list(targets))


def pytorch_grad_cam() -> Built:
    """grad-cam's GradCAM, at the layer and with the reshaping that its manual gives for ViT."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform

    model = timm_model()
    cam = GradCAM(model, [model.blocks[-1].norm1], reshape_transform=vit_reshape_transform)
    return model, lambda x, targets: cam(x, [ClassifierOutputTarget(target) for target in targets])


def torchcam_grad_cam() -> Built:
    """torchcam's GradCAM, with a reshaping of one's own."""
    from torchcam.methods import GradCAM

    model = timm_model()

    def explain(x: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        with GradCAM(model, "blocks.11.norm1", reshape_transform=_places) as cam:
            return cam(list(targets), model(x))[0]

    return model, explain


def torchcam_legrad() -> Built:
    """torchcam's LeGrad, which reads torchvision's attention, in all blocks."""
    from torchcam.methods import LeGrad

    model = torchvision_model()

    def explain(x: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        with LeGrad(model, list(model.encoder.layers)) as cam:
            model(x)
            return cam(list(targets))[0]

    return model, explain


def chefer(method: str) -> Callable[[], Built]:
    """The code of Chefer et al., from a clone of their repository on Python's path."""

    def build() -> Built:
        from baselines.ViT.ViT_explanation_generator import LRP
        from baselines.ViT.ViT_LRP import VisionTransformer

        torch.manual_seed(0)
        torch.Tensor.cuda = lambda self, *_, **__: self  # their code asks for a GPU
        model = VisionTransformer(embed_dim=384, depth=12, num_heads=6, mlp_ratio=4, qkv_bias=True).eval()
        return model, lambda x, targets: LRP(model).generate_LRP(x, list(targets), method=method)

    return build


def pnpxai(name: str) -> Callable[[], Built]:
    """An explainer of pnpxai."""

    def build() -> Built:
        import pnpxai.explainers

        model = timm_model()
        explainer = getattr(pnpxai.explainers, name)(model)
        return model, lambda x, targets: explainer.attribute(x, torch.tensor(targets))

    return build


def lxt() -> Built:
    """lxt's rules on torchvision's model: input times gradient under patched classes."""
    from lxt.efficient import monkey_patch
    from torchvision.models import vision_transformer

    model = torchvision_model()

    def explain(x: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        image = x.clone().requires_grad_(True)
        model(image)[range(len(x)), targets].sum().backward()
        return image * image.grad

    explain.prepare = lambda: monkey_patch(vision_transformer)
    return model, explain


def hilrp() -> Built:
    """hilrp on timm's model."""
    import hilrp as package

    model = timm_model()
    return model, lambda x, targets: package.attribute(model, x, target=targets[0], arch=NAME)["pixel_map"]


def legrad() -> Built:
    """LeGrad's own package, on open_clip's model of the same size, for an embedding in place of a text."""
    import open_clip
    from legrad import LeWrapper

    torch.manual_seed(0)
    vision = {"image_size": 224, "patch_size": 16, "width": 384, "layers": 12, "head_width": 64}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    model = open_clip.CLIP(512, vision, text).eval()
    texts = nn.functional.normalize(torch.randn(1000, 512), dim=1)
    wrapper = LeWrapper(model, layer_index=0)
    return model, lambda x, targets: wrapper.compute_legrad(texts[list(targets)], x)


def _places(tokens: torch.Tensor) -> torch.Tensor:
    return tokens[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)


PEERS: dict[str, Callable[[], Built]] = {
    "forward + backward to the input": passes,
    **{
        f"captum_astro {name}": ours(name)
        for name in ("VTranM", "TransformerMM", "TransformerAttribution", "AttentionRollout", "TokenGradCAM")
    },
    "captum_astro AttnLRP": ours("AttnLRP"),
    "captum_astro ConservativeLRP": ours("ConservativeLRP"),
    "captum IntegratedGradients, 32 steps": captum_gradients,
    "captum LRP": captum_lrp,
    "grad-cam GradCAM": pytorch_grad_cam,
    "torchcam GradCAM": torchcam_grad_cam,
    "torchcam LeGrad": torchcam_legrad,
    "legrad-torch": legrad,
    "Chefer's Transformer Attribution": chefer("transformer_attribution"),
    "Chefer's rollout": chefer("rollout"),
    "pnpxai TransformerAttribution": pnpxai("TransformerAttribution"),
    "pnpxai AttentionRollout": pnpxai("AttentionRollout"),
    "lxt, torchvision": lxt,
    "hilrp": hilrp,
}
