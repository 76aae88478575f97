"""A timm model in the smallest form that still has all of its kinds of parts, and the kind of model that it is."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import nn

_SIDES = (64, 96, 112, 128, 160, 192, 224, 256)  # of an image, in pixels
_STAGES = (2, 4)  # layers of a stage: with two, windows that are shifted in every second layer occur


@dataclass(frozen=True)
class Form:
    """How to build a model that is small.

    Attributes:
        name: timm's name.
        image: Channels, height and width of an image that it accepts.
        options: Arguments of `timm.create_model`.
        shorter: Whether it has fewer layers than the published model.
    """

    name: str
    image: tuple[int, int, int]
    options: dict[str, Any] = field(default_factory=dict)
    shorter: bool = False

    @classmethod
    def of(cls, kind: dict[str, Any]) -> Form:
        """The form in which a sweep tried a kind, from its results."""
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in kind["options"].items()}
        channels, height, width = kind["image"]
        return cls(kind["tried"], (channels, height, width), options, kind["shorter"])

    def build(self, gain: float = 1.0) -> nn.Module:
        """The model, in eval mode; random weights, of which none that scales a branch is near zero.

        Args:
            gain: Of the layers' weights.
        """
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: nn.Module = timm.create_model(self.name, pretrained=False, **self.options).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim > 1:
                    parameter.copy_(gain * noise / parameter[0].numel() ** 0.5)
                else:  # a scale that starts at zero would hide what it scales
                    parameter.add_(0.1 * noise)
        return model

    def images(self, batch: int = 1) -> torch.Tensor:
        """Random images, ``(batch, C, H, W)``."""
        return torch.rand(batch, *self.image, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Kind:
    """What kind of model a name is: two models of one kind have the same kinds of parts with the same switches.

    Attributes:
        model_class: The class of the model.
        digest: Of the classes of all modules, and of what their attributes switch on.
        parameters: The number of parameters.
    """

    model_class: str
    digest: str
    parameters: int


def kind_of(name: str, **options: Any) -> Kind:
    """The kind of a timm model, which is not built for it: the meta device holds no weights.

    Example:
        >>> kind_of("vit_tiny_patch16_224").digest == kind_of("vit_small_patch16_224").digest
        True
    """
    return _kind(_outline(name, options))


def trial(name: str) -> tuple[Form, nn.Module]:
    """A model in its smallest form whose output depends on the image, and the form.

    Layers that are left out may not fit together after all, and in a deep network of rectifiers, random weights may let
    nothing pass.

    Args:
        name: timm's name.
    """
    form = smallest(name)
    model = form.build()
    try:
        if _depends(model, form.images()):
            return form, model
    except RuntimeError:
        if not form.shorter:
            raise
        options = {"img_size": form.image[-1]} if "img_size" in form.options else {}
        form = Form(name, form.image, options)
        return form, form.build()
    return form, form.build(gain=2**0.5)


def _depends(model: nn.Module, images: torch.Tensor) -> bool:
    """Whether any output changes with any pixel."""
    images.requires_grad_(True)
    with torch.enable_grad():
        output = model(images)
        output = output[0] if isinstance(output, tuple) else output
        (gradient,) = torch.autograd.grad((output * torch.randn(output.shape)).sum(), images)
    return bool(gradient.any())


def smallest(name: str) -> Form:
    """The smallest form of a timm model, and of an image, with which it runs.

    Example:
        >>> smallest("vit_base_patch16_224")
        Form(name='vit_base_patch16_224', image=(3, 64, 64), options={'depth': 2, 'img_size': 64}, shorter=True)
    """
    outline = _outline(name, {})
    accepted, digest = inspect.signature(type(outline).__init__).parameters, _kind(outline).digest
    fewer = next((each for each in _shorter(accepted) if _is_kind(name, each, digest)), {})
    published = tuple(timm.get_pretrained_cfg(name).input_size)
    sides = [(published[0], side, side) for side in _SIDES if side < max(published[1:])]
    for image in sides:
        options = fewer | ({"img_size": image[-1]} if "img_size" in accepted else {})
        if _runs(name, options, image):
            return Form(name, image, options, bool(fewer))
    return Form(name, published, fewer, bool(fewer))


def _shorter(accepted: Any) -> Iterator[dict[str, Any]]:
    """Options that ask for few layers, in the order in which to try them."""
    for layers in _STAGES:
        found: dict[str, Any] = {}
        for key, parameter in accepted.items():
            if not key.endswith(("depth", "depths", "layers")):
                continue
            default = parameter.default
            if type(default) is int:
                found[key] = min(layers, default)
            elif isinstance(default, tuple | list) and all(type(each) is int for each in default):
                found[key] = tuple(min(layers, each) for each in default)
            elif key == "layers":  # of networks that have no default
                found[key] = (layers,) * 4
        if found:
            yield found
            if "depths" in found:  # models with the default's class, but with other numbers of stages
                yield from ({**found, "depths": (layers,) * stages} for stages in (4, 3))


def _outline(name: str, options: dict[str, Any]) -> nn.Module:
    """The model without weights."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, pretrained=False, **options).eval()
    return model


def _kind(model: nn.Module) -> Kind:
    parts = sorted({_switches(module) for module in model.modules()})
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Kind(type(model).__name__, digest, parameters)


def _switches(module: nn.Module) -> str:
    """The class of a module; of timm's own also what is on, off, chosen or missing."""
    name = f"{type(module).__module__}.{type(module).__name__}"
    if name.startswith("torch."):
        return name
    chosen = {
        key: value if isinstance(value, str) else bool(value)
        for key, value in vars(module).items()
        if not key.startswith("_") and (value is None or isinstance(value, bool | str | int | float))
    }
    return f"{name} {sorted(chosen.items())}"


def _is_kind(name: str, options: dict[str, Any], digest: str) -> bool:
    try:
        return _kind(_outline(name, options)).digest == digest
    except Exception:  # each class of timm refuses options in its own way
        return False


def _runs(name: str, options: dict[str, Any], image: tuple[int, ...]) -> bool:
    try:
        with torch.no_grad():
            _outline(name, options)(torch.empty(1, *image, device="meta"))
    except Exception:  # each class of timm refuses sizes in its own way
        return False
    return True
