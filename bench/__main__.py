"""`make bench`: run every benchmark here, or those named: `make bench ARGS=submit`."""

from __future__ import annotations

import sys

from bench import findings, pages, submit

BENCHMARKS = {"findings": findings.main, "pages": pages.main, "submit": submit.main}


def main() -> int:
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    return max(BENCHMARKS[name]() for name in names)


sys.exit(main())
