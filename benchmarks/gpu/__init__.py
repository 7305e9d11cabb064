"""``python -m benchmarks gpu``: what this GPU does with the sizes of the released model, each result as it comes.

Needs torch and this repository alone: the weights are random and made on the device. ``--toy`` runs the same code at
toy size, on a CPU as well, which is how it is tested. Start at ``run.py``; a part is a function in a file named for it.
"""
