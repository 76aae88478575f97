from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from captum_astro import UnsupportedModelError, VTranM
from captum_astro.models.astromorphic_text import AstromorphicLanguageModel, AstromorphicTextClassifier

CHOICES: list[dict[str, Any]] = [
    {}, {"attention": "softmax"}, {"nonlinearity": "none"}, {"nonlinearity": "outside"}, {"relative_position": False},
    {"alpha": 1.0}, {"output_projection": True}, {"pos_embed": "none"}, {"depth": 2},
]  # fmt: skip


def classifier(**options: Any) -> AstromorphicTextClassifier:
    return AstromorphicTextClassifier(50, 3, **({"dim": 16, "num_heads": 4, "length": 20} | options)).double().eval()


def language_model(**options: Any) -> AstromorphicLanguageModel:
    return AstromorphicLanguageModel(50, **({"dim": 16, "num_heads": 4, "length": 20} | options)).double().eval()


def test_the_paper_s_sizes() -> None:
    model = AstromorphicTextClassifier(1000, 2)
    assert model.blocks[0].attn.qkv.weight.shape == (3 * 128, 128)
    assert model.blocks[0].attn.positions.shape == (4, 32, 400)
    with torch.device("meta"):
        language = AstromorphicLanguageModel(1000)
    assert language.blocks[0].attn.positions.shape == (6, 128, 512)
    assert len(language.blocks) == 1


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_padding_changes_nothing(options: dict[str, Any]) -> None:
    model = classifier(**options)
    text = torch.randint(1, 50, (2, 12))
    padded = F.pad(text, (0, 8))
    torch.testing.assert_close(model(padded), model(text), rtol=1e-12, atol=1e-12)
    mixed = torch.cat([padded[:1], torch.randint(1, 50, (1, 20))])
    torch.testing.assert_close(model(mixed)[:1], model(text[:1]), rtol=1e-12, atol=1e-12)
    assert model(torch.zeros(1, 20, dtype=torch.long)).isfinite().all()


@pytest.mark.parametrize("options", [o for o in CHOICES if "pos_embed" not in o], ids=str)
def test_order_matters(options: dict[str, Any]) -> None:
    model = classifier(**options)
    text = torch.randint(1, 50, (1, 12))
    assert not torch.allclose(model(text), model(text.flip(1)))


def test_without_any_positions_order_does_not_matter() -> None:
    model = classifier(pos_embed="none", relative_position=False)
    text = torch.randint(1, 50, (1, 12))
    torch.testing.assert_close(model(text), model(text.flip(1)))


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_the_future_changes_nothing(options: dict[str, Any]) -> None:
    model = language_model(**options)
    text = torch.randint(50, (2, 20))
    logits = model(text)
    assert logits.shape == (2, 20, 50)
    changed = text.clone()
    changed[:, 13:] = (changed[:, 13:] + torch.randint(1, 50, (2, 7))) % 50
    torch.testing.assert_close(model(changed)[:, :13], logits[:, :13], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(model(changed)[:, 13:], logits[:, 13:])
    torch.testing.assert_close(model(text[:, :7]), logits[:, :7], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_sums_over_all_tokens_see_the_token_that_is_predicted(options: dict[str, Any]) -> None:
    model = language_model(causal=False, **options)
    text = torch.randint(50, (2, 20))
    changed = text.clone()
    changed[:, 13:] = (changed[:, 13:] + torch.randint(1, 50, (2, 7))) % 50
    assert not torch.allclose(model(changed)[:, :13], model(text)[:, :13])


def test_the_last_position_is_the_same_with_and_without_a_future() -> None:
    causal, every = language_model(), language_model(causal=False)
    every.load_state_dict(causal.state_dict())
    text = torch.randint(50, (2, 20))
    torch.testing.assert_close(every(text)[:, -1], causal(text)[:, -1], rtol=1e-12, atol=1e-12)


def test_what_sees_its_own_answer_is_not_explained() -> None:
    text = torch.randint(50, (1, 9))
    assert VTranM(language_model()).attribute(text, target=(4, 7)).shape == (1, 9)
    with pytest.raises(UnsupportedModelError, match=r"causal=False, so it sees the token.*Build it with causal=True"):
        VTranM(language_model(causal=False)).attribute(text, target=(4, 7))


def test_tied_weights(tmp_path: Path) -> None:
    tied, free = language_model(), language_model(tie_weights=False)
    assert tied.head.weight is tied.embed.weight
    assert free.head.weight is not free.embed.weight
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters()) == 50 * 16
    for model in (tied, free):
        torch.save(model.state_dict(), tmp_path / "weights.pt")
        again = language_model(tie_weights=model is tied)
        again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        text = torch.randint(50, (1, 20))
        assert torch.equal(again(text), model(text))


def test_initial_token_probabilities_are_nearly_uniform() -> None:
    for tie in (True, False):
        model = AstromorphicLanguageModel(1000, dim=48, length=32, tie_weights=tie).eval()
        text = torch.randint(1000, (4, 33))
        loss = F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        assert loss < 8


def test_attribution_can_start_at_the_embedding() -> None:
    for model in (classifier(), language_model()):
        seen = []
        handle = model.embed.register_forward_hook(lambda m, inputs, output, seen=seen: seen.append(output))
        text = torch.randint(1, 50, (2, 12))
        out = model(text)
        handle.remove()
        (gradient,) = torch.autograd.grad(out[..., 1].sum(), seen[0])
        assert gradient.shape == (2, 12, 16)
        assert gradient.abs().sum(-1).min() > 0


def test_padding_gets_no_gradient() -> None:
    model = classifier()
    seen = []
    model.embed.register_forward_hook(lambda m, inputs, output: seen.append(output))
    text = F.pad(torch.randint(1, 50, (2, 12)), (0, 8))
    (gradient,) = torch.autograd.grad(model(text)[:, 1].sum(), seen)
    assert (gradient[:, 12:] == 0).all()


@pytest.mark.parametrize("make", [classifier, language_model])
def test_errors(make: Any) -> None:
    model = make()
    with pytest.raises(ValueError, match="at most 20 tokens but received 21"):
        model(torch.ones(1, 21, dtype=torch.long))
    with pytest.raises(ValueError, match=r"Token ids must be \(B, n\)"):
        model(torch.ones(5, dtype=torch.long))
    with pytest.raises(ValueError, match="pos_embed must be one of"):
        make(pos_embed="rotary")


def test_weight_decay() -> None:
    for model in (classifier(), language_model()):
        assert model.no_weight_decay() == {"pos_embed", "blocks.0.attn.positions"}


def test_the_classifier_learns_an_order() -> None:
    model = AstromorphicTextClassifier(8, 2, dim=16, num_heads=2, length=10, drop_rate=0.0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        text = torch.randint(3, 8, (64, 10))
        label = torch.randint(2, (64,))
        rows = torch.arange(64)
        text[rows, torch.randint(0, 5, (64,))] = 1 + label
        text[rows, torch.randint(5, 10, (64,))] = 2 - label
        loss = F.cross_entropy(model(text), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2


def test_the_language_model_learns_to_remember() -> None:
    # every second token is the first one again
    model = AstromorphicLanguageModel(12, dim=32, num_heads=2, length=16, drop_rate=0.0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(100):
        text = torch.randint(4, 12, (32, 16))
        text[:, ::2] = torch.randint(4, (32, 1))
        loss = F.cross_entropy(model(text[:, :-1])[:, 1::2].flatten(0, 1), text[:, 2::2].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2
