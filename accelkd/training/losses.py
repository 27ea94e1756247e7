"""The contrastive losses (sections 3.1 and 3.2), in float32 also under autocast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(anchors: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each anchor's pair among `others`, both `[batch, dimensions]`.

    Similarity is the cosine, divided by `temperature`. At a temperature of 0.04, bfloat16 would be off by several
    hundredths. Chance level is ln(batch).
    """
    with torch.autocast(anchors.device.type, enabled=False):
        logits = F.normalize(anchors.float(), dim=1) @ F.normalize(others.float(), dim=1).T / temperature
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def cross_modal_loss(teacher: Tensor, student: Tensor, temperature: float, teacher_weight: float) -> Tensor:
    """Equation 1: λ × (teacher embeddings as anchors) + (1 − λ) × (student embeddings as anchors); λ in [0, 1]."""
    loss = torch.zeros((), device=teacher.device)
    if teacher_weight > 0:
        loss = loss + teacher_weight * info_nce(teacher, student, temperature)
    if teacher_weight < 1:
        loss = loss + (1 - teacher_weight) * info_nce(student, teacher, temperature)
    return loss


def koleo(x: Tensor) -> Tensor:
    """Kozachenko-Leonenko regulariser of `[batch, dimensions]`: minus the mean log distance to the nearest neighbour.

    On the unit sphere, as Sablayrolles et al. (2019) define it: small where embeddings spread. The neighbour is found
    without gradient and in float32, and the epsilon keeps two equal rows finite.
    """
    with torch.autocast(x.device.type, enabled=False):
        unit = F.normalize(x.float(), dim=1)
        with torch.no_grad():
            nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)
        distance = (unit - unit[nearest]).norm(dim=1)
        return -torch.log(distance + 1e-8).mean()
