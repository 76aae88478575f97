"""Benchmarks named after the papers' tables: what they run, what data they need, and its expected location."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from captum_astro.evaluation.specification.config import Explained
from captum_astro.evaluation.specification.methods import RANDOM

_COMPARED = (
    "AttentionGradCAM", "LRP", "ConservativeLRP", "TransformerAttribution", "RawAttention", "AttentionRollout",
    "ATTCAT", "TransformerMM", "VTranM", RANDOM,
)  # fmt: skip
_ABLATED = ("VTranM:aggregation=false", "VTranM:components=", "VTranM:components=length", "VTranM", RANDOM)
_AUC = ("accuracy", "positive AUC", "negative AUC")
_SEGMENTED = ("pixel accuracy", "mAP", "mIoU", "object share")
_IMAGENET = "ImageNet's validation images, as image-net.org gives them or in folders of classes"
_MAT = "ImageNet-Segmentation, the file gtsegs_ijcv.mat of Guillaumin et al."


@dataclass(frozen=True)
class Part:
    """One dataset of a table.

    Attributes:
        name: The folder of its results.
        word: The dataset name, as for `captum_astro.data.specs.samples`.
        path: Location of the data, below the root.
        needs: Description of the data.
        metrics: The metrics to compute.
        crop: How an image is preprocessed.
        explained: The classes to explain.
        classes: Number of classes of the models, if it is not their own.
    """

    name: str
    word: str
    path: str
    needs: str
    metrics: tuple[str, ...]
    crop: Literal["timm", "none"] = "timm"
    explained: Explained = "both"
    classes: int | None = None

    def spec(self, root: Path) -> str:
        """The data in a root folder.

        Raises:
            ValueError: If it is missing, with a description and its expected location.
        """
        where = root / self.path
        if not where.exists():
            raise ValueError(
                f"The part {self.name} needs {self.needs}, at {where}: it is not there. Put it there, give another "
                f"--data-root, or name the part and its data: --part {self.name} --data {self.word}:PATH."
            )
        return f"{self.word}:{where}"


@dataclass(frozen=True)
class Preset:
    """A table of a paper.

    Attributes:
        source: The paper and table.
        models: timm names; none if the paper's weights are not published.
        methods: As for `captum_astro.evaluation.specification.methods.methods_of`.
        parts: Its datasets.
    """

    source: str
    models: tuple[str, ...]
    methods: tuple[str, ...]
    parts: tuple[Part, ...]

    def chosen(self, part: str | None) -> tuple[Part, ...]:
        """All parts, or one.

        Raises:
            ValueError: If there is no such part.
        """
        names = [each.name for each in self.parts]
        if part is not None and part not in names:
            raise ValueError(f"--part must be {' or '.join(names)}, not {part!r}.")
        return tuple(each for each in self.parts if part in (None, each.name))


_PAPER = "VTranM, CVPR 2024, arXiv 2403.14552"
PRESETS = {
    "vtranm-table1": Preset(
        f"{_PAPER}, Table 1",
        (),
        _COMPARED,
        (
            Part("cifar10", "cifar10", "cifar10", "CIFAR-10 (python version, or parquet)", _AUC, classes=10),
            Part("cifar100", "cifar100", "cifar100", "CIFAR-100 (python version, or parquet)", _AUC, classes=100),
        ),
    ),
    "vtranm-table2": Preset(
        f"{_PAPER}, Table 2",
        ("deit_base_patch16_224",),
        _COMPARED,
        (
            Part("segmentation", "imagenet-segmentation", "gtsegs_ijcv.mat", _MAT, _SEGMENTED, "none", "predicted"),
            Part("perturbation", "imagenet", "imagenet", _IMAGENET, _AUC),
        ),
    ),
    "vtranm-table3": Preset(
        f"{_PAPER}, Table 3",
        ("deit_base_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224"),
        _COMPARED,
        (Part("perturbation", "imagenet", "imagenet", _IMAGENET, ("AOPC", "LOdds"), explained="predicted"),),
    ),
    "vtranm-table4": Preset(
        f"{_PAPER}, Table 4",
        ("vit_base_patch16_224",),
        _ABLATED,
        (
            Part("segmentation", "imagenet-segmentation", "gtsegs_ijcv.mat", _MAT, _SEGMENTED, "none", "predicted"),
            Part("perturbation", "imagenet", "imagenet", _IMAGENET, _AUC),
        ),
    ),
    "vita-table1": Preset(
        "ViTA, arXiv 2505.21513, Table 1",
        ("vit_base_patch16_224",),
        ("TokenGradCAM", "ViTAGradCAM", "TokenGradCAMPlusPlus", "ViTAGradCAMPlusPlus", RANDOM),
        (
            Part(
                "clickme", "clickme", "clickme", "ClickMe maps, in any form that clickme: reads",
                ("Spearman", "Dice", "SSIM"), "none", "predicted",
            ),
        ),
    ),
}  # fmt: skip


def preset(name: str) -> Preset:
    """A preset by its name.

    Raises:
        ValueError: If there is no such preset.

    Example:
        >>> [part.path for part in preset("vtranm-table2").parts]
        ['gtsegs_ijcv.mat', 'imagenet']
    """
    if name not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}, not {name!r}.")
    return PRESETS[name]
