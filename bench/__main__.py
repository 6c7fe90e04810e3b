"""`make bench`: run every benchmark here, or those named: `make bench ARGS=submit`."""

from __future__ import annotations

import sys

from bench import browser, findings, logs, loop, pages, recovery, submit, throughput

BENCHMARKS = {
    "browser": browser.main,
    "findings": findings.main,
    "logs": logs.main,
    "loop": loop.main,
    "pages": pages.main,
    "recovery": recovery.main,
    "submit": submit.main,
    "throughput": throughput.main,
}


def main() -> int:
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    return max(BENCHMARKS[name]() for name in names)


sys.exit(main())
