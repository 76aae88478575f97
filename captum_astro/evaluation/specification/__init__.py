"""The definition of a benchmark: models, methods, metrics, data, and the presets of the papers' tables."""

from captum_astro.evaluation.specification.config import BenchConfig as BenchConfig
from captum_astro.evaluation.specification.methods import methods_of as methods_of
from captum_astro.evaluation.specification.metrics import metrics_of as metrics_of
from captum_astro.evaluation.specification.models import ModelChoice as ModelChoice
from captum_astro.evaluation.specification.models import model_of as model_of
