"""Explain Vision Transformers: VTranM and the methods it is compared with, as Captum attributions.

The public names are listed in ``__init__.pyi``; each is imported on first use. The models of this package register
themselves with timm as soon as both are imported, in either order.
"""

from importlib import import_module

import lazy_loader

from captum_astro.after_import import after_import

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

after_import("timm", lambda: import_module("captum_astro.models"))
