"""Side by side with other people's packages, each in a virtual environment of its own. Nothing of theirs is needed.

`imitation_worker.py` runs in such an environment, as a script: it imports nothing of ours, and nothing imports it.
"""
