"""Parts of messages, and the errors whose messages are for users."""

from __future__ import annotations

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
