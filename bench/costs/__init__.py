"""What exits cost: models of processors, each with its source, and estimates by them.

    from bench.costs import estimate, model_named

    run = Machine(MachineDescription(guest, rom)).run()
    cost = estimate(model_named("nehalem"), run.ledger.by_reason)
    cost.cycles.typical, cost.cycles.low, cost.cycles.high, cost.seconds.typical

Counts are exact; costs are not, so every figure is a range with a source. A file of
models (bench/costs/*.toml, or a user's own) holds figures of one source only. What a
source leaves open (the factor of an exit that a userspace process serves, a clock) is
named apart with a source of its own, and a model says so in its `caveats`.
"""

from bench.costs.estimate import Estimate, Saved, estimate, estimate_saved
from bench.costs.load import load_file, load_models, model_named, models_for
from bench.costs.model import Factor, Model, Range, Unit

__all__ = [
    "Estimate",
    "Factor",
    "Model",
    "Range",
    "Saved",
    "Unit",
    "estimate",
    "estimate_saved",
    "load_file",
    "load_models",
    "model_named",
    "models_for",
]
