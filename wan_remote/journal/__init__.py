"""What was asked of a cloud and what became of it, on disk before and after each step, so that nothing is paid twice.

One small JSON file a job, named after its inputs. It holds no key and no address (addresses may be signed). ``intent``
is written before a submission, ``submitted`` with the cloud's id before the first poll. Beside it lie a thumbnail of
the first image and the graph that asked, for a list of jobs.
"""

from .entry import Entry, fingerprint
from .folder import Journal
from .overview import Jobs, Overview

__all__ = ["Entry", "Jobs", "Journal", "Overview", "fingerprint"]
