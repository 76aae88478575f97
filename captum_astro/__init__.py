"""Explain Vision Transformers: VTranM and the methods that it is compared with, as Captum attributions."""

from captum_astro.astro.vita import ViTA as ViTA
from captum_astro.attr.attcat import ATTCAT as ATTCAT
from captum_astro.attr.attention_grad_cam import AttentionGradCAM as AttentionGradCAM
from captum_astro.attr.attention_rollout import AttentionRollout as AttentionRollout
from captum_astro.attr.attn_lrp import AttnLRP as AttnLRP
from captum_astro.attr.conservative_lrp import ConservativeLRP as ConservativeLRP
from captum_astro.attr.explainers import explainers as explainers
from captum_astro.attr.lrp import LRP as LRP
from captum_astro.attr.raw_attention import RawAttention as RawAttention
from captum_astro.attr.token_grad_cam import TokenGradCAM as TokenGradCAM
from captum_astro.attr.token_grad_cam_plus_plus import TokenGradCAMPlusPlus as TokenGradCAMPlusPlus
from captum_astro.attr.transformer_attribution import TransformerAttribution as TransformerAttribution
from captum_astro.attr.transformer_mm import TransformerMM as TransformerMM
from captum_astro.attr.vita import ViTAGradCAM as ViTAGradCAM
from captum_astro.attr.vita import ViTAGradCAMPlusPlus as ViTAGradCAMPlusPlus
from captum_astro.attr.vtranm import VTranM as VTranM
from captum_astro.capture.check import check as check
from captum_astro.layouts import UnsupportedModelError as UnsupportedModelError
from captum_astro.layouts import register_layout as register_layout
from captum_astro.models import astromorphic_vit as _astromorphic_vit  # noqa: F401
from captum_astro.models import bundled as _bundled  # noqa: F401  (timm knows its models from here on)
