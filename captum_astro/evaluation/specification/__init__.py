"""What is to be run: models, methods, metrics, data, and the presets of the papers' tables."""
