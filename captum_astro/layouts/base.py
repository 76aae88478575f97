"""The interface of a layout, and the registry that finds the layout of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from captum_astro.functional.token_map import Grid
from captum_astro.layouts.classes import Class, class_name, registered
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.patch_lists import PatchLists
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import AttentionBranch, Pooling, Stage
from captum_astro.layouts.unwrap import unwrapped
from captum_astro.layouts.walk import modules_of


class Layout(ABC):
    """What the tokens of one model mean: its stages, its grid, its prefix tokens and its read-out.

    A layout is a description and computes nothing. Write one for your own model and register it with `register_layout`;
    `captum_astro.check` tests whether it is correct.

    Args:
        model: An instance of the class that the layout is registered for.

    Attributes:
        model: That instance.
        stages: The residual adds, in the order in which they are computed.
        final_stream: Where the residual stream that leaves the last stage can be read.
        num_prefix_tokens: The number of tokens before the patch tokens: class, distillation and register tokens.
        reads_text: The input is token ids ``(B, n)``, a grid with one row.
        patch_lists: The input is lists of patches ``(B, n, ...)``, a grid with one row, with these arguments; or None.
        per_position: The output has a row per token, as for a language model; the explained row is read.
        pooled: Where the final tokens, normalised, and their average by `readout` can be read; None if nowhere. With
            it, the read-out is checked in every pass.
        votes: Where the classes of each of the last final tokens can be read, ``(B, m, classes)``, and the weight with
            which each class's largest value among them is added to that of the read-out; None if nowhere.
        pooling: The attention that pools the final stream, or None if `readout` applies.
    """

    stages: list[Stage]
    final_stream: Tap
    num_prefix_tokens: int
    reads_text: bool = False
    patch_lists: PatchLists | None = None
    per_position: bool = False
    pooling: Pooling | None = None
    pooled: tuple[Tap, Tap] | None = None
    votes: tuple[Tap, float] | None = None

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def reading(self, inputs: torch.Tensor) -> Layout:
        """The layout for inputs of this form: another one if the model takes several."""
        return self

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The numbers of dimensions that its input may have."""
        if self.patch_lists is not None:
            return (3, 5)
        return (2,) if self.reads_text else (4,)

    @abstractmethod
    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of the patch tokens that enter the first stage, for an image of this size in pixels."""

    def grids(self, height: int, width: int) -> list[Grid]:
        """The grid of patch tokens before each stage and after the last, for an image of this size in pixels."""
        grids = [self.grid(height, width)]
        for stage in self.stages:
            merged = None if stage.merging is None else stage.merging.tokens(grids[-1]).grid
            grids.append(merged or grids[-1])
        return grids

    @property
    def last_attention(self) -> int:
        """The number of the last block with attention, after which convolutional ones may follow; else of the last."""
        found = [
            stage.block
            for stage in self.stages
            if any(isinstance(branch, AttentionBranch) for branch in stage.branches)
        ]
        return found[-1] if found else self.stages[-1].block

    @property
    def approximate(self) -> tuple[str, ...]:
        """What the methods that propagate a row do not carry exactly, and the rule for it; empty if nothing."""
        names: dict[str, list[str]] = {}
        for stage in self.stages:
            for branch in (*stage.branches, *(() if stage.merging is None else (stage.merging,))):
                if branch.approximate is not None:
                    names.setdefault(branch.approximate, []).append(branch.name)
        return tuple(
            f"{found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {rule}"
            for rule, found in names.items()
        )

    @abstractmethod
    def readout(self, tokens: int) -> torch.Tensor:
        """The weights ``(tokens,)`` that average the ``tokens`` final tokens into the classified vector."""

    def readout_of(self, inputs: torch.Tensor, tokens: int) -> torch.Tensor:
        """The read-out for given inputs, ``(tokens,)`` or ``(B, tokens)``: padding is not read."""
        return self.readout(tokens)

    def read_by(self, rows: torch.Tensor, grid: Grid) -> torch.Tensor:
        """If there is an output row per token: the weights ``(B, tokens)`` of the final tokens in some of the rows.

        Args:
            rows: The weights of the rows, ``(B, rows)``.
            grid: Rows and columns of the final tokens.
        """
        return rows

    def lengths(self, token_ids: torch.Tensor) -> list[int]:
        """The number of tokens in each text, without the padding at its end."""
        return [token_ids.shape[1]] * len(token_ids)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """The size in pixels that the grid covers: larger than the image if it is padded, smaller if it is cropped."""
        return height, width


LayoutType = TypeVar("LayoutType", bound=Callable[..., Layout])
Adapter = Callable[[Layout], Layout]
_ADAPTERS = "_layout_adapters"
_REGISTRY: dict[Class, Callable[..., Layout]] = {}
_WITHOUT: dict[Class, str] = {}


def register_layout(*model_classes: Class) -> Callable[[LayoutType], LayoutType]:
    """Class decorator: use this layout for these model classes and their subclasses.

    Args:
        model_classes: Subclasses of `torch.nn.Module`, or their dotted paths, which import nothing. An earlier
            registration is replaced.

    Example:
        >>> from captum_astro.layouts.vision_transformer import VisionTransformerLayout
        >>> class MyViT(torch.nn.Module): ...
        >>> @register_layout(MyViT)
        ... class MyLayout(VisionTransformerLayout): ...
    """

    def register(layout: LayoutType) -> LayoutType:
        for model_class in model_classes:
            _REGISTRY[model_class] = layout
        return layout

    return register


def without_layout(model_class: type[nn.Module], reason: str) -> None:
    """Say why a model class and its subclasses have no layout. A layout that is registered replaces it.

    Args:
        model_class: The class.
        reason: A sentence for the user, with what works instead.
    """
    _WITHOUT[model_class] = reason


def layout_for(model: nn.Module) -> Layout:
    """The layout of a model, or of the one model with a layout that it wraps.

    Args:
        model: A supported model, or a module that contains exactly one (for example a normalisation wrapper).

    Raises:
        UnsupportedModelError: If no layout, or more than one, is found.

    Example:
        >>> import timm
        >>> layout_for(timm.create_model("vit_tiny_patch16_224")).grid(224, 224)
        (14, 14)
    """
    model = unwrapped(model)
    found: dict[nn.Module, Callable[..., Layout]] = {}
    inside: set[nn.Module] = set()
    modules = modules_of(model)
    for module in modules:
        layout = registered(_REGISTRY, type(module))
        if layout is not None and module not in inside:
            found[module] = layout
            inside.update(modules_of(module))
    if len(found) == 1:
        [(module, layout)] = found.items()
        return _adapted(layout(module))
    if found:
        names = ", ".join(f"{name} ({type(part).__name__})" for name, part in model.named_modules() if part in found)
        raise UnsupportedModelError(
            f"{type(model).__name__} contains several models with a layout: {names}. Pass the one to explain."
        )
    for module in modules:
        reason = registered(_WITHOUT, type(module))
        if reason is not None:
            raise UnsupportedModelError(f"{type(module).__name__} has no layout: {reason}")
    known = ", ".join(sorted({class_name(key) for key in _REGISTRY}))
    raise UnsupportedModelError(
        f"{type(model).__module__}.{type(model).__name__} has no layout: it is not known which of its tokens are "
        f"patches and how its layers add up. Models with one: {known}. For your own model, register a layout "
        f"with captum_astro.register_layout."
    )


def innermost(model: nn.Module) -> nn.Module:
    """The model with a layout that wrappers are around; the model itself if there is none."""
    known = [module for module in modules_of(model) if registered(_REGISTRY, type(module)) is not None]
    return known[-1] if known else model


def add_adapter(model: nn.Module, adapter: Adapter) -> None:
    """Change a model's layout for as long as something changes what one of its layers computes.

    Copies of the model keep the change, as they keep the hooks on the layer.

    Args:
        model: The model that the layout describes.
        adapter: Returns the changed layout; called each time.
    """
    model.__dict__.setdefault(_ADAPTERS, []).append(adapter)


def remove_adapter(model: nn.Module, adapter: Adapter) -> None:
    """Undo `add_adapter`."""
    adapters = model.__dict__[_ADAPTERS]
    adapters.remove(adapter)
    if not adapters:
        del model.__dict__[_ADAPTERS]


def _adapted(layout: Layout) -> Layout:
    for adapter in tuple(layout.model.__dict__.get(_ADAPTERS, ())):  # another thread may add one
        layout = adapter(layout)
    return layout
