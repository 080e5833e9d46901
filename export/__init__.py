"""What runs on the robot: the ONNX bundle, its runtime, the safety layer and the real-time loop.

Everything here but `to_onnx.py` runs where torch and mujoco are absent. This file imports nothing, so that reading a
bundle does not load the inference engine and the inference engine does not load the loop.
"""
