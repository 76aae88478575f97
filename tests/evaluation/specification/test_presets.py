from __future__ import annotations

from pathlib import Path

import pytest
import timm

from captum_astro.data.registry import sources
from captum_astro.evaluation.specification.methods import methods_of
from captum_astro.evaluation.specification.presets import PRESETS, preset
from captum_astro.metrics.registry import all_metrics


@pytest.mark.parametrize("name", PRESETS)
def test_presets_use_existing_names(tmp_path: Path, name: str) -> None:
    table = preset(name)
    assert set(table.models) <= set(timm.list_models())
    assert methods_of(table.methods)
    for part in table.parts:
        assert set(part.metrics) <= set(all_metrics())
        assert part.word in sources()
        with pytest.raises(ValueError, match=f"{part.name} needs .*{part.path}: it is not there"):
            part.spec(tmp_path)
        (tmp_path / part.path).mkdir()
        assert part.spec(tmp_path) == f"{part.word}:{tmp_path / part.path}"


def test_names() -> None:
    with pytest.raises(ValueError, match="vtranm-table1"):
        preset("vtranm-table5")
    with pytest.raises(ValueError, match="--part must be cifar10 or cifar100"):
        preset("vtranm-table1").chosen("imagenet")
    assert [part.name for part in preset("vtranm-table1").chosen("cifar100")] == ["cifar100"]
