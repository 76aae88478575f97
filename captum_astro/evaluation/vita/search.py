"""The search for the ViTA settings whose maps agree best with human attention maps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from captum_astro.astro.astrocytic_linear import Token
from captum_astro.astro.vita import ViTA
from captum_astro.attr._channels import ChannelMaps, channel_maps, maps_of_layer
from captum_astro.attr._layer import find_tap
from captum_astro.capture.call import Call
from captum_astro.capture.modes import check_eval
from captum_astro.capture.replica import Replica
from captum_astro.capture.target import LargestOutput, Target
from captum_astro.data.human import HumanSample
from captum_astro.data.samples import sample_digest
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.vita.config import SEARCH, SearchConfig
from captum_astro.evaluation.vita.results import PLAIN, Results
from captum_astro.evaluation.vita.scoring import METRICS, Seen, batched, check_names, prepared, score_table
from captum_astro.evaluation.vita.settings import Setting
from captum_astro.evaluation.vita.store import Store
from captum_astro.evaluation.vita.suffix import Cut, Suffix
from captum_astro.functional.astrocyte import Modulation
from captum_astro.functional.grad_cam import grad_cam, grad_cam_plus_plus
from captum_astro.layouts.errors import UnsupportedModelError

Key = tuple[str | None, Token]  # the layer, and the monitored token
CAMS = {"TokenGradCAM": grad_cam, "TokenGradCAMPlusPlus": grad_cam_plus_plus}


def search(
    model: nn.Module,
    samples: Iterable[HumanSample],
    settings: Sequence[Setting],
    config: SearchConfig = SEARCH,
    *,
    out: Path | None = None,
    done: Callable[[int], None] | None = None,
) -> Results:
    """Score Grad-CAM and Grad-CAM++ under every setting, on every sample.

    The explained class is the unmodulated model's top prediction. Per batch of images the plain model runs once; under
    the settings only what follows the modulated layer runs, many settings at a time, and one pass serves all methods
    and metrics. Samples are numbered in order: even ones are for selecting a setting, odd ones for reporting it.

    Args:
        model: A timm model, or a wrapper around one.
        samples: Images with human maps, in a fixed order.
        settings: The settings to try; the plain model is scored too.
        config: The methods, the metrics, and run options.
        out: A folder for the results, written batch by batch. If it holds results of the same search, that is resumed.
        done: Callback that receives the number of finished samples, after each batch.

    Raises:
        ValueError: If there are no samples or settings, a name is unknown, or the folder holds another search.
        UnsupportedModelError: If Grad-CAM cannot read the layer, or a layer cannot be modulated.
    """
    check_names("method", config.methods, CAMS)
    check_names("metric", config.metrics, METRICS)
    if not settings:
        raise ValueError("search needs at least one setting.")
    scorer = _Scorer(Replica(model).model, settings, config)
    check_eval(model)
    run = {"methods": list(config.methods), "metrics": list(config.metrics), "batch_size": config.batch_size}
    run |= {"size": scorer.size, "cam_layer": scorer.cam_layer, **scorer.input}
    store = Store(out, model, settings, run)
    number = count = 0
    for batch in batched(samples, config.batch_size):
        if not store.has(number, [sample_digest(sample) for sample in batch]):
            store.add(number, scorer.score(batch, count))
        number, count = number + 1, count + len(batch)
        if done is not None:
            done(count)
    if count < 2:
        raise ValueError(f"At least two samples are needed, one half for selection and one for reporting, not {count}.")
    return store.results(number)


class _Scorer:
    """Scores a batch under every setting."""

    def __init__(self, model: nn.Module, settings: Sequence[Setting], config: SearchConfig) -> None:
        self._model, self._methods, self._metrics, self._rows = model, config.methods, config.metrics, config.rows
        self._transform = ModelTransform(model, "none")
        self._layout, _ = find_tap(model, config.cam_layer)
        like, side = next(model.parameters()), self._transform.size
        noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(like)
        maps = maps_of_layer(Call(model, noise, LargestOutput(), layout=self._layout), config.cam_layer)
        self._tap, self._places = maps.tap, maps.places
        self.cam_layer = next(name for name, module in model.named_modules() if module is self._tap.module)
        self.input = self._transform.described
        self.size = self._transform.size if config.size is None else config.size
        # settings of one layer, token and kind of rescaling run together
        self._groups: dict[tuple[Key, str], list[tuple[int, Setting]]] = {}
        for number, setting in enumerate(settings):
            key = (setting.layer, setting.token), setting.modulation.rescale
            self._groups.setdefault(key, []).append((number, setting))
        self._suffixes: dict[Key, Suffix] = {}

    def score(self, batch: list[HumanSample], first: int) -> pd.DataFrame:
        """One row per sample, setting, method and metric."""
        like = next(self._model.parameters())
        pixels = torch.stack([self._transform(sample.image)[0] for sample in batch])
        images = self._transform.normalise(pixels).to(like)
        human = prepared(batch, self.size)
        suffixes = {key: self._suffix(key, images) for key, _ in self._groups}
        with _kept(suffixes) as kept:
            plain = self._cams(self._model, images)
        target = plain.output.argmax(-1)
        tables = [self._scored(plain, [PLAIN], batch, human, target, first)]
        for (key, _), group in self._groups.items():
            suffix, step = suffixes[key], max(1, self._rows // len(batch))
            for start in range(0, len(group), step):
                part = group[start : start + step]
                many = suffix.modulated(kept.get(key), [setting.modulation for _, setting in part])
                seen = self._cams(many, images, target.repeat(len(part)))
                tables.append(self._scored(seen, [n for n, _ in part], batch, human, target, first))
        return pd.concat(tables, ignore_index=True)

    def _cams(self, model: nn.Module, images: torch.Tensor, target: torch.Tensor | None = None) -> ChannelMaps:
        """One pass to Grad-CAM's layer; without a target each image's own top prediction is explained."""
        explained = LargestOutput() if target is None else Target(target)
        return channel_maps(Call(model, images, explained, layout=self._layout), self._tap, self._places)

    def _scored(
        self,
        seen: ChannelMaps,
        numbers: list[int],
        batch: list[HumanSample],
        human: torch.Tensor,
        target: torch.Tensor,
        first: int,
    ) -> pd.DataFrame:
        maps = {}
        for method in self._methods:
            cam = CAMS[method](seen.activation, seen.gradient)
            maps[method] = seen.shaped(cam, cam.new_zeros(1, 1, self.size, self.size), "pixels")[:, 0]
        return score_table(Seen(batch, first, numbers, maps, human, seen.output, target), self._metrics)

    def _suffix(self, key: Key, images: torch.Tensor) -> Suffix:
        """The latest cut that leaves the result unchanged, tested on two images without modulation."""
        if key not in self._suffixes:
            self._suffixes[key] = self._tried(key, images[:2])
        return self._suffixes[key]

    def _tried(self, key: Key, images: torch.Tensor) -> Suffix:
        layer, token = key
        with torch.no_grad():
            ViTA(self._model, layer=layer, token=token)(images)  # raises if the layer cannot be modulated
        cuts: tuple[Cut, ...] = ("layer", "block")
        for cut in cuts:
            suffix = Suffix(self._model, layer, cut, token)
            with _kept({key: suffix}) as kept:
                expected = self._cams(self._model, images)
            try:
                model = suffix.modulated(kept.get(key), [Modulation(alpha=1, beta=1)] * 3)
                found = self._cams(model, images, expected.output.argmax(-1).repeat(3))
            except (RuntimeError, ValueError, AssertionError, IndexError, UnsupportedModelError):
                continue
            if _agree(found.output, expected.output) and _agree(found.gradient, expected.gradient):
                return suffix
        return Suffix(self._model, layer, "none", token)


def _agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    expected = expected.repeat(len(found) // len(expected), *[1] * (expected.ndim - 1))
    tolerance = 100 * torch.finfo(expected.dtype).eps ** 0.75
    return found.shape == expected.shape and bool((found - expected).abs().max() <= tolerance * expected.abs().max())


@contextlib.contextmanager
def _kept(suffixes: dict[Key, Suffix]) -> Iterator[dict[Key, torch.Tensor]]:
    """Stores the inputs of the blocks with the layers in a plain pass."""
    found: dict[Key, torch.Tensor] = {}
    with contextlib.ExitStack() as undo:
        for key, suffix in suffixes.items():
            module = suffix.enters()
            if module is not None:
                undo.callback(module.register_forward_pre_hook(partial(_keep, found, key)).remove)
        yield found


def _keep(found: dict[Key, torch.Tensor], key: Key, module: nn.Module, arguments: Any) -> None:
    found[key] = arguments[0].detach()
