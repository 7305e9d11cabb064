"""Several GPUs, then several machines: the mathematics of the split, and the processes that run it (``ranks/``)."""
