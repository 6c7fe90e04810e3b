"""`make chaos`: disturb a whole console of its own, and say what did not hold. Never touches a console in use."""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections import Counter

from chaos.checks import violations
from chaos.ground import Ground
from chaos.scenarios import SCENARIOS, Scenario


def main() -> int:
    wanted = _arguments()
    scenarios = [
        SCENARIOS[name]
        for name in wanted.only or SCENARIOS
        if wanted.only or not wanted.short or SCENARIOS[name].short
    ]
    print(f"seed {wanted.seed}; the same again: make chaos ARGS='--seed {wanted.seed}'", flush=True)
    grounds: dict[bool, Ground] = {}
    failed, begin = 0, time.monotonic()
    try:
        for scenario in scenarios:
            if time.monotonic() - begin > wanted.minutes * 60:
                print(f"{scenario.name:9} not run: the {wanted.minutes:g} minutes are over", flush=True)
                continue
            if scenario.networked not in grounds:
                grounds[scenario.networked] = Ground.start(wanted.seed, networked=scenario.networked)
            failed += not carry_out(grounds[scenario.networked], scenario, wanted.seed)
    finally:
        for ground in grounds.values():
            ground.end()
    print(f"{len(scenarios) - failed} of {len(scenarios)} hold" if failed else "everything held")
    return 1 if failed else 0


def carry_out(ground: Ground, scenario: Scenario, seed: int) -> bool:
    """One scenario with runs of its own: disturb, wait, check. Whether everything held."""
    begin = time.monotonic()
    # Each has its own draws, so that one alone does what it does among the others.
    ground.draw = random.Random(f"{seed}/{scenario.name}")
    ground.jobs, ground.simulated, ground.notes = [], [], []
    ground.arm()
    try:
        scenario.act(ground)
        ground.settle()
        found = violations(ground)
    except Exception as problem:
        traceback.print_exc()
        found = [f"{type(problem).__name__}: {problem}"]
        ground.disarm()
    count = len(ground.jobs) + len(ground.simulated)
    verdict = "held" if not found else "BROKEN"
    print(
        f"{scenario.name:9} {verdict:6} {time.monotonic() - begin:6.1f} s {count:4} runs  {scenario.what}",
        flush=True,
    )
    if struck := Counter(ground.struck()):
        places = (f"{place} ×{count}" if count > 1 else place for place, count in struck.most_common(8))
        print(f"          at: {', '.join(places)}{' …' if len(struck) > 8 else ''}", flush=True)
    for note in ground.notes:
        print(f"          {note}", flush=True)
    for violation in found[:20]:
        print(f"          {violation}", flush=True)
    return not found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos ARGS=…", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="what is drawn at random")
    parser.add_argument("--short", action="store_true", help="only what every test run has: some two minutes")
    parser.add_argument("--minutes", type=float, default=45, help="begin no scenario after so long")
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), help="only these")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
