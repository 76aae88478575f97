"""Griffe extension: converts this project's docstrings to the form that mkdocstrings expects."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from typing import Any

from griffe import Extension, Function, Object, Parameter, ParameterKind, Parameters

_ROLE = re.compile(r":math:`(.+?)`", re.DOTALL)
_BLOCK = re.compile(r"^\.\. math::\n\n((?: {4}.*\n?|\n)+)", re.MULTILINE)
_LITERAL = re.compile(r"^(.*[^:\s])::\n\n((?: {4}.*(?:\n|$)|\n)+)", re.MULTILINE)


class Docstrings(Extension):
    """``Example:`` becomes a separate section; reStructuredText roles and directives become Markdown.

    The arguments common to all methods come from the running code, where `contract` adds them.
    """

    def on_function(self, *, func: Function, **_: Any) -> None:
        """The signature and docstring of a method, including the common arguments."""
        if not any("contract" in str(decorator.value) for decorator in func.decorators):
            return
        method = getattr(importlib.import_module(func.module.path), func.parent.name)
        described = getattr(method, func.name)
        if func.docstring is not None:
            func.docstring.value = inspect.getdoc(described) or ""
        kept = [parameter for parameter in func.parameters if parameter.name != "common"]
        names = {parameter.name for parameter in kept}
        for name, found in inspect.signature(described).parameters.items():
            if name not in names:
                annotation = inspect.formatannotation(found.annotation)
                default = repr(found.default)
                kept.append(Parameter(name, kind=ParameterKind.keyword_only, annotation=annotation, default=default))
        func.parameters = Parameters(*kept)

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """A docstring in Google style with Markdown."""
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    text = _BLOCK.sub(lambda m: f"$$\n{textwrap.dedent(m[1]).strip()}\n$$\n\n", text)
    text = _ROLE.sub(lambda m: f"${' '.join(m[1].split())}$", text)
    return _LITERAL.sub(lambda m: f"{m[1]}:\n\n```text\n{textwrap.dedent(m[2]).strip()}\n```\n\n", text)
