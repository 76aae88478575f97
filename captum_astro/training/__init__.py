"""Training: a short loop that resumes exactly, its tasks, ablations over their options, and explanations meanwhile."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
