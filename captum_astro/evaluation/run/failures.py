"""Failures as records, and those that are the machine's fault and end a run."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Literal

import torch

from captum_astro.data.samples import plain_text

Where = Literal["data", "sample", "method", "metric"]
_ENDS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN)
_ENDING = ("not enough memory", "CUDA error", "HIP error", "CUBLAS_STATUS", "CUDNN_STATUS")
_LONGEST = 500


@dataclass(frozen=True)
class Failure:
    """Why there is no value.

    Attributes:
        type: Of the exception, by its name.
        message: In one line; may be empty.
        where: What it concerns: ``data``, that a sample lacks what a metric needs; ``sample``, which cannot be read or
            does not suit the model; ``method``, which has no map; ``metric``, which has no value.

    Example:
        >>> str(Failure("ValueError", "no good", "method"))
        'ValueError: no good'
    """

    type: str
    message: str
    where: Where

    def __str__(self) -> str:
        """As in the rows."""
        return f"{self.type}: {self.message}"[:_LONGEST] if self.message else self.type

    @classmethod
    def of(cls, error: BaseException, where: Where) -> Failure:
        """The record of what was raised.

        Args:
            error: The exception.
            where: What it concerns.

        Raises:
            BaseException: The error itself, where it `is_of_the_machine`. Such a run ends, and the same command goes on
                from there.
        """
        if is_of_the_machine(error):
            raise error
        return cls(type(error).__name__, plain_text(" ".join(str(error).split())), where)


def is_of_the_machine(error: BaseException) -> bool:
    """Whether the machine is at fault and not the sample: no memory, no space, no file handle, a folder or a GPU lost.

    After an error of CUDA nothing runs any more in the process: every later sample would seem to fail.

    Args:
        error: What was raised; the errors that it was raised from count, too.

    Example:
        >>> is_of_the_machine(RuntimeError("CUDA error: unspecified launch failure"))
        True
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or getattr(error, "errno", None) in _ENDS:
        return True
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _ENDING):
        return True
    return error.__cause__ is not None and is_of_the_machine(error.__cause__)
