"""One clip on several cards.

Read ``degrees.py`` (how it is split), ``setup.py`` (what can be asked for), ``sequence.py`` (how tokens travel),
``rank_model.py`` (what one card does), ``group_model.py`` (what the caller holds), ``ranks/`` (how the processes live
and die).
"""
