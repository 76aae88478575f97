from __future__ import annotations

import base64
import io
import json

import numpy as np
from PIL import Image

from captum_astro.app.files import download
from captum_astro.app.networks import Networks
from tests.app.making import made


def test_downloads(networks: Networks) -> None:
    found = made(networks, methods=("VTranM", "LRP"), image="a b.c.png")
    files = {kind: download(found, kind) for kind in ("picture", "arrays", "record")}
    assert [file["name"] for file in files.values()] == [f"a_b_c_explained.{end}" for end in ("png", "npz", "json")]
    data = {kind: base64.b64decode(file["data"]) for kind, file in files.items()}
    assert Image.open(io.BytesIO(data["picture"])).width > 600
    arrays = np.load(io.BytesIO(data["arrays"]))
    for result in found.results:
        array = arrays[f"{result.options['method']}_class3"]
        assert np.array_equal(array, result.attributions[0].sum(0).numpy())
    record = json.loads(data["record"])
    assert record == json.loads(json.dumps(found.results.record))
    assert record["maps"][0]["image"]["file"] == "a b.c.png"
