"""Run by another Python with an old ONNX Runtime and nothing else: does a bundle load and agree there? Prints JSON."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import onnxruntime

from export.bundle import read_bundle
from export.runtime import OnnxPolicy, OnnxReward, check_parity, load_bundle, parity_errors

path = Path(sys.argv[1])
bundle = read_bundle(path)
result = {"onnxruntime": onnxruntime.__version__, "variants": {}}
sequence, tolerance = bundle.manifest.parity_sequence, bundle.manifest.parity_tolerance
errors = parity_errors(OnnxPolicy(bundle), OnnxReward(bundle), bundle.parity, sequence)
check_parity(errors, tolerance, str(path))
result |= {"policy": errors.policy, "reward": errors.reward}
for name in bundle.variants:
    load_bundle(path, variant=name)
    result["variants"][name] = parity_errors(
        OnnxPolicy(bundle, name), OnnxReward(bundle), bundle.parity, sequence
    ).policy
print(json.dumps(result))
