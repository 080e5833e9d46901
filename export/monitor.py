"""The learned reward as an on-robot monitor: does this go like the demonstrations?

The mean reward over a sliding window is compared with a quantile of the demos' own per-step reward. A mean varies less
than its steps, so a healthy run stays well above a low quantile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robots.safety_spec import MONITOR_RESPONSES, MonitorSpec
from robots.spec import ToolkitError

REASON = "reward_below_threshold"


class MonitorError(ToolkitError):
    """A monitor set up with a quantile, time or response that does not exist."""


@dataclass(frozen=True)
class RewardReport:
    """The learned reward of one run, beside the demos'."""

    steps: int  # scored
    mean: float  # over the run, of finite scores
    lowest_window_mean: float  # NaN if the window never filled
    demo_median: float  # median per-step reward of the demos
    threshold: float
    below_fraction: float  # share of steps whose window mean was below the threshold or whose score was not finite
    warnings: int  # times the patience ran out


class RewardMonitor:
    """Sliding mean of the learned reward against the demos' quantiles; allocates nothing per step."""

    def __init__(self, quantiles: Mapping[str, float], control_dt: float, config: MonitorSpec | None = None) -> None:
        """Sets the threshold.

        Args:
            quantiles: The demos' per-step reward quantiles, by probability as text (`BundleManifest.reward_quantiles`).
            control_dt: [s] one step.
            config: When and how; None for the defaults.

        Raises:
            MonitorError: A quantile, time or response that does not exist.
        """
        self.config = config or MonitorSpec()
        if self.config.quantile not in quantiles:
            raise MonitorError(f"quantile {self.config.quantile!r}; this bundle has {', '.join(quantiles)}")
        if self.config.response not in MONITOR_RESPONSES:
            raise MonitorError(f"response {self.config.response!r}; legal are {', '.join(MONITOR_RESPONSES)}")
        if not (self.config.window_seconds > 0 and self.config.patience_seconds >= 0):
            raise MonitorError("window_seconds must be above 0 and patience_seconds 0 or more")
        self.threshold = quantiles[self.config.quantile]
        self.window_mean = float("nan")  # of the last full window
        self._median = quantiles.get("0.5", float("nan"))
        self._window = np.zeros(max(1, round(self.config.window_seconds / control_dt)))
        self._patience = max(1, round(self.config.patience_seconds / control_dt))
        self._window_sum = self._sum = 0.0
        self._finite = self._steps = self._below = self._streak = self._warnings = 0
        self._lowest = float("nan")

    def update(self, reward: float) -> str | None:
        """Takes the reward of one step.

        Args:
            reward: What the learned reward says; not finite counts as below the threshold.

        Returns:
            "reward_below_threshold" on the step on which the patience runs out, else None.
        """
        self._steps += 1
        below = not np.isfinite(reward)
        if not below:
            self._push(reward)
            below = self.window_mean < self.threshold
        self._below += below
        self._streak = self._streak + 1 if below else 0
        if self._streak != self._patience:
            return None
        self._warnings += 1
        return REASON

    def report(self) -> RewardReport:
        """The run so far."""
        return RewardReport(
            steps=self._steps,
            mean=self._sum / self._finite if self._finite else float("nan"),
            lowest_window_mean=self._lowest,
            demo_median=self._median,
            threshold=self.threshold,
            below_fraction=self._below / self._steps if self._steps else 0.0,
            warnings=self._warnings,
        )

    def _push(self, reward: float) -> None:
        i = self._finite % len(self._window)
        self._window_sum += reward - self._window[i]
        self._window[i] = reward
        self._finite += 1
        self._sum += reward
        if i == len(self._window) - 1:
            self._window_sum = float(
                self._window.sum()
            )  # a running sum gathers rounding; once a window it is taken anew
        if self._finite >= len(self._window):
            self.window_mean = float(self._window_sum) / len(self._window)
            if not self.window_mean >= self._lowest:
                self._lowest = self.window_mean
