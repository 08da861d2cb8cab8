"""Square matrices of adapters go the way of their nearest siblings."""

import pytest

from weightvc.objects.updates import Update
from weightvc.repo.orientation import settle

SHAPES = {
    "h.0.attn.c_attn": "turned",
    "h.0.attn.c_proj": "square",
    "h.0.mlp.c_fc": "turned",
    "h.1.mlp.q": "square",
    "h.1.mlp.up": "plain",
    "h.1.mlp.down": "turned",
    "lm_head": "plain",
    "score": "square",
    "wte": "turned",
    "wte.q": "square",
}


@pytest.mark.parametrize("flag", [False, True])
def test_the_nearest_decide_before_the_flag(flag):
    fitting = {
        module: tuple(
            Update(module, "a", "b", 1.0, way == "turned") for way in ("plain", "turned") if shape in (way, "square")
        )
        for module, shape in SHAPES.items()
    }

    found = {update.of: update.transposed for update in settle(fitting, ["wte"], turned=flag)}

    assert list(found) == list(SHAPES)
    assert found["h.0.attn.c_proj"]
    assert (found["h.0.attn.c_attn"], found["lm_head"]) == (True, False)
    assert found["h.1.mlp.q"] == flag
    assert found["score"] == flag
    assert (found["wte"], found["wte.q"]) == (True, flag)
