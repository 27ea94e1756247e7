"""A run that segments and loads one batch and pauses in its `segments` step: `python -m tests.support.paused`.

Arguments: the batch, and a folder. In the middle of the step it writes the file `reached` there and waits for the file
`go`; what the run failed with is printed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from accelkd.home.layout import Home
from accelkd.segments.windows import preprocess_windows
from tests.support.pipeline import materialize_batch, opened_instance
from tests.support.processes import wait_until

LOADING = ("raw_recordings", "segments", "segment_tables")


def main() -> int:
    batch_id, folder = sys.argv[1], Path(sys.argv[2])

    def paused(*arguments: Any, **streams: Any) -> Any:
        (folder / "reached").touch()
        wait_until((folder / "go").exists)
        return preprocess_windows(*arguments, **streams)

    home = Home.from_environment()
    with patch("accelkd.segments.segment.preprocess_windows", paused), opened_instance(home) as instance:
        result = materialize_batch(home, instance, batch_id, LOADING)
    for event in result.all_events:
        if event.is_step_failure:
            print(event.step_key, event.step_failure_data.error_display_string, flush=True)
    return 0 if result.success else 1


if __name__ == "__main__":
    sys.exit(main())
