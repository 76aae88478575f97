"""One call from a model and an image to a picture: `captum_astro.explain`."""
