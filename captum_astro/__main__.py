"""``python -m captum_astro``, where the command ``captum-astro`` is not on the path."""

from captum_astro.cli import main

main()
