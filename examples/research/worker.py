"""The demo's worker: runs the agent until its report is approved, or goes on where an earlier worker was killed."""

import sys

from examples.research.agent import research
from examples.research.processes import end_with_parent

import perdure


def main() -> None:
    topic, execution_id = sys.argv[1:]
    end_with_parent()
    perdure.run(research, topic, id=execution_id)


if __name__ == "__main__":
    main()
