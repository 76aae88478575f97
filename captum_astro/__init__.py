"""Explain Vision Transformers: VTranM and the methods it is compared with, as Captum attributions.

The public names are listed in ``__init__.pyi``; each is imported on first use. The models of this package register
themselves with timm as soon as both are imported, in either order.
"""

from importlib import import_module

import lazy_loader
from wrapt import register_post_import_hook

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register_post_import_hook(lambda _: import_module("captum_astro.models"), "timm")
