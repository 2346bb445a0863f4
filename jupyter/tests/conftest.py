import os
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
for folder in (HOME, HOME / "kernels" / "go", HOME / "kernels" / "elixir"):
    sys.path.insert(0, str(folder))

from laboratory.places import environment  # noqa: E402

os.environ.update(environment())
