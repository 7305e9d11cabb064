"""When something happened, in whichever of the usual ways a cloud writes that."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

from .base import a_number, a_text

MOMENT = re.compile(
    r"(?P<whole>[0-9-]{10}[T ][0-9:]{8})(\.(?P<fraction>[0-9]+))?"
    r"([Zz]|(?P<sign>[+-])(?P<hours>[0-9]{2}):?(?P<minutes>[0-9]{2})?)?"
)
IN_MILLISECONDS = 1e11  # seconds up to here reach into the year 5138; what is more counts thousandths


def moment_of(value: Any) -> float | None:
    """Seconds since 1970: of such a number, of one in milliseconds, or of an ISO time, which may have nine digits
    behind the point and any zone; None for anything else."""
    number = a_number(value)
    if number is not None:
        return number / 1000.0 if number > IN_MILLISECONDS else number
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
