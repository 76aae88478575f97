"""Targets in words, against the library's own functions written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from captum_astro import LRP, AttentionRollout, BeyondIntuition, TransformerMM, VTranM, text_target
from tests.libraries import every_method, skip_undefined, without_relu

TEXTS = ["a photo of a cat", "a photo of a dog", "two digits"]
TOWER = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "head_width": 8}


def _drawn(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if not name.startswith("logit_"):
            nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else 1.2 * parameter[0].numel() ** -0.5)
    return model.to(dtype).eval()


def _open_clip(bias: float | None = None, **tower: Any) -> tuple[Any, Any]:
    open_clip = pytest.importorskip("open_clip", reason="the extra 'open_clip' is not installed")
    text = {"context_length": 12, "width": 16, "heads": 2, "layers": 1}
    vision = TOWER | tower
    return _drawn(open_clip.CLIP(16, vision, text, init_logit_bias=bias)), open_clip.get_tokenizer(
        "ViT-B-32", context_length=12
    )


def _images(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 32, 32, dtype=torch.float64)


class Written(nn.Module):
    """The similarities as a user of open_clip writes them."""

    def __init__(self, model: Any, tokens: torch.Tensor) -> None:
        super().__init__()
        self.visual, self.scale, self.bias = model.visual, model.logit_scale.detach().exp(), model.logit_bias
        with torch.no_grad():
            self.texts = model.encode_text(tokens, normalize=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        similarity = self.scale * F.linear(F.normalize(self.visual(images), dim=-1), self.texts)
        return similarity if self.bias is None else similarity + self.bias.detach()


@pytest.mark.parametrize("bias", [None, -3.0])
def test_outputs_are_the_models_logits(bias: float | None) -> None:
    model, tokenizer = _open_clip(bias)
    target, x = text_target(model, tokenizer, TEXTS), _images(3)
    expected, _ = model.get_logits(x, tokenizer(TEXTS))
    torch.testing.assert_close(target(x), expected)
    cosines = text_target(model, tokenizer, TEXTS, scaled=False)(x)
    image, text = model.encode_image(x, normalize=True), model.encode_text(tokenizer(TEXTS), normalize=True)
    torch.testing.assert_close(cosines, image @ text.T)
    assert not any(parameter.requires_grad for parameter in target.texts.parameters())


@every_method
def test_maps_equal_those_of_the_similarity_written_out(method: Any) -> None:
    model, tokenizer = _open_clip()
    x, options, target = _images(), without_relu(method), [0, 2]
    skip_undefined(method, Written(model, tokenizer(TEXTS)), x=x)
    if method is BeyondIntuition:  # every gradient of this model's cosines is negative at its last map
        options = {"output": "probability"}
    found = method(text_target(model, tokenizer, TEXTS)).attribute(x, target=target, **options)
    expected = method(Written(model, tokenizer(TEXTS))).attribute(x, target=target, **options)
    assert found.shape == x.shape
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_a_map_against_the_gradient_of_attention_written_out() -> None:
    """Transformer-MM with a layer's weights computed by hand: nothing of this package but the numbers."""
    model, tokenizer = _open_clip(layers=1)
    x, token_ids = _images(1), tokenizer(TEXTS)
    visual = model.visual
    block = visual.transformer.resblocks[0]
    tokens = visual._embeds(x)
    normed = block.ln_1(tokens)
    q, k, v = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
    q, k, v = (y.unflatten(-1, (3, 8)).transpose(1, 2) for y in (q, k, v))
    attention = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1)
    tokens = tokens + block.attn.out_proj((attention @ v).transpose(1, 2).flatten(2))
    tokens = tokens + block.mlp(block.ln_2(tokens))
    image = F.normalize(visual.ln_post(tokens)[:, 0] @ visual.proj, dim=-1)
    logits = model.logit_scale.exp() * image @ model.encode_text(token_ids, normalize=True).T
    torch.testing.assert_close(logits, model.get_logits(x, token_ids)[0])
    (gradient,) = torch.autograd.grad(logits[0, 1], attention)
    expected = (gradient * attention).clamp_min(0).mean(1)[0, 0].detach()
    expected[0] += 1  # the residual connection of the class token
    found = TransformerMM(text_target(model, tokenizer, TEXTS)).attribute(x, target=1, attribute_to="tokens")[0]
    assert (found - expected).abs().max() <= 1e-6 * expected[1:].max()


def test_each_text_has_its_own_map_and_batches_are_exact() -> None:
    model, tokenizer = _open_clip()
    explained, x = VTranM(text_target(model, tokenizer, TEXTS)), _images(2)
    maps = explained.attribute(x, target=[0, 1], internal_batch_size=1)
    for image, text in ((0, 0), (1, 1)):
        single = explained.attribute(x[image : image + 1], target=text)[0]
        assert (maps[image] - single).abs().max() <= 1e-9 * single.abs().max()
    other = explained.attribute(x[:1], target=2)[0]
    assert (maps[0] - other).abs().max() > 1e-3 * other.abs().max()


def test_templates_are_averaged() -> None:
    model, tokenizer = _open_clip()
    several = [f"{start} a cat" for start in ("a photo of", "a drawing of", "")]
    target = text_target(model, tokenizer, [several, "a dog"], scaled=False)
    each = model.encode_text(tokenizer(several), normalize=True).mean(0)
    torch.testing.assert_close(target.texts.weight[0], F.normalize(each, dim=0))
    torch.testing.assert_close(target.texts.weight[1], model.encode_text(tokenizer(["a dog"]), normalize=True)[0])


def test_many_texts_are_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = _open_clip()
    whole = text_target(model, tokenizer, TEXTS).texts.weight
    monkeypatch.setattr("captum_astro.models.text_target._TOGETHER", 2)
    torch.testing.assert_close(text_target(model, tokenizer, TEXTS).texts.weight, whole)


def test_the_model_is_unchanged_and_shares_its_weights() -> None:
    model, tokenizer = _open_clip()
    model.train()
    model.visual.ln_post.eval()
    target = text_target(model, tokenizer, TEXTS)
    assert (target.training, model.visual.training, model.visual.ln_post.training) == (True, True, False)
    assert target.images is model.visual
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not [name for name, _ in target.named_modules() if name.startswith("images.text")]


def test_coca_returns_its_tokens_as_well() -> None:
    model, tokenizer = _open_clip(output_tokens=True)
    assert isinstance(model.visual(_images()), tuple)
    assert AttentionRollout(text_target(model, tokenizer, TEXTS)).attribute(_images()).shape == (2, 3, 32, 32)


def test_half_precision() -> None:
    (model, tokenizer), x = _open_clip(), _images(1)
    exact = VTranM(text_target(model, tokenizer, TEXTS)).attribute(x, target=1).flatten()
    half = VTranM(text_target(model.bfloat16(), tokenizer, TEXTS)).attribute(x.bfloat16(), target=1)
    assert half.dtype == torch.bfloat16
    assert torch.cosine_similarity(half.flatten().double(), exact, 0) > 0.98


# Hugging Face


class Words:
    """The interface of Hugging Face's tokenizers, and a processor around one."""

    def __init__(self) -> None:
        self.tokenizer = self._tokens

    def _tokens(self, texts: list[str], **how: Any) -> dict[str, torch.Tensor]:
        assert how == {"padding": "max_length", "max_length": 8, "truncation": True, "return_tensors": "pt"}
        ids = [[2 + len(word) for word in text.split()] for text in texts]
        padded = torch.tensor([(one + [1] * 8)[:8] for one in ids])  # 1 ends a text
        lengths = torch.tensor([len(one) + 1 for one in ids])
        mask = (torch.arange(8) < lengths[:, None]).long()
        return {"input_ids": padded, "attention_mask": mask, "pixel_values": torch.zeros(1)}


def _huggingface(kind: str) -> Any:
    transformers = pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    size = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
    text = {**size, "vocab_size": 50, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**size, "image_size": 32, "patch_size": 8}
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=vision)
    return _drawn(getattr(transformers, f"{kind}Model")(config))


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_huggingface_outputs_are_the_models_logits(kind: str) -> None:
    model, words, x = _huggingface(kind), Words(), _images()
    tokens = words.tokenizer(TEXTS, padding="max_length", max_length=8, truncation=True, return_tensors="pt")
    expected = model(tokens["input_ids"], x, tokens["attention_mask"]).logits_per_image
    for tokenizer in (words, words.tokenizer):
        torch.testing.assert_close(text_target(model, tokenizer, TEXTS)(x), expected)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
@pytest.mark.parametrize("method", [VTranM, LRP])
def test_huggingface_maps(method: Any, kind: str) -> None:
    model, x = _huggingface(kind), _images()
    explained = method(text_target(model, Words(), TEXTS))
    maps = explained.attribute(x, target=[0, 2])
    single = explained.attribute(x[1:], target=2)
    assert maps.shape == x.shape
    assert (maps[1:] - single).abs().max() <= 1e-9 * single.abs().max()


def test_other_sizes_of_images() -> None:
    target = text_target(_huggingface("CLIP"), Words(), TEXTS)
    x = torch.rand(1, 3, 40, 24, dtype=torch.float64)
    grid = VTranM(target).attribute(x, target=1, attribute_to="grid", additional_forward_args=True)
    assert grid.shape == (1, 1, 5, 3)


# Errors


def test_errors() -> None:
    model = nn.Linear(2, 2)
    for texts, error, message in (
        ("a cat", TypeError, r"must be a list.*\['a cat'\]"),
        ([], ValueError, "texts is empty"),
        (["a cat", []], ValueError, "one of its outputs has no text"),
        (["a cat"], TypeError, "Linear does not encode texts"),
    ):
        with pytest.raises(error, match=message):
            text_target(model, len, texts)
