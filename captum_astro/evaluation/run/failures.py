"""Failures as records, and machine errors that end a run."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Literal

import torch

from captum_astro.data.samples import plain_text

Where = Literal["data", "sample", "method", "metric"]
_ENDS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN)
_ENDING = ("not enough memory", "can't allocate memory", "CUDA error", "HIP error", "CUBLAS_STATUS", "CUDNN_STATUS")
_LONGEST = 500
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{8,}\b")
UNDEFINED = "Undefined"  # the type of a value that the inputs leave undefined: nothing went wrong


@dataclass(frozen=True)
class Failure:
    """Why there is no value.

    Attributes:
        type: The name of the exception's type.
        message: A single line; may be empty.
        where: What it concerns: ``data``, a sample lacks what a metric needs; ``sample``, which cannot be read or does
            not fit the model; ``method``, which has no map; ``metric``, which has no value.

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
        """The record of an exception.

        Args:
            error: The exception.
            where: What it concerns.

        Raises:
            BaseException: The error itself, if it `is_of_the_machine`. The run then ends, and the same command resumes
                it.
        """
        if is_of_the_machine(error):
            raise error
        text = _ADDRESS.sub("0x...", " ".join(str(error).split()))  # differs from run to run
        return cls(type(error).__name__, plain_text(text), where)


def is_of_the_machine(error: BaseException) -> bool:
    """Whether the machine rather than the sample is at fault: no memory, disk or file handles, a lost folder or GPU.

    After a CUDA error nothing works any more in the process: every later sample would seem to fail.

    Args:
        error: The exception; the exceptions that caused it are checked too.

    Example:
        >>> is_of_the_machine(RuntimeError("CUDA error: unspecified launch failure"))
        True
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or getattr(error, "errno", None) in _ENDS:
        return True
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _ENDING):
        return True
    return error.__cause__ is not None and is_of_the_machine(error.__cause__)
