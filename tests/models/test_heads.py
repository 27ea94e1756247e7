"""The projection heads."""

from __future__ import annotations

import torch

from accelkd.models.heads import ProjectionHead


def test_head_goes_through_1024_to_128() -> None:
    head = ProjectionHead(256)
    assert [tuple(p.shape) for p in head.parameters() if p.ndim == 2] == [(1024, 256), (128, 1024)]
    assert head(torch.randn(4, 256)).shape == (4, 128)


def test_what_all_embeddings_share_does_not_reach_the_loss() -> None:
    torch.manual_seed(0)
    head = ProjectionHead(32)
    embedding = torch.randn(16, 32)
    torch.testing.assert_close(head(embedding + 5 * torch.randn(32)), head(embedding), atol=1e-4, rtol=1e-4)
