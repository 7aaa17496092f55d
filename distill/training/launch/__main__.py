"""Print where a launch setting is, for `accelerate launch --config_file`; or which there are."""

from __future__ import annotations

import sys

from distill.training.launch import launch_file, launch_names
from edge.errors import EdgeError


def main(arguments: list[str]) -> int:
    """The file of the one named, or the names there are; 2 for a name that there is not."""
    try:
        lines = [str(launch_file(name)) for name in arguments] or launch_names()
    except EdgeError as error:
        print(f"distill.training.launch: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
