"""/reasons: why runs end, code by code; what each rests on and what to do."""

from __future__ import annotations

from difflib import get_close_matches

from django.http import Http404
from django.template.response import TemplateResponse
from django.views.decorators.http import require_safe

from runs.reasons import EXPLANATIONS, IMAGE_PULL, Category, decode_exit_code
from runs.states import Reason
from teams.views.access import PageRequest, page

CATEGORIES = {
    Category.USER: ("The run's own", "The command, the configuration, or somebody who asked for it."),
    Category.IMAGE: ("The image", "It could not be had."),
    Category.SYSTEM: ("The platform", "retry_on_system_failure starts another attempt after these."),
    Category.CAPACITY: ("Capacity", "More was asked for than there is."),
    Category.POLICY: ("Rules", "A limit, a priority, or an admin."),
}
CODES = (1, 2, 126, 127, 130, 134, 135, 137, 139, 143)
"""Exit codes that people meet."""


@require_safe
@page
def index(request: PageRequest) -> TemplateResponse:
    groups = [
        (title, note, [(code, said) for code, said in EXPLANATIONS.items() if said.category is category])
        for category, (title, note) in CATEGORIES.items()
    ]
    return TemplateResponse(request, "reasons/list.html", {"groups": groups})


@require_safe
@page
def show(request: PageRequest, code: str) -> TemplateResponse:
    known = {reason.value.lower(): reason for reason in Reason}
    reason = known.get(code.lower())
    if reason is None:
        near = get_close_matches(code.lower(), known, n=1)
        hint = f" Did you mean {known[near[0]]}?" if near else ""
        raise Http404(f"There is no reason {code!r}.{hint}")
    said = EXPLANATIONS[reason]
    context = {
        "code": reason,
        "said": said,
        "category": CATEGORIES[said.category],
        "cases": IMAGE_PULL if reason is Reason.FAILED_IMAGE_PULL else {},
        "exit_codes": [decode_exit_code(code) for code in CODES] if reason is Reason.ERROR else [],
        "retried_by": _retried_by(said.retryable, said.category),
    }
    return TemplateResponse(request, "reasons/detail.html", context)


def _retried_by(retryable: bool, category: Category) -> str:
    if not retryable:
        return "Never by itself."
    if category is Category.SYSTEM:
        return "By max_retries; with retry_on_system_failure without using those up."
    return (
        "As often as max_retries allows; the same failure three times within a minute of starting ends that."
    )
