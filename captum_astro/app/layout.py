"""The page: its fields, and where they are on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captum_astro.app.files import KINDS
from captum_astro.app.handlers import Handlers, families
from captum_astro.app.intake import files_of
from captum_astro.app.settings import BUNDLED, Settings
from captum_astro.app.visit import Visit
from captum_astro.app.wiring import Buttons, Fields, Shown, connect
from captum_astro.models.image_text import reads_text

_HERE = Path(__file__).parent
_HOUR = 3600
_FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # of the visitor's own system


def looks() -> dict[str, Any]:
    """The theme and the style of the page, as arguments of ``launch``: nothing of it comes from elsewhere."""
    import gradio as gr

    font, mono = ([gr.themes.Font(name) for name in names] for names in _FONTS)
    theme = gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=font, font_mono=mono)
    return {"theme": theme, "css": (_HERE / "viewer.css").read_text()}


def page(handlers: Handlers) -> Any:
    """The whole page.

    Args:
        handlers: What it does.
    """
    import gradio as gr

    settings = handlers.settings
    with gr.Blocks(title="captum_astro", analytics_enabled=False, fill_width=True, delete_cache=(600, _HOUR)) as blocks:
        visit = gr.State(Visit(), time_to_live=_HOUR)
        gr.Markdown("### captum_astro\nWhere a vision model looks: one image, every method.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                drop, scene, fields, verdict, button = _left(settings)
            with gr.Column(scale=5, min_width=320):
                shown, curves, downloads = _right(verdict)
        buttons = Buttons(drop, scene, button, curves, downloads)
        connect(handlers, visit, fields, shown, buttons)
    return blocks


def _left(settings: Settings) -> tuple[Any, ...]:
    import gradio as gr

    images, weights = files_of(settings.folder)
    most = f"{settings.upload // 2**20} MiB"
    drop = gr.File(label=f"Images, up to {most} each", file_count="multiple", height=150, elem_id="drop")
    scene = gr.Button("Try a scene", size="sm", elem_id="scene")
    image = gr.Dropdown(images, value=None, label="Image", allow_custom_value=True, elem_id="image")
    model = gr.Dropdown(
        _models(settings), value=settings.first, label="Model", info="A name in timm, or open_clip:MODEL:WEIGHTS.",
        allow_custom_value=not settings.models, elem_id="model",
    )  # fmt: skip
    checkpoint = gr.Dropdown(
        [("published weights", ""), *((name, name) for name in weights)], value="", label="Weights",
        visible=bool(weights), elem_id="checkpoint",
    )  # fmt: skip
    prompts = gr.Textbox(
        label="Texts to compare the image with, one per line", lines=3, elem_id="prompts",
        visible=reads_text(settings.first),
    )  # fmt: skip
    methods = [
        gr.CheckboxGroup(
            names, value=[name for name in names if name == "VTranM"], label=f"Methods: {family}",
            elem_id=f"methods-{family}",
        )
        for family, names in families().items()
    ]  # fmt: skip
    with gr.Row():
        target = gr.Dropdown([], value=None, label="Class A", allow_custom_value=True, min_width=140, elem_id="class-a")
        against = gr.Dropdown(
            [], value=None, label="against class B", allow_custom_value=True, min_width=140, elem_id="class-b"
        )
    button = gr.Button("Explain", variant="primary", elem_id="explain")
    with gr.Accordion("What works with this model", open=False):
        verdict = gr.HTML("Shown after the first map.", elem_id="verdict")
    with gr.Accordion("How the image is fitted", open=False):
        crop = gr.Radio(
            [("cropped, as evaluated", "center"), ("squashed", "squash"), ("with borders", "none")], value="center",
            show_label=False, container=False, elem_id="crop",
        )  # fmt: skip
    with gr.Accordion("Astrocytes (ViTA)", open=False):
        astrocytes = gr.Checkbox(False, label="Explain the model under astrocytes", elem_id="vita")
        vita = [
            gr.Slider(1, 12, 6, step=1, label="k: steps"),
            gr.Slider(1, 12, 3, step=1, label="tau: the count at which an astrocyte acts"),
            gr.Slider(-2, 2, -0.5, step=0.05, label="phi: above it a neuron is active"),
            gr.Slider(1, 3, 1.5, step=0.05, label="alpha: factor of active neurons"),
            gr.Slider(0, 1, 0.05, step=0.01, label="beta: factor of inactive neurons"),
        ]
    fields = Fields(image, crop, model, checkpoint, prompts, methods, target, against, astrocytes, vita)
    return drop, scene, fields, verdict, button


def _right(verdict: Any) -> tuple[Any, ...]:
    import gradio as gr

    maps = gr.HTML(
        None, html_template='<div class="ca-viewer"></div>', js_on_load=(_HERE / "viewer.js").read_text(),
        elem_id="maps", min_height=260,
    )  # fmt: skip
    with gr.Row():
        curves = gr.Button("Deletion and insertion curves", size="sm", min_width=150, elem_id="curves-button")
        downloads = {
            kind: gr.Button(f"Download {kind}", size="sm", min_width=110, elem_id=f"download-{kind}") for kind in KINDS
        }
    chart = gr.HTML("", elem_id="curves")
    code: dict[str, Any] = {"interactive": False, "wrap_lines": True, "lines": 1}
    with gr.Accordion("Copy as Python, or as a command", open=False):
        python = gr.Code("", label="Python", language="python", **code, elem_id="python")
        command = gr.Code("", label="Command", language="shell", **code, elem_id="command")
    return Shown(maps, verdict, chart, python, command), curves, downloads


def _models(settings: Settings) -> list[str]:
    import timm

    return list(settings.models) or [*BUNDLED, *(name for name in timm.list_models() if name not in BUNDLED)]
