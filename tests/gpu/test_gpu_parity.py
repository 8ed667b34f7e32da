"""The same numbers on a GPU as on the CPU; skipped where there is none."""

import pytest
import torch

from retrieval.losses.cross_entropy import Blocks, Classes, cross_entropy
from retrieval.losses.readouts import Queries
from retrieval.models.histories import Histories, gather_histories
from retrieval.models.settings import ComiRecDRSettings, ComiRecSASettings, Gru4RecSettings, MindSettings, YouTubeDNNSettings
from retrieval.models.table import build_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]
SETTINGS = [
    cls(dimension=16, history=12) for cls in (MindSettings, ComiRecDRSettings, ComiRecSASettings, YouTubeDNNSettings, Gru4RecSettings)
]


def histories(device: str) -> Histories:
    ends = torch.tensor([5, 17, 29])
    items = torch.randint(40, (29,), generator=torch.Generator().manual_seed(1))
    tensors = (items, torch.arange(29), torch.tensor([0, 5, 17]), ends)
    return gather_histories(*(tensor.to(device) for tensor in tensors), 12)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.name)
def test_interests_agree(settings) -> None:
    model = build_model(settings, 40, 1).eval()
    expected = model.interests(histories("cpu"))
    found = model.to("cuda").interests(histories("cuda"))
    torch.testing.assert_close(found.vectors.cpu(), expected.vectors, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.valid.cpu(), expected.valid)


def test_the_loss_and_its_gradients_agree() -> None:
    generator = torch.Generator().manual_seed(2)
    vectors, items = torch.randn(50, 3, 8, generator=generator), torch.randn(200, 8, generator=generator)
    results = []
    for device in ("cpu", "cuda"):
        queries, classes = vectors.to(device).requires_grad_(), items.to(device).requires_grad_()
        valid = torch.ones(50, 3, dtype=torch.bool, device=device)
        own, weights = torch.zeros(50, device=device), torch.full((50,), 0.02, device=device)
        blocks = Blocks(4000, torch.float32)
        loss = cross_entropy(Queries(queries, valid), own, Classes(classes, None, None, contain_positives=True), weights, blocks)
        results.append([value.cpu() for value in (loss.detach(), *torch.autograd.grad(loss, (queries, classes)))])
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
