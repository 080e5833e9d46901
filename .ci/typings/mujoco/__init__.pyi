# mujoco's names come from compiled modules that ship no types, so pyright would call every one of them unknown.
from typing import Any

def __getattr__(name: str) -> Any: ...
