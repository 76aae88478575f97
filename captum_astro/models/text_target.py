"""A target in words: the similarity of an image to texts, by an image-text model of open_clip or Hugging Face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

_TOGETHER = 256  # texts that are encoded at a time


class TextTarget(nn.Module):
    """The similarity of images to texts, one output for each text. Made by `text_target`.

    Args:
        images: Returns the embeddings of images, ``(B, d)``.
        weight: The embeddings of the texts, of length 1 times the scale, ``(texts, d)``.
        bias: What is added, ``(texts,)``.
    """

    def __init__(self, images: nn.Module, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.images = images
        self.texts = nn.Linear(weight.shape[1], len(weight), device="meta")
        self.texts.weight = nn.Parameter(weight, requires_grad=False)
        self.texts.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, images: torch.Tensor, *arguments: Any) -> torch.Tensor:
        """The similarities ``(B, texts)``; further arguments are those of the image encoder."""
        features = self.images(images, *arguments)
        features = features[0] if isinstance(features, tuple) else features  # open_clip's CoCa returns all tokens too
        return cast(torch.Tensor, self.texts(F.normalize(features, dim=-1)))


class _HuggingFaceImages(nn.Module):
    """The image encoder of Hugging Face's CLIP, with its projection, or of SigLIP, which has none."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.training = model.training
        self.vision_model = model.vision_model
        self.projection = getattr(model, "visual_projection", nn.Identity())

    def forward(self, images: torch.Tensor, *arguments: Any) -> torch.Tensor:
        return cast(torch.Tensor, self.projection(self.vision_model(images, *arguments).pooler_output))


def text_target(
    model: nn.Module, tokenizer: Callable[..., Any], texts: Sequence[str | Sequence[str]], *, scaled: bool = True
) -> TextTarget:
    """A module whose outputs are the similarities of an image to texts, so that every method explains a text.

    The texts are encoded once, without gradients. The module shares the weights of the image encoder; the text encoder
    is not part of it.

    Args:
        model: An image-text model: of open_clip, or Hugging Face's ``CLIPModel`` or ``SiglipModel``.
        tokenizer: Its tokenizer: ``open_clip.get_tokenizer(...)``, or Hugging Face's tokenizer or processor.
        texts: A text for each output; or several, such as templates, whose embeddings are averaged.
        scaled: Return the model's logits, its scale times the cosine plus its bias; otherwise the cosine itself.

    Returns:
        A module from images ``(B, 3, H, W)`` to similarities ``(B, texts)``.

    Raises:
        TypeError: If the model does not encode texts, or ``texts`` is a single text.
        ValueError: If there is no text, or an output has none.

    Example:
        >>> import timm
        >>> class ImageText(nn.Module):  # in place of a model of open_clip
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.visual = timm.create_model("test_vit", num_classes=8)
        ...     def encode_text(self, token_ids):
        ...         return torch.eye(8)[token_ids]
        >>> tokenizer = lambda texts: torch.arange(len(texts))
        >>> target = text_target(ImageText().eval(), tokenizer, ["a cat", ["a dog", "a photo of a dog"]])
        >>> target(torch.rand(3, 3, 160, 160)).shape
        torch.Size([3, 2])
    """
    given = [[one] if isinstance(one, str) else list(one) for one in texts]
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list, with a text for each output: pass [{texts!r}].")
    if not given or not all(given):
        raise ValueError("texts is empty, or one of its outputs has no text.")
    encode, images = _encoders(model, tokenizer)
    flat = [text for several in given for text in several]
    with torch.no_grad():
        parts = [encode(flat[start : start + _TOGETHER]) for start in range(0, len(flat), _TOGETHER)]
        each = F.normalize(torch.cat(parts), dim=-1).split([len(several) for several in given])
        embeddings = F.normalize(torch.stack([several.mean(0) for several in each]), dim=-1)
        scale, bias = (getattr(model, name, None) if scaled else None for name in ("logit_scale", "logit_bias"))
        weight = embeddings if scale is None else embeddings * scale.exp()
        shift = weight.new_zeros(len(weight)) if bias is None else bias.expand(len(weight)).clone()
    target = TextTarget(images, weight, shift)
    target.training = target.texts.training = model.training  # not train(), which would change the encoder's parts
    return target


def _encoders(model: Any, tokenizer: Callable[..., Any]) -> tuple[Callable[[list[str]], torch.Tensor], nn.Module]:
    """What returns the embeddings of texts ``(texts, d)``, and the module that returns those of images."""
    if hasattr(model, "encode_text") and hasattr(model, "visual"):
        device = next(model.parameters()).device
        return lambda texts: model.encode_text(tokenizer(texts).to(device)), model.visual
    if hasattr(model, "get_text_features") and hasattr(model, "vision_model"):
        return lambda texts: _huggingface_texts(model, tokenizer, texts), _HuggingFaceImages(model)
    raise TypeError(
        f"{type(model).__name__} does not encode texts. Pass a model of open_clip, with encode_text and visual, or "
        f"Hugging Face's CLIPModel or SiglipModel; for other models, write a module that returns the similarities."
    )


def _huggingface_texts(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Padded to the full length, which SigLIP needs and CLIP ignores."""
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor has one
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    given = {name: value.to(model.device) for name, value in tokens.items() if name in ("input_ids", "attention_mask")}
    found = model.get_text_features(**given)
    return cast(torch.Tensor, found if isinstance(found, torch.Tensor) else found.pooler_output)
