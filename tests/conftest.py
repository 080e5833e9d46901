"""Settings every test runs under. Nothing imports this file."""

import os
import signal

import hypothesis

# One thread a test process: the machines that run this have few cores, and a thread pool's sums depend on its size.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test draws a picture in this process, and dm_control warns about a missing screen unless told so before its import.
os.environ.setdefault("MUJOCO_GL", "disable")

# A shell starts what runs in its background deaf to Ctrl-C, and what tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("gcl", deadline=None, print_blob=True, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("gcl")
