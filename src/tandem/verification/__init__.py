"""Promises about error rates: exact bounds, thresholds that keep them, audits that watch them."""

from tandem.verification.alarm import Alarm
from tandem.verification.base import GuardOptions, Learner, LearnerOptions, Promise, Report
from tandem.verification.features import FeatureLearner, Features
from tandem.verification.guard import Guard, GuardReport, GuardTally, Warden
from tandem.verification.learner import Learned, ThresholdLearner, learn

__all__ = [
    "Alarm",
    "FeatureLearner",
    "Features",
    "Guard",
    "GuardOptions",
    "GuardReport",
    "GuardTally",
    "Learned",
    "Learner",
    "LearnerOptions",
    "Promise",
    "Report",
    "ThresholdLearner",
    "Warden",
    "learn",
]
