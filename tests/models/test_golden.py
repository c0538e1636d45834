"""Every architecture and rotary scaling against transformers, from both kinds of file, through a paged cache."""
import numpy as np
import pytest
from families import FAMILIES
from steps import SCHEDULES, run

FILES = [(name, kind) for name, family in FAMILIES.items() for kind in ("safetensors", "gguf")
         if kind == "safetensors" or family.gguf]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("name", "format"), FILES, ids=["-".join(file) for file in FILES])
def test_logits_equal_those_of_transformers(name, format, schedule, backend, checkpoint):
    made = checkpoint(name)
    runner = backend.runner_for(made.source(format), FAMILIES[name].max_len)
    for got, wanted in zip(run(runner, made.sequences, schedule), made.logits, strict=True):
        np.testing.assert_allclose(got, wanted, atol=backend.tolerance)
