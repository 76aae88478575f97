"""Parts of messages, and the errors whose messages are for users."""

from __future__ import annotations

import math

# they say what is wrong and what to do; any other error is a fault of the program, and is shown with its traceback
EXPECTED = (ValueError, TypeError, NotImplementedError, OSError, IndexError, ImportError)


def counted(count: int, noun: str, plural: str = "s") -> str:
    """A number of things.

    Example:
        >>> counted(1, "image"), counted(1200, "image"), counted(2, "class", "es")
        ('1 image', '1,200 images', '2 classes')
    """
    return f"{count:,} {noun}{'' if count == 1 else plural}"


def reason(error: BaseException) -> str:
    r"""What an error says, whole and in one line; its type if it says nothing.

    Example:
        >>> reason(ValueError("two lines.\n\tHere.")), reason(KeyError())
        ('two lines. Here', 'KeyError')
    """
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def p_value(value: float) -> str:
    """A p-value as printed.

    Example:
        >>> p_value(0.0321), p_value(1e-5), p_value(1.0)
        ('p = 0.032', 'p < 0.001', 'p = 1.00')
    """
    if math.isnan(value):
        return ""
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"
