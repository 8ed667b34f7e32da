"""Devices by name."""

import pytest
import torch

from retrieval.core.errors import ResourceError, UsageError
from retrieval.models.device import choose_device, choose_precision


def test_auto_is_a_device_that_is_there() -> None:
    device = choose_device("auto")
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.zeros(1, device=device).device.type == device.type


@pytest.mark.parametrize("name", ["cpuu", "meta", "mps", ""])
def test_a_device_of_another_kind_is_refused_before_anything_runs(name: str) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda or cuda:N"):
        choose_device(name)


def test_a_gpu_beyond_the_last_is_no_gpu() -> None:
    with pytest.raises(ResourceError, match="is not available"):
        choose_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.parametrize(("name", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_named_precision_is_taken_at_its_word(name: str, expected: torch.dtype) -> None:
    assert choose_precision(name, torch.device("cpu")) == expected
