"""The only place where TensorFlow may be imported.

Importing it writes a dozen log lines to stderr that no option silences, so the first import happens here, with
stderr closed to it; what it says is shown again when the import fails or the command line was given ``-v``.

Networks are those of ``tf_keras``, so that TensorFlow need not import Keras 3 as well, a fifth of the time.
"""

from __future__ import annotations

import gc
import logging
import os
import sys

from edge_ran.files import scratch_file


def _import_tensorflow_quietly() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved, collects = os.dup(2), gc.isenabled()
    gc.disable()  # of what an import makes, nothing is garbage: looking for it takes a sixth of the time
    with scratch_file() as said:
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            said.seek(0)
            os.write(saved, said.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            if collects:
                gc.enable()


os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# tensorflow-model-optimization looks for this module of Keras 2, which Keras 3 lacks, and goes on without it; but to
# look, it imports all of Keras 3 and matplotlib, which takes twice as long as what it needs.
sys.modules.setdefault("keras.engine", None)  # type: ignore[arg-type]
if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
    _import_tensorflow_quietly()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # its advice on retracing is not for users
