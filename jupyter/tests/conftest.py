import os
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
for folder in (HOME, HOME / "kernels", *(HOME / "kernels" / language for language in ("go", "elixir", "rust"))):
    sys.path.insert(0, str(folder))

from laboratory.places import environment  # noqa: E402

os.environ.update(environment())

# Examples of earlier failures belong outside the clone.
from hypothesis import settings  # noqa: E402
from hypothesis.database import DirectoryBasedExampleDatabase  # noqa: E402
from laboratory.places import CACHE  # noqa: E402

settings.register_profile("lab", database=DirectoryBasedExampleDatabase(str(CACHE / "hypothesis")), deadline=None)
settings.load_profile("lab")
