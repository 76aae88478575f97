"""Artificial astrocytes: the layers they modulate, and models explained under them."""

from captum_astro.astro.astrocytic_linear import AstrocyticLinear as AstrocyticLinear
from captum_astro.astro.vita import ViTA as ViTA
from captum_astro.functional.astrocyte import Modulation as Modulation
