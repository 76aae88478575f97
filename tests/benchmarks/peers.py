"""How this package and others explain a Vision Transformer: functions that build a model and a call, as manuals say.

Each takes a `Setting` and returns the model and ``explain(x, targets)``. A package that is not installed raises an
`ImportError`, a model that a package has no class for a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import timm
import torch
from torch import nn

from captum_astro import explainers
from tests.benchmarks.direct import direct, floor

Explain = Callable[[torch.Tensor, Sequence[int]], Any]
Built = tuple[nn.Module, Explain]


class Setting(NamedTuple):
    """The model of timm, and the side of the images in pixels."""

    model: str = "deit_small_patch16_224"
    size: int = 224

    def build(self) -> nn.Module:
        """The model that everything is measured on, if a package accepts it."""
        torch.manual_seed(0)
        return timm.create_model(self.model, img_size=self.size).eval()

    def sizes(self) -> dict[str, int]:
        """The sizes of a plain ViT, for packages that have a class of their own."""
        with torch.device("meta"):
            model = self.build()
        if type(model) is not timm.models.VisionTransformer or model.num_prefix_tokens != 1:
            raise ValueError(f"for plain ViTs, not {self.model}")
        return {
            "image_size": self.size,
            "patch_size": model.patch_embed.patch_size[0],
            "num_layers": len(model.blocks),
            "num_heads": model.blocks[0].attn.num_heads,
            "hidden_dim": model.embed_dim,
            "mlp_dim": 4 * model.embed_dim,
        }


def torchvision_model(setting: Setting) -> nn.Module:
    """The same size in torchvision's class."""
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(**setting.sizes()).eval()
    nn.init.normal_(model.heads.head.weight, std=0.02)  # zero otherwise, and so would be every gradient
    return model


def forward(setting: Setting) -> Built:
    """The forward pass alone."""
    model = setting.build().requires_grad_(False)
    return model, lambda x, targets: model(x)


def passes(setting: Setting) -> Built:
    """Forward and backward to the input."""
    model = setting.build().requires_grad_(False)
    return model, lambda x, targets: floor(model, x, torch.tensor(targets))


def ours(name: str, **options: Any) -> Callable[[Setting], Built]:
    """A method of this package."""

    def build(setting: Setting) -> Built:
        model = setting.build()
        method = next(explainer.method for explainer in explainers() if explainer.name == name)(model)
        return model, lambda x, targets: method.attribute(x, target=list(targets), **options)

    return build


def written_directly(published: bool) -> Callable[[Setting], Built]:
    """VTranM with unfused attention and stored maps."""

    def build(setting: Setting) -> Built:
        setting.sizes()  # for plain ViTs
        model = setting.build().requires_grad_(published)
        return model, lambda x, targets: direct(model, x, torch.tensor(targets), published)

    return build


def captum(name: str, **options: Any) -> Callable[[Setting], Built]:
    """A method of Captum."""

    def build(setting: Setting) -> Built:
        import captum.attr

        model = setting.build()
        method = getattr(captum.attr, name)(model)
        return model, lambda x, targets: method.attribute(x, target=list(targets), **options)

    return build


def pytorch_grad_cam(setting: Setting) -> Built:
    """grad-cam's GradCAM, at the layer that its manual gives for ViT."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = setting.build()
    layer, places = _last_layer(model)
    cam = GradCAM(model, [layer], reshape_transform=places)
    return model, lambda x, targets: cam(x, [ClassifierOutputTarget(target) for target in targets])


def torchcam_grad_cam(setting: Setting) -> Built:
    """torchcam's GradCAM, with a reshaping of one's own."""
    from torchcam.methods import GradCAM

    model = setting.build()
    layer, places = _last_layer(model)

    def explain(x: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        with GradCAM(model, layer, reshape_transform=places) as cam:
            return cam(list(targets), model(x))[0]

    return model, explain


def torchcam_legrad(setting: Setting) -> Built:
    """torchcam's LeGrad, which reads torchvision's attention, in all blocks."""
    from torchcam.methods import LeGrad

    model = torchvision_model(setting)

    def explain(x: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        with LeGrad(model, list(model.encoder.layers)) as cam:
            model(x)
            return cam(list(targets))[0]

    return model, explain


def chefer(method: str) -> Callable[[Setting], Built]:
    """The code of Chefer et al., from a clone of their repository on Python's path."""

    def build(setting: Setting) -> Built:
        from baselines.ViT.ViT_explanation_generator import LRP
        from baselines.ViT.ViT_LRP import VisionTransformer

        sizes = setting.sizes()
        torch.manual_seed(0)
        torch.Tensor.cuda = lambda self, *_, **__: self  # their code asks for a GPU
        model = VisionTransformer(
            setting.size, sizes["patch_size"], embed_dim=sizes["hidden_dim"], depth=sizes["num_layers"],
            num_heads=sizes["num_heads"], mlp_ratio=4, qkv_bias=True,
        ).eval()  # fmt: skip
        return model, lambda x, targets: LRP(model).generate_LRP(x, list(targets), method=method)

    return build


def pnpxai(name: str) -> Callable[[Setting], Built]:
    """An explainer of pnpxai."""

    def build(setting: Setting) -> Built:
        import pnpxai.explainers

        model = setting.build()
        explainer = getattr(pnpxai.explainers, name)(model)
        return model, lambda x, targets: explainer.attribute(x, torch.tensor(targets))

    return build


def lxt(setting: Setting) -> Built:
    """lxt's rules on torchvision's model: input times gradient under patched classes."""
    from lxt.efficient import monkey_patch
    from torchvision.models import vision_transformer

    model = torchvision_model(setting)

    def explain(x: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        image = x.clone().requires_grad_(True)
        model(image)[range(len(x)), targets].sum().backward()
        return image * image.grad

    explain.prepare = lambda: monkey_patch(vision_transformer)
    return model, explain


def hilrp(setting: Setting) -> Built:
    """hilrp on timm's model."""
    import hilrp as package

    model, name = setting.build(), setting.model
    return model, lambda x, targets: package.attribute(model, x, target=targets[0], arch=name)["pixel_map"]


def legrad(setting: Setting) -> Built:
    """LeGrad's own package, on open_clip's model of the same size, for an embedding in place of a text."""
    import open_clip
    from legrad import LeWrapper

    sizes = setting.sizes()
    torch.manual_seed(0)
    vision = {
        "image_size": setting.size, "patch_size": sizes["patch_size"], "width": sizes["hidden_dim"],
        "layers": sizes["num_layers"], "head_width": sizes["hidden_dim"] // sizes["num_heads"],
    }  # fmt: skip
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    model = open_clip.CLIP(512, vision, text).eval()
    texts = nn.functional.normalize(torch.randn(1000, 512), dim=1)
    wrapper = LeWrapper(model, layer_index=0)
    return model, lambda x, targets: wrapper.compute_legrad(texts[list(targets)], x)


def _last_layer(model: nn.Module) -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    """The layer of the last block that Grad-CAM reads, and its tokens as ``(B, C, H, W)``."""
    if not hasattr(model, "blocks"):
        return model.layers[-1].blocks[-1].norm1, lambda x: x.permute(0, 3, 1, 2)
    prefix, grid = model.num_prefix_tokens, model.patch_embed.grid_size
    return model.blocks[-1].norm1, lambda x: x[:, prefix:].unflatten(1, grid).permute(0, 3, 1, 2)


BASE = "forward + backward to the input"
OURS = ("VTranM", "ProjectedFlow", "TransformerMM", "AttentionRollout", "TokenGradCAM", "AttnLRP", "ConservativeLRP")
PEERS: dict[str, Callable[[Setting], Built]] = {
    BASE: passes,
    "forward": forward,
    **{f"captum_astro {name}": ours(name) for name in OURS},
    "captum_astro LRP": ours("LRP"),
    "captum_astro LRP, float32": ours("LRP", precision="float32"),
    "captum_astro TransformerAttribution": ours("TransformerAttribution"),
    "captum_astro TransformerAttribution, float32": ours("TransformerAttribution", precision="float32"),
    "VTranM written directly, parameters frozen": written_directly(published=False),
    "VTranM written directly, as published code runs": written_directly(published=True),
    "captum Saliency": captum("Saliency"),
    "captum IntegratedGradients, 20 steps": captum("IntegratedGradients", n_steps=20),
    "captum LRP": captum("LRP"),
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
