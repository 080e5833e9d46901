"""A stand-in for `gcl`, for tests of what runs it. Started as a program: `python study_stub.py BEHAVIOUR train ...`.

BEHAVIOUR is a JSON mapping from run folder names to what happens there: "crash", "wait" (until Ctrl-C), or the return.
It writes down each command line in `$STUB_LOG`.
"""

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    behaviour, (verb, *arguments) = json.loads(sys.argv[1]), sys.argv[2:]
    with Path(os.environ["STUB_LOG"]).open("a") as log:
        log.write(" ".join([verb, *arguments]) + "\n")
    run = Path(arguments[arguments.index("--out") + 1] if verb == "train" else arguments[0])
    does = behaviour.get(run.parent.name, 50.0)
    if verb == "train":
        if does == "crash":
            print("warming up", file=sys.stderr)
            print("RuntimeError: the network is all NaN", file=sys.stderr)
            raise SystemExit(1)
        run.mkdir(parents=True, exist_ok=True)
        (run / "evaluations.csv").write_text(
            "iteration,steps,seconds,mean,std,episodes\n1,100,5.0,10.0,1.0,3\n2,200,10.0,92.0,1.0,3\n3,300,15.0,99.0,1.0,3\n"
        )
        if does == "wait" and "--resume" not in arguments:
            try:
                (run / "waiting").touch()
                time.sleep(60.0)
            except KeyboardInterrupt:
                (run / "checkpoint.pt").touch()
                raise SystemExit(130) from None
        print(json.dumps({"run": str(run), "steps": 300, "seconds": 15.5}))
    else:
        mean = does if isinstance(does, float) else 100.0
        print("chatter")
        print(json.dumps({"mean": mean, "std": 2.0, "returns": [mean] * 20}))


if __name__ == "__main__":
    main()
