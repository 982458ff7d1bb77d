"""Promises about error rates: exact bounds, thresholds that keep them, audits that watch them."""

from tandem.verification.alarm import Alarm
from tandem.verification.base import GuardOptions, LearnerOptions, Promise, Report
from tandem.verification.guard import Guard, GuardReport
from tandem.verification.learner import Learned, ThresholdLearner, learn

__all__ = [
    "Alarm",
    "Guard",
    "GuardOptions",
    "GuardReport",
    "Learned",
    "LearnerOptions",
    "Promise",
    "Report",
    "ThresholdLearner",
    "learn",
]
