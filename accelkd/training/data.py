"""Training batches: which segments are drawn at which step, and their signals on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from accelkd.cohort.training_set import MIN_SEGMENTS
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.objective import Batch
from accelkd.training.parallel import local_share
from accelkd.training.randomness import derive, permuted, step_keys, uniform
from accelkd.training.signals import ResidentSignals, to_device

Floats = npt.NDArray[np.floating]


class ParticipantSampler:
    """Draws segments so that every participant has the same weight, however many segments they have.

    A batch takes participants in a random order, each once before any repeats, and never the same segment twice while a
    participant has another: equal segments in one batch would be each other's negatives. A batch depends on seed and
    step alone, so a run can resume at any step. Participants with fewer than `min_segments` are left out.

    `participants` names the participant of each row of the training set. Raises ValueError if none has enough.
    """

    def __init__(self, participants: Sequence[str] | pa.StringArray, min_segments: int = MIN_SEGMENTS) -> None:
        encoded = pa.array(participants, pa.string()).dictionary_encode()  # sorts the distinct names, not all rows
        names, rank = np.unique(np.asarray(encoded.dictionary.to_pylist(), np.str_), return_inverse=True)
        code = rank[encoded.indices.to_numpy()]
        count = np.bincount(code, minlength=len(names))
        eligible = np.flatnonzero(count >= min_segments)
        if len(eligible) == 0:
            raise ValueError(f"no participant has the {min_segments} segments that pre-training needs")
        self._rows = np.argsort(code, kind="stable")  # grouped by participant
        self._first = (np.cumsum(count) - count)[eligible]
        self._count = count[eligible]

    @property
    def participants(self) -> int:
        """Number of participants with enough segments."""
        return len(self._count)

    @property
    def segments(self) -> int:
        """Number of their segments."""
        return int(self._count.sum())

    def draw(self, seed: int, step: int, size: int, views: int = 1) -> npt.NDArray[np.intp]:
        """Rows `[size, views]` of the training set for one step: `views` different segments of each participant.

        Takes time proportional to `size`, however many participants there are.
        """
        keys = derive(step_keys(seed, step, 1), torch.arange(2))
        turn, position = np.divmod(np.arange(size), self.participants)
        participant = np.empty(size, np.intp)
        for number in range(int(turn[-1]) + 1):  # more than one only where a batch is larger than the cohort
            part = turn == number
            order = int(derive(keys[:1], number))
            participant[part] = permuted(torch.from_numpy(position[part]), self.participants, order).numpy()
        count = self._count[participant]
        start = uniform(derive(keys[1:], torch.from_numpy(participant)), 1)[:, 0].double().numpy() * count
        segment = start.astype(np.intp)[:, None] + turn[:, None] * views + np.arange(views)
        drawn: npt.NDArray[np.intp] = self._rows[self._first[participant, None] + segment % count[:, None]]
        return drawn


class TrainingData:
    """The training rows of a store, in batches on the device: signals `[batch, channels, 3840]` float32 by modality.

    With `targets` `[rows]`, batches hold those of their segments as 'target'. Signals come from `resident`, if there is
    one; otherwise they are read from the memory-mapped file, one step ahead of training.
    """

    def __init__(
        self,
        store: SegmentStore,
        rows: npt.NDArray[np.intp],
        modalities: Sequence[Modality],
        device: torch.device,
        targets: Floats | None = None,
        min_segments: int = MIN_SEGMENTS,
        resident: ResidentSignals | None = None,
    ) -> None:
        self.sampler = ParticipantSampler(
            store.metadata.column("participant_id").take(rows).combine_chunks(), min_segments
        )
        self._store = store
        self._rows = rows
        self._modalities = tuple(modalities)
        self._device = device
        self._targets = None if targets is None else targets.astype(np.float32)
        self._resident = resident

    def batches(self, seed: int, steps: range, size: int, views: int = 1) -> Iterator[Batch]:
        """One batch for each step: this process's share of `size` segments.

        With two views, `size` pairs of segments of one participant: `[batch, 2, channels, 3840]`.
        """
        # A new thread uses the first GPU, whichever this one uses
        on_gpu = self._device.type == "cuda"
        use_same_gpu = partial(torch.cuda.set_device, torch.cuda.current_device()) if on_gpu else None
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches", initializer=use_same_gpu) as prefetcher:
            pending = [prefetcher.submit(self._on_host, seed, step, size, views) for step in steps[:1]]
            for step in steps:
                if step + steps.step in steps:
                    pending.append(prefetcher.submit(self._on_host, seed, step + steps.step, size, views))
                yield self._on_device(*pending.pop(0).result())

    def _on_host(
        self, seed: int, step: int, size: int, views: int
    ) -> tuple[tuple[int, ...], dict[str, npt.NDArray[np.generic]]]:
        """The shape of a batch, and the arrays to copy to the device: signals, or their rows in the resident copy."""
        drawn = self.sampler.draw(seed, step, size, views)[local_share(size)]
        flat = drawn.reshape(-1)
        host: dict[str, npt.NDArray[np.generic]] = {}
        if self._resident is None:
            host |= {modality: self._store.signals(modality, self._rows[flat]) for modality in self._modalities}
        else:
            host["rows"] = self._rows[flat].astype(np.int64)
        if self._targets is not None:
            host["target"] = self._targets[flat]
        return (drawn.shape if views > 1 else drawn.shape[:1]), host

    def _on_device(self, shape: tuple[int, ...], host: dict[str, npt.NDArray[np.generic]]) -> Batch:
        batch = {name: to_device(values, self._device) for name, values in host.items()}
        if self._resident is not None:
            rows = batch.pop("rows")
            batch |= {modality: self._resident.take(modality, rows) for modality in self._modalities}
        return {
            name: (value if name == "target" else value.view(*shape, *value.shape[1:])).float()
            for name, value in batch.items()
        }
