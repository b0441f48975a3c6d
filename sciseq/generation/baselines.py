"""The baselines that generators and recommenders have to beat, in one place."""

from sciseq.generation.markov_chain import MarkovChain
from sciseq.generation.recommendation import (
    PopularityRecommender,
    TransitionRecommender,
)

__all__ = ["MarkovChain", "PopularityRecommender", "TransitionRecommender"]
