"""What runs on the robot: the ONNX bundle, its runtime, the safety layer and the real-time loop.

Everything here runs where torch and mujoco are absent, but for `to_onnx.py` and what only that needs
(`parity_samples`, `to_variants`, `reference_check`). This file imports nothing, so that reading a
bundle does not load the inference engine and the inference engine does not load the loop.
"""
