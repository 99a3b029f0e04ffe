"""What commands print of a run that has finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nge_search.kinds import REPORT
from nge_search.settings.run import RunningConfig


def training_lines(config: RunningConfig, summary: dict[str, Any], found: str, best: float | None) -> list[str]:
    """Of a training: what the last epoch's test `found`, and its `best` figure after any epoch, in percent."""
    after = "" if best is None else f" (best {best:.2f} % after epoch {summary['best_epoch']})"
    return [
        *([summary["stopped"]] if "stopped" in summary else []),
        f"test {found} after {epochs(summary)}, 1 seed{after}, {summary['params']:,} parameters, "
        f"{summary['macs'] / 1e6:.2f}M mult-adds, {summary['seconds']:.0f} s",
        f"report {Path(config.run.dir) / REPORT}",
    ]


def epochs(summary: dict[str, Any]) -> str:
    """Their number, in words."""
    return f"{summary['epochs']} epoch{'' if summary['epochs'] == 1 else 's'}"
