"""Attention kernels, one file each: ``BACKENDS`` is the table, ``choose(name)`` gives the function to call."""
from . import sdpa
BACKENDS = {sdpa.NAME: sdpa}
def choose(name="auto"):
    return sdpa.attend
