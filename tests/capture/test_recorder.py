from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from torch import nn

from captum_astro import UnsupportedModelError, VTranM, check
from captum_astro.capture.attention_notes import AttentionNotes
from captum_astro.capture.records import AttentionRecord
from tests.families import _vit, images


class GroupedQuery(Attention):
    """Attention with grouped queries in the fused kernel."""

    def forward(self, x: torch.Tensor, attn_mask: object = None, is_causal: bool = False) -> torch.Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], scale=0.3, enable_gqa=True)
        return self.proj(out.transpose(1, 2).flatten(2))


class Twice(Attention):
    """Attention that runs two softmaxes where the layout describes one."""

    def forward(self, x: torch.Tensor, **kwargs: object) -> torch.Tensor:
        return super().forward(x, **kwargs) + super().forward(x, **kwargs)


class Hidden(Attention):
    """Attention without a softmax."""

    def forward(self, x: torch.Tensor, **kwargs: object) -> torch.Tensor:
        return self.proj(x)


def test_outputs_stay_in_the_precision_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    record = AttentionNotes.record

    def noted(self: AttentionNotes, *given: Any) -> AttentionRecord:
        made = record(self, *given)
        seen.extend(output.dtype for output in made.map_outputs)
        return made

    monkeypatch.setattr(AttentionNotes, "record", noted)
    VTranM(_vit().eval().bfloat16()).attribute(images("cls", dtype=torch.bfloat16), target=1)
    assert seen == [torch.bfloat16] * 3


def _model(attention: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return _vit(attn_layer=attention).eval().double()


def test_masks_and_grouped_queries() -> None:
    model, x = _model(GroupedQuery), images("cls")
    with torch.no_grad():  # the value weight of the first head serves all
        for block in model.blocks:
            block.attn.qkv.weight[48:].copy_(block.attn.qkv.weight[48:56].repeat(3, 1))
    report = check(model, x)
    assert report.ok
    tokens = VTranM(model).attribute(x, target=1, attribute_to="tokens")
    assert torch.isfinite(tokens).all()

    class Masked(nn.Module):
        def __init__(self, **kwargs: object) -> None:
            super().__init__()
            self.inner, self.kwargs = _model(Attention), kwargs

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.inner(image, **self.kwargs)

    mask = torch.ones(17, 17, dtype=torch.bool).tril()
    causal = VTranM(Masked(is_causal=True)).attribute(x, target=1)
    torch.testing.assert_close(VTranM(Masked(attn_mask=mask)).attribute(x, target=1), causal)
    assert check(Masked(is_causal=True), x).ok


@pytest.mark.parametrize(("attention", "count"), [(Twice, 2), (Hidden, 0)])
def test_invisible_attention_is_rejected(attention: type[nn.Module], count: int) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"blocks\.0\.attn .* ran {count} visible softmax attentions"):
        VTranM(_model(attention)).attribute(images("cls"), target=1)


def test_other_threads_are_not_recorded() -> None:
    """The interface tests cover this with real threads; here the recorder alone is tested."""
    from captum_astro.capture.recorder import Recorder
    from captum_astro.layouts import layout_for

    model, x = _model(Attention), images("cls")
    recorder = Recorder(layout_for(model))
    recorder._hooks._explanation = -1
    with recorder:
        model(x)
    assert all(stage.stream.seen is None for stage in recorder.stages)
