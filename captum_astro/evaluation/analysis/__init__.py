"""Analysis of a benchmark's rows: scores with intervals and chance levels, paired comparisons, rankings, failures."""

from captum_astro.evaluation.analysis.failed import failures as failures
from captum_astro.evaluation.analysis.mean_ranks import mean_ranks as mean_ranks
from captum_astro.evaluation.analysis.paired import comparisons as comparisons
from captum_astro.evaluation.analysis.places import ranking as ranking
from captum_astro.evaluation.analysis.scores import summary as summary
