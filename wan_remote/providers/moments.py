"""When something happened, in whichever of the usual ways a cloud writes that."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

from .reading import a_number, a_text

MOMENT = re.compile(
    r"(?P<whole>[0-9-]{10}[T ][0-9:]{8})(\.(?P<fraction>[0-9]+))?"
    r" ?([Zz]|(?P<sign>[+-])(?P<hours>[0-9]{2}):?(?P<minutes>[0-9]{2})?)"
)
LARGEST = 1e11  # seconds up to here reach into the year 5138; what is more counts thousandths of what it seems to
UNITS = (1.0, 1e3, 1e6, 1e9)  # seconds, milli-, micro- and nanoseconds


def moment_of(value: Any) -> float | None:
    """Seconds since 1970: of such a number, of one in milli-, micro- or nanoseconds, or of an ISO time, which may have
    nine digits behind the point and has to name its zone; None for anything else."""
    number = a_number(value)
    if number is not None:
        return next((number / unit for unit in UNITS if 0.0 < number / unit <= LARGEST), None)
    found = MOMENT.fullmatch(a_text(value).strip())
    if found is None:
        return None
    sign, hours, minutes = found["sign"] or "+", int(found["hours"] or 0), int(found["minutes"] or 0)
    ahead = (1 if sign == "+" else -1) * timedelta(hours=hours, minutes=minutes)
    try:
        moment = datetime.fromisoformat(found["whole"]).replace(tzinfo=timezone(ahead)).timestamp()
    except ValueError:
        return None
    return moment + float(f"0.{found['fraction'] or 0}")
