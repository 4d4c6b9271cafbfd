"""The data scripts are run by hand and import one another by name: put their folder on the path for the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "data_scripts"))
