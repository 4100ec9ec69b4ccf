"""The composition root: settings, processes, commands, gateway, sinks."""

import os

# roles are processes that share the processors: threads of the linear algebra library win nothing for matrices of this
# size, and while they wait they spin and take the processor of the role beside them; read when numpy is first imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
