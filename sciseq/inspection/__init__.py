"""Looking into forecasters and data: anomalous rows, and what a forecast rests on."""

from sciseq.inspection.anomalies import anomaly_scores
from sciseq.inspection.importance import permutation_importance

__all__ = ["anomaly_scores", "permutation_importance"]
