"""Testing workflows: virtual time, stand-ins for steps, golden journals, crashes at every commit; and the simulator.

Importing this imports no test framework. `python -m perdure.testing.sim` is Perdure's own simulator.
"""

from perdure.testing import golden
from perdure.testing.clock import VirtualClock
from perdure.testing.crashes import CrashesFound, explore_crashes
from perdure.testing.engine import TestEngine
from perdure.testing.replaying import AlwaysReplay, ReplayDiffers
from perdure.testing.scenarios import LawBroken, Seen, Simulated, simulate
from perdure.testing.stand_ins import Replies, replies
from perdure.testing.transcript import Call, steps_of, transcript

__all__ = [
    "AlwaysReplay",
    "Call",
    "CrashesFound",
    "LawBroken",
    "ReplayDiffers",
    "Replies",
    "Seen",
    "Simulated",
    "TestEngine",
    "VirtualClock",
    "explore_crashes",
    "golden",
    "replies",
    "simulate",
    "steps_of",
    "transcript",
]
