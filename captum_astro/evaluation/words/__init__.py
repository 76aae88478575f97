"""Which words text models use: every method's order of the tokens, scored by deleting them."""

from captum_astro.evaluation.words.run import run_words as run_words
from captum_astro.evaluation.words.specification import TextModel as TextModel
from captum_astro.evaluation.words.specification import WordsConfig as WordsConfig
