"""The parts of G2L, each of one concern; `stages` puts them in order."""

import os

from pipeline.base.privacy import leave_no_trace

leave_no_trace()
# Read when torch loads: OpenMP threads that spin for work take the cores from those that read (docs/decisions/0012).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
