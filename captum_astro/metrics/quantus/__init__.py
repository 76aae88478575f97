# ruff: noqa: E402  (report a missing extra before importing anything that needs it)
"""Quantus metrics built on the pure functions, and explanations for Quantus' own metrics.

They can be used like Quantus' own metrics: called directly, or in ``quantus.evaluate``. Importing this package imports
Quantus, which the extra ``bench`` provides.
"""

from captum_astro.extras import require

require("A metric of Quantus", "quantus")

from captum_astro.metrics.quantus.alignment import DiceAlignment as DiceAlignment
from captum_astro.metrics.quantus.alignment import HumanAlignment as HumanAlignment
from captum_astro.metrics.quantus.alignment import IoUAlignment as IoUAlignment
from captum_astro.metrics.quantus.alignment import SpearmanAlignment as SpearmanAlignment
from captum_astro.metrics.quantus.alignment import SSIMAlignment as SSIMAlignment
from captum_astro.metrics.quantus.base import MaskMetric as MaskMetric
from captum_astro.metrics.quantus.base import TargetMetric as TargetMetric
from captum_astro.metrics.quantus.base import TensorMetric as TensorMetric
from captum_astro.metrics.quantus.explain import QuantusExplain as QuantusExplain
from captum_astro.metrics.quantus.explain import quantus_explain as quantus_explain
from captum_astro.metrics.quantus.faithfulness import AOPC as AOPC
from captum_astro.metrics.quantus.faithfulness import LOdds as LOdds
from captum_astro.metrics.quantus.faithfulness import PerturbationAUC as PerturbationAUC
from captum_astro.metrics.quantus.faithfulness import SaCo as SaCo
from captum_astro.metrics.quantus.insertion_deletion import ABPC as ABPC
from captum_astro.metrics.quantus.insertion_deletion import Deletion as Deletion
from captum_astro.metrics.quantus.insertion_deletion import Insertion as Insertion
from captum_astro.metrics.quantus.localisation import EnergyInside as EnergyInside
from captum_astro.metrics.quantus.localisation import ExpectedPointingGame as ExpectedPointingGame
from captum_astro.metrics.quantus.masking import AverageDrop as AverageDrop
from captum_astro.metrics.quantus.masking import AverageIncrease as AverageIncrease
from captum_astro.metrics.quantus.masking import Infidelity as Infidelity
from captum_astro.metrics.quantus.masking import SensitivityN as SensitivityN
from captum_astro.metrics.quantus.road import ROAD as ROAD
from captum_astro.metrics.quantus.segmentation import AveragePrecision as AveragePrecision
from captum_astro.metrics.quantus.segmentation import MeanIoU as MeanIoU
from captum_astro.metrics.quantus.segmentation import PixelAccuracy as PixelAccuracy
