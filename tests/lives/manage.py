"""manage.py of the daemons that the tests bring into trouble."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "sample_site")]
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.lives.settings"
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
