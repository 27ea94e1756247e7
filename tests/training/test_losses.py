"""The contrastive losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from accelkd.training.losses import cross_modal_loss, info_nce, koleo


def naive(anchors: np.ndarray, others: np.ndarray, temperature: float) -> float:
    """Word by word after section 3.2, in double precision."""

    def similarity(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))

    total = 0.0
    for i, anchor in enumerate(anchors):
        scores = [similarity(anchor, other) / temperature for other in others]
        top = max(scores)
        total -= scores[i] - top - math.log(sum(math.exp(score - top) for score in scores))
    return total / len(anchors)


@pytest.fixture
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(24, 16, generator=generator)
    return teacher, teacher + 0.7 * torch.randn(24, 16, generator=generator)


@pytest.mark.parametrize("temperature", [0.04, 0.5])
def test_info_nce_is_the_paper_s(pairs: tuple[torch.Tensor, torch.Tensor], temperature: float) -> None:
    expected = naive(pairs[0].double().numpy(), pairs[1].double().numpy(), temperature)
    assert info_nce(*pairs, temperature).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_equation_1_weighs_the_two_directions(pairs: tuple[torch.Tensor, torch.Tensor], weight: float) -> None:
    teacher, student = (side.double().numpy() for side in pairs)
    expected = weight * naive(teacher, student, 0.04) + (1 - weight) * naive(student, teacher, 0.04)
    assert cross_modal_loss(*pairs, 0.04, weight).item() == pytest.approx(expected, rel=1e-5)


def test_loss_is_in_full_precision_under_autocast(pairs: tuple[torch.Tensor, torch.Tensor]) -> None:
    exact = info_nce(*pairs, 0.04)
    with torch.autocast("cpu", torch.bfloat16):
        assert info_nce(*pairs, 0.04).item() == exact.item()
        assert cross_modal_loss(*pairs, 0.04, 0.5).dtype == torch.float32


def test_collapse_gives_chance_and_agreement_gives_nothing() -> None:
    assert info_nce(torch.ones(256, 8), torch.ones(256, 8), 0.04).item() == pytest.approx(math.log(256))
    assert info_nce(torch.eye(32), 3 * torch.eye(32), 0.04).item() < 1e-6


def test_gradient_is_right() -> None:
    generator = torch.Generator().manual_seed(1)
    teacher, student = (torch.randn(5, 4, generator=generator, requires_grad=True) for _ in range(2))
    cross_modal_loss(teacher, student, 0.5, 0.7).backward()
    for side in (teacher, student):
        assert side.grad is not None
        for i, j in ((0, 0), (3, 2)):
            shifted = []
            for sign in (1, -1):
                a, b = (tensor.detach().double().numpy().copy() for tensor in (teacher, student))
                (a if side is teacher else b)[i, j] += sign * 1e-5
                shifted.append(0.7 * naive(a, b, 0.5) + 0.3 * naive(b, a, 0.5))
            assert side.grad[i, j].item() == pytest.approx((shifted[0] - shifted[1]) / 2e-5, abs=1e-5)


def test_koleo_is_the_mean_log_distance_to_the_nearest_neighbour() -> None:
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(2))
    rows = [row / np.linalg.norm(row) for row in x.double().numpy()]
    nearest = [min(float(np.linalg.norm(a - b)) for j, b in enumerate(rows) if j != i) for i, a in enumerate(rows)]
    assert koleo(3 * x).item() == pytest.approx(-np.log(nearest).mean(), rel=1e-5)


def test_koleo_of_equal_rows_is_finite_and_has_a_finite_gradient() -> None:
    x = torch.ones(4, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = koleo(x)
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_koleo_falls_as_embeddings_spread() -> None:
    generator = torch.Generator().manual_seed(3)
    crowded = torch.ones(32, 8) + 0.01 * torch.randn(32, 8, generator=generator)
    spread = torch.randn(32, 8, generator=generator)
    assert koleo(spread) < koleo(crowded)
