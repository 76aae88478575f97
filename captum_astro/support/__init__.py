"""Which methods work with which models: what a method gives on a model, and a sweep over all of timm's names."""
