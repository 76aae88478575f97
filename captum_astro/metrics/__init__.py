"""Measures of maps as pure functions, and the statistics that compare them; ``metrics.quantus`` holds the classes."""

from captum_astro.metrics.alignment import HUMAN_CEILING as HUMAN_CEILING
from captum_astro.metrics.alignment import alignment_score as alignment_score
from captum_astro.metrics.alignment import dice as dice
from captum_astro.metrics.alignment import iou as iou
from captum_astro.metrics.alignment import spearman as spearman
from captum_astro.metrics.alignment import ssim as ssim
from captum_astro.metrics.statistics import PairedComparison as PairedComparison
from captum_astro.metrics.statistics import bootstrap_interval as bootstrap_interval
from captum_astro.metrics.statistics import compare_many as compare_many
from captum_astro.metrics.statistics import compare_paired as compare_paired
from captum_astro.metrics.statistics import holm as holm
