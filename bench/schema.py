"""Results as JSON: names and shapes are stable; additions keep the schema's number."""

from collections.abc import Sequence
from typing import Any

from bench.compare import Comparison, NamedRun, queue_cost
from bench.costs import Estimate, Model, Range, Saved, estimate, estimate_saved
from bench.engines import engine_differences, explain
from bench.symbols import SymbolMap
from vmm.core.event import Weight
from vmm.core.ledger import Ledger, ReasonCount

__all__ = [
    "COMPARE_SCHEMA",
    "COSTS_SCHEMA",
    "RUN_SCHEMA",
    "compare_to_json",
    "model_to_json",
    "models_to_json",
    "run_to_json",
]

RUN_SCHEMA = "vmirom.run/1"
COMPARE_SCHEMA = "vmirom.compare/1"
COSTS_SCHEMA = "vmirom.costs/1"

Json = dict[str, Any]
_NO_SYMBOLS = SymbolMap({})


def _weight(row: ReasonCount) -> str:
    if row.heavy and row.light:
        return "mixed"
    return Weight.HEAVY if row.heavy else Weight.LIGHT


def _exits(ledger: Ledger) -> Json:
    return {
        "total": ledger.total,
        "light": ledger.light,
        "heavy": ledger.heavy,
        "by_reason": {
            reason.value: {
                "count": row.count,
                "weight": _weight(row),
                "light": row.light,
                "heavy": row.heavy,
            }
            for reason, row in ledger.by_reason.items()
        },
    }


def run_to_json(
    guest: str,
    named: NamedRun,
    *,
    calls: bool = False,
    places: int = 0,
    symbols: SymbolMap = _NO_SYMBOLS,
) -> Json:
    """One run. `places` is how many of the most frequent places to list."""
    run, rom = named.run, named.rom
    ledger = run.ledger
    result: Json = {
        "schema": RUN_SCHEMA,
        "guest": guest,
        "guest_sha256": run.guest_sha256,
        "rom": {"flavour": rom.name, "sha256": rom.sha256, "queue": rom.queue},
        "policy": run.policy.name,
        "engine": run.engine,
        "outcome": run.outcome.kind.value,
        "detail": run.outcome.detail,
        "instructions": run.instructions if run.counts_instructions else None,
        "rom_instructions": run.rom_instructions if run.counts_instructions else None,
        "virtual_seconds": run.virtual_ns / 1e9,
        "exits": _exits(ledger),
        "engine_events": ledger.engine_events,
        "paravirt": {
            "updates": run.paravirt.updates,
            "notices": run.paravirt.notices,
            "flushes": run.paravirt.flushes,
            "largest_batch": run.paravirt.largest_batch,
            "hypercalls": run.paravirt.hypercalls,
            "instructions_per_update": queue_cost(run),
        },
        "complaints": list(run.complaints),
        "registers": {name: f"{value:#010x}" for name, value in run.registers.items()},
        "latest": [
            {
                "reason": place.reason.value,
                "detail": place.detail,
                "eip": f"{place.eip:#010x}",
                "symbol": symbols.name(place.eip),
            }
            for place in run.latest
        ],
        "memory_crc32": f"{run.memory_crc:08x}",
        "console": run.console,
    }
    if len(run.vcpus) > 1:
        result["vcpus"] = [
            {
                "instructions": share.instructions,
                "virtual_seconds": share.virtual_ns / 1e9,
                "exits": _exits(share.ledger),
                "engine_events": share.ledger.engine_events,
            }
            for share in run.vcpus
        ]
    if run.phases:
        result["phases"] = [
            {
                "mark": phase.mark,
                "instructions": phase.instructions if run.counts_instructions else None,
                "virtual_seconds": phase.virtual_ns / 1e9,
                "exits": _exits(phase.ledger),
            }
            for phase in run.phases
        ]
    if run.filters:
        result["filters"] = [
            {
                "name": each.name,
                "sha256": each.sha256,
                "answered": each.answered,
                "passed": each.passed,
            }
            for each in run.filters
        ]
    if run.reflection is not None:
        result["reflection"] = {
            "sites": run.reflection.sites,
            "patched": run.reflection.patched,
        }
    if calls:
        result["calls"] = {name: use.count for name, use in run.calls.items()}
        result["call_instructions"] = {name: use.instructions for name, use in run.calls.items()}
    if places:
        result["places"] = [
            {
                "reason": place.reason.value,
                "detail": place.detail,
                "eip": f"{place.eip:#010x}",
                "symbol": symbols.name(place.eip),
                "count": place.count,
            }
            for place in ledger.places[:places]
        ]
    return result


def _range(amount: Range | None) -> Json | None:
    if amount is None:
        return None
    return {"low": amount.low, "typical": amount.typical, "high": amount.high}


def model_to_json(model: Model) -> Json:
    """A cost model: one exit by weight and, where it is known, by reason, in `unit`."""
    factor = model.heavy_factor
    return {
        "name": model.name,
        "generation": model.generation,
        "nested": model.nested,
        "unit": model.unit.value,
        "source": model.source,
        "covers": model.covers,
        "caveats": list(model.caveats),
        "clock_ghz": model.clock_ghz,
        "clock_source": model.clock_source,
        "light": _range(model.light),
        "heavy": _range(model.any_heavy),
        "heavy_source": (
            model.source if model.heavy is not None else "" if factor is None else factor.source
        ),
        "by_reason": {
            reason.value: {
                weight.value: _range(cost)
                for (other, weight), cost in model.by_reason.items()
                if other is reason
            }
            for reason, _ in model.by_reason
        },
    }


def models_to_json(models: Sequence[Model]) -> Json:
    """A list of cost models."""
    return {"schema": COSTS_SCHEMA, "models": [model_to_json(model) for model in models]}


def _amount(amount: Estimate | Saved) -> Json:
    return {
        "exits": amount.exits,
        "cycles": _range(amount.cycles),
        "seconds": _range(amount.seconds),
    }


def _costs(comparison: Comparison, model: Model) -> Json:
    """What the runs cost by a model, and what each saved against the first."""
    return {
        "model": model_to_json(model),
        "runs": [
            {
                "rom": named.rom.name,
                **_amount(cost),
                "light": _range(cost.light),
                "heavy": _range(cost.heavy),
            }
            for named in comparison.runs
            for cost in [estimate(model, named.run.ledger.by_reason)]
        ],
        "saved": [
            {
                "rom": named.rom.name,
                **_amount(
                    estimate_saved(
                        model,
                        comparison.baseline_of(named).ledger.by_reason,
                        named.run.ledger.by_reason,
                    )
                ),
            }
            for named in comparison.runs
        ],
    }


def compare_to_json(
    comparison: Comparison,
    *,
    calls: bool = False,
    places: int = 0,
    models: Sequence[Model] = (),
) -> Json:
    """All runs in the order asked, each as `run_to_json`, and what it saved against the first.

    With `models` also what all that costs by each of them.
    """
    result: Json = {
        "schema": COMPARE_SCHEMA,
        "guest": comparison.guest,
        "policy": comparison.policy.name,
        "runs": [
            run_to_json(comparison.guest, named, calls=calls, places=places)
            for named in comparison.runs
        ],
        "saved": [
            {
                "rom": named.rom.name,
                "engine": named.run.engine,
                "exits": comparison.saving(named).saved,
                "percent": round(comparison.saving(named).percent, 3),
                "by_reason": {
                    reason.value: {
                        "exits": comparison.saving(named, reason).saved,
                        "percent": round(comparison.saving(named, reason).percent, 3),
                    }
                    for reason in comparison.reasons
                },
            }
            for named in comparison.runs
        ],
    }
    if len(comparison.engines) > 1:
        result["engines"] = [
            {
                "rom": difference.rom,
                "first": difference.first,
                "second": difference.second,
                "heavy_equal": difference.heavy[0] == difference.heavy[1],
                "by_reason": {
                    reason.value: {"first": first, "second": second}
                    for reason, (first, second) in difference.by_reason.items()
                },
                "explained": explain(difference),
            }
            for difference in engine_differences(comparison)
        ]
    if models:
        result["costs"] = [_costs(comparison, model) for model in models]
    return result
