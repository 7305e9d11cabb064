"""One clip on several GPUs.

Read ``degrees.py`` (how it is split), ``setup.py`` (what can be asked for), ``sequence.py`` (how tokens travel),
``rank_model.py`` (what one GPU does), ``group_model.py`` (what the caller holds). How the processes live
and die is ``wan_local/ranks``.
"""
