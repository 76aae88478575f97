"""Pages of evidence: what runs of the benchmark found, as Markdown for the documentation, written by one command."""

from captum_astro.evaluation.evidence.astrocytes import write_vita as write_vita
from captum_astro.evaluation.evidence.page import write_evidence as write_evidence
from captum_astro.evaluation.evidence.words import write_words as write_words
