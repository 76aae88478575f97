"""What is said of timm's names of the families in `test_stages`: each has a layout, or is refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from captum_astro import UnsupportedModelError
from captum_astro.layouts import layout_for
from tests import hybrid_layouts, staged_families

# timm's modules, and options that make their models small
NAMES: dict[str, dict[str, Any]] = {
    "pvt_v2": {"depths": (1, 1, 1, 1)},
    "pit": {"depth": (1, 1, 1)},
    "twins": {"depths": (2, 1, 1, 1)},
    "davit": {"depths": (1, 1, 1, 1)},
    "maxxvit": {},
    "nest": {},
    "gcvit": {},
    "tiny_vit": {},
    "hiera": {},
    "cait": {},
    "convit": {},
    "metaformer": {},
} | {module: {} for module in staged_families.MODULES}
NAMED = [*(name for module in NAMES for name in timm.list_models(module=module)), *hybrid_layouts.NAMED]
REFUSED = {
    "pvt_v2_b2_li": "linear attention",
    "maxvit_tiny_pm_256": "side by side",
    "coatnet_rmlp_1_rw_224": "2 x 2",
} | staged_families.REFUSED
REFUSED |= hybrid_layouts.REFUSED


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.one_in(4)
def test_timm_models_by_name(name: str) -> None:
    """Every name has a layout, or is refused with the reason; described without weights."""
    module = timm.models.model_entrypoint(name).__module__.rsplit(".", 1)[-1]
    with torch.device("meta"):
        model = timm.create_model(name, **NAMES.get(module, {}))
    reason = REFUSED.get(name) or (name.startswith(("poolformer", "convformer")) and "has no attention")
    if reason:
        with pytest.raises(UnsupportedModelError, match=reason):
            layout_for(model)
    else:
        assert layout_for(model).stages


@pytest.mark.parametrize(
    ("name", "options", "way_out"),
    [
        ("pvt_v2_b0", {"global_pool": ""}, "Create it with global_pool='avg'"),
        ("davit_tiny", {"global_pool": "max"}, "Create it with global_pool='avg'"),
        ("hiera_tiny_224", {"global_pool": "max"}, "Create it with global_pool='avg'"),
        ("pit_ti_224", {"global_pool": ""}, "Create it with global_pool='token'"),
        ("cait_xxs24_224", {"global_pool": "avg"}, "Create it with global_pool='token'"),
        ("convit_tiny", {"global_pool": ""}, "global_pool='token' or 'avg'"),
        ("convit_tiny", {"local_up_to_layer": 12}, "local_up_to_layer from 1 to 11"),
        ("maxvit_pico_rw_256", {"conv_pool_type": "max"}, "conv_pool_type='avg2'"),
        *staged_families.OPTIONS,
        *hybrid_layouts.OPTIONS,
    ],
)
def test_other_options_are_refused(name: str, options: dict[str, Any], way_out: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, **options)
    with pytest.raises(UnsupportedModelError, match=way_out):
        layout_for(model)
