"""A page in the browser: an image, a model, its maps. ``captum-astro app`` starts it; so does `launch`."""

from captum_astro.app.server import launch as launch
