"""The public names. `captum_astro/__init__.py` reads them here and imports each when it is first used."""

from . import viz as viz
from .astro.vita import ViTA as ViTA
from .attr.attcat import ATTCAT as ATTCAT
from .attr.attention_grad_cam import AttentionGradCAM as AttentionGradCAM
from .attr.attention_rollout import AttentionRollout as AttentionRollout
from .attr.attn_lrp import AttnLRP as AttnLRP
from .attr.conservative_lrp import ConservativeLRP as ConservativeLRP
from .attr.explainers import explainers as explainers
from .attr.lrp import LRP as LRP
from .attr.projected_flow import ProjectedFlow as ProjectedFlow
from .attr.raw_attention import RawAttention as RawAttention
from .attr.token_grad_cam import TokenGradCAM as TokenGradCAM
from .attr.token_grad_cam_plus_plus import TokenGradCAMPlusPlus as TokenGradCAMPlusPlus
from .attr.transformer_attribution import TransformerAttribution as TransformerAttribution
from .attr.transformer_mm import TransformerMM as TransformerMM
from .attr.vita_grad_cam import ViTAGradCAM as ViTAGradCAM
from .attr.vita_grad_cam_plus_plus import ViTAGradCAMPlusPlus as ViTAGradCAMPlusPlus
from .attr.vtranm import VTranM as VTranM
from .capture.check import check as check
from .explaining.explain import explain as explain
from .layouts import UnsupportedModelError as UnsupportedModelError
from .layouts import register_layout as register_layout
from .models.text_target import text_target as text_target
from .support.report import check_methods as check_methods
