from __future__ import annotations

import errno

import pytest
import torch

from captum_astro.data.images import ImageError
from captum_astro.evaluation.run.failures import Failure, is_of_the_machine


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no"),
        MemoryError(),
        OSError(errno.ENOSPC, "full"),
        OSError(errno.ESTALE, "the folder is gone"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    ],
)
def test_machine_errors_are_raised_even_as_causes(error: Exception) -> None:
    for raised in (error, _from(ImageError("a.png: the image is damaged"), error)):
        assert is_of_the_machine(raised)
        with pytest.raises(type(raised)):
            Failure.of(raised, "sample")


def _from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_sample_errors_are_one_line() -> None:
    raised = _from(ImageError("a.png:\n  cut"), OSError(errno.ENOENT, "none"))
    found = Failure.of(raised, "sample")
    assert found == Failure("ImageError", "a.png: cut", "sample")
    assert str(found) == "ImageError: a.png: cut"
    assert str(Failure.of(KeyError(), "method")) == "KeyError"
    assert len(str(Failure.of(ValueError("x" * 900), "metric"))) == 500


def test_no_addresses() -> None:
    error = ValueError(f"no {object()} of 0x7f, 0x7fb1c0ffee00")
    assert str(Failure.of(error, "method")) == "ValueError: no <object object at 0x...> of 0x7f, 0x..."
