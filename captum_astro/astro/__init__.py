"""Artificial astrocytes: the layers they modulate, models explained under them, and the search for settings."""

from captum_astro.astro.astrocytic_linear import AstrocyticLinear as AstrocyticLinear
from captum_astro.astro.vita import ViTA as ViTA
from captum_astro.functional.astrocyte import Modulation as Modulation
