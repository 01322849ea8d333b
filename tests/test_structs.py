"""What msgspec knows of structs that threads read, before any is read."""

from __future__ import annotations

import subprocess
import sys

READ = """
import msgspec
from daskps.data import format
from daskps.models import quasi_newton, saved
from daskps.run import checkpoint, wire

converted = [format.Manifest, checkpoint.Manifest, saved.ModelManifest, quasi_newton.Search]
sent = [wire.Answer, wire.Inquiry, wire.Request]
for kind in converted + sent:
    # who looks only now would not find these
    kind.__annotations__ = dict.fromkeys(kind.__struct_fields__, "Nowhere")
    try:
        msgspec.convert(() if kind in sent else {}, kind)
    except msgspec.ValidationError:
        pass
"""


def test_msgspec_has_looked_at_all_structs_that_threads_read_when_they_are_imported() -> None:
    subprocess.run([sys.executable, "-c", READ], check=True, timeout=60)
