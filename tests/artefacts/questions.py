"""What models that do not forecast are asked, when they are kept and ever after."""

from typing import Any

import numpy as np

__all__ = ["DOCUMENTS", "HISTORIES", "WORDS", "ask"]

WORDS = ["ACG", "ACGT", "TTGACA", "GATTA", "CCC", "AGCT"] * 2
HISTORIES = [["a", "b", "c"], ["b", "c"], ["c", "a", "b", "d"], ["d", "a", "b"]]
DOCUMENTS = ["The sea is calm. The sea of sand is near. Nobody knows the harbour."]


def ask(model: Any) -> dict[str, Any]:
    """Return texts and numbers that a fitted model answers, as plain JSON."""
    if hasattr(model, "predict_table"):
        from sciseq.testing.spectra import spectra

        table = model.predict_table(spectra())
        peptides = [one if isinstance(one, str) else None for one in table["peptide"]]
        return {"peptides": peptides, "scores": _numbers(table["score"])}
    if hasattr(model, "recommend"):
        items = [list(map(str, one)) for one in model.recommend(HISTORIES, 2)]
        return {"items": items, "scores": _numbers(model.score_items(HISTORIES))}
    if hasattr(model, "extract"):
        scores = model.sentence_scores(DOCUMENTS)[0][1]
        return {"sentences": model.extract(DOCUMENTS), "scores": _numbers(scores)}
    told = getattr(model, "condition_coding_", None)
    labels = () if told is None else (["off", "on", "on", "off"],)
    return {
        "samples": model.sample(4, *labels, random_state=1),
        "scores": _numbers(model.score_samples(WORDS[:4], *labels)),
    }


def _numbers(values: Any) -> list[Any]:
    numbers: list[Any] = np.asarray(values, dtype=np.float64).tolist()
    return numbers
