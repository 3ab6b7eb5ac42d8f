"""Reads dashboards by the types of Grafana's own foundation SDK, which are made from Grafana's schema: FILE…

What the types don't know, or know otherwise, is missing or different once it is written again. Prints each such place, and
ends with 1 if there is one.
"""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def differences(ours, theirs, place):
    """Where `ours` has something that `theirs` lacks or has otherwise; what `theirs` adds are defaults."""
    if isinstance(ours, dict):
        if not isinstance(theirs, dict):
            yield f"{place}: {theirs!r} instead of an object"
            return
        for key, value in ours.items():
            if key in theirs:
                yield from differences(value, theirs[key], f"{place}.{key}")
            elif value not in (None, "", [], {}):
                yield f"{place}.{key}: not in the schema"
    elif isinstance(ours, list):
        if not isinstance(theirs, list) or len(ours) != len(theirs):
            yield f"{place}: {theirs!r} instead of a list of {len(ours)}"
            return
        for number, (one, other) in enumerate(zip(ours, theirs)):
            yield from differences(one, other, f"{place}[{number}]")
    elif ours != theirs:
        yield f"{place}: {theirs!r} instead of {ours!r}"


failed = False
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        ours = json.load(file)
    theirs = json.loads(json.dumps(Dashboard.from_json(ours), cls=JSONEncoder))
    found = list(differences(ours, theirs, path.rsplit("/", 1)[-1]))
    print("\n".join(found) if found else f"{path.rsplit('/', 1)[-1]}: {len(ours['panels'])} panels, all of the schema")
    failed = failed or bool(found)
sys.exit(failed)
