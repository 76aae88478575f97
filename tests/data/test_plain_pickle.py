from __future__ import annotations

import copyreg
import io
import pickle
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captum_astro.data._plain_pickle import Call, Name, read_plain
from captum_astro.data.cifar import read_cifar
from captum_astro.data.files import DataError

PLAIN = {
    "a": [1, -1, 300, 70000, 2**40, True, None],
    "b": ("x", b"y", bytearray(b"z"), (), (1, 2, 3, 4)),
    "c": {"d": []},
}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_values_are_what_pickle_reads(protocol: int) -> None:
    value = {**PLAIN, "b": PLAIN["b"][:2] + PLAIN["b"][3:]} if protocol < 5 else PLAIN
    assert read_plain(pickle.dumps(value, protocol), ()) == value


def test_calls_are_recorded() -> None:
    data = b"\x80\x02cfractions\nFraction\nK\x01K\x02\x86R(lK\x03b.".replace(b"(l", b"")
    assert read_plain(data, {"fractions.Fraction"}) == Call("fractions.Fraction", (1, 2), 3)
    assert read_plain(b"\x80\x02cfractions\nFraction\n.", {"fractions.Fraction"}) == Name("fractions.Fraction")
    with pytest.raises(ValueError, match=r"^it asks for fractions\.Fraction$"):
        read_plain(data, {"fractions"})


def test_python_2(tmp_path: Path) -> None:
    """The form in which CIFAR is published: protocol 2 of Python 2, with an old NumPy."""
    pixels = np.arange(2 * 3072).astype(np.uint8)
    data = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b"
        b"\x87Rq\x05(K\x01M\x02\x00M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff"
        b"\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", pixels.size) + pixels.tobytes() + b"tbU\x06labelsq"
        b"\x08]q\x09(K\x06K\x09eU\x09filenamesq\x0a]q\x0b(U\x05a.pngU\x05b.pngeu."
    )
    (tmp_path / "test_batch").write_bytes(data)
    found = read_cifar(tmp_path, "test")
    assert found.labels.tolist() == [6, 9]
    assert np.array_equal(found.images.flatten(), pixels)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_protocol(protocol: int, order: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    batch = {b"data": np.array(pixels, order=order), "labels": [1, 2, 3]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol))
    assert np.array_equal(read_cifar(tmp_path, "test").images.reshape(3, -1), pixels)


class _Reduced:
    """Pickled as the call that is given to it."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        return self._call


class _Foreign(pickle.Pickler):
    def persistent_id(self, obj: object) -> str | None:
        return "a" if isinstance(obj, float) else None


def _persistent() -> bytes:
    file = io.BytesIO()
    _Foreign(file).dump({"data": 0.5})
    return file.getvalue()


def _global(module: str, name: str, arguments: bytes = b")") -> bytes:
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + arguments + b"R."


def _stacked(module: str, name: str) -> bytes:
    return pickle.dumps(module, 4)[2:-1].join([b"\x80\x04", b""]) + pickle.dumps(name, 4)[2:-1] + b"\x93)R."


def _batch(array: bytes) -> bytes:
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels]K\x01au."


def _array(shape: bytes, dtype: bytes = b"U\x02u1", raw: bytes = b"U\x00", state: bytes = b"") -> bytes:
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return _batch(
        made + b"(K\x01" + shape + b"cnumpy\ndtype\n" + dtype + b"K\x00K\x01\x87R" + state + b"\x89" + raw + b"tb"
    )


def _nested(start: bytes, step: bytes, count: int) -> bytes:
    return b"\x80\x02" + start + step * count


FORGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "os.system": (
        lambda: pickle.dumps(_Reduced(__import__("os").system, ("touch harmed",))),
        "it asks for posix.system",
    ),
    "open": (lambda: pickle.dumps(_Reduced(open, ("harmed", "w"))), r"it asks for .*\.open"),
    "eval": (lambda: _global("builtins", "eval", b"U\x16open('harmed','w')    \x85"), "it asks for builtins.eval"),
    "numpyevil": (lambda: _global("numpyevil", "dtype"), "it asks for numpyevil.dtype"),
    "numpyevil, protocol 4": (lambda: _stacked("numpyevil", "dtype"), "it asks for numpyevil.dtype"),
    "f2py": (lambda: _global("numpy.f2py.__main__", "dtype"), "it asks for numpy.f2py.__main__.dtype"),
    "dotted": (lambda: _stacked("numpy", "dtype.__class__"), "it asks for numpy.dtype.__class__"),
    "moved dot": (lambda: _stacked("numpy.core", "multiarray.scalar"), "it asks for numpy.core.multiarray.scalar"),
    "scalar of object": (
        lambda: _global("numpy.core.multiarray", "scalar"),
        "it asks for numpy.core.multiarray.scalar",
    ),
    "no names": (lambda: b"\x80\x04K\x01K\x02\x93.", "something without a name"),
    "escapes": (lambda: _global("a\x1b[2J", "b"), r"it asks for a\\x1b\[2J"),
    "calls a value": (lambda: b"\x80\x02K\x01)R.", "it calls a int"),
    "calls a call": (lambda: b"\x80\x02cnumpy\ndtype\n)R)R.", "it calls a Call"),
    "builds a list": (lambda: b"\x80\x02]K\x01b.", "it adds to a list, where a Call belongs"),
    "structured dtype": (
        lambda: _array(
            b"M\x01\x00M\x00\x0c\x86",
            state=b"(K\x03U\x01|NU\x01a\x85}U\x01aK\x01K\x02\x86sJ\xff\xff\xff\x7fK\x01K\x00tb",
        ),
        r"not \(N, 3072\)",
    ),
    "object dtype": (lambda: _array(b"K\x01M\x00\x0c\x86", b"U\x01O", b"]K\x01a"), "not an array of uint8"),
    "list of objects": (lambda: _array(b"K\x01M\x00\x0c\x86", raw=b"]K\x01a"), r"not \(N, 3072\)"),
    "void dtype": (lambda: _array(b"K\x01M\x00\x0c\x86", b"U\x0aV999999999"), "not an array of uint8"),
    "huge shape": (lambda: _array(b"J\xff\xff\xff\x7fM\x00\x0c\x86"), r"not \(N, 3072\)"),
    "negative shape": (lambda: _array(b"J\xff\xff\xff\xffM\x00\x0c\x86"), r"not \(N, 3072\)"),
    "shape in itself": (lambda: _array(b"]q\x09h\x09a"), r"not \(N, 3072\)"),
    "text beyond bytes": (lambda: _array(b"K\x00M\x00\x0c\x86", raw=b"X\x03\x00\x00\x00\xe2\x82\xac"), "latin-1"),
    "persistent id": (_persistent, "it has the instruction BINPERSID"),
    "persistent id, text": (lambda: b"Pa\n.", "it has the instruction PERSID"),
    "extension": (lambda: b"\x80\x02\x82\xf0.", "it has the instruction EXT1"),
    "extension 2": (lambda: b"\x80\x02\x83\xf0\x00.", "it has the instruction EXT2"),
    "extension 4": (lambda: b"\x80\x02\x84\xf0\x00\x00\x00.", "it has the instruction EXT4"),
    "instance": (lambda: b"(cos\nsystem\no.", "it asks for os.system"),
    "instance, text": (lambda: b"(ios\nsystem\n.", "it has the instruction INST"),
    "new object": (lambda: b"\x80\x02cnumpy\nndarray\n)\x81.", "it has the instruction NEWOBJ"),
    "buffer": (lambda: b"\x80\x05\x97.", "it has the instruction NEXT_BUFFER"),
    "set": (lambda: b"\x80\x04\x8f.", "it has the instruction EMPTY_SET"),
    "sum of hashes": (
        lambda: _nested(b"}", b"", 0) + b"K\x01" + b"q\x00h\x00\x86" * 64 + b"K\x01s.",
        "a tuple as a key",
    ),
    "deep list": (lambda: _nested(b"", b"]", 50_000) + b"a" * 49_999 + b".", "it is not a dictionary"),
    "deep tuple": (lambda: _nested(b"K\x01", b"\x85", 100_000) + b".", "it is not a dictionary"),
    "label of lists": (
        lambda: pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [_doubled(64)]}),
        "the label is a list|the label is \\[",
    ),
    "distant notes": (lambda: b"\x80\x02}" + b"r\xff\xff\xff\x7f" * 100 + b".", "it has no data and no labels"),
    "long text": (lambda: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x.", "expected 1099511627776 bytes"),
    "long bytes": (lambda: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.", "expected 1099511627776 bytes"),
    "long array": (lambda: b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.", "expected 1099511627776 bytes"),
    "long frame": (lambda: b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.", "it is not a dictionary"),
    "long number": (lambda: b"L" + b"9" * 100_000 + b"L\n.", "digits"),
    "many values": (lambda: b"\x80\x02" + b"]" * 1_100_000 + b".", "more than 1000000 instructions"),
    "empty stack": (lambda: b"\x80\x02.", "the pickle is damaged"),
    "no mark": (lambda: b"\x80\x02]e.", "the pickle is damaged"),
    "no note": (lambda: b"\x80\x02h\x07.", "the pickle is damaged"),
    "odd items": (lambda: b"\x80\x02}(K\x01u.", "a key without a value"),
    "no end": (lambda: b"\x80\x02}", "pickle exhausted"),
    "empty": (lambda: b"", "pickle exhausted"),
}


def _doubled(times: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", FORGED)
def test_forged(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, reason = FORGED[kind]
    (tmp_path / "numpyevil.py").write_text("open('harmed', 'w').close()\ndef dtype(*_): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "test_batch"
    file.write_bytes(make())
    copyreg.add_extension("os", "system", 0xF0)
    try:
        if kind.startswith(("long", "distant")):
            tracemalloc.start()
        with pytest.raises(DataError, match=reason) as raised:
            read_cifar(tmp_path, "test")
        peak = tracemalloc.get_traced_memory()[1]  # 0 if it was not started
    finally:
        tracemalloc.stop()
        copyreg.remove_extension("os", "system", 0xF0)
    assert str(file) in str(raised.value)
    assert len(str(raised.value)) < 600
    assert peak < 50e6
    assert "numpyevil" not in sys.modules
    assert sorted(path.name for path in tmp_path.iterdir()) == ["numpyevil.py", "test_batch"]
