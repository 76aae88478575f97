"""``python -m captum_astro.cli``."""

from captum_astro.cli import main

main()
