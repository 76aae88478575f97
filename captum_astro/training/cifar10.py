"""CIFAR-10: an astromorphic Vision Transformer with a convolutional stem."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, cast

import torch
from torch import nn

from captum_astro.data.cifar import LabelledImages, read_cifar
from captum_astro.kinds import whole
from captum_astro.models.astromorphic_registered import default_cfgs
from captum_astro.models.astromorphic_vit import AstromorphicVisionTransformer
from captum_astro.training.batches import Images
from captum_astro.training.options import Count, Fraction, Positive
from captum_astro.training.scores import accuracy, answers, classification
from captum_astro.training.task import Config, Task


@dataclass(frozen=True, kw_only=True)
class Cifar10(Config):
    """Options of CIFAR-10; a small model by default.

    The paper's size is ``dim=256, depth=8, heads=8, mlp_ratio=4, patch=2, stem=64``; it does not give the ratio, which
    is our choice.

    Attributes:
        patch: Patch size, in pixels.
        stem: Channels of the convolution before patching; 0 for none.
        drop_path: Stochastic depth.
        augment: Whether images are flipped and shifted.
        smoothing: Label smoothing.
        validation: How many training images are held out, the last ones; under a limit at most a tenth of them.
        limit: Maximum number of training and test images, the first ones; for trial runs.
    """

    task: ClassVar[str] = "cifar10"

    dim: Count = 128
    depth: Count = 4
    heads: Count = 4
    mlp_ratio: Positive = 2.0
    epochs: Positive = 30.0
    batch_size: Count = 128
    lr: Positive = 2e-3
    patch: Count = 4
    stem: Annotated[int, whole(least=0)] = 32
    drop_path: Fraction = 0.0
    augment: bool = True
    smoothing: Fraction = 0.1
    validation: Count = 5000
    limit: Count | None = None

    def build(self, folder: Path) -> nn.Module:
        """The model; the folder is not needed."""
        del folder
        model = AstromorphicVisionTransformer(
            img_size=32,
            patch_size=self.patch,
            num_classes=10,
            global_pool="avg",
            embed_dim=self.dim,
            depth=self.depth,
            num_heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            class_token=False,
            stem_width=self.stem,
            final_activation=True,
            pos_drop_rate=self.drop,
            proj_drop_rate=self.drop,
            drop_path_rate=self.drop_path,
            **self.model_options,
        )
        model.pretrained_cfg = default_cfgs["astromorphic_vit_cifar10"].default.to_dict()
        return model

    def prepare(self, folder: Path, device: torch.device | str) -> Task:
        """Read and split the images, build the model."""
        images = _first(read_cifar(self.data, "train"), self.limit)
        held = self.validation if self.limit is None else min(self.validation, len(images) // 10)
        count = len(images) - held
        if not held or count < self.batch_size:
            raise ValueError(
                f"{len(images)} images, {held} held out: too few of either to train on batches of {self.batch_size}. "
                f"Take more images, or smaller batches."
            )
        config = default_cfgs["astromorphic_vit_cifar10"].default
        mean, std = (cast(tuple[float, ...], x) for x in (config.mean, config.std))
        source = Images(images.images[:count], images.labels[:count], mean, std, augment=self.augment, device=device)
        valid = Images(images.images[count:], images.labels[count:], mean, std, device=device)

        @cache
        def held_out() -> Images:
            tests = _first(read_cifar(self.data, "test"), self.limit)
            return Images(tests.images, tests.labels, mean, std, device=device)

        model = self.build(folder).to(device)
        loss = classification(self.smoothing)
        return Task(
            model,
            source,
            loss,
            lambda trained: accuracy(trained, valid),
            lambda tested: {"accuracy": accuracy(tested, held_out())},
            lambda tested: answers(tested, held_out()),
        )


def _first(images: LabelledImages, limit: int | None) -> LabelledImages:
    return LabelledImages(images.images[:limit], images.labels[:limit])
