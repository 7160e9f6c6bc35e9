"""Text of a profile: where the time of a model goes."""

from __future__ import annotations

from collections.abc import Iterator

from edge_ran.bench import Profile
from edge_ran.printable import many


def profile(parts: Profile) -> str:
    def table(title: str, sums: dict[str, float]) -> Iterator[str]:
        width = max(len(name) for name in (*sums, title))
        whole = sum(sums.values())
        yield f"{title:<{width}}        ms   share"
        for name, ms in sorted(sums.items(), key=lambda item: -item[1]):
            yield f"{name:<{width}}  {ms:8.4f}  {ms / whole:6.1%}"

    costly = sorted(parts.operators, key=lambda o: -o.ms)[:10]
    return "\n".join(
        [
            f"{parts.whole_ms:.4g} ms on {many(parts.runtime.threads, 'thread')}; the operators, each run alone, add "
            f"up to {parts.accounted:.0%} of it, less {1e3 * parts.call_ms:.2g} µs each for its call",
            "",
            *table("operator", parts.by_operator),
            "",
            *table("place", parts.by_place),
            "",
            "the ten slowest",
            *(f"{o.ms:8.4f} ms  {o.gmacs_per_s or 0:7.1f} GMAC/s  {o.name} {o.place} {o.shape}" for o in costly),
            *(f"! does not run alone: {line}" for line in parts.failed),
        ]
    )
