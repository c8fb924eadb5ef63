"""What the protocol counts of models since the server started."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass

from service.engine.work import Chunk
from service.inference.v2 import inference_pb2 as pb
from service.models.version import Version
from service.rpc.inference.models import number


@dataclass(slots=True)
class _Counts:
    answered: int = 0
    answered_seconds: float = 0.0
    failed: int = 0
    failed_seconds: float = 0.0
    steps: int = 0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    last_unix_seconds: float = 0.0


class Statistics:
    """Counts the requests of each version of each model."""

    def __init__(self) -> None:
        self._by_version: defaultdict[Version, _Counts] = defaultdict(_Counts)

    def answered(self, version: Version, chunk: Chunk, seconds: float) -> None:
        """Count a request that was answered after so many seconds."""
        counts = self._by_version[version]
        counts.answered += 1
        counts.answered_seconds += seconds
        counts.steps += len(chunk.outcome.outputs)
        counts.last_unix_seconds = time.time()
        if chunk.begun_seconds:  # it was run, and not found among replays
            counts.queue_seconds += chunk.begun_seconds - chunk.submitted_seconds
            counts.compute_seconds += chunk.finished_seconds - chunk.begun_seconds

    def failed(self, version: Version, seconds: float) -> None:
        """Count a request that failed after so many seconds."""
        counts = self._by_version[version]
        counts.failed += 1
        counts.failed_seconds += seconds

    def message(self, version: Version) -> pb.ModelStatistics:
        """What was counted of a version."""
        counts = self._by_version.get(version) or _Counts()
        answered = counts.answered
        return pb.ModelStatistics(
            name=version.model,
            version=number(version),
            last_inference=round(counts.last_unix_seconds * 1e3),
            inference_count=counts.steps,
            execution_count=answered,
            inference_stats=pb.InferStatistics(
                success=_duration(answered, counts.answered_seconds),
                fail=_duration(counts.failed, counts.failed_seconds),
                queue=_duration(answered, counts.queue_seconds),
                # Clients expect the same count of each; inputs and outputs take next to nothing.
                compute_input=_duration(answered, 0.0),
                compute_infer=_duration(answered, counts.compute_seconds),
                compute_output=_duration(answered, 0.0),
            ),
        )


def _duration(count: int, seconds: float) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=max(0, round(seconds * 1e9)))
