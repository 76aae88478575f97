"""What all `attribute` methods have in common, defined once: Captum's arguments, return values and errors."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypedDict, TypeVar

import torch
from captum.log import log_usage

AttributeTo = Literal["input", "pixels", "grid", "tokens"]
TensorOrTuple = TypeVar("TensorOrTuple", torch.Tensor, tuple[torch.Tensor, ...])
Method = TypeVar("Method", bound=Callable[..., Any])


class Batched(TypedDict, total=False):
    """How a batch is run."""

    additional_forward_args: Any
    internal_batch_size: int | Literal["auto"] | None


class Common(Batched, total=False):
    """The keyword arguments of every method."""

    attribute_to: AttributeTo


class Layered(Common, total=False):
    """Keyword arguments of the methods that go through the layers."""

    layers: Iterable[int] | None


class WholeMap(Batched, total=False):
    """Keyword arguments of the methods that return only one form of map."""

    layers: Iterable[int] | None


_LAYERS = "layers: The blocks to use, counted from 0 (negative: from the end); the others are treated as ``I``."
_EXTRA = "additional_forward_args: Passed to the model after the inputs, such as ``(patch_coord, patch_valid)``."
_SIZE = """internal_batch_size: The number of samples to explain at a time, or ``"auto"``, as many as fit: on a GPU
    all are tried, then half as many; on a CPU one is measured, and the others fill half of the free memory."""
_ARGUMENTS: dict[str, tuple[Any, Any, str]] = {
    "layers": (Iterable[int] | None, None, _LAYERS),
    "additional_forward_args": (Any, None, _EXTRA),
    "internal_batch_size": (int | Literal["auto"] | None, None, _SIZE),
    "attribute_to": (
        AttributeTo,
        "input",
        """attribute_to: ``"input"`` returns the inputs' shape, the pixel map shared equally among the channels;
    ``"pixels"`` returns ``(B, 1, H, W)``, ``"grid"`` ``(B, 1, rows, columns)`` and ``"tokens"`` ``(B, n)``.""",
    ),
}
_GIVEN = """inputs: Images ``(B, C, H, W)``, token ids ``(B, n)`` or patches ``(B, n, ...)``, or a tuple of one.
target: The class to explain, in any form that Captum accepts: an int, a list or a tensor of ``B``, ..."""
_RETURNS = "Attributions with the inputs' dtype and device, not normalised; a tuple if the input was a tuple."
_RAISES = """AssertionError: If the target has no form that Captum accepts, or is needed and missing.
IndexError: If the target is out of range.
ValueError: If an argument has an invalid value, or the images are empty, not finite or of a wrong shape.
UnsupportedModelError: If the model computed something that the method cannot explain correctly."""


def contract(method: Method) -> Method:
    """Decorator for ``attribute``: Captum's usage log, and the common arguments in its signature and docstring.

    The method takes ``**common``, annotated with one of the classes above, such as ``Unpack[Common]``, and documents
    its own options.
    """
    annotation = str(method.__annotations__["common"])
    forms = (Common, Layered, WholeMap)
    taken = next(form for form in forms if form.__name__ in annotation)
    names = [name for name in _ARGUMENTS if name in taken.__optional_keys__]
    signature = inspect.signature(method)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default, _) in _ARGUMENTS.items()
        if name in names
    ]
    described: Any = method
    described.__signature__ = signature.replace(parameters=[*own, *shared])
    described.__doc__ = _documented(inspect.getdoc(method) or "", [_ARGUMENTS[name][2] for name in names])
    hints = {name: hint for name, hint in method.__annotations__.items() if name != "common"}
    described.__annotations__ = hints | {name: _ARGUMENTS[name][0] for name in names}
    logged: Method = log_usage(part_of_slo=True)(method)
    return logged


def check_names(name: str, common: Mapping[str, Any], form: type[Any]) -> None:
    """Reject keyword arguments that a method does not have, as Python would.

    Args:
        name: The method's.
        common: The arguments passed as ``**common``.
        form: The class above that annotates them.

    Raises:
        TypeError: If there is such an argument.
    """
    for given in common:
        if given not in form.__optional_keys__:
            raise TypeError(f"{name}() got an unexpected keyword argument {given!r}")


def _documented(text: str, common: list[str]) -> str:
    """A docstring with the common entries added to the method's own, which take precedence."""
    parts = re.split(r"^(Args|Returns|Raises):\n", text, flags=re.MULTILINE)
    sections = {name: textwrap.dedent(body).strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    own = sections.get("Args", "")
    given = [entry for entry in [*_entries(_GIVEN), *common] if not _has(own, entry)]
    before = [entry for entry in given if entry not in common]
    arguments = [*before, *([own] if own else []), *(entry for entry in given if entry in common)]
    own_errors = sections.get("Raises", "")
    errors = [*(entry for entry in _entries(_RAISES) if not _has(own_errors, entry)), own_errors]
    return "\n\n".join(
        [
            parts[0].strip(),
            _section("Args", "\n".join(arguments)),
            _section("Returns", sections.get("Returns", _RETURNS)),
            _section("Raises", "\n".join(errors).rstrip()),
        ]
    )


def _entries(text: str) -> list[str]:
    return text.splitlines()


def _has(section: str, entry: str) -> bool:
    return re.search(rf"^{entry.partition(':')[0]}:", section, re.MULTILINE) is not None


def _section(name: str, body: str) -> str:
    return f"{name}:\n{textwrap.indent(body, '    ')}"
