"""Where a step's time goes on a GPU: the kernels of one decode step and of a prefill, by torch's profiler."""
from __future__ import annotations

import sys

from engine import CASES, drive, engine
from torch.profiler import ProfilerActivity, profile


def main() -> None:
    """Print the longest kernels of each."""
    running = engine(*CASES[sys.argv[1]], capture="lazy")
    for name, shape in {"decode": (1, 128, 40), "prefill": (8, 2048, 1), "64 streams": (64, 512, 40)}.items():
        drive(running, *shape)
        drive(running, *shape)
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            drive(running, *shape)
        print(name)
        print(found.key_averages().table(sort_by="cuda_time_total", row_limit=12, max_name_column_width=60)
              .split("Self CUDA time total")[0][-3500:])
    running.close()


if __name__ == "__main__":
    main()
