"""What a model's tokens mean, one file per model family, discovered automatically when this package is imported."""

from importlib import import_module
from pkgutil import iter_modules

from captum_astro.layouts.base import Layout, layout_for, register_layout
from captum_astro.layouts.errors import UnsupportedModelError

__all__ = ["Layout", "UnsupportedModelError", "layout_for", "register_layout"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
