"""Reads pickles of plain values without unpickling: nothing that a file names is imported, called or run."""

from __future__ import annotations

import pickletools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_FROM_MARK = {"TUPLE", "APPENDS", "SETITEMS"}  # take everything above the latest mark
_TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "STACK_GLOBAL": 2, "REDUCE": 2, "BUILD": 1}
_MOST = 1_000_000  # instructions; one byte can create a hundred. The training file of CIFAR-100 has about 300,000


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names, as ``module.name``; not imported."""

    name: str


@dataclass
class Call:
    """A call that a pickle requests, and the state that it sets on the result; recorded, not made."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def read_plain(data: bytes, names: Collection[str]) -> Any:
    """The value of a pickle of protocol 2 or later.

    Memory and time are limited: no value is copied, the number of instructions is bounded, and a dictionary's keys are
    text, whose hash does not depend on other values.

    Args:
        data: The pickle.
        names: The names, ``module.name``, that it may mention.

    Returns:
        Dictionaries whose keys are text, lists, tuples, text, bytes, whole numbers, truth values, None, `Name` and
        `Call`. Lists may contain themselves.

    Raises:
        ValueError: If it mentions another name, or anything other than these values, or is damaged.

    Example:
        >>> import pickle
        >>> read_plain(pickle.dumps({"labels": [3, 1]}), ())
        {'labels': [3, 1]}
        >>> read_plain(pickle.dumps(print), ())
        Traceback (most recent call last):
            ...
        ValueError: it asks for builtins.print
    """
    try:
        return _read(data, names)
    except (IndexError, KeyError) as error:  # an empty stack, a missing note
        raise ValueError("the pickle is damaged") from error


def _read(data: bytes, names: Collection[str]) -> Any:
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks below the marks
    notes: dict[int, Any] = {}
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        code, taken = opcode.name, []
        if count > _MOST:
            raise ValueError(f"it has more than {_MOST} instructions")
        if code in _FROM_MARK:
            taken, stack = stack, below.pop()
        elif code in _TAKES:
            taken = [stack.pop() for _ in range(_TAKES[code])][::-1]
        match code:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                below.append(stack)
                stack = []
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(taken))
            case "APPEND" | "APPENDS":
                _last(stack, list).extend(taken)
            case "SETITEM" | "SETITEMS":
                _set_items(_last(stack, dict), taken)
            case "BINPUT" | "LONG_BINPUT":
                notes[argument] = stack[-1]
            case "MEMOIZE":
                notes[len(notes)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(notes[argument])
            case "GLOBAL":
                stack.append(_named(argument.split(" ", 1), names))
            case "STACK_GLOBAL":
                stack.append(_named(taken, names))
            case "REDUCE":
                stack.append(_call(*taken))
            case "BUILD":
                (_last(stack, Call).state,) = taken
            case _ if code in _CONSTANTS:
                stack.append(_CONSTANTS[code])
            case _ if code in _TEXTS or code in _BYTES or code in _NUMBERS:
                stack.append(argument)
            case _:
                raise ValueError(f"it has the instruction {code}, which plain values do not need")
    raise ValueError("the pickle has no end")


def _last(stack: list[Any], kind: type) -> Any:
    if not isinstance(stack[-1], kind):
        raise ValueError(f"it adds to a {type(stack[-1]).__name__}, where a {kind.__name__} belongs")
    return stack[-1]


def _set_items(to: dict[str, Any], pairs: list[Any]) -> None:
    if len(pairs) % 2:
        raise ValueError("it has a key without a value")
    to.update((_key(key), value) for key, value in zip(pairs[::2], pairs[1::2], strict=True))


def _key(key: Any) -> str:
    """A key as text: Python 2 has no difference between text and bytes, and protocol 2 encodes bytes as text."""
    match key:
        case Call("_codecs.encode", (str(text), "latin1")) | str(text):
            return text
        case bytes():
            return key.decode("latin-1")
    raise ValueError(f"it has a dictionary with a {type(key).__name__} as a key, where text belongs")


def _named(parts: list[Any], names: Collection[str]) -> Name:
    full = ".".join(parts) if all(isinstance(part, str) for part in parts) else ""
    if full not in names:
        raise ValueError(f"it asks for {ascii(full)[1:-1] or 'something without a name'}")
    return Name(full)


def _call(called: Any, arguments: Any) -> Call:
    if not isinstance(called, Name) or not isinstance(arguments, tuple):
        raise ValueError(f"it calls a {type(called).__name__}")
    return Call(called.name, arguments)
