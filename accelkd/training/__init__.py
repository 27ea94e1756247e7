"""Augmentations, losses, the trainer, teacher pre-training, distillation and checkpoints."""
