"""`python -m fleetmuster`: the same as `fm`, for a machine whose PATH lacks the script.

It holds no logic of its own; everything is in `fleetmuster.cli`.
"""

import sys

from fleetmuster.cli import main

sys.exit(main())
