"""Explain Vision Transformers: VTranM and the methods that it is compared with, as Captum attributions."""

from captum_astro.attr.explainers import explainers as explainers
from captum_astro.attr.vtranm import VTranM as VTranM
from captum_astro.capture.check import check as check
from captum_astro.layouts import UnsupportedModelError as UnsupportedModelError
from captum_astro.layouts import register_layout as register_layout
