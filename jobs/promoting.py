"""What a landed version's run was for: the gate is asked, and the version serves if that is what was wanted, once.

Owns nothing; the gate's rules and the promotions are the registry's.
"""

from __future__ import annotations

from typing import Any

from fmcore.models.registry import Registry
from fmcore.nouns import ModelVersion


def promotion(registry: Registry, version: ModelVersion, *, promote: str, reason: str, by: str) -> tuple[dict[str, Any], bool]:
    """(the gate's verdict, whether this version was promoted). A second call finds the first one's promotion.

    promote: "gate" (if the gate passes it), "always" or "never". by: the job, where it was not the gate that decided.
    """
    if any(p.version == version.version for p in registry.promotions(version.task)):
        return dict(registry.get(version.task, version.version).verdict), True
    verdict = registry.gate(version)
    wanted = promote == "always" or (promote == "gate" and verdict["passed"])
    if wanted:
        asked = promote == "always"
        said = reason or ("Asked for when the run was started." if asked else "")
        told = said if asked else f"{verdict['reason']} {said}".strip()
        registry.promote(version.task, version.version, by=by if asked else "gate", reason=told[:500])
    return verdict, wanted
