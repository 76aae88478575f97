"""One forward and one backward pass: everything that the methods need, recorded once."""

from __future__ import annotations

from dataclasses import replace

import torch

from captum_astro.capture.agreement import problem_of
from captum_astro.capture.backward import Backward
from captum_astro.capture.call import Call
from captum_astro.capture.collected import Collected
from captum_astro.capture.early import Early
from captum_astro.capture.recorder import Recorder
from captum_astro.capture.records import Pass
from captum_astro.capture.wanted import Wanted
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import AttentionBranch


def capture(call: Call, wanted: Wanted) -> Pass:
    """Run a model forward, and backward if gradients are needed, and record what the methods need.

    Even without gradients of the layers, the output's gradient at the final tokens is taken: it shows what is read.

    Args:
        call: A private model and its inputs.
        wanted: What to record.

    Raises:
        ValueError: If there is no attention layer among the blocks.
        UnsupportedModelError: If a layer computed something other than the layout says.
    """
    assert call.layout is not None
    layout, chosen = call.layout, wanted.stages(call.layout)
    attended = [i for i in chosen if any(isinstance(b, AttentionBranch) for b in layout.stages[i].branches)]
    if not attended and layout.pooling is None:
        raise ValueError(f"layers selects no attention layer; the blocks are numbered 0 to {layout.stages[-1].block}.")
    recorder = Recorder(layout, wanted.early, wanted.cut)
    device, image = call.inputs.device.type, None
    if call.model is not layout.model and call.inputs.is_floating_point():  # a wrapper may read it too
        image = call.inputs.clone().requires_grad_(True)
    with torch.inference_mode(False), torch.enable_grad():
        if wanted.rules is None:
            with recorder:
                output = call.run(image)
        else:
            with torch.autocast(device, enabled=False), wanted.rules, recorder:
                output = call.run(image)
        with torch.autocast(output.device.type, enabled=False):  # relevance is not computed in half precision
            call = replace(call, target=call.target.repeated(wanted.readings))
            collected = Collected(call, wanted, recorder, output)
            Backward(call, wanted, recorder, output).run(image)
            with torch.no_grad():
                passed = _passed(collected)
    if wanted.verify and passed.problem is not None:
        raise UnsupportedModelError(passed.problem)
    return passed


def capture_early(call: Call, wanted: Wanted, early: Early) -> list[Pass]:
    """Have the rest of the model read earlier blocks as if they were the final ones, and take the gradients of that.

    They are those at each block's own attention; with a pooling head, those at its map, block by block along the batch.

    Args:
        call: A call that `capture` accepts.
        wanted: What to record, of these blocks.
        early: The blocks.

    Returns:
        One pass of all blocks; one for each where the rest of the model does not read them one by one along the batch.

    Raises:
        UnsupportedModelError: If the rest of the model cannot read the tokens of a block.
    """
    layout = call.layout
    assert layout is not None
    if not (layout.reads_text or layout.patch_lists or call.arguments):  # which may hold a mask of the padding
        try:
            return [_captured_early(call, wanted, early)]
        except UnsupportedModelError:
            raise
        except RuntimeError:  # of shapes, where the number of images is taken from the input, or of memory
            pass
    return [_captured_early(call, wanted, replace(early, blocks=(block,))) for block in early.blocks]


def _captured_early(call: Call, wanted: Wanted, early: Early) -> Pass:
    assert call.layout is not None
    blocks = set(early.blocks) if call.layout.pooling is None else set[int]()
    return capture(call, replace(wanted, gradient=True, early=early, blocks=blocks))


def _passed(collected: Collected) -> Pass:
    """The records of a pass, checked against the layout."""
    recorder, layout = collected.recorder, collected.layout
    pooling = collected.pooling()
    passed = Pass(
        collected.output.detach(),
        collected.stages(),
        collected.readout(pooling),
        pooling,
        collected.image_size,
        collected.grids[0],
        layout.extent(*collected.image_size),
        collected.features,
    )
    if collected.wanted.early is not None:
        return passed
    if collected.wanted.rules is not None and not collected.wanted.rules.comparable:
        return passed
    return replace(passed, problem=problem_of(passed, layout, recorder.pooled, collected.reached()))
